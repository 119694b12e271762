//! Whether anybody is there whose state this node should have, and what it says of itself meanwhile.
//!
//! That nobody answers proves nothing: requests may be refused, answers may be slow, a server may not know yet who
//! listens at the others. So a node takes itself for alone only after it has listened for some seconds, was told several
//! times by the server that nobody listens, and has heard of nobody who may have a state.

use std::collections::BTreeMap;

use super::machine::{Output, Phase, Replica, Target};
use super::peers::Peer;
use super::pull::{Pull, Purpose};
use super::seal::Refusal;
use super::status::{Channel, Refused, SyncState};
use super::Now;
use crate::cache::{Millis, NodeId, Partition, Time};
use crate::wire::{BeatState, Message, ReplayRequest, Want};

/// How long nobody may be heard before a node takes itself for alone. A server that starts together with it may take two
/// seconds to find the others.
const QUIET_MS: Millis = 2_500;

/// How often the server has to say meanwhile that nobody listens.
const MIN_UNHEARD: u32 = 4;

/// Between two questions whether anybody answers replays.
const PROBE_MS: Millis = 250;

/// The same, once somebody has answered.
const SLOW_PROBE_MS: Millis = 1_000;

/// Requests that nobody has answered yet and that are remembered.
const MAX_OPEN: usize = 64;

/// Nodes that were heard but have not proven to be alive, and that are remembered.
const MAX_HEARD: usize = 64;

/// How long such a node counts without a new message, at least and at most; it may beat slowly.
const MIN_HEARD_MS: Millis = 8_000;
const MAX_HEARD_MS: Millis = 300_000;

/// How long a message that is not accepted here, or that says that this node is not accepted, counts.
const FOREIGN_MS: Millis = 30_000;

/// If those who take requests do not answer for this long, they are no peers.
const SWALLOWED_MS: Millis = 10_000;

/// A pull that has not got on for this long has stalled.
const STALLED_MS: Millis = 10_000;

/// What the server refuses is tried again after this time; what needs a new connection, after a longer one.
const RETRY_MS: Millis = 2_000;
const RECONNECT_MS: Millis = 30_000;

/// If the server says nothing for this long after that, it works again.
const GRANTED_MS: Millis = 1_500;

/// Hosts that are named in a reason.
const MAX_NAMED: usize = 3;

/// A node that was heard by a message of an accepted seal that is no old recording, and has not proven to be alive.
#[derive(Clone, Copy, Debug)]
struct Heard {
    first: Millis,
    until: Millis,
}

/// Something the server refuses.
#[derive(Clone, Debug)]
struct Denied {
    /// The subject, or what the server said.
    subject: String,
    at: Millis,
    /// When it was tried again.
    tried: Option<Millis>,
}

/// What is known of those who may be there.
#[derive(Default)]
pub(super) struct Search {
    /// Since when nothing has shown that there is somebody who may have a state.
    since: Millis,
    /// How often the server has said since then that nobody listens.
    unheard: u32,
    /// When that was counted last.
    unheard_at: Option<Millis>,
    /// Requests to whoever answers replays and that nobody has answered, and whether the server has said of it that
    /// nobody listens.
    open: BTreeMap<u64, bool>,
    next_probe: Option<Millis>,
    /// The server has said that nobody listens, and nothing has shown since that somebody does.
    doubtful: bool,
    /// When a part of the first replay arrived last.
    progress: Option<Millis>,
    heard: BTreeMap<NodeId, Heard>,
    /// When a message arrived last whose issuer is not accepted here, or that has no proof where one is asked for.
    foreign: Option<Millis>,
    /// Who has said that it does not accept this node, and when.
    disowned: Option<(String, Millis)>,
    denied: BTreeMap<Refused, Denied>,
    /// So many peers were known at some time as are asked for.
    enough: bool,
    /// The state of this node is that of nobody else.
    pub alone: bool,
    /// Somebody took the requests of the first replay, and did not answer.
    swallowed: bool,
    /// So many commands of the state that this node took were refused for their stamps, and are still missing here.
    pub refused: Option<u64>,
}

impl Search {
    /// The connection is lost.
    pub fn stop(&mut self) {
        self.open.clear();
        self.next_probe = None;
    }

    /// A request was sent to whoever answers replays.
    pub fn asked(&mut self, request: u64) {
        if self.open.len() >= MAX_OPEN {
            self.open.pop_first();
        }
        self.open.insert(request, false);
    }

    /// Part of an answer to a request of the first replay has arrived: what the server says of it later is no longer of
    /// interest.
    pub fn answered(&mut self, request: u64, now: Millis) {
        self.open.remove(&request);
        self.progress = Some(now);
    }

