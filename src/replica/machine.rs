//! The state machine of one node.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::fragments::{self, Assembler};
use super::peers::{Peer, Peers};
use super::pull::{Progress, Pull, Purpose};
use super::serve;
use super::status::{Counters, Status, SyncState};
use super::throttle::Throttle;
use super::wire::{
    Beat, BeatState, Chunk, Chunker, Frame, Message, ReplayCommands, ReplayEnd, ReplayRequest, WireError,
    ENVELOPE_BYTES,
};
use super::Now;
use crate::cache::{Cache, Command, Digest, Millis, NodeId, Partition, Time, PARTITIONS};

/// Frames may arrive a little after the beat that announces them; only then are they missing.
const GAP_GRACE_MS: Millis = 300;

/// Newcomers are answered by a beat, but never more often than this.
const WELCOME_MS: Millis = 100;

/// A beat goes out this many times slower for each further block of peers, so that a large lattice is not busy with
/// beats alone.
const PEERS_PER_SLOWDOWN: u64 = 32;

/// While one of two nodes has forgotten older deletions than the other, their digests differ for no reason. A difference
/// that stays for this many beat intervals is looked at all the same.
const FLOOR_PATIENCE: u64 = 30;

/// Larger frames do not travel faster, but delay what comes after them.
const MAX_FRAME_BYTES: usize = 256 << 10;

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
}

/// The numbers a replica has used. One that takes over for another of the same process goes on after them, so that no
/// frame or request number is used twice under one node id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Numbers {
    /// Newest frame.
    pub seq: u64,
    /// Newest request or fragmented message.
    pub id: u64,
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
    /// Nobody listens where the replay request `request` was sent.
    NoResponders {
        /// Number of the request.
        request: u64,
    },
    /// Commands of local writes, in order. They are in the cache already.
    Local(Vec<Command>),
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
}

/// Replication of one node.
///
/// The caller's contract: after each call of [`Replica::handle`] or [`Replica::tick`], perform everything
/// [`Replica::poll_output`] returns, in order, until it returns `None`; then call `tick` no later than
/// [`Replica::poll_timeout`] says. `now.mono` never goes back.
pub struct Replica {
    cache: Arc<Cache>,
    config: Config,
    outputs: VecDeque<Output>,
    connected: bool,
    started: Option<Millis>,
    synced: bool,
    /// When the first replay began.
    replay_began: Millis,
    max_message: usize,
    seq: u64,
    next_id: u64,
    next_beat: Millis,
    last_beat: Millis,
    peers: Peers,
    pull: Option<Pull>,
    /// Something of a peer that is gone is missing here: compare with any other.
    orphaned: bool,
    next_comparison: Millis,
    assembler: Assembler,
    counters: Counters,
    malformed_log: Throttle,
    refused_log: Throttle,
}

impl Replica {
    /// A replica of `cache` that has not been connected yet. `numbers` are those of a replica it takes over from.
    pub fn new(cache: Arc<Cache>, config: Config, numbers: Numbers) -> Self {
        Replica {
            cache,
            config,
            outputs: VecDeque::new(),
            connected: false,
            started: None,
            synced: false,
            replay_began: 0,
            max_message: 64 << 10,
            seq: numbers.seq,
            next_id: numbers.id,
            next_beat: 0,
            last_beat: 0,
            peers: Peers::default(),
            pull: None,
            orphaned: false,
            next_comparison: 0,
            assembler: Assembler::default(),
            counters: Counters::default(),
            malformed_log: Throttle::default(),
            refused_log: Throttle::default(),
        }
    }

