//! The state machine of one node: inputs, outputs, and which part of the protocol each message belongs to.

use std::sync::Arc;

use super::io::{Handover, Input, Output, ReplicaConfig, Start};
use super::parts::bootstrap::{Bootstrap, Phase};
use super::parts::budgets::{Budgets, Logs};
use super::parts::calls::Calls;
use super::parts::clocks::Clocks;
use super::parts::delay::Delay;
use super::parts::foreign::ForeignNodes;
use super::parts::fragments::Assembler;
use super::parts::heartbeats::{Heartbeats, PRESENT_HEARTBEATS};
use super::parts::jobs::Jobs;
use super::parts::lineage::{Lineage, OwnLineage};
use super::parts::now::Now;
use super::parts::outbox::Outbox;
use super::parts::own_frames::OwnFrames;
use super::parts::peers::Peers;
use super::parts::pending_writes::PendingWrites;
use super::parts::pull::Pull;
use super::parts::pulls::Pulls;
use super::parts::schedule::{Repair, Schedule};
use super::parts::search::Search;
use super::parts::status::{Counters, Status};
use super::parts::sync_state::SyncState;
use super::parts::task::Purpose;
use crate::cache::{Cache, Millis};
use crate::wire::{HeartbeatState, MAX_TEXT_BYTES};

/// Replication of one node.
///
/// The caller's contract: after each call of [`Replica::handle`] or [`Replica::tick`], perform everything
/// [`Replica::poll_output`] returns, in order, until it returns `None`; then call `tick` no later than
/// [`Replica::poll_timeout`] says. `now.mono` never goes back.
pub struct Replica {
    pub(super) cache: Arc<Cache>,
    pub(super) config: ReplicaConfig,
    pub(super) connected: bool,
    pub(super) calls: Calls,
    pub(super) outbox: Outbox,
    pub(super) bootstrap: Bootstrap,
    pub(super) lineage: OwnLineage,
    pub(super) heartbeats: Heartbeats,
    /// The wall clock of this host and those of the others.
    pub(super) clocks: Clocks,
    /// Whether anybody is there to have the state of.
    pub(super) search: Search,
    /// The state that was last told.
    pub(super) told: SyncState,
    pub(super) own_frames: OwnFrames,
    pub(super) pending: PendingWrites,
    pub(super) peers: Peers,
    pub(super) foreign: ForeignNodes,
    pub(super) pulls: Pulls,
    pub(super) schedule: Schedule,
    /// Whether what arrives has waited on its way.
    pub(super) delay: Delay,
    /// The partition whose counters are looked at next, whether they can be written shorter.
    pub(super) next_fold: u16,
    pub(super) assembler: Assembler,
    pub(super) counters: Counters,
    pub(super) logs: Logs,
    pub(super) budgets: Budgets,
    /// What peers have asked for and is not answered yet.
    pub(super) jobs: Jobs,
}

impl Replica {
    /// A replica of `cache` that has not been connected yet.
    pub fn new(cache: Arc<Cache>, mut config: ReplicaConfig, start: Start) -> Self {
        // Peers refuse a longer one, and with it the message that makes this node their peer.
        for name in [&mut config.host, &mut config.release] {
            let end = (0..=MAX_TEXT_BYTES).rev().find(|end| name.is_char_boundary(*end));
            name.truncate(end.unwrap_or(0));
        }
        let (seq, id, lineage) = match start {
            Start::Empty => (0, 0, OwnLineage::of(Lineage::default())),
            Start::Handover(Handover { seq, id, lineage }) => (seq, id, OwnLineage::of(lineage)),
            Start::Loaded(lineage) => (0, 0, OwnLineage::kept(lineage)),
        };
        Replica {
            cache,
            connected: false,
            calls: Calls::default(),
            outbox: Outbox::after(id),
            bootstrap: Bootstrap::default(),
            lineage,
            heartbeats: Heartbeats::default(),
            clocks: Clocks::default(),
            search: Search::default(),
            told: SyncState::Starting,
            own_frames: OwnFrames::after(seq, config.ring_bytes),
            pending: PendingWrites::default(),
            peers: Peers::default(),
            foreign: ForeignNodes::default(),
            pulls: Pulls::default(),
            schedule: Schedule::default(),
            delay: Delay::default(),
            next_fold: 0,
            assembler: Assembler::default(),
            counters: Counters::default(),
            logs: Logs::default(),
            budgets: Budgets::default(),
            jobs: Jobs::default(),
            config,
        }
    }

    /// What a replica that takes over from this one has to know.
    pub fn handover(&self) -> Handover {
        Handover {
            seq: self.own_frames.newest(),
            id: self.outbox.id(),
            lineage: self.lineage(),
        }
    }

    /// What has to be kept beside the state, if it is stored.
    pub fn lineage(&self) -> Lineage {
        self.lineage.get()
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.called(now);
        match input {
            Input::Connected { max_payload } => self.handle_connected(now, max_payload),
            Input::Disconnected => self.handle_disconnected(now),
            Input::MessagesLost => self.listen_again(now),
            Input::Message(bytes) => self.handle_message(now, bytes),
            Input::NoResponders { request } => self.handle_no_responders(now, request),
            Input::Refused { what, subject } => self.handle_refused(now, what, subject),
            Input::Local { deltas, acks } => self.handle_local(now, &deltas, acks),
            Input::Answered(answered) => self.handle_answered(now, answered),
            Input::Leaving => self.send_heartbeat(now, HeartbeatState::Leaving),
        }
        self.send_requests(now);
    }