    fn silence(&mut self, now: Millis) {
        self.since = now;
        (self.unheard, self.unheard_at) = (0, None);
    }

    fn is_foreign(&self, now: Millis) -> bool {
        self.foreign.is_some_and(|at| now.saturating_sub(at) < FOREIGN_MS)
    }

    fn disowned_by(&self, now: Millis) -> Option<&str> {
        let (who, at) = self.disowned.as_ref()?;
        (now.saturating_sub(*at) < FOREIGN_MS).then_some(who)
    }

    /// Whether somebody was heard for `ms` and has not proven to be alive.
    fn hears_in_vain(&self, ms: Millis, now: Millis) -> bool {
        self.heard.values().any(|heard| now.saturating_sub(heard.first) >= ms)
    }
}

impl Replica {
    /// Listens anew: what was not heard before means nothing.
    pub(super) fn begin_search(&mut self, now: Now) {
        let search = &mut self.search;
        search.stop();
        search.silence(now.mono);
        search.progress = None;
        search.doubtful = false;
        search.next_probe = Some(now.mono + PROBE_MS);
    }

    /// A new connection is a new attempt at all that was refused.
    pub(super) fn attempt_all(&mut self, now: Now) {
        let search = &mut self.search;
        search.denied.remove(&Refused::Connection);
        for denied in search.denied.values_mut() {
            denied.tried = Some(now.mono);
        }
        if self.phase == Phase::Replaying {
            // Nobody may be there to be written to: whether this node might, the server has to be asked.
            self.publish_again(now, Channel::Node);
        }
    }

    /// A message of a node that has not proven to be alive. It may be a recording, but none that is older than clocks may
    /// differ: so nobody can keep up for longer than that the appearance of nodes that are gone.
    pub(super) fn heard_stranger(&mut self, now: Now, node: NodeId, message: &Message<&[u8]>) {
        let (clock, interval) = match message {
            Message::Beat(beat) => {
                if beat.state == BeatState::Leaving {
                    return;
                }
                self.disowned(now, &node.to_string(), beat.clock, &beat.foreign);
                (Some(beat.clock), beat.interval_ms)
            }
            Message::Frame(frame) => (Some(frame.clock), 0),
            // Only one who has heard this process can have made it.
            Message::Hello(hello) if hello.to == self.cache.node() => (None, 0),
            _ => return,
        };
        if clock.is_some_and(|clock| !self.is_recent(now, clock)) {
            return;
        }
        let heard = &mut self.search.heard;
        if heard.len() >= MAX_HEARD && !heard.contains_key(&node) {
            return;
        }
        let lasts = (5 * interval.min(MAX_HEARD_MS)).clamp(MIN_HEARD_MS, MAX_HEARD_MS);
        let first = heard.get(&node).map_or(now.mono, |heard| heard.first);
        let until = now.mono + lasts;
        heard.insert(node, Heard { first, until });
    }

    /// It has proven to be alive, or is gone.
    pub(super) fn no_stranger(&mut self, node: NodeId) {
        self.search.heard.remove(&node);
    }

    /// Whether a message with this clock may have been sent lately.
    fn is_recent(&self, now: Now, clock: Time) -> bool {
        let skew = self.cache.limits().max_clock_skew_ms;
        clock.millis().abs_diff(now.wall) <= skew
    }

    /// A node names issuers it does not accept. If this node's own is among them, the two are not one cache.
    pub(super) fn disowned(&mut self, now: Now, who: &str, clock: Time, foreign: &[String]) {
        let own = self.config.keyring.issuer();
        let named = own.is_some_and(|own| foreign.iter().any(|issuer| issuer == own));
        if named && self.is_recent(now, clock) {
            self.search.disowned = Some((who.into(), now.mono));
        }
    }

    /// A message was not accepted. Others are there then, but none whose state this node could have.
    pub(super) fn heard_foreign(&mut self, now: Now, refusal: &Refusal) {
        match refusal {
            Refusal::Foreign(_) | Refusal::Unauthenticated | Refusal::Sealed => self.search.foreign = Some(now.mono),
            Refusal::Forged => {}
        }
    }

    // --- what the server says

