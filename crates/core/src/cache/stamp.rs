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

impl Stamp {
    /// This stamp, or if `other` is newer, the next one of the same node after that.
    pub(super) fn above(self, other: Stamp) -> Self {
        match self > other {
            true => self,
            false => Stamp {
                time: Time(other.time.0.saturating_add(1)),
                node: self.node,
            },
        }
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{:?}", self.time, self.node)
    }
}

/// The hybrid logical clock of one process. It jumps forward on receipt of a later stamp, and goes back only where it
/// is further ahead of the wall clock than clocks may differ: then the wall clock was ahead before, and peers refuse
/// what is stamped so. The keys that were written meanwhile keep their order all the same: a write is stamped above all
/// that its key holds (docs/ARCHITECTURE.md, "Stamps").
#[derive(Debug)]
pub struct Clock {
    node: NodeId,
    /// How much clocks may differ.
    max_skew_ms: Millis,
    last: AtomicU64,
    /// The newest time it was set back from.
    stray: AtomicU64,
    /// See [`Clock::compare_with`].
    others: [AtomicU64; 2],
}

impl Clock {
    /// A clock of `node` that has seen nothing yet. Those of other nodes differ by `max_skew_ms` at most, if all are
    /// right.
    pub fn new(node: NodeId, max_skew_ms: Millis) -> Self {
        Clock {
            node,
            max_skew_ms,
            last: AtomicU64::new(0),
            stray: AtomicU64::new(0),
            others: [AtomicU64::new(0), AtomicU64::new(0)],
        }
    }

    /// The process this clock belongs to.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// A stamp above every stamp given out or observed so far, unless the clock is set back, and not before `now`.
    pub fn tick(&self, now: Millis) -> Stamp {
        let floor = Time::from_millis(now).0;
        let mut time = 0;
        // The closure never refuses, so both arms hold the previous time.
        let last = match self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
            let before = if self.is_stray(Time(last), now) { 0 } else { last };
            time = (before + 1).max(floor);
            Some(time)
        }) {
            Ok(last) | Err(last) => last,
        };
        if time <= last {
            self.stray.fetch_max(last, Ordering::Relaxed);
        }
        Stamp {
            time: Time(time),
            node: self.node,
        }
    }

    /// Sets the clock back if it is further ahead of the wall clock than it may be.
    pub fn mend(&self, now: Millis) {
        if !self.is_stray(self.latest(), now) {
            return;
        }
        let back = |last: u64| self.is_stray(Time(last), now).then(|| Time::from_millis(now).0);
        let done = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, back);
        if let Ok(last) = done {
            self.stray.fetch_max(last, Ordering::Relaxed);
        }
    }

    /// Whether a time is further ahead of the wall clock than clocks may differ, and that is not the fault of the wall
    /// clock.
    fn is_stray(&self, time: Time, now: Millis) -> bool {
        let latest = now.saturating_add(self.max_skew_ms);
        time.millis() > latest && self.others[1].load(Ordering::Relaxed) <= latest
    }

    /// What the clocks of others say: half of all nodes and more have `least` as the time or an earlier one, and half
    /// and more have `most` or a later one. 0 while nobody is known. A wall clock that so many are ahead of is behind,
    /// so this clock is not set back to it.
    pub fn compare_with(&self, [least, most]: [Millis; 2]) {
        self.others[0].store(least, Ordering::Relaxed);
        self.others[1].store(most, Ordering::Relaxed);
    }

    /// The newest time that the clock was set back from, or the zero time. Somewhere there may be stamps up to there.
    pub fn stray(&self) -> Time {
        Time(self.stray.load(Ordering::Relaxed))
    }

    /// Takes note of a time seen elsewhere; later stamps of this clock are above it.
    pub fn observe(&self, time: Time) {
        if self.last.load(Ordering::Relaxed) < time.0 {
            self.last.fetch_max(time.0, Ordering::Relaxed);
        }
    }

    /// Newest time given out or observed, or the one that the clock was set back to.
    pub fn latest(&self) -> Time {
        Time(self.last.load(Ordering::Relaxed))
    }

    /// The current hybrid time in milliseconds: the wall clock, unless a peer is ahead of it.
    pub fn now(&self, now: Millis) -> Millis {
        let latest = self.latest();
        match latest.millis() > now && !self.is_stray(latest, now) {
            true => latest.millis(),
            false => now,
        }
    }

    /// The same, as far as most of the others may have that time as well: what is given up for good waits for that.
    pub(super) fn certain(&self, now: Millis) -> Millis {
        let least = self.others[0].load(Ordering::Relaxed);
        let latest = match least {
            0 => Millis::MAX,
            least => least.saturating_add(self.max_skew_ms),
        };
        self.now(now).min(latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How much clocks may differ.
    const SKEW: Millis = 10_000;

    const DAY: Millis = 86_400_000;

    fn clock() -> Clock {
        Clock::new(NodeId(1), SKEW)
    }

    #[test]
    fn stamps_grow_although_the_wall_clock_goes_back() {
        let clock = clock();
        let first = clock.tick(11_000);
        let second = clock.tick(1_000);
        assert!(second > first);
        assert_eq!(second.time.millis(), 11_000);
    }

    #[test]
    fn a_seen_stamp_pushes_the_clock_forward() {
        let clock = clock();
        clock.observe(Time::from_millis(5_000));
        assert!(clock.tick(1_000).time > Time::from_millis(5_000));
        assert_eq!(clock.now(1_000), 5_000);
    }

    #[test]
    fn what_is_further_ahead_than_clocks_may_differ_is_set_back() {
        for mend in [false, true] {
            let clock = clock();
            let ahead = clock.tick(1_000 + DAY);
            assert_eq!(clock.now(2_000), 2_000, "readers do not wait for a writer");
            if mend {
                clock.mend(2_000);
            }
            let (first, second) = (clock.tick(2_000), clock.tick(2_000));
            assert_eq!(first.time.millis(), 2_000);
            assert!(second > first);
            assert_eq!(clock.stray(), ahead.time);
        }
    }

    #[test]
    fn a_wall_clock_that_most_others_are_ahead_of_is_not_believed() {
        let clock = clock();
        let last = clock.tick(1_000 + DAY);
        clock.compare_with([1_000, 1_000 + DAY]);
        clock.mend(1_000);
        assert!(clock.tick(1_000) > last);
        assert_eq!(clock.now(1_000), last.time.millis());
        assert_eq!(clock.stray(), Time::default());
        clock.compare_with([1_000, 1_000 + SKEW]);
        assert_eq!(clock.tick(1_000).time.millis(), 1_000);
    }

    #[test]
    fn nothing_is_given_up_while_most_others_are_behind() {
        let clock = clock();
        assert_eq!(clock.certain(DAY), DAY);
        clock.compare_with([1_000, DAY]);
        assert_eq!((clock.now(DAY), clock.certain(DAY)), (DAY, 1_000 + SKEW));
    }
}
