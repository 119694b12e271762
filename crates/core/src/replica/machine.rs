//! The state machine of one node: inputs, outputs, and which part of the protocol each message belongs to.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::acks::{AckRequest, Acks, Unconfirmed};
use super::clocks::Clocks;
use super::delay::Delay;
use super::fragments::Assembler;
use super::membership::{Strangers, EARLY_BEAT_MS};
use super::pace::Pace;
use super::peers::{Peer, Peers, Sent, PRESENT_BEATS};
use super::pull::{Pull, Purpose};
use super::ring::Ring;
use super::seal::{Keyring, Proof, Refusal, Unsealed};
use super::search::Search;
use super::serve::{Answered, Job, Jobs};
use super::status::{Counters, Refused, Status, SyncState};
use super::throttle::{Budget, Throttle};
use super::Now;
use crate::cache::{Cache, Command, Millis, NodeId, Time};
use crate::wire::{BeatState, Header, Message, ReplayCommands, Request, Sketch, Splits, Unknown, WireError};

/// What a replica has to know from the start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the host, for peers to show.
    pub host: String,
    /// Release of this software, for peers to show.
    pub release: String,
    /// Interval of beats in milliseconds.
    pub beat_interval_ms: Millis,
    /// After how many milliseconds without a finished first replay the node says that it is not synced.
    pub sync_limit_ms: Millis,
    /// So many peers have to have been known before the node calls itself synced or alone.
    pub min_peers: usize,
    /// What messages are authenticated with.
    pub keyring: Arc<Keyring>,
    /// Bytes of recent frames kept for peers that missed some.
    pub ring_bytes: usize,
    /// Oldest and newest version of the protocol this node speaks. Anything but [`Config::VERSIONS`] is for tests of
    /// nodes of other releases.
    pub versions: (u8, u8),
}

impl Config {
    /// The versions this release speaks.
    pub const VERSIONS: (u8, u8) = (crate::wire::OLDEST_VERSION, crate::wire::VERSION);
}

/// What a replica leaves behind: the numbers it has used, and how far back its state goes. One that takes over for another
/// of the same process goes on after them, so that no number of a frame, beat or request is used twice under one node id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Numbers {
    /// Newest frame.
    pub seq: u64,
    /// Newest beat, request, challenge or fragmented message.
    pub id: u64,
    /// Since when the state it held exists, when it had its first replay, when it last was in contact, and since when it
    /// has taken commands without being in contact.
    pub past: (Time, Time, Time, Option<Time>),
}

/// What the shell tells the replica.
#[derive(Debug)]
pub enum Input {
    /// The connection is there and all subscriptions are made (they precede anything sent from now on).
    Connected {
        /// Largest message the server takes, in bytes.
        max_payload: usize,
    },
    /// The connection is lost. Messages may be lost with it.
    Disconnected,
    /// The client library had to drop messages: as if the connection had been lost for a moment.
    MessagesLost,
    /// A message of any subject.
    Message(Bytes),
    /// Nobody listens where the replay request `request` was sent. The word of a server, or of whoever may publish on
    /// the reply subject.
    NoResponders {
        /// Number of the request.
        request: u64,
    },
    /// The server refuses something that replication needs.
    Refused {
        /// What.
        what: Refused,
        /// The subject, or what the server said.
        subject: String,
    },
    /// Commands of local writes, in order. They are in the cache already.
    Local {
        /// The commands.
        commands: Vec<Command>,
        /// Who wants to know when all of them are confirmed.
        acks: Vec<AckRequest>,
    },
    /// What came of an [`Output::Answer`].
    Answered(Answered),
    /// This process ends; nothing follows.
    Leaving,
}

/// Where a message goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// All peers: commands.
    Commands,
    /// All peers: beats.
    Beat,
    /// Any one synced peer. The server has to tell [`Input::NoResponders`] with this number if there is none.
    Replay {
        /// Number of the request.
        request: u64,
    },
    /// One peer.
    Node(NodeId),
}

