//! How fast answers come: how many bytes may be under way at a time, and how long to wait for them.
//!
//! What is under way waits in front of everything else that is sent to this node, its peers' heartbeats included. So
//! the window is what the way here carries in a part of a second, measured by the answers themselves: it grows with
//! each round as long as they come at once, and is cut to the rate that was measured when they do not.

use crate::cache::Millis;
use crate::wire::MAX_BUDGET;

/// Bytes under way before anything was measured: a second of 1 Mbit/s.
const FIRST_WINDOW: usize = 128 << 10;

/// Least bytes under way.
const MIN_WINDOW: usize = 32 << 10;

/// Most bytes under way.
const MAX_WINDOW: usize = 4 << 20;

/// The window is asked for in so many requests, so that one is answered while others travel.
const SHARES: usize = 4;

/// Least bytes asked for in one request: each costs some 300 bytes on its way there and back.
pub(crate) const MIN_BUDGET: usize = 16 << 10;

/// Bytes that the very first request asks for: what it takes is the way there and back.
const FIRST_BUDGET: usize = 4 << 10;

/// How long an answer may take longer than the way there and back.
const QUEUE_MS: Millis = 300;

/// An answer that takes no longer than this beside the way has waited behind nothing.
const NO_QUEUE_MS: Millis = QUEUE_MS / 4;

/// As long as none has waited, the window is far too small, and grows by so many times each answer instead of once.
const FAST_GROWTH: usize = 3;

/// A request without a word for this long is asked again, on a way that answers at once.
const PATIENCE_MS: Millis = 2_000;

/// Longest time for one answer that anything else goes by.
const MAX_TOOK_MS: Millis = 10_000;

/// Longest patience. It is a peer or a server that was stopped, and no way, that answers later than that; and what
/// comes later is taken all the same.
const MAX_PATIENCE_MS: Millis = 15_000;

/// A request that is on its way.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Asked {
    /// When it was sent.
    pub at: Millis,
    /// Bytes of answers that had arrived by then.
    delivered: u64,
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Pace {
    window: usize,
    /// No answer has waited behind others yet.
    opening: bool,
    /// Bytes of answers that have arrived.
    delivered: u64,
    /// Shortest time from a request to the first word of its answer.
    way: Option<Millis>,
    /// Time that a whole answer took: the longest lately.
    took: Millis,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            window: FIRST_WINDOW,
            opening: true,
            delivered: 0,
            way: None,
            took: 0,
        }
    }
}

impl Pace {
    /// The connection is a new one. Its way may carry more; whether it does is not known.
    pub fn reconnected(&mut self) {
        (self.window, self.opening, self.way) = (FIRST_WINDOW, true, None);
    }

    /// How long answers of some size take lately.
    pub fn took(&self) -> Millis {
        self.took.min(MAX_TOOK_MS)
    }

    /// Something that was asked for has come after so long.
    pub fn waited(&mut self, took: Millis) {
        self.took = took.max(self.took - self.took / 8);
    }

    /// How long so many bytes take at the rate that was measured.
    pub fn takes(&self, bytes: usize) -> Millis {
        let way = self.way.unwrap_or(0);
        bytes as Millis * (way + QUEUE_MS) / self.window as Millis
    }

    /// Bytes to ask for in the first request of all, while the way is not known.
    pub fn first_budget(&self) -> Option<usize> {
        self.way.is_none().then_some(FIRST_BUDGET)
    }

    /// Bytes to ask for in one request.
    pub fn budget(&self) -> usize {
        (self.window / SHARES).clamp(MIN_BUDGET, MAX_BUDGET)
    }

    /// Bytes to ask for where one request after the other is made, beside what is under way.
    pub fn room(&self, under_way: usize) -> usize {
        self.window.saturating_sub(under_way).max(self.budget()).min(MAX_BUDGET)
    }

    /// Whether a request of so many bytes may join what is under way.
    pub fn has_room(&self, under_way: usize, bytes: usize) -> bool {
        under_way == 0 || under_way + bytes <= self.window
    }

    pub fn asked(&self, now: Millis) -> Asked {
        Asked {
            at: now,
            delivered: self.delivered,
        }
    }

