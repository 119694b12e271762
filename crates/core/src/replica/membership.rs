//! Who is there: challenges, beats, strangers.
//!
//! A message that proves who wrote it may still be a recording. So a node counts only after it has answered a challenge
//! of this process; from then on its frames and beats are numbered and each is taken once.

use super::machine::{Output, Phase, Replica, Target};
use super::peers::Peer;
use super::seal::Refusal;
use super::Now;
use crate::cache::{Millis, NodeId, Time};
use crate::wire::{self, Beat, BeatState, Header, Hello, Message, Welcome};

/// A beat that was asked for comes at once, but never more often than this.
pub(super) const EARLY_BEAT_MS: Millis = 100;

/// A beat goes out this many times slower for each further block of peers, so that a large lattice is not busy with
/// beats alone.
const PEERS_PER_SLOWDOWN: u64 = 32;

/// A node that was alone for long waits this many intervals of beats for others than newcomers.
const NEWCOMER_BEATS: u64 = 3;

/// A contact is renewed after this part of the time for which deletions are remembered.
const CONTACT_STEPS: u64 = 24;

/// Foreign issuers that are remembered.
const MAX_FOREIGN: usize = 16;

/// Nodes of unknown versions that are remembered.
const MAX_UNKNOWN: usize = 64;

/// A stranger that was silent for so long is forgotten.
const STRANGER_MS: Millis = 60_000;

/// A stranger takes the place of another this often at most, where there is no room for more.
const TURN_MS: Millis = 1_000;

/// Strangers heard of late. Anybody can invent them: those that came first keep their places for as long as they are
/// heard, and the last place changes hands, so that each is named now and then.
struct Recent<T> {
    /// With the time at which each was heard last, in the order in which they came.
    names: Vec<(T, Millis)>,
    most: usize,
    next_turn: Millis,
}

impl<T: PartialEq + Clone> Recent<T> {
    fn of(most: usize) -> Self {
        Recent {
            names: Vec::new(),
            most,
            next_turn: 0,
        }
    }

    /// Takes note of one. Returns whether it is named from now on and was not before; `None` if there is no room.
    fn heard(&mut self, name: &T, now: Millis) -> Option<bool> {
        if let Some((_, heard)) = self.names.iter_mut().find(|(known, _)| known == name) {
            *heard = now;
            return Some(false);
        }
        self.names.retain(|(_, heard)| now.saturating_sub(*heard) < STRANGER_MS);
        if self.names.len() >= self.most {
            if now < self.next_turn {
                return None;
            }
            self.names.pop();
        }
        self.next_turn = now + TURN_MS;
        self.names.push((name.clone(), now));
        Some(true)
    }

    fn names(&self, now: Millis) -> impl Iterator<Item = &T> {
        let recent = move |(_, heard): &&(T, Millis)| now.saturating_sub(*heard) < STRANGER_MS;
        self.names.iter().filter(recent).map(|(name, _)| name)
    }
}

/// Nodes that cannot be peers.
pub(super) struct Strangers {
    foreign: Recent<String>,
    /// Version and node.
    unknown: Recent<(u8, NodeId)>,
}

impl Default for Strangers {
    fn default() -> Self {
        Strangers {
            foreign: Recent::of(MAX_FOREIGN),
            unknown: Recent::of(MAX_UNKNOWN),
        }
    }
}

impl Strangers {
    /// Public keys of issuers that are not accepted here, as their messages say. Whether these hold their seeds is not
    /// looked at.
    pub fn foreign(&self, now: Millis) -> Vec<String> {
        self.foreign.names(now).cloned().collect()
    }

    /// As many of them as a beat may name, others with each beat.
    fn foreign_for_beat(&self, number: u64, now: Millis) -> Vec<String> {
        let all = self.foreign(now);
        let first = number as usize % all.len().max(1);
        all.iter()
            .cycle()
            .skip(first)
            .take(all.len().min(wire::MAX_FOREIGN))
            .cloned()
            .collect()
    }
}