/// What the shell has to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Publish a message.
    Publish {
        /// Where to.
        to: Target,
        /// The message.
        payload: Bytes,
    },
    /// Join the group of those who answer replay requests.
    AnswerReplays,
    /// Leave that group.
    LeaveReplays,
    /// Make an answer to a peer ([`Job::run`]), and give it back as [`Input::Answered`]. It may take a tenth of a second,
    /// and nothing need wait for it. There is one at a time.
    Answer(Job),
    /// Make subscriptions again that the server has refused: those to one kind of subjects, or all with a new
    /// connection.
    SubscribeAgain(Refused),
    /// Answer to an [`AckRequest`].
    Acked {
        /// Its number.
        id: u64,
        /// Whether the commands were confirmed in time.
        result: Result<(), Unconfirmed>,
    },
}

/// How far a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// The first replay is under way.
    Replaying,
    /// The first replay is done; what peers sent meanwhile is still being sorted out.
    Settling,
    Synced,
    /// It was away for longer than deletions are remembered and takes its peers' state.
    Yielding,
}

/// Limits the log lines that strangers can cause as often as they like.
pub(super) struct Logs {
    pub malformed: Throttle,
    pub refused: Throttle,
    pub unauthenticated: Throttle,
    pub full: Throttle,
    /// Strangers that are named.
    pub strangers: Budget,
    pub state: Throttle,
}

impl Default for Logs {
    fn default() -> Self {
        Logs {
            malformed: Throttle::default(),
            refused: Throttle::default(),
            unauthenticated: Throttle::default(),
            full: Throttle::default(),
            strangers: Budget::new(6, 8),
            state: Throttle::default(),
        }
    }
}

/// Limits the work that nodes can cause which have not proven to be alive, and may be recordings.
pub(super) struct Budgets {
    /// Challenges.
    pub challenges: Budget,
    /// Answers to theirs.
    pub welcomes: Budget,
    /// Signatures checked of messages that claim to be of this moment, and of others.
    pub signatures: Budget,
    pub old_signatures: Budget,
}

impl Default for Budgets {
    fn default() -> Self {
        Budgets {
            challenges: Budget::per_second(200, 400),
            welcomes: Budget::per_second(200, 400),
            signatures: Budget::per_second(200, 400),
            old_signatures: Budget::per_second(20, 40),
        }
    }
}

/// A message of this age, by its sender's clock, may be of this moment.
const FRESH_MS: Millis = 5_000;