    /// The first word of an answer has arrived.
    pub fn begun(&mut self, asked: Asked, now: Millis) {
        let took = now - asked.at;
        self.way = Some(self.way.map_or(took, |way| way.min(took)));
    }

    /// Bytes of an answer have arrived.
    pub fn arrived(&mut self, bytes: usize) {
        self.delivered += bytes as u64;
    }

    /// An answer of so many bytes is complete, of which so many were expected.
    pub fn answered(&mut self, asked: Asked, (bytes, expected): (usize, usize), now: Millis) {
        let took = now - asked.at;
        self.waited(took);
        let way = self.way.unwrap_or(took);
        let wanted = way + QUEUE_MS;
        self.opening &= took <= way + NO_QUEUE_MS;
        if took <= wanted {
            let growth = if self.opening { FAST_GROWTH } else { 1 };
            self.window = (self.window + growth * bytes).min(MAX_WINDOW);
        } else if 2 * bytes >= expected {
            // One that is much shorter says nothing of the rate. What has arrived since it was asked for is what the
            // way carries in this time.
            let carried = (self.delivered - asked.delivered) * wanted / took;
            self.window = self.window.min(carried as usize).max(MIN_WINDOW);
        }
    }

    /// Answers have not come in time. If they were not lost, the way has become slow: what is asked for again joins
    /// them.
    pub fn given_up(&mut self) {
        self.window = self.window.min(FIRST_WINDOW);
    }

    /// An answer that was given up has arrived all the same: it was not lost, the way is slow.
    pub fn late(&mut self, asked: Asked, now: Millis) {
        self.took = self.took.max(now - asked.at);
        self.window = self.window.min(FIRST_WINDOW);
    }

    /// How long to wait for a word of an answer, which was asked for in vain `times` times.
    pub fn patience(&self, times: u32) -> Millis {
        let patience = PATIENCE_MS + 4 * self.took;
        (patience << times.min(3)).min(MAX_PATIENCE_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks for what fits again and again on a way of `rate` bytes per millisecond. Returns the most milliseconds of
    /// bytes that were under way in the second half, and how many bytes arrived in all.
    fn run(rate: u64, way: Millis, rounds: usize) -> (u64, u64) {
        let mut pace = Pace::default();
        let mut under_way: std::collections::VecDeque<(Asked, usize, Millis)> = Default::default();
        let (mut now, mut free, mut most, mut bytes) = (1, 1, 0, 0);
        for round in 0..rounds {
            let outstanding = |under_way: &std::collections::VecDeque<(Asked, usize, Millis)>| {
                under_way.iter().map(|(_, bytes, _)| bytes).sum::<usize>()
            };
            while pace.has_room(outstanding(&under_way), pace.budget()) {
                let first = pace.first_budget().filter(|_| under_way.is_empty());
                let budget = first.unwrap_or(pace.budget());
                free = free.max(now + way) + budget as u64 / rate;
                under_way.push_back((pace.asked(now), budget, free));
            }
            if round > rounds / 2 {
                most = most.max(outstanding(&under_way) as u64 / rate);
            }
            let (asked, budget, at) = under_way.pop_front().expect("one is always under way");
            now = at;
            bytes += budget as u64;
            pace.begun(asked, now);
            pace.arrived(budget);
            pace.answered(asked, (budget, budget), now);
        }
        (most, bytes / now)
    }

    #[test]
    fn the_window_follows_the_rate() {
        // Bytes per millisecond, and milliseconds there and back.
        for (rate, way) in [(125, 0), (125, 300), (250, 20), (1_000, 0), (1_000, 300), (8_000, 20)] {
            let (most, reached) = run(rate, way, 400);
            assert!(
                most <= 1_100 + way,
                "{rate} B/ms, {way} ms: {most} ms of bytes under way"
            );
            assert!(reached * 10 >= rate * 9, "{rate} B/ms, {way} ms: {reached} B/ms");
        }
    }

    #[test]
    fn patience_follows_what_answers_take() {
        let mut pace = Pace::default();
        assert_eq!(pace.patience(0), PATIENCE_MS);
        let asked = pace.asked(1_000);
        pace.late(asked, 11_000);
        assert!(pace.patience(0) >= 10_000 + PATIENCE_MS, "{}", pace.patience(0));
        assert!(pace.patience(9) <= MAX_PATIENCE_MS);
    }
}