    /// The server says that nobody listens, or somebody else in its name: so no request ends by it, and it counts only
    /// together with others, over some time, and while nobody is heard.
    pub(super) fn no_responders(&mut self, now: Now, request: u64) {
        let Some(unheard) = self.search.open.get_mut(&request) else {
            self.counters.repeated += 1;
            return;
        };
        self.search.doubtful = true;
        // What it says of several requests at one moment is one word.
        let since = self.search.unheard_at.map(|at| now.mono.saturating_sub(at));
        if !std::mem::replace(unheard, true) && since.is_none_or(|since| since >= PROBE_MS) {
            self.search.unheard += 1;
            self.search.unheard_at = Some(now.mono);
        }
        if self.peers.synced().next().is_some() {
            // There is somebody: it is asked directly.
            self.ask_anew(true);
        }
        self.conclude_if_alone(now);
    }

    /// Asks again for what the server says nobody has heard.
    fn ask_anew(&mut self, directly: bool) {
        let first = |pull: &&mut Pull| pull.purpose == Purpose::FirstReplay;
        let Some(pull) = self.pull.as_mut().filter(first) else {
            return;
        };
        pull.again |= directly;
        self.search.open.retain(|request, unheard| {
            if *unheard {
                pull.take_back(*request);
            }
            !*unheard
        });
    }

    /// Somebody has answered a question whether anybody is there. Returns whether it was one.
    pub(super) fn probe_answered(&mut self, now: Now, request: u64) -> bool {
        if self.search.open.remove(&request).is_none() {
            return false;
        }
        self.search.doubtful = false;
        self.search.silence(now.mono);
        self.ask_anew(false);
        true
    }

    /// Whether there is somebody who may have a state, or something that keeps this node from hearing it.
    fn may_have_company(&self) -> bool {
        let has_state =
            |peer: &super::peers::Peer| peer.beat.as_ref().is_none_or(|beat| beat.state != BeatState::Starting);
        !self.search.heard.is_empty()
            || !self.search.denied.is_empty()
            || self.peers.iter().any(|(_, peer)| has_state(peer))
    }

    fn conclude_if_alone(&mut self, now: Now) {
        if self.phase != Phase::Replaying || !self.connected {
            return;
        }
        if self.may_have_company() {
            self.search.silence(now.mono);
            return;
        }
        let quiet = now.mono.saturating_sub(self.search.since);
        if self.peers.len() < self.config.min_peers || quiet < QUIET_MS {
            return;
        }
        let answered = self.pull.as_ref().is_some_and(|pull| pull.answered);
        let told = self.search.unheard >= MIN_UNHEARD;
        let swallowed = quiet >= SWALLOWED_MS && !told && !answered;
        if !told && !swallowed {
            return;
        }
        match (swallowed, answered, self.peers.len()) {
            (true, ..) => {
                tracing::warn!("those who take replay requests do not answer this node: going on without them")
            }
            (_, true, _) => {
                tracing::warn!("the peers that answered the replay are gone; going on with what has arrived")
            }
            (.., 0) => tracing::info!(quiet_ms = quiet, "nobody is there: first node of the lattice"),
            (.., peers) => tracing::info!(peers, "no peer has a state yet: among the first nodes of the lattice"),
        }
        self.search.alone = true;
        self.search.swallowed = swallowed;
        self.search.stop();
        self.pull = None;
        self.replayed(now);
    }

    /// The state of this node is one with that of a peer.
    pub(super) fn merged(&mut self, node: NodeId) {
        self.search.refused = None;
        if std::mem::take(&mut self.search.alone) {
            self.search.swallowed = false;
            tracing::info!(peer = %node, "this node was alone before; its state and that of the peer are one now");
        }
    }

    /// The server refuses something.
    pub(super) fn server_refuses(&mut self, now: Now, what: Refused, subject: String) {
        let denied = Denied {
            subject,
            at: now.mono,
            tried: None,
        };
        self.search.denied.insert(what, denied);
        self.search.silence(now.mono);
    }

    /// Tries again what the server refuses. It answers only if it still does.
    fn try_again(&mut self, now: Now) {
        let phase = self.phase;
        self.search.denied.retain(|what, denied| {
            // Only a first replay needs it.
            let moot = *what == Refused::Publish(Channel::Replay) && phase == Phase::Synced;
            let granted = moot || denied.tried.is_some_and(|at| now.mono >= at + GRANTED_MS);
            if granted {
                tracing::info!(subject = %denied.subject.escape_debug(), "the server refuses it no longer");
            }
            !granted
        });
        let pause = |what: &Refused| match what {
            Refused::Subscriptions => RECONNECT_MS,
            _ => RETRY_MS,
        };
        let due = |(what, denied): (&Refused, &mut Denied)| {
            let due = denied.tried.is_none() && now.mono >= denied.at + pause(what);
            due.then(|| {
                denied.tried = Some(now.mono);
                *what
            })
        };
        let due: Vec<Refused> = self.search.denied.iter_mut().filter_map(due).collect();
        for what in due {
            match what {
                Refused::Publish(channel) => self.publish_again(now, channel),
                Refused::Subscribe(_) | Refused::Subscriptions => {
                    self.outputs.push_back(Output::SubscribeAgain(what));
                }
                // The shell tries by itself.
                Refused::Connection => {}
            }
        }
    }