/// Replication of one node.
///
/// The caller's contract: after each call of [`Replica::handle`] or [`Replica::tick`], perform everything
/// [`Replica::poll_output`] returns, in order, until it returns `None`; then call `tick` no later than
/// [`Replica::poll_timeout`] says. `now.mono` never goes back.
pub struct Replica {
    pub(super) cache: Arc<Cache>,
    pub(super) config: Config,
    pub(super) outputs: VecDeque<Output>,
    pub(super) connected: bool,
    pub(super) phase: Phase,
    /// Until when all known nodes are waited for at most, after the first replay. Until then nothing is confirmed and
    /// this node is not current, synced or not.
    pub(super) settling: Option<Millis>,
    pub(super) started: Option<Millis>,
    /// When the replica was last called: a long time ago means that the process was stopped.
    pub(super) last_call: Millis,
    /// When the first replay began.
    pub(super) replay_began: Millis,
    pub(super) max_message: usize,
    pub(super) seq: u64,
    pub(super) next_id: u64,
    pub(super) next_beat: Millis,
    pub(super) last_beat: Millis,
    /// The next beat asks peers for theirs.
    pub(super) wants_beats: bool,
    /// Hybrid time of the last contact with a synced peer.
    pub(super) contact: Time,
    /// Hybrid time since which commands of others were taken without a contact.
    pub(super) taken: Option<Time>,
    /// Since when the state this node holds exists; the end of time before the first replay.
    pub(super) since: Time,
    /// When the first replay was done; 0 before.
    pub(super) joined: Time,
    /// Since when it has been listening without a break.
    pub(super) listening: Time,
    /// Since when this node, which was alone for long, hears newcomers only.
    pub(super) newcomers_since: Option<Millis>,
    /// The wall clock of this host and those of the others.
    pub(super) clocks: Clocks,
    /// Whether anybody is there to have the state of.
    pub(super) search: Search,
    /// The state that was last told.
    pub(super) told: SyncState,
    /// Until when replay requests are left to others, after an absence that may have been too long.
    pub(super) serves_from: Millis,
    pub(super) ring: Ring,
    pub(super) acks: Acks,
    pub(super) peers: Peers,
    pub(super) strangers: Strangers,
    pub(super) pull: Option<Pull>,
    /// What a peer that compares has shown this node to lack.
    pub(super) reverse: Option<Pull>,
    /// How fast answers come, whatever they answer.
    pub(super) pace: Pace,
    /// Whether what arrives has waited on its way.
    pub(super) delay: Delay,
    /// Something of a peer that is gone is missing here: peers that may have it and have not been compared with since.
    pub(super) heirs: BTreeSet<NodeId>,
    pub(super) next_comparison: Millis,
    pub(super) next_gap_comparison: Millis,
    pub(super) next_meeting: Millis,
    pub(super) next_orphan_comparison: Millis,
    pub(super) next_reverse: Millis,
    pub(super) next_fold: u16,
    pub(super) assembler: Assembler,
    pub(super) counters: Counters,
    pub(super) logs: Logs,
    pub(super) budgets: Budgets,
    /// What peers have asked for and is not answered yet.
    pub(super) jobs: Jobs,
    /// When the oldest message arrived that the shell has not handed over yet, if one waits.
    behind_since: Option<Millis>,
}

impl Replica {
    /// A replica of `cache` that has not been connected yet. `numbers` are those of a replica it takes over from.
    pub fn new(cache: Arc<Cache>, config: Config, numbers: Numbers) -> Self {
        let ring = Ring::new(config.ring_bytes);
        let (since, joined, contact, taken) = numbers.past;
        Replica {
            cache,
            config,
            outputs: VecDeque::new(),
            connected: false,
            phase: Phase::Replaying,
            settling: None,
            started: None,
            last_call: 0,
            replay_began: 0,
            max_message: 64 << 10,
            seq: numbers.seq,
            next_id: numbers.id,
            next_beat: 0,
            last_beat: 0,
            wants_beats: false,
            contact,
            taken,
            since: if joined == Time::default() {
                Time(u64::MAX)
            } else {
                since
            },
            joined,
            listening: Time::default(),
            newcomers_since: None,
            clocks: Clocks::default(),
            search: Search::default(),
            told: SyncState::Starting,
            serves_from: 0,
            ring,
            acks: Acks::default(),
            peers: Peers::default(),
            strangers: Strangers::default(),
            pull: None,
            reverse: None,
            pace: Pace::default(),
            delay: Delay::default(),
            heirs: BTreeSet::new(),
            next_comparison: 0,
            next_gap_comparison: 0,
            next_meeting: 0,
            next_orphan_comparison: 0,
            next_reverse: 0,
            next_fold: 0,
            assembler: Assembler::default(),
            counters: Counters::default(),
            logs: Logs::default(),
            budgets: Budgets::default(),
            jobs: Jobs::default(),
            behind_since: None,
        }
    }

