//! Bounds on what strangers can cause as often as they like: log lines, challenges, checks of signatures.

use crate::cache::Millis;

const INTERVAL_MS: Millis = 10_000;

/// At most one log line per interval.
#[derive(Default)]
pub(crate) struct Throttle {
    next: Millis,
    suppressed: u64,
}

impl Throttle {
    /// `Some(how many were suppressed since the last line)` if a line may be written now.
    pub fn pass(&mut self, now: Millis) -> Option<u64> {
        if now < self.next {
            self.suppressed += 1;
            return None;
        }
        self.next = now + INTERVAL_MS;
        Some(std::mem::take(&mut self.suppressed))
    }
}

const MINUTE_MS: u64 = 60_000;

/// So many things per minute, and some at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Budget {
    per_minute: u64,
    burst: u64,
    /// What was used up and has not come back yet, in parts of one per minute and millisecond.
    used: u64,
    at: Millis,
}

impl Budget {
    pub const fn new(per_minute: u64, burst: u64) -> Self {
        Budget {
            per_minute,
            burst,
            used: 0,
            at: 0,
        }
    }

    pub const fn per_second(number: u64, burst: u64) -> Self {
        Budget::new(60 * number, burst)
    }

    /// Takes one, if one is left.
    pub fn take(&mut self, now: Millis) -> bool {
        let left = self.is_left(now);
        if left {
            self.used += MINUTE_MS;
        }
        left
    }

    /// Whether one is left.
    pub fn is_left(&mut self, now: Millis) -> bool {
        self.pass_time(now);
        self.used + MINUTE_MS <= self.burst * MINUTE_MS
    }

    /// When one is left.
    pub fn next(&self) -> Millis {
        let over = (self.used + MINUTE_MS).saturating_sub(self.burst * MINUTE_MS);
        self.at + over.div_ceil(self.per_minute.max(1))
    }

    fn pass_time(&mut self, now: Millis) {
        let passed = now.saturating_sub(self.at);
        self.used = self.used.saturating_sub(passed.saturating_mul(self.per_minute));
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_allows_a_burst_and_then_its_rate() {
        let mut budget = Budget::per_second(100, 20);
        let taken = |budget: &mut Budget, now| {
            std::iter::repeat_with(|| budget.take(now))
                .take_while(|left| *left)
                .count()
        };
        assert_eq!(taken(&mut budget, 5_000), 20);
        assert_eq!(budget.next(), 5_010);
        assert_eq!(taken(&mut budget, 5_009), 0);
        assert_eq!(taken(&mut budget, 5_010), 1);
        assert_eq!(taken(&mut budget, 5_100), 9);
        assert_eq!(taken(&mut budget, 100_000), 20);
        let mut slow = Budget::new(6, 1);
        assert!(slow.take(0) && !slow.take(9_999) && slow.take(10_000));
    }
}
