//! Writes that wait until peers have confirmed them.

use std::collections::VecDeque;

use crate::cache::{Millis, NodeId};

/// How many peers have to confirm a write before it is answered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum AckLevel {
    /// None: the write is answered when it is applied here and queued.
    #[default]
    Local,
    /// This many.
    Peers(u32),
    /// All peers that are alive when the write leaves, but for those that go while it waits.
    All,
}

/// Asks to be told when deltas are confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AckRequest {
    /// Names the answer.
    pub id: u64,
    /// Who has to confirm.
    pub wanted: AckLevel,
    /// Until when, in milliseconds of the monotonic clock.
    pub deadline: Millis,
}

/// Not enough peers have confirmed in time. The write is applied here and goes on replicating.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unconfirmed {
    /// How many have.
    pub confirmed: usize,
    /// Live peers that have not, by the name of their host.
    pub missing: Vec<String>,
    /// NATS is away.
    pub disconnected: bool,
}

/// Between the first sending of a frame and its repetition to those who have not confirmed, beside twice what
/// confirmations take; doubled each time.
const RESEND_MS: Millis = 150;

/// The longest time between two repetitions, beside twice what confirmations take: where frames are lost, that is
/// longer than the way.
const MAX_RESEND_MS: Millis = 600;

/// Longest time for a confirmation that is gone by.
const MAX_TOOK_MS: Millis = 1_000;

#[derive(Debug)]
pub(crate) struct Waiter {
    pub id: u64,
    pub wanted: AckLevel,
    /// Frames that hold the deltas.
    pub first: u64,
    pub last: u64,
    /// Peers alive when they left, less those at the end that need not be waited for any more.
    pub peers: Vec<NodeId>,
    pub deadline: Millis,
    asked_at: Millis,
    resend_at: Millis,
    resend_after: Millis,
}

/// All waiting writes, oldest first.
#[derive(Default, Debug)]
pub(crate) struct PendingWrites {
    waiters: VecDeque<Waiter>,
    /// How long confirmations take: the longest lately.
    took: Millis,
}

impl PendingWrites {
    pub fn wait(&mut self, request: AckRequest, first: u64, last: u64, peers: Vec<NodeId>, now: Millis) {
        let resend_after = RESEND_MS + 2 * self.took;
        self.waiters.push_back(Waiter {
            id: request.id,
            wanted: request.wanted,
            first,
            last,
            peers,
            deadline: request.deadline,
            asked_at: now,
            resend_at: now + resend_after,
            resend_after,
        });
    }

    /// Peers that were not known when the writes were made, and have to confirm them all the same.
    pub fn also_wait_for(&mut self, peers: &[NodeId]) {
        for waiter in &mut self.waiters {
            let new: Vec<NodeId> = peers
                .iter()
                .filter(|peer| !waiter.peers.contains(peer))
                .copied()
                .collect();
            waiter.peers.extend(new);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Takes out those for which `done` holds, among those that wait for frames up to `last`.
    pub fn take(&mut self, last: u64, mut done: impl FnMut(&mut Waiter) -> bool) -> Vec<Waiter> {
        let end = self.waiters.partition_point(|waiter| waiter.first <= last);
        let (mut taken, mut kept) = (Vec::new(), VecDeque::new());
        for mut waiter in self.waiters.drain(..end) {
            if done(&mut waiter) {
                taken.push(waiter);
            } else {
                kept.push_back(waiter);
            }
        }
        kept.append(&mut self.waiters);
        self.waiters = kept;
        taken
    }

    /// Writes were confirmed.
    pub fn confirmed(&mut self, waiters: &[Waiter], now: Millis) {
        if let Some(took) = waiters.iter().map(|waiter| now - waiter.asked_at).max() {
            self.took = took.max(self.took - self.took / 8).min(MAX_TOOK_MS);
        }
    }

    /// Runs of frames that are due to be sent again, and to whom at most.
    pub fn due(&mut self, now: Millis) -> Vec<(u64, u64, Vec<NodeId>)> {
        let mut due: Vec<(u64, u64, Vec<NodeId>)> = Vec::new();
        let most = MAX_RESEND_MS + 2 * self.took;
        for waiter in self.waiters.iter_mut().filter(|waiter| now >= waiter.resend_at) {
            waiter.resend_after = (2 * waiter.resend_after).min(most);
            waiter.resend_at = now + waiter.resend_after;
            // Writes of one batch share their frames.
            if due
                .last()
                .is_none_or(|(first, last, _)| (*first, *last) != (waiter.first, waiter.last))
            {
                due.push((waiter.first, waiter.last, waiter.peers.clone()));
            }
        }
        due
    }

    /// When something has to be done. Nothing is sent again while there is no connection.
    pub fn deadline(&self, connected: bool) -> Option<Millis> {
        let due = |waiter: &Waiter| match connected {
            true => waiter.resend_at.min(waiter.deadline),
            false => waiter.deadline,
        };
        self.waiters.iter().map(due).min()
    }
}