    /// The numbers used so far.
    pub fn numbers(&self) -> Numbers {
        Numbers {
            seq: self.seq,
            id: self.next_id,
            past: (self.since, self.joined, self.contact, self.taken),
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.called(now);
        match input {
            Input::Connected { max_payload } => self.connect(now, max_payload),
            Input::Disconnected => self.disconnect(now),
            Input::MessagesLost => self.listen_again(now),
            Input::Message(bytes) => self.message(now, bytes),
            Input::NoResponders { request } => self.no_responders(now, request),
            Input::Refused { what, subject } => self.server_refuses(now, what, subject),
            Input::Local { commands, acks } => self.publish_commands(now, &commands, acks),
            Input::Answered(answered) => self.answered(now, answered),
            Input::Leaving => self.beat(now, BeatState::Leaving),
        }
        self.request_tasks(now);
    }

    /// Tells, before a call of [`Replica::handle`] or [`Replica::tick`], when the oldest message arrived that waits to be
    /// handed over, the one of this call included; `None` if none waits. A peer whose messages may wait is not silent.
    pub fn behind_since(&mut self, arrived: Option<Millis>) {
        self.behind_since = arrived;
    }

    /// All that arrived until then has been taken in.
    pub(super) fn taken_in(&self, now: Now) -> Millis {
        self.behind_since.map_or(now.mono, |arrived| arrived.min(now.mono))
    }

    /// Does what is due at `now`.
    pub fn tick(&mut self, now: Now) {
        self.called(now);
        self.assembler.expire(now.mono);
        self.tick_membership(now);
        self.tick_pulls(now);
        self.tick_search(now);
        self.tick_acks(now);
        self.settle(now);
        if self.connected && now.mono >= self.next_beat {
            self.beat(now, self.beat_state());
            self.fold(now);
        }
        self.ask_for_frames(now);
        self.repair(now);
        self.request_tasks(now);
        self.tell(now);
    }

    /// The next thing to do, if any.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Replica::tick`] has to be called, in milliseconds of the monotonic clock. After a tick it lies ahead.
    pub fn poll_timeout(&self) -> Millis {
        let acks = self.acks.deadline(self.connected);
        if !self.connected {
            return acks.unwrap_or(Millis::MAX);
        }
        let pulls = [&self.pull, &self.reverse];
        let deadline = |pull: &Pull| pull.deadline(&self.pace);
        let pulls = pulls.into_iter().flatten().filter_map(deadline).min();
        [
            acks,
            self.settling,
            self.passes_over_at(),
            pulls,
            self.swallowed_at(),
            self.next_search(),
            self.next_challenge(),
            self.next_frames_request(),
        ]
        .into_iter()
        .flatten()
        .fold(self.next_beat, Millis::min)
    }

    /// Until when this node, if it is not called again, still counts as present with its peers and has everything they
    /// have told it to have: in milliseconds of the monotonic clock, 0 for now not at all.
    pub fn current_until(&self) -> Millis {
        let whole = self.peers.with_gaps().next().is_none() && !self.peers.any_unaware();
        let settled = self.phase == Phase::Synced && self.settling.is_none() && self.is_whole();
        if !settled || !self.connected || !whole || self.wants_beats {
            return 0;
        }
        let present = self.last_beat + PRESENT_BEATS * self.beat_interval();
        present.min(self.peers.present_until().unwrap_or(Millis::MAX))
    }

    /// When the replica was last called.
    pub(super) fn last_call(&self) -> Millis {
        self.last_call
    }

    /// Whether it answers replays: it has the state of a peer, or there was none to have.
    pub fn has_joined(&self) -> bool {
        self.connected && self.phase == Phase::Synced
    }

    /// Whether no other node is known, not even by name.
    pub fn is_alone(&self) -> bool {
        self.peers.is_empty()
    }

    /// What can be said of this node at `now`.
    pub fn status(&self, now: Now) -> Status {
        Status {
            sync: self.sync_state(now),
            reason: self.reason(now),
            clock: self.clock_fault(now),
            peers: self.peers.status(),
            foreign: self.strangers.foreign(now.mono),
            counters: self.counters,
        }
    }

    /// Notices that the process was stopped (SIGSTOP, a suspended machine): what happened meanwhile was missed.
    fn called(&mut self, now: Now) {
        self.mend_clock(now);
        self.started.get_or_insert(now.mono);
        let last = std::mem::replace(&mut self.last_call, now.mono);
        if last > 0 && self.connected && now.mono.saturating_sub(last) > 3 * self.beat_interval() {
            tracing::warn!(
                stopped_ms = now.mono - last,
                "this process did not run for a while; reconciling"
            );
            self.counters.stops += 1;
            self.begin_search(now);
            self.hold_back(now);
            self.listen_again(now);
        }
    }

    fn connect(&mut self, now: Now, max_payload: usize) {
        self.connected = true;
        self.max_message = max_payload;
        if self.contact == Time::default() {
            // From here on it may hold what others delete.
            self.contact = self.hybrid_now(now);
        }
        self.hold_back(now);
        self.listen_again(now);
        // The way may be another one.
        self.pace.reconnected();
        self.begin_search(now);
        self.attempt_all(now);
        if self.phase == Phase::Replaying {
            // What is here of a replay that was interrupted is not asked for again, unless it may hold what was deleted
            // and forgotten meanwhile.
            let outdated = self.contact_is_old(now);
            let begun = self.pull.as_ref().is_some_and(|pull| pull.answered && !outdated);
            if !begun {
                self.replay_began = now.mono;
                self.pull = Some(Pull::new(Purpose::FirstReplay, now.mono));
            }
        }
        self.tick(now);
    }

    fn disconnect(&mut self, now: Now) {
        self.connected = false;
        // What they would say by now is not known.
        self.look_at_clocks(now);
        if self.phase == Phase::Yielding {
            self.stop_yielding(now);
        }
        self.search.stop();
        self.pull = self.pull.take().filter(|_| self.phase == Phase::Replaying);
        if let Some(pull) = &mut self.pull {
            tracing::info!(percent = pull.percent(), "the first replay is interrupted");
            pull.interrupted();
        }
        self.reverse = None;
        self.jobs.clear();
        self.outputs.retain(|output| !matches!(output, Output::Publish { .. }));
        self.peers.pardon_silence(now.mono);
    }

    fn hold_back(&mut self, now: Now) {
        self.listening = self.hybrid_now(now);
        self.leave_replays_to_others(now);
    }

    /// After an absence that may have been longer than deletions are remembered, others answer replays first.
    pub(super) fn leave_replays_to_others(&mut self, now: Now) {
        let away_ms = self.cache.clock().now(now.wall).saturating_sub(self.contact.millis());
        if self.contact != Time::default() && away_ms > self.cache.limits().tombstone_ttl_ms {
            self.serves_from = now.mono + 1_000;
        }
    }

    /// Messages may have been missed: the beats of all peers will tell which.
    fn listen_again(&mut self, now: Now) {
        self.peers.pardon_silence(now.mono);
        self.delay.listen_again(now.mono);
        self.wants_beats = true;
        self.next_beat = now.mono.max(self.last_beat + EARLY_BEAT_MS);
        self.next_comparison = self.next_comparison.max(now.mono + self.spread(self.beat_interval()));
    }

    // --- messages of peers

    fn message(&mut self, now: Now, sealed: Bytes) {
        let Some(header) = Header::of(&sealed) else {
            return self.malformed(now, &WireError::Malformed("shorter than its header"));
        };
        if header.node == self.cache.node() {
            // This node's own messages, should they come back.
            return;
        }
        if !(self.config.versions.0..=self.config.versions.1).contains(&header.version) {
            return match header.is_plausible() {
                true => self.unknown_version(now, header),
                false => self.malformed(now, &WireError::Malformed("no version of this protocol")),
            };
        }
        let length = sealed.len();
        let keyring = self.config.keyring.clone();
        let (bytes, proof) = match keyring.unseal(&sealed) {
            Ok(Unsealed::Accepted(bytes, proof)) => (bytes, proof),
            Ok(Unsealed::Signed(bytes, signature)) => {
                if !self.may_check_signature(now, header.node, &bytes) {
                    return;
                }
                if !signature.fits(&bytes) {
                    return self.refused_message(now, header, &Refusal::Forged);
                }
                (bytes, Proof::OtherIssuer)
            }
            Err(refusal) => return self.refused_message(now, header, &refusal),
        };
        match Message::borrow(&bytes) {
            Ok(Message::Fragment(fragment)) => {
                // A message in fragments is no fragment itself, so this goes no deeper than one level.
                let Some(whole) = self.assembler.add(header.node, fragment, now.mono) else {
                    return;
                };
                let length = whole.len();
                match (Header::of(&whole), Message::borrow(&whole)) {
                    (Some(inner), Ok(message))
                        if inner.node == header.node && !matches!(message, Message::Fragment(_)) =>
                    {
                        self.understood(now, header.node, proof, message, (length, length));
                    }
                    (_, Err(error)) => self.malformed(now, &error),
                    _ => self.malformed(now, &WireError::Malformed("whole of fragments")),
                }
            }
            Ok(message) => self.understood(now, header.node, proof, message, (bytes.len(), length)),
            Err(error) => self.malformed(now, &error),
        }
    }

    /// Whether the signature of a message is worth being checked: the message may count, and not too many have been
    /// checked of late. Anybody can send signatures that do not fit.
    fn may_check_signature(&mut self, now: Now, node: NodeId, bytes: &Bytes) -> bool {
        let message = match Message::borrow(bytes) {
            Ok(message) => message,
            Err(error) => {
                self.malformed(now, &error);
                return false;
            }
        };
        let sent = self.sent(now, &message);
        if self.is_repeated(node, sent, &message) {
            self.counters.repeated += 1;
            return false;
        }
        let of_peer = |peer: &mut Peer| peer.proven.then(|| peer.signatures.take(now.mono));
        let checked = self.peers.change(node, of_peer).flatten().unwrap_or_else(|| {
            let oldest = now.wall.saturating_sub(FRESH_MS);
            match sent.clock.millis() >= oldest {
                true => self.budgets.signatures.take(now.mono),
                false => self.budgets.old_signatures.take(now.mono),
            }
        });
        self.counters.unauthenticated += u64::from(!checked);
        checked
    }

    /// Whether a message would change nothing if it were what it says it is.
    fn is_repeated(&self, node: NodeId, sent: Sent, message: &Message<&[u8]>) -> bool {
        let Some(peer) = self.peers.get(node) else {
            return self.peers.is_old(node, sent);
        };
        match message {
            Message::Beat(beat) => peer.beat.as_ref().is_some_and(|last| beat.number <= last.number),
            Message::Frame(frame) => peer.proven && !peer.frames.takes(frame.seq) && !frame.wants_ack,
            Message::Hello(hello) => hello.to != self.cache.node() || !peer.challenges_anew(hello.number),
            Message::Welcome(welcome) => !peer.expects(welcome.number),
            Message::ReplayRequest(_)
            | Message::Compare(_)
            | Message::Fetch(_)
            | Message::Survey(_)
            | Message::SketchRequest(_)
            | Message::Exchange(_)
            | Message::FramesRequest(_) => sent.number.is_some_and(|number| !peer.requests.takes(number)),
            _ => false,
        }
    }

    /// What a message tells about when it was sent.
    fn sent(&self, now: Now, message: &Message<&[u8]>) -> Sent {
        let present = self.hybrid_now(now);
        // A clock that is too far ahead says nothing.
        let newest = now.wall.saturating_add(self.cache.limits().max_clock_skew_ms);
        let possible = |clock: Time| match clock.millis() <= newest {
            true => clock.min(present),
            false => Time::default(),
        };
        let of = |number, clock| Sent {
            number: Some(number),
            clock,
            asked: false,
        };
        // It names a request that is under way, which is as good as an answer to a challenge.
        let asked = Sent {
            number: None,
            clock: present,
            asked: true,
        };
        match message {
            Message::Beat(beat) => of(beat.number, possible(beat.clock)),
            Message::Welcome(welcome) => of(welcome.beat.number, possible(welcome.beat.clock)),
            // It names this process, which only those can who have heard of it.
            Message::Hello(hello) if hello.to == self.cache.node() => of(hello.number, present),
            Message::Frame(frame) => Sent {
                clock: possible(frame.clock),
                ..Sent::default()
            },
            Message::ReplayRequest(request) => of(request.request, Time::default()),
            Message::Compare(request) => of(request.request, Time::default()),
            Message::Fetch(request) => of(request.request, Time::default()),
            Message::Survey(request) => of(request.request, Time::default()),
            Message::SketchRequest(request) => of(request.request, Time::default()),
            Message::Exchange(request) => of(request.request, Time::default()),
            Message::FramesRequest(request) => of(request.request, Time::default()),
            Message::ReplayCommands(ReplayCommands { part, .. })
            | Message::Splits(Splits { part, .. })
            | Message::Sketch(Sketch { part, .. })
            | Message::Unknown(Unknown { part, .. })
                if self.has_asked(part.request) =>
            {
                asked
            }
            Message::ReplayEnd(end) if self.has_asked(end.request) => asked,
            _ => Sent::default(),
        }
    }

    fn has_asked(&self, request: u64) -> bool {
        let mut pulls = [&self.pull, &self.reverse].into_iter().flatten();
        pulls.any(|pull| pull.has_request(request))
    }

    /// A message that is accepted, and its length without and with its seal.
    fn understood(
        &mut self,
        now: Now,
        node: NodeId,
        proof: Proof,
        message: Message<&[u8]>,
        (bare, length): (usize, usize),
    ) {
        let length = length as u64;
        let sent = self.sent(now, &message);
        let heard = self.taken_in(now);
        let known = self.peers.heard(node, proof == Proof::OtherIssuer, sent, heard);
        if known.is_none() {
            self.counters.repeated += 1;
        }
        if known == Some(false) {
            self.heard_stranger(now, node, &message);
        }
        match message {
            // What was asked for here names the request, which is as good as a challenge.
            Message::ReplayCommands(commands) => self.replay_commands(now, node, commands, length),
            Message::Splits(splits) => self.splits(now, node, splits, length),
            Message::Sketch(sketch) => self.sketch(now, node, sketch, length),
            Message::Unknown(unknown) => self.unknown(now, node, &unknown, length),
            Message::ReplayEnd(end) => self.replay_end(now, node, end),
            _ if known.is_none() => return,
            Message::ReplayRequest(request) => self.take_request(now, node, Request::Replay(request), length),
            Message::Compare(request) => self.take_request(now, node, Request::Compare(request), length),
            Message::Fetch(request) => self.take_request(now, node, Request::Fetch(request), length),
            Message::Survey(request) => self.take_request(now, node, Request::Survey(request), length),
            Message::SketchRequest(request) => self.take_request(now, node, Request::Symbols(request), length),
            Message::Exchange(request) => self.take_request(now, node, Request::Exchange(request), length),
            Message::FramesRequest(request) => self.take_request(now, node, Request::Frames(request), length),
            Message::Hello(hello) => self.hello(now, node, &hello),
            Message::Welcome(welcome) => self.welcome(now, node, welcome),
            // All else counts only from those who are known to be alive.
            _ if known == Some(false) => {}
            Message::Frame(frame) => self.frame_of_peer(now, node, frame, bare),
            Message::Beat(beat) => self.beat_of_peer(now, node, beat),
            Message::FramesGone(gone) => self.frames_gone(node, gone),
            Message::Ack(ack) => self.ack_of_peer(node, ack),
            _ => {}
        }
        self.challenge(now, node);
    }

    fn malformed(&mut self, now: Now, error: &WireError) {
        self.counters.malformed += 1;
        if let Some(suppressed) = self.logs.malformed.pass(now.mono) {
            tracing::warn!(%error, suppressed, "dropped a message that is not of this protocol");
        }
    }
}