/// How far back a node's state goes, and when it last was in contact.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past {
    pub node: NodeId,
    /// Since when the state it holds exists, handed down from node to node.
    pub since: Time,
    /// When its own first replay was done.
    pub joined: Time,
    /// Since when it has been listening without a break.
    pub listening: Time,
    pub contact: Time,
    /// Since when it has taken commands of others without being in contact, if it has. A first replay that is
    /// interrupted leaves some behind, and later contact does not make them complete.
    pub taken: Option<Time>,
    pub floor: Time,
}

impl Past {
    pub fn of_beat(node: NodeId, beat: &Beat) -> Self {
        Past {
            node,
            since: beat.since,
            joined: beat.joined,
            listening: beat.listening,
            contact: beat.contact,
            // Beats do not say. It had time to before its first replay was done.
            taken: (beat.contact < beat.joined).then_some(beat.contact),
            floor: beat.floor,
        }
    }

    /// Whether this node was out of contact for so long that deletions it never heard of are forgotten in the state of
    /// the other. A state that began later has forgotten nothing, unless this node has taken parts of it and they are as
    /// old. Nor has one that was in contact with nobody since the state of this node began: nothing of this one can have
    /// been deleted there.
    pub fn is_outdated_by(self, other: Past) -> bool {
        let holds_some = other.since <= self.contact || self.taken.is_some_and(|since| since < other.floor);
        self.contact < other.floor && holds_some && self.since <= other.contact
    }

    /// Whether the other was there all the time in which this node was out of contact, or this node was away before its
    /// first replay was done: then nobody has taken its state.
    fn is_behind(self, other: Past) -> bool {
        self.is_outdated_by(other) && (other.joined <= self.contact || self.contact < self.joined)
    }

    /// Whether this node has to take the state of the other instead of merging its own. Never that of a newcomer: its
    /// state may come from this very node. Of two that were both alone for so long, the one that was not listening.
    pub fn yields_to(self, other: Past) -> bool {
        let later = (self.listening, self.node) > (other.listening, other.node);
        self.is_behind(other) && (!other.is_behind(self) || later)
    }
}

impl Replica {
    /// When the next challenge is due, if one is.
    pub(super) fn next_challenge(&self) -> Option<Millis> {
        let (unaware, unproven) = self.peers.next_challenges();
        let unproven = unproven.map(|at| at.max(self.budgets.challenges.next()));
        unaware.into_iter().chain(unproven).min()
    }

    pub(super) fn tick_membership(&mut self, now: Now) {
        debug_assert!(self.peers.index_is_right());
        if !self.connected {
            return;
        }
        self.delay.look(now.mono);
        let silent = match now.mono < self.delay.until() {
            true => Vec::new(),
            false => self.peers.silent(self.taken_in(now)),
        };
        for node in silent {
            if self.peers.get(node).is_some_and(|peer| peer.proven) {
                tracing::info!(peer = %node, "peer is silent and counts as gone");
            }
            self.remove(now, node);
        }
        for node in self.peers.due_unaware(now.mono) {
            self.ask_for_answer(now, node);
        }
        self.challenge_unproven(now);
        self.peers
            .forget_gone(2 * self.cache.limits().tombstone_ttl_ms, now.mono);
    }

    fn remove(&mut self, now: Now, node: NodeId) {
        if self.peers.remove(node, now.mono) {
            self.heirs.extend(self.peers.iter().map(|(peer, _)| peer));
        }
        self.heirs.remove(&node);
        self.delay.gone(node);
        self.give_up_pulls_from(now, node);
        self.check_acks(u64::MAX);
    }

    /// Takes the requests of a node that were waiting for the proof that it is alive.
    fn take_parked(&mut self, now: Now, node: NodeId) {
        let parked = self.peers.change(node, Peer::take_parked).unwrap_or_default();
        for request in parked {
            self.serve(now, node, request);
        }
    }

