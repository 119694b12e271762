//! When this node's next heartbeat goes out.

use crate::cache::Millis;

/// A heartbeat that was asked for comes at once, but never more often than this.
pub(crate) const EARLY_HEARTBEAT_MS: Millis = 100;

/// A node that was silent for this many of its intervals may be without contact.
pub(crate) const PRESENT_HEARTBEATS: u64 = 3;

/// A heartbeat goes out this many times slower for each further block of peers, so that a large lattice is not busy
/// with heartbeats alone.
const PEERS_PER_SLOWDOWN: u64 = 32;

/// The times of a node's heartbeats, in milliseconds of the monotonic clock.
#[derive(Default)]
pub(crate) struct Heartbeats {
    next: Millis,
    last: Millis,
    /// The next one asks peers for theirs.
    asks: bool,
}

impl Heartbeats {
    /// The time between two, with so many peers.
    pub fn interval(configured: Millis, peers: usize) -> Millis {
        configured * (1 + peers as u64 / PEERS_PER_SLOWDOWN)
    }

    pub fn next(&self) -> Millis {
        self.next
    }

    pub fn last(&self) -> Millis {
        self.last
    }

    /// Whether the next one asks peers for theirs.
    pub fn asks(&self) -> bool {
        self.asks
    }

    pub fn sent(&mut self, now: Millis, interval: Millis) {
        self.last = now;
        self.next = now + interval;
        self.asks = false;
    }

    /// The next one is due now: it says something new.
    pub fn hurry(&mut self, now: Millis) {
        self.next = now;
    }

    /// Messages may have been missed: the heartbeats of the peers will tell which.
    pub fn ask(&mut self, now: Millis) {
        self.asks = true;
        self.next = now.max(self.last + EARLY_HEARTBEAT_MS);
    }

    /// A peer asks for one. It comes `spread` later than it could, as other peers were asked too.
    pub fn asked(&mut self, now: Millis, spread: Millis) {
        let soon = (self.last + EARLY_HEARTBEAT_MS + spread).max(now);
        self.next = self.next.min(soon);
    }
}