    /// A message that does no harm wherever it arrives.
    fn publish_again(&mut self, now: Now, channel: Channel) {
        let to = match channel {
            Channel::Commands => Target::Commands,
            Channel::Beat => Target::Beat,
            Channel::Node => Target::Node(self.cache.node()),
            Channel::Replay => return self.probe(),
        };
        let beat = self.fresh_beat(now, self.beat_state());
        self.introduce(to, &Message::Beat(beat));
    }

    // --- time

    /// Asks whoever answers replays for nothing: the answer, or the word of the server, tells whether anybody is there.
    fn probe(&mut self) {
        let request = self.fresh_id();
        self.search.asked(request);
        let nothing = ReplayRequest {
            request,
            from: Partition(0),
            digests: Vec::new(),
            want: Want::Commands,
            budget: 0,
            rest: None,
        };
        self.send(Target::Replay { request }, &Message::ReplayRequest(nothing));
    }

    pub(super) fn next_search(&self) -> Option<Millis> {
        self.search.next_probe.filter(|_| self.phase == Phase::Replaying)
    }

    pub(super) fn tick_search(&mut self, now: Now) {
        self.search.heard.retain(|_, heard| now.mono < heard.until);
        self.search.enough |= self.peers.len() >= self.config.min_peers;
        if !self.connected {
            return;
        }
        self.try_again(now);
        if self.phase != Phase::Replaying {
            return;
        }
        self.conclude_if_alone(now);
        let due = self.search.next_probe.is_some_and(|at| now.mono >= at);
        if due && self.phase == Phase::Replaying {
            let answered = self.pull.as_ref().is_some_and(|pull| pull.answered);
            let pause = if answered { SLOW_PROBE_MS } else { PROBE_MS };
            self.search.next_probe = Some(now.mono + pause);
            let recently = |at: Millis| now.mono.saturating_sub(at) < SLOW_PROBE_MS;
            // As long as the server says nothing else, somebody has the requests.
            if self.search.doubtful && !self.search.progress.is_some_and(recently) {
                self.probe();
            }
        }
    }

    // --- what this node says of itself

    /// Progress of the first replay, and whether the lattice can be reached.
    pub fn sync_state(&self, now: Now) -> SyncState {
        self.judged(now.mono).0
    }

    /// What is wrong, in words.
    pub(super) fn reason(&self, now: Now) -> Option<String> {
        let fault = || self.clock_fault(now).map(|fault| fault.to_string());
        self.judged(now.mono).1.or_else(fault)
    }

    /// Whether this node may answer as though it had all that its peers have confirmed.
    pub(super) fn is_whole(&self) -> bool {
        self.judged(self.last_call()).0.is_whole()
    }

    fn judged(&self, now: Millis) -> (SyncState, Option<String>) {
        let waited = self.started.map_or(0, |started| now.saturating_sub(started));
        let late = waited >= self.config.sync_limit_ms;
        let waiting = if late { SyncState::Unsynced } else { SyncState::Starting };
        if !self.connected {
            let reason = self.search.denied.get(&Refused::Connection);
            let reason = reason.map(|denied| denied.subject.clone());
            let state = match self.phase {
                Phase::Synced | Phase::Yielding => SyncState::Disconnected,
                Phase::Replaying | Phase::Settling => waiting,
            };
            return (state, reason);
        }
        if let Some(reason) = self.refused_by_server() {
            return (SyncState::Isolated, Some(reason));
        }
        if let Some(who) = self.search.disowned_by(now) {
            let reason = format!("node {who} does not accept the issuer of this host; list it there");
            return (SyncState::Isolated, Some(reason));
        }
        match self.phase {
            Phase::Yielding => (SyncState::Resyncing, None),
            Phase::Replaying => self.judged_replaying(waiting, now),
            Phase::Settling if self.search.alone => (waiting, None),
            Phase::Settling => (SyncState::Syncing { percent: 100 }, None),
            Phase::Synced => self.judged_synced(waiting, now),
        }
    }