    /// Asks a node that was heard to prove that it is alive, and whether it counts this one as a peer.
    pub(super) fn challenge(&mut self, now: Now, node: NodeId) {
        if !self.connected {
            return;
        }
        match self.peers.get(node) {
            Some(peer) if peer.proven && peer.is_strange() => self.ask_for_answer(now, node),
            Some(peer) if !peer.proven => self.challenge_unproven(now),
            _ => {}
        }
    }

    /// Challenges nodes that have yet to prove that they are alive, those first that most likely are: few at a time, since
    /// most may be recordings.
    fn challenge_unproven(&mut self, now: Now) {
        while self.budgets.challenges.is_left(now.mono) {
            let Some(node) = self.peers.due_unproven(now.mono, self.next_id) else {
                return;
            };
            self.budgets.challenges.take(now.mono);
            self.ask_for_answer(now, node);
        }
    }

    fn ask_for_answer(&mut self, now: Now, node: NodeId) {
        let number = self.next_id + 1;
        let due = self.peers.get(node).filter(|peer| now.mono >= peer.next_challenge());
        let Some(knows_you) = due.map(|peer| peer.proven) else {
            return;
        };
        self.peers.change(node, |peer| peer.challenged(number, now.mono));
        self.next_id = number;
        let hello = Hello {
            to: node,
            number,
            knows_you,
        };
        self.introduce(Target::Node(node), &Message::Hello(hello));
    }

    pub(super) fn hello(&mut self, now: Now, node: NodeId, hello: &Hello) {
        if hello.to != self.cache.node() {
            return;
        }
        // Each counts once: a recording neither tells what its author thinks of this node, nor is answered.
        let proven = self.peers.change(node, |peer| {
            let anew = peer.challenges_anew(hello.number);
            anew.then(|| {
                peer.asked_for_answer(hello.number, hello.knows_you);
                peer.proven
            })
        });
        let Some(proven) = proven.flatten() else {
            self.counters.repeated += 1;
            return;
        };
        if !proven && !self.budgets.welcomes.take(now.mono) {
            return;
        }
        let beat = self.fresh_beat(now, self.beat_state());
        let welcome = Welcome {
            to: node,
            number: hello.number,
            knows_you: self.peers.get(node).is_some_and(|peer| peer.proven),
            host: self.config.host.clone(),
            release: self.config.release.clone(),
            beat,
        };
        self.introduce(Target::Node(node), &Message::Welcome(welcome));
    }

    pub(super) fn welcome(&mut self, now: Now, node: NodeId, welcome: Welcome) {
        let own = self.cache.node();
        let answers = self.peers.change(node, |peer| {
            let answers = welcome.to == own && peer.answers(welcome.number);
            if answers {
                peer.answered(welcome.knows_you);
                (peer.host, peer.release) = (welcome.host.clone(), welcome.release.clone());
            }
            answers
        });
        if answers != Some(true) {
            self.counters.repeated += 1;
            return;
        }
        let Some(news) = self.peers.prove(node) else {
            if let Some(suppressed) = self.logs.full.pass(now.mono) {
                tracing::warn!(%node, suppressed, "a node cannot become a peer: there are too many");
            }
            return;
        };
        if news {
            tracing::info!(peer = %node, host = %welcome.host, release = %welcome.release, "peer joins");
        }
        self.no_stranger(node);
        self.told_by_peer(now, node, welcome.beat, true);
        self.take_parked(now, node);
    }

    pub(super) fn beat_interval(&self) -> Millis {
        self.config.beat_interval_ms * (1 + self.peers.len() as u64 / PEERS_PER_SLOWDOWN)
    }

    pub(super) fn beat_state(&self) -> BeatState {
        match self.phase {
            Phase::Synced => BeatState::Synced,
            _ => BeatState::Starting,
        }
    }

    pub(super) fn beat(&mut self, now: Now, state: BeatState) {
        self.look_at_clocks(now);
        let beat = self.fresh_beat(now, state);
        self.last_beat = now.mono;
        self.next_beat = now.mono + self.beat_interval();
        self.wants_beats = false;
        self.introduce(Target::Beat, &Message::Beat(beat));
    }