    /// The numbers used so far.
    pub fn numbers(&self) -> Numbers {
        Numbers {
            seq: self.seq,
            id: self.next_id,
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.started.get_or_insert(now.mono);
        match input {
            Input::Connected { max_payload } => self.connect(now, max_payload),
            Input::Disconnected => self.disconnect(now),
            Input::MessagesLost => self.peers.doubt_all(now.mono),
            Input::Message(bytes) => self.message(now, bytes),
            Input::NoResponders { request } => self.no_responders(now, request),
            Input::Local(commands) => self.publish_commands(&commands),
            Input::Leaving => self.beat(now, BeatState::Leaving),
        }
        self.request_ranges(now);
    }

    /// Does what is due at `now`.
    pub fn tick(&mut self, now: Now) {
        self.started.get_or_insert(now.mono);
        self.assembler.expire(now.mono);
        for node in self.peers.silent(now.mono) {
            tracing::info!(peer = %node, "peer is silent and counts as gone");
            self.orphaned |= self.peers.remove(node);
        }
        if let Some(progress) = self.pull.as_mut().map(|pull| pull.tick(now.mono)) {
            self.pull_progress(now, progress);
        }
        if self.connected && now.mono >= self.next_beat {
            self.beat(
                now,
                if self.synced {
                    BeatState::Synced
                } else {
                    BeatState::Starting
                },
            );
        }
        self.repair(now);
        self.request_ranges(now);
    }

    /// The next thing to do, if any.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Replica::tick`] has to be called, in milliseconds of the monotonic clock. After a tick it lies ahead.
    pub fn poll_timeout(&self) -> Millis {
        if !self.connected {
            return Millis::MAX;
        }
        let gaps = || {
            self.peers
                .iter()
                .filter_map(|(_, peer)| peer.gap_since)
                .map(|since| since + GAP_GRACE_MS)
                .min()
        };
        // A gap is looked at only when the first replay is done and no pull is under way.
        let wake = match &self.pull {
            Some(pull) => pull.deadline(),
            None if self.synced => gaps(),
            None => None,
        };
        wake.map_or(self.next_beat, |wake| wake.min(self.next_beat))
    }

    /// Progress of the first replay, and whether the lattice can be reached.
    pub fn sync_state(&self, now: Now) -> SyncState {
        let waited = self.started.map_or(0, |started| now.mono.saturating_sub(started));
        match (self.synced, self.connected) {
            (true, true) => SyncState::Synced,
            (true, false) => SyncState::Disconnected,
            (false, _) if waited >= self.config.sync_limit_ms => SyncState::Unsynced,
            (false, _) => SyncState::Starting,
        }
    }

    /// What can be said of this node at `now`.
    pub fn status(&self, now: Now) -> Status {
        Status {
            sync: self.sync_state(now),
            peers: self.peers.status(),
            counters: self.counters,
        }
    }

    // --- connection

    fn connect(&mut self, now: Now, max_payload: usize) {
        self.connected = true;
        self.max_message = max_payload;
        self.next_beat = now.mono;
        if !self.synced {
            self.replay_began = now.mono;
            self.pull = Some(Pull::new(Purpose::FirstReplay));
        }
        self.tick(now);
    }

    fn disconnect(&mut self, now: Now) {
        self.connected = false;
        self.pull = None;
        self.outputs.retain(|output| matches!(output, Output::AnswerReplays));
        self.peers.doubt_all(now.mono);
    }

    fn publish(&mut self, to: Target, message: Bytes) {
        if !self.connected {
            return;
        }
        let id = self.fresh_id();
        for payload in fragments::split(self.cache.node(), id, message, self.max_message) {
            self.outputs.push_back(Output::Publish { to, payload });
        }
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    // --- own commands and beats

    /// Sends commands as frames. While NATS is away they are not kept: the number of the frame they would have had
    /// stays missing, and peers fetch by digest what they do not have.
    fn publish_commands(&mut self, commands: &[Command]) {
        if !self.connected {
            self.seq += 1;
            self.counters.commands_unsent += commands.len() as u64;
            return;
        }
        let mut chunker = Chunker::new(self.frame_bytes());
        for command in commands {
            if let Some(chunk) = chunker.push(command) {
                self.frame(chunk);
            }
        }
        if let Some(chunk) = chunker.finish() {
            self.frame(chunk);
        }
    }

    fn frame(&mut self, chunk: Chunk) {
        self.seq += 1;
        self.counters.frames_sent += 1;
        self.counters.commands_sent += chunk.count();
        let frame = chunk.into_frame(self.cache.node(), self.seq, self.cache.clock().latest());
        self.publish(Target::Commands, frame);
    }

    fn frame_bytes(&self) -> usize {
        self.max_message.saturating_sub(ENVELOPE_BYTES).min(MAX_FRAME_BYTES)
    }

    fn beat(&mut self, now: Now, state: BeatState) {
        let interval_ms = self.config.beat_interval_ms * (1 + self.peers.len() as u64 / PEERS_PER_SLOWDOWN);
        self.last_beat = now.mono;
        self.next_beat = now.mono + interval_ms;
        let beat = Beat {
            node: self.cache.node(),
            host: self.config.host.clone(),
            release: self.config.release.clone(),
            seq: self.seq,
            digest: self.cache.root_digest(),
            keys: self.cache.keys(),
            clock: self.cache.clock().latest(),
            floor: self.cache.floor(),
            state,
            interval_ms,
        };
        self.publish(Target::Beat, Message::Beat(beat).encode());
    }

    // --- messages of peers

    fn message(&mut self, now: Now, bytes: Bytes) {
        let length = bytes.len() as u64;
        match Message::decode(bytes) {
            Ok(Message::Fragment(fragment)) => {
                // A message in fragments is no fragment itself, so this goes no deeper than one level.
                if let Some(whole) = self.assembler.add(fragment, now.mono) {
                    let length = whole.len() as u64;
                    match Message::decode(whole) {
                        Ok(Message::Fragment(_)) => self.malformed(now, &WireError::Malformed("fragment of fragments")),
                        Ok(message) => self.understood(now, message, length),
                        Err(error) => self.malformed(now, &error),
                    }
                }
            }
            Ok(message) => self.understood(now, message, length),
            Err(error) => self.malformed(now, &error),
        }
    }

    fn understood(&mut self, now: Now, message: Message, length: u64) {
        match message {
            Message::Frame(frame) if frame.node != self.cache.node() => self.frame_of_peer(now, frame),
            Message::Beat(beat) if beat.node != self.cache.node() => self.beat_of_peer(now, beat),
            Message::ReplayRequest(request) if request.node != self.cache.node() => self.serve(now, &request),
            Message::ReplayCommands(replay) => self.replay_commands(now, replay, length),
            Message::ReplayEnd(end) => self.replay_end(now, end),
            // This node's own messages, should they come back.
            _ => {}
        }
    }

    fn malformed(&mut self, now: Now, error: &WireError) {
        self.counters.malformed += 1;
        if let Some(suppressed) = self.malformed_log.pass(now.mono) {
            tracing::warn!(%error, suppressed, "dropped a message that is not of this protocol");
        }
    }

    fn frame_of_peer(&mut self, now: Now, frame: Frame) {
        self.counters.frames_received += 1;
        self.apply(now, &frame.commands, frame.clock);
        if let Some(peer) = self.peers.heard(frame.node, now.mono) {
            peer.arrived(frame.seq, now.mono);
        }
    }

    fn apply(&mut self, now: Now, commands: &[Command], clock: Time) {
        self.observe(now, clock);
        self.counters.commands_received += commands.len() as u64;
        for command in commands {
            if let Err(error) = self.cache.apply(command, now.wall) {
                self.counters.refused += 1;
                if let Some(suppressed) = self.refused_log.pass(now.mono) {
                    tracing::warn!(%error, suppressed, "refused a command of a peer; check the clocks of the hosts");
                }
            }
        }
    }

    /// Follows a peer's clock, unless it is too far ahead to be right.
    fn observe(&self, now: Now, clock: Time) {
        if clock.millis() <= now.wall.saturating_add(self.cache.limits().max_clock_skew_ms) {
            self.cache.clock().observe(clock);
        }
    }

    fn beat_of_peer(&mut self, now: Now, beat: Beat) {
        if beat.state == BeatState::Leaving {
            tracing::info!(peer = %beat.node, host = %beat.host, "peer leaves");
            self.peers.heard(beat.node, now.mono);
            self.peers
                .beat(beat.clone(), self.cache.root_digest(), self.cache.floor(), now.mono);
            self.orphaned |= self.peers.remove(beat.node);
            return;
        }
        self.observe(now, beat.clock);
        self.follow_floor(now, beat.floor);
        if !self.peers.knows(beat.node) {
            // A newcomer learns who is there without waiting for the next turn.
            self.next_beat = self.next_beat.min(self.last_beat + WELCOME_MS);
        }
        self.peers
            .beat(beat, self.cache.root_digest(), self.cache.floor(), now.mono);
        self.repair(now);
    }

    /// A peer has collected deletions up to `floor`; so does this node, within what its own settings allow.
    fn follow_floor(&self, now: Now, floor: Time) {
        let limits = self.cache.limits();
        let newest = now
            .wall
            .saturating_add(limits.max_clock_skew_ms)
            .saturating_sub(limits.tombstone_ttl_ms);
        if floor <= Time::from_millis(newest) {
            self.cache.raise_floor(floor);
        }
    }

    fn serve(&mut self, now: Now, request: &ReplayRequest) {
        self.counters.replays_served += 1;
        for message in serve::answer(&self.cache, request, self.seq, self.frame_bytes(), now) {
            self.publish(Target::Node(request.node), message);
        }
    }

    fn replay_commands(&mut self, now: Now, replay: ReplayCommands, length: u64) {
        self.counters.replay_bytes_received += length;
        self.counters.replay_commands_received += replay.commands.len() as u64;
        self.apply(now, &replay.commands, replay.clock);
        if let Some(progress) = self
            .pull
            .as_mut()
            .map(|pull| pull.commands(replay.request, replay.index, now.mono))
        {
            self.pull_progress(now, progress);
        }
    }

    fn replay_end(&mut self, now: Now, end: ReplayEnd) {
        if let Some(progress) = self.pull.as_mut().map(|pull| pull.end(end)) {
            self.pull_progress(now, progress);
        }
    }

    // --- pulling

    fn request_ranges(&mut self, now: Now) {
        while let Some((purpose, request, range)) = self.next_range(now) {
            let digests = (range.from..range.to).map(|partition| self.cache.digest(Partition(partition)));
            let message = Message::ReplayRequest(ReplayRequest {
                node: self.cache.node(),
                request,
                from: Partition(range.from),
                digests: digests.collect::<Vec<Digest>>(),
                settled_ms: match purpose {
                    Purpose::Difference(_) => self.settled_ms(),
                    _ => 0,
                },
            });
            let to = purpose.peer().map_or(Target::Replay { request }, Target::Node);
            self.publish(to, message.encode());
        }
    }

    fn next_range(&mut self, now: Now) -> Option<(Purpose, u64, super::pull::Range)> {
        let request = self.next_id + 1;
        let pull = self.pull.as_mut()?;
        // The fragments of a larger request could reach different peers of the replay group.
        let most = (self.max_message.saturating_sub(ENVELOPE_BYTES) / 8).clamp(1, PARTITIONS) as u16;
        let range = pull.next_request(request, most, now.mono)?;
        self.next_id = request;
        Some((pull.purpose, request, range))
    }

    /// A difference between partitions that have been at rest for this long is no write under way.
    fn settled_ms(&self) -> u64 {
        self.config.beat_interval_ms
    }

    fn no_responders(&mut self, now: Now, request: u64) {
        let Some(pull) = self.pull.take_if(|pull| pull.has_request(request)) else {
            return;
        };
        match pull.purpose {
            Purpose::FirstReplay if pull.answered => {
                tracing::warn!("the peers that answered the replay are gone; going on with what has arrived");
                self.become_synced(now);
            }
            Purpose::FirstReplay => {
                tracing::info!("no peer answers replays: first node of the lattice");
                self.become_synced(now);
            }
            Purpose::Gap(_) | Purpose::Orphan(_) | Purpose::Difference(_) => self.pull_failed(pull.purpose),
        }
    }

    fn pull_progress(&mut self, now: Now, progress: Progress) {
        if progress == Progress::Running {
            return;
        }
        let Some(pull) = self.pull.take() else { return };
        if progress == Progress::Failed {
            return self.pull_failed(pull.purpose);
        }
        self.counters.pulls += 1;
        for (node, seq) in pull.seqs {
            if let Some(peer) = self.peers.heard(node, now.mono) {
                peer.pulled(seq, now.mono);
            }
        }
        match pull.purpose {
            Purpose::FirstReplay => self.become_synced(now),
            Purpose::Gap(node) => tracing::info!(peer = %node, "repaired after missing frames"),
            Purpose::Orphan(node) => {
                self.orphaned = false;
                tracing::info!(peer = %node, "repaired after a peer went with frames missing here");
            }
            Purpose::Difference(node) => tracing::debug!(peer = %node, "compared partitions at rest"),
        }
    }

    fn become_synced(&mut self, now: Now) {
        if !self.synced {
            let took_ms = now.mono - self.replay_began;
            tracing::info!(
                "synced keys={} took_ms={took_ms} digest={}",
                self.cache.keys(),
                self.cache.root_digest()
            );
        }
        self.synced = true;
        self.next_beat = now.mono;
        self.outputs.push_back(Output::AnswerReplays);
    }

    /// The peer did not answer. It is asked again when it shows life; if it does not, it counts as gone.
    fn pull_failed(&mut self, purpose: Purpose) {
        if let Some(peer) = purpose.peer().and_then(|node| self.peers.get_mut(node)) {
            tracing::warn!(peer = ?purpose.peer(), "peer does not answer replay requests");
            peer.gap_since = None;
            peer.differs_since = None;
        }
    }

    /// Starts a pull where something is missing and none is under way.
    fn repair(&mut self, now: Now) {
        if !self.connected || !self.synced || self.pull.is_some() {
            return;
        }
        let found = self.gap(now).or_else(|| self.orphan()).or_else(|| self.difference(now));
        let Some(purpose) = found else { return };
        if matches!(purpose, Purpose::Difference(_)) {
            self.next_comparison = now.mono + 2 * self.config.beat_interval_ms;
        }
        self.pull = Some(Pull::new(purpose));
    }

    fn gap(&self, now: Now) -> Option<Purpose> {
        let missing = |since: Option<Millis>| since.is_some_and(|since| now.mono >= since + GAP_GRACE_MS);
        self.peers
            .iter()
            .find(|(_, peer)| missing(peer.gap_since))
            .map(|(node, _)| Purpose::Gap(node))
    }

    fn orphan(&self) -> Option<Purpose> {
        let mut synced = self.peers.iter().filter(|(_, peer)| peer.synced());
        synced
            .next()
            .filter(|_| self.orphaned)
            .map(|(node, _)| Purpose::Orphan(node))
    }

    fn difference(&self, now: Now) -> Option<Purpose> {
        let interval = self.config.beat_interval_ms;
        let stays = |peer: &Peer| {
            let patience = if peer.floor_agrees {
                interval
            } else {
                interval * FLOOR_PATIENCE
            };
            peer.differs_since.is_some_and(|since| now.mono >= since + patience)
        };
        let mut different = self.peers.iter().filter(|(_, peer)| stays(peer));
        different
            .next()
            .filter(|_| now.mono >= self.next_comparison)
            .map(|(node, _)| Purpose::Difference(node))
    }
}