    /// Tells, before a call of [`Replica::handle`] or [`Replica::tick`], when the oldest message arrived that waits to
    /// be handed over, the one of this call included; `None` if none waits. A peer whose messages may wait is not
    /// silent.
    pub fn behind_since(&mut self, arrived: Option<Millis>) {
        self.calls.behind_since(arrived);
    }

    /// All that arrived until then has been taken in.
    pub(super) fn taken_in(&self, now: Now) -> Millis {
        self.calls.taken_in(now.mono)
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
        if self.connected && now.mono >= self.heartbeats.next() {
            self.send_heartbeat(now, self.heartbeat_state());
            self.fold(now);
        }
        self.send_frame_requests(now);
        self.begin_repair(now);
        self.send_requests(now);
        self.tell(now);
    }

    /// The next thing to do, if any.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outbox.pop()
    }

    /// When [`Replica::tick`] has to be called, in milliseconds of the monotonic clock. After a tick it lies ahead.
    pub fn poll_timeout(&self) -> Millis {
        let acks = self.pending.deadline(self.connected);
        if !self.connected {
            return acks.unwrap_or(Millis::MAX);
        }
        [
            acks,
            self.bootstrap.settling(),
            self.passes_over_at(),
            self.pulls.deadline(),
            self.swallowed_at(),
            self.next_search(),
            self.next_challenge(),
            self.next_frames_request(),
        ]
        .into_iter()
        .flatten()
        .fold(self.heartbeats.next(), Millis::min)
    }

    /// Until when this node, if it is not called again, still counts as present with its peers and has everything they
    /// have told it to have: in milliseconds of the monotonic clock, 0 for now not at all.
    pub fn current_until(&self) -> Millis {
        let whole = self.peers.with_gaps().next().is_none() && !self.peers.any_unaware();
        let settled = self.bootstrap.is_synced() && self.bootstrap.settling().is_none() && self.is_whole();
        if !settled || !self.connected || !whole || self.heartbeats.asks() {
            return 0;
        }
        let present = self.heartbeats.last() + PRESENT_HEARTBEATS * self.heartbeat_interval();
        present.min(self.peers.present_until().unwrap_or(Millis::MAX))
    }

    /// Whether it answers bootstraps: it has the state of a peer, or there was none to have.
    pub fn has_joined(&self) -> bool {
        self.connected && self.bootstrap.is_synced()
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
            foreign: self.foreign.issuers(now.mono),
            counters: self.counters,
        }
    }

    /// Notices that the process was stopped (SIGSTOP, a suspended machine): what happened meanwhile was missed.
    fn called(&mut self, now: Now) {
        self.mend_clock(now);
        let last = self.calls.called(now.mono);
        if last > 0 && self.connected && now.mono.saturating_sub(last) > 3 * self.heartbeat_interval() {
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

    fn handle_connected(&mut self, now: Now, max_payload: usize) {
        self.connected = true;
        self.outbox.set_max_message(max_payload);
        self.lineage.connected(self.hybrid_now(now));
        self.hold_back(now);
        self.listen_again(now);
        // The way may be another one.
        self.pulls.pace_mut().reconnected();
        self.begin_search(now);
        self.attempt_all(now);
        if self.bootstrap.phase() == Phase::Bootstrapping {
            // What is here of a bootstrap that was interrupted is not asked for again, unless it may hold what was
            // deleted and forgotten meanwhile.
            let outdated = self.contact_is_old(now);
            let begun = self.pulls.own().is_some_and(|pull| pull.answered && !outdated);
            if !begun {
                self.bootstrap.begin(now.mono);
                self.pulls.start(Pull::new(Purpose::Bootstrap, now.mono));
            }
        }
        self.tick(now);
    }

    fn handle_disconnected(&mut self, now: Now) {
        self.connected = false;
        // What they would say by now is not known.
        self.look_at_clocks(now);
        if self.bootstrap.phase() == Phase::Resyncing {
            self.end_resync(now);
        }
        self.search.stop();
        if let Some(percent) = self.pulls.interrupted(self.bootstrap.phase() == Phase::Bootstrapping) {
            tracing::info!(percent, "the bootstrap is interrupted");
        }
        self.jobs.clear();
        self.outbox.drop_messages();
        self.peers.restart_silence(now.mono);
    }

    fn hold_back(&mut self, now: Now) {
        self.lineage.listens_from(self.hybrid_now(now));
        self.leave_bootstraps_to_others(now);
    }

    /// After an absence that may have been longer than deletions are remembered, others answer bootstraps first.
    pub(super) fn leave_bootstraps_to_others(&mut self, now: Now) {
        let present = self.cache.clock().now(now.wall);
        if self.lineage.was_away(present, self.cache.limits().tombstone_ttl_ms) {
            self.bootstrap.hold_back(now.mono);
        }
    }

    /// Messages may have been missed: the heartbeats of all peers will tell which.
    fn listen_again(&mut self, now: Now) {
        self.peers.restart_silence(now.mono);
        self.delay.listen_again(now.mono);
        self.heartbeats.ask(now.mono);
        let spread = self.spread(self.heartbeat_interval());
        self.schedule.not_before(Repair::Difference, now.mono + spread);
    }
}