    pub(super) fn fresh_beat(&mut self, now: Now, state: BeatState) -> Beat {
        let number = self.fresh_id();
        Beat {
            number,
            seq: self.seq,
            digest: self.cache.root_digest(),
            keys: self.cache.keys(),
            clock: self.cache.clock().latest().max(self.hybrid_now(now)),
            floor: self.cache.floor(),
            contact: self.contact,
            since: self.since,
            joined: self.joined,
            listening: self.listening,
            state,
            interval_ms: self.beat_interval(),
            wants_beats: self.wants_beats,
            versions: self.config.versions,
            foreign: self.strangers.foreign_for_beat(number, now.mono),
        }
    }

    pub(super) fn hybrid_now(&self, now: Now) -> Time {
        Time::from_millis(self.cache.clock().now(now.wall))
    }

    pub(super) fn beat_of_peer(&mut self, now: Now, node: NodeId, beat: Beat) {
        self.told_by_peer(now, node, beat, false);
    }

    /// A beat, or one in an answer to a challenge.
    fn told_by_peer(&mut self, now: Now, node: NodeId, beat: Beat, answer: bool) {
        let past = Past::of_beat(node, &beat);
        let (state, clock, wants_beats, digest) = (beat.state, beat.clock, beat.wants_beats, beat.digest);
        let interval = beat.interval_ms;
        if !beat.foreign.is_empty() {
            self.disowned(now, &node.to_string(), beat.clock, &beat.foreign);
            self.named_foreign(node, &beat.foreign);
        }
        let own = self.cache.root_digest();
        let had_gap = self.peers.get(node).is_some_and(Peer::is_lacking);
        let (floor, heard) = (self.cache.floor(), self.taken_in(now));
        if !self.peers.beat(node, beat, (own, floor), now.mono, heard) {
            self.counters.repeated += 1;
            return;
        }
        self.delay.beat(node, interval, now.mono);
        if state == BeatState::Leaving {
            tracing::info!(peer = %node, "peer leaves");
            // Its last frames may come after its last beat.
            let waits = self.peers.get(node).is_some_and(|peer| peer.frames.has_gap());
            return if waits {
                self.check_acks(u64::MAX)
            } else {
                self.remove(now, node)
            };
        }
        let both = state == BeatState::Synced && self.phase == Phase::Synced;
        if digest == own {
            self.heirs.remove(&node);
            if had_gap {
                self.confirm_all(now, node);
            }
            if both {
                self.merged(node);
            }
        }
        self.observe(now, clock);
        if both && self.is_plausible(now, past, clock) {
            self.judge(now, past, clock, digest == own, answer);
        }
        self.follow_floor(now, past.floor);
        if wants_beats {
            let soon = EARLY_BEAT_MS + self.spread(2 * self.peers.len() as Millis);
            self.next_beat = self.next_beat.min((self.last_beat + soon).max(now.mono));
        }
        self.settle(now);
        self.repair(now);
    }

    /// Looks whether this node is in contact with a synced peer, or has to yield to it.
    fn judge(&mut self, now: Now, peer: Past, clock: Time, equal: bool, answer: bool) {
        if equal {
            self.in_contact(now, peer, clock, true);
        } else if !answer {
            // A peer that is heard may not hear this node: then nothing that is missing here can be asked for. And what
            // waited while this node was stopped is old. Only the answer to a challenge shows where a peer stands.
            if self.contact < peer.joined || self.contact_is_old(now) {
                self.ask_for_answer(now, peer.node);
            }
        } else if self.past().yields_to(peer) {
            self.start_yielding(now, peer.node, peer.floor);
        } else {
            self.in_contact(now, peer, clock, false);
        }
    }