    fn judged_replaying(&self, waiting: SyncState, now: Millis) -> (SyncState, Option<String>) {
        let search = &self.search;
        let pull = self.pull.as_ref().filter(|pull| pull.answered);
        let stalled = |since: Millis| now.saturating_sub(since) >= STALLED_MS;
        let syncing = pull.map(|pull| SyncState::Syncing {
            percent: pull.percent(),
        });
        if let Some(syncing) = syncing.filter(|_| !search.progress.is_none_or(stalled)) {
            return (syncing, None);
        }
        let synced = self.peers.synced().next().is_some();
        let in_vain = synced && stalled(search.progress.unwrap_or(self.replay_began));
        if in_vain || search.hears_in_vain(QUIET_MS, now) {
            return (SyncState::Unreachable, Some(self.unreachable()));
        }
        (syncing.unwrap_or(waiting), self.too_few_peers())
    }

    fn judged_synced(&self, waiting: SyncState, now: Millis) -> (SyncState, Option<String>) {
        let search = &self.search;
        if let Some(reason) = self.too_few_peers() {
            return (waiting, Some(reason));
        }
        if let Some(reason) = self.refused_deltas() {
            return (SyncState::Refused, Some(reason));
        }
        let has_peers = self.peers.iter().next().is_some();
        if !has_peers && search.hears_in_vain(if search.alone { QUIET_MS } else { MIN_HEARD_MS }, now) {
            return (SyncState::Unreachable, Some(self.unreachable()));
        }
        if !search.alone {
            return (SyncState::Synced, None);
        }
        if has_peers || !search.heard.is_empty() {
            return (SyncState::Syncing { percent: 0 }, None);
        }
        if search.is_foreign(now) {
            let reason = match &self.strangers.foreign(now)[..] {
                [] => "nodes are heard whose messages are not accepted here; set FRAME_AUTH alike on all hosts".into(),
                foreign => format!("nodes of other issuers are heard: {}", foreign.join(", ")),
            };
            return (SyncState::Isolated, Some(reason));
        }
        if search.swallowed {
            let reason = "somebody takes requests and does not answer".into();
            return (SyncState::Unreachable, Some(reason));
        }
        (SyncState::Alone, None)
    }

    /// What of the peers' state was refused, if anything was.
    fn refused_deltas(&self) -> Option<String> {
        let withheld = |(_, peer): (NodeId, &Peer)| peer.withheld.map_or(0, |withheld| withheld.commands);
        let most = self.peers.withholding().map(withheld).max().unwrap_or(0);
        let refused = self.search.refused.unwrap_or(0).max(most);
        if refused == 0 {
            return None;
        }
        let from_future = self.peers.withholding().filter(|peer| withheld(*peer) > 0);
        let hosts: Vec<String> = from_future
            .take(MAX_NAMED)
            .filter_map(|(node, _)| self.peers.host(node))
            .collect();
        let of = match &hosts[..] {
            [] => String::new(),
            hosts => format!(", held by {}", hosts.join(", ")),
        };
        Some(format!(
            "{refused} deltas from the future{of}; look at the clocks of the hosts"
        ))
    }

    fn unreachable(&self) -> String {
        let synced = self.peers.synced().count();
        match self.search.heard.len() + synced {
            1 => "1 node heard, it does not answer".into(),
            heard => format!("{heard} nodes heard, none answers"),
        }
    }

    fn too_few_peers(&self) -> Option<String> {
        let (known, wanted) = (self.peers.len(), self.config.min_peers);
        (!self.search.enough && known < wanted).then(|| format!("{known} of {wanted} peers known (SYNC_MIN_PEERS)"))
    }

    fn refused_by_server(&self) -> Option<String> {
        let (what, Denied { subject, .. }) = self.search.denied.iter().next()?;
        Some(match what {
            Refused::Publish(_) => format!("publishing to {subject} is refused"),
            Refused::Subscribe(_) => format!("subscribing to {subject} is refused"),
            Refused::Subscriptions | Refused::Connection => format!("the server says: {subject}"),
        })
    }

    /// Logs a state that is new.
    pub(super) fn tell(&mut self, now: Now) {
        let (state, reason) = self.judged(now.mono);
        let before = std::mem::replace(&mut self.told, state);
        let same = std::mem::discriminant(&before) == std::mem::discriminant(&state);
        if same || (state.is_under_way() && before.is_under_way()) {
            return;
        }
        let reason = reason.unwrap_or_default();
        let reason = reason.escape_debug();
        match self.logs.state.pass(now.mono) {
            Some(suppressed) if state.is_bad() => tracing::warn!(%before, %state, %reason, suppressed, "state"),
            // Those that are good tell how it ended.
            _ if !state.is_bad() => tracing::info!(%before, %state, %reason, "state"),
            _ => {}
        }
    }
}
