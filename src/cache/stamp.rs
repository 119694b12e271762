//! Hybrid logical clock stamps (Kulkarni, Demirbas et al., "Logical Physical Clocks", OPODIS 2014).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Milliseconds since the Unix epoch.
pub type Millis = u64;

/// Bits of a stamp's time that count operations within one millisecond.
const COUNTER_BITS: u32 = 16;

/// Identity of one process start. Fresh for each start, so that a restarted process never continues old counters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hybrid logical time: 48 bits of milliseconds, 16 bits of counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    /// The first time of a millisecond.
    pub const fn from_millis(millis: Millis) -> Self {
        Time(millis << COUNTER_BITS)
    }

    /// The millisecond of this time.
    pub const fn millis(self) -> Millis {
        self.0 >> COUNTER_BITS
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.millis(), self.0 & ((1 << COUNTER_BITS) - 1))
    }
}

/// Totally ordered, unique name of one write: when, then who.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp {
    /// Hybrid logical time of the write.
    pub time: Time,
    /// The process that wrote.
    pub node: NodeId,
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{:?}", self.time, self.node)
    }
}

/// The hybrid logical clock of one process. It never goes back and jumps forward on receipt of a later stamp.
#[derive(Debug)]
pub struct Clock {
    node: NodeId,
    last: AtomicU64,
}

impl Clock {
    /// A clock of `node` that has seen nothing yet.
    pub fn new(node: NodeId) -> Self {
        Clock {
            node,
            last: AtomicU64::new(0),
        }
    }

    /// The process this clock belongs to.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// A stamp above every stamp given out or observed so far, and not before `now`.
    pub fn tick(&self, now: Millis) -> Stamp {
        let floor = Time::from_millis(now).0;
        let next = |last: u64| (last + 1).max(floor);
        // The closure never refuses, so both arms hold the previous time.
        let last = match self
            .last
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)))
        {
            Ok(last) | Err(last) => last,
        };
        Stamp {
            time: Time(next(last)),
            node: self.node,
        }
    }

    /// Takes note of a time seen elsewhere; later stamps of this clock are above it.
    pub fn observe(&self, time: Time) {
        if self.last.load(Ordering::Relaxed) < time.0 {
            self.last.fetch_max(time.0, Ordering::Relaxed);
        }
    }

    /// Newest time given out or observed.
    pub fn latest(&self) -> Time {
        Time(self.last.load(Ordering::Relaxed))
    }

    /// The current hybrid time in milliseconds: the wall clock, unless a peer is ahead of it.
    pub fn now(&self, now: Millis) -> Millis {
        now.max(self.latest().millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_grow_although_the_wall_clock_goes_back() {
        let clock = Clock::new(NodeId(1));
        let first = clock.tick(1_000);
        let second = clock.tick(10);
        assert!(second > first);
        assert_eq!(second.time.millis(), 1_000);
    }

    #[test]
    fn a_seen_stamp_pushes_the_clock_forward() {
        let clock = Clock::new(NodeId(1));
        clock.observe(Time::from_millis(5_000));
        assert!(clock.tick(1_000).time > Time::from_millis(5_000));
        assert_eq!(clock.now(1_000), 5_000);
    }
}