    pub(super) fn contact_is_old(&self, now: Now) -> bool {
        let age_ms = self.cache.clock().now(now.wall).saturating_sub(self.contact.millis());
        age_ms > self.cache.limits().tombstone_ttl_ms / CONTACT_STEPS
    }

    /// Takes note of the contact with a synced peer.
    fn in_contact(&mut self, now: Now, peer: Past, clock: Time, equal: bool) {
        if !equal && self.contact < peer.floor.min(peer.joined) {
            // A newcomer, and this node was alone for long. Either its state is its own or from here, or those it is
            // from will be heard soon. And it has to hear how long this node was alone.
            let patience = NEWCOMER_BEATS * self.beat_interval();
            let since = *self.newcomers_since.get_or_insert(now.mono);
            if now.mono.saturating_sub(since) < patience {
                return;
            }
        }
        self.newcomers_since = None;
        // As of when the beat was sent: it may have waited here for a long time.
        self.contact = self.contact.max(clock.min(self.hybrid_now(now)));
        self.taken = None;
        // The two states become one.
        self.since = self.since.min(peer.since);
    }

    pub(super) fn past(&self) -> Past {
        Past {
            node: self.cache.node(),
            since: self.since,
            joined: self.joined,
            listening: self.listening,
            contact: self.contact,
            taken: self.taken,
            floor: self.cache.floor(),
        }
    }

    /// The state of this node is that of its peers, and goes back as far as theirs.
    pub(super) fn inherit_since(&mut self) {
        let theirs = self
            .peers
            .synced()
            .filter_map(|(_, peer)| peer.beat.as_ref())
            .map(|beat| beat.since);
        self.since = theirs.min().unwrap_or(self.since).min(self.since);
    }

    /// A peer has collected deletions up to `floor`; so does this node, within what its own settings allow.
    fn follow_floor(&self, now: Now, floor: Time) {
        if floor <= self.newest_floor(now) {
            self.cache.raise_floor(floor);
        }
    }

    /// The newest floor that a clock which is right within the limits can have.
    fn newest_floor(&self, now: Now) -> Time {
        let limits = self.cache.limits();
        let newest = now.wall.saturating_add(limits.max_clock_skew_ms);
        Time::from_millis(newest.saturating_sub(limits.tombstone_ttl_ms))
    }

    /// Whether the times of a peer can be right. Nobody gives in to a clock that is wrong.
    fn is_plausible(&self, now: Now, past: Past, clock: Time) -> bool {
        let newest = now.wall.saturating_add(self.cache.limits().max_clock_skew_ms);
        let newest = Time::from_millis(newest.saturating_add(1));
        past.floor <= self.newest_floor(now) && past.contact.max(past.joined).max(clock) < newest
    }

    /// The first replay is done when everything that peers are known to have sent is here, and all of them know this
    /// node: from then on nothing they confirm can be missing here. A node of which only others have heard, and that does
    /// not answer, has most likely died: it does not delay that this node is synced. But it may be slow, and not count
    /// this node. So until it is heard or the time is up, this node neither counts as current nor confirms anything.
    pub(super) fn settle(&mut self, now: Now) {
        let Some(until) = self.settling else { return };
        let settled = now.mono >= until || self.peers.unsettled().next().is_none();
        if settled {
            self.settling = None;
        }
        let passes_over = || self.passes_over_at().is_some_and(|at| now.mono >= at);
        match self.phase {
            Phase::Settling if settled || passes_over() => self.become_synced(now),
            Phase::Synced | Phase::Yielding if settled => self.wait_for_peers(),
            _ => {}
        }
    }

    /// When this node is synced because the nodes it waits for are passed over.
    pub(super) fn passes_over_at(&self) -> Option<Millis> {
        if self.phase != Phase::Settling || !self.connected {
            return None;
        }
        let times: Option<Vec<Millis>> = self.peers.unsettled().map(Peer::passed_over_at).collect();
        times?.into_iter().max()
    }

    pub(super) fn become_synced(&mut self, now: Now) {
        let took_ms = now.mono - self.replay_began;
        tracing::info!(
            "synced keys={} took_ms={took_ms} digest={}",
            self.cache.keys(),
            self.cache.root_digest()
        );
        self.phase = Phase::Synced;
        if self.joined == Time::default() {
            let complete = !self.contact_is_old(now) || self.has_missed_nothing();
            self.inherit_since();
            self.joined = self.hybrid_now(now);
            self.since = self.since.min(self.contact);
            // If that took long, this node may hold what was deleted and forgotten meanwhile.
            if complete {
                self.contact = self.joined;
                self.taken = None;
            }
            self.leave_replays_to_others(now);
        }
        self.next_beat = now.mono;
        self.outputs.push_back(Output::AnswerReplays);
        self.wait_for_peers();
    }

    /// Whether a synced peer is there, and none has forgotten deletions this node has not heard of. Only the answer to a
    /// challenge says that since this node is listening: their beats may be of before. To be asked before the states
    /// become one.
    fn has_missed_nothing(&self) -> bool {
        let mut synced = self.peers.synced().peekable();
        synced.peek().is_some()
            && synced.all(|(node, peer)| {
                let past = peer.beat.as_ref().map(|beat| Past::of_beat(node, beat));
                peer.knows_us && past.is_some_and(|past| !self.past().is_outdated_by(past))
            })
    }

    /// Writes that were made before this node knew all its peers wait for all of them.
    fn wait_for_peers(&mut self) {
        let peers: Vec<NodeId> = self.peers.iter().map(|(node, _)| node).collect();
        self.acks.also_wait_for(&peers);
        self.check_acks(u64::MAX);
    }

    // --- those who are no peers

    pub(super) fn unknown_version(&mut self, now: Now, header: Header) {
        self.counters.unknown_versions += 1;
        let named = self.strangers.unknown.heard(&(header.version, header.node), now.mono);
        if named == Some(true) && self.logs.strangers.take(now.mono) {
            let (oldest, newest) = self.config.versions;
            tracing::warn!(
                "node {} speaks version {} of the protocol, this one {oldest} to {newest}: its messages are ignored, and \
                 nothing is replicated between the two; run releases of nearby versions",
                header.node,
                header.version
            );
        }
    }

    pub(super) fn refused_message(&mut self, now: Now, header: Header, refusal: &Refusal) {
        self.counters.unauthenticated += 1;
        self.heard_foreign(now, refusal);
        if let Refusal::Foreign(issuer) = refusal {
            return self.foreign_issuer(now, header.node, issuer);
        }
        if let Some(suppressed) = self.logs.unauthenticated.pass(now.mono) {
            let remedy = match refusal {
                Refusal::Unauthenticated | Refusal::Sealed => "set FRAME_AUTH alike on all hosts",
                _ => "all hosts need the same cluster seed, or list each other's issuer in cluster_issuers",
            };
            tracing::warn!(node = %header.node, suppressed, "ignored a message: {refusal}; {remedy}");
        }
    }

    fn foreign_issuer(&mut self, now: Now, node: NodeId, issuer: &String) {
        let named = self.strangers.foreign.heard(issuer, now.mono);
        if named == Some(true) && self.logs.strangers.take(now.mono) {
            tracing::warn!(
                "node {node} is of issuer {issuer}, which is not accepted here: nothing is replicated between the two; \
                 start its host with the same cluster seed, or list the issuers of both in cluster_issuers of both"
            );
        }
    }

    /// A peer names issuers it does not accept.
    fn named_foreign(&mut self, node: NodeId, foreign: &[String]) {
        if let Some(own) = self.config.keyring.issuer() {
            let news = self
                .peers
                .get(node)
                .and_then(|peer| peer.beat.as_ref())
                .is_none_or(|beat| beat.foreign.is_empty());
            if news && foreign.iter().any(|issuer| issuer == own) {
                tracing::warn!(peer = %node, "the peer does not accept the issuer of this host, {own}; list it there");
            }
        }
    }
}
