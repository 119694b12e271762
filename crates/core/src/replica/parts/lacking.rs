//! What is missing here of what a peer has sent or holds, and what was done about it.

use std::collections::BTreeSet;

use super::pace;
use super::seq_tracker::MAX_AHEAD;
use crate::cache::Millis;

/// Requests for frames without progress after which a comparison has to do.
pub(crate) const MAX_ASKED: u32 = 3;

/// How far the author was asked for missing frames.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Asked {
    /// Requests without any progress.
    pub times: u32,
    /// The last one for as much as there is room for.
    pub last: pace::Asked,
    /// When the author was asked last, if only for a [marker](Asked::mark).
    pub at: Millis,
    /// When a frame that it asks for arrived last.
    arrived: Millis,
    /// Number of the newest frame that it asks for.
    pub newest: u64,
    /// The highest number of the frames that have arrived of those.
    highest: u64,
    /// Frames of which any that arrives shows that nothing more comes, first and last.
    markers: Option<(u64, u64)>,
    /// The lowest that was asked for as a marker, for this request or those before it. It may still be under way.
    marked: Option<u64>,
    /// One of them has arrived.
    passed: bool,
    /// So many bytes it asks for.
    pub budget: usize,
    /// So many of them have arrived.
    pub bytes: usize,
    /// The author no longer keeps them.
    pub gone: bool,
}

impl Asked {
    /// When something was heard last of the answer, or it was asked for.
    pub fn heard(&self) -> Millis {
        self.at.max(self.arrived)
    }

    /// Whether as much has arrived as the author was asked for, or nothing more of it can come.
    pub fn is_answered(&self) -> bool {
        self.budget > 0 && (self.passed || self.bytes >= self.budget)
    }

    /// Whether this frame is a marker for this request.
    pub fn is_marker(&self, seq: u64) -> bool {
        self.markers.is_some_and(|(first, last)| (first..=last).contains(&seq))
    }

    /// A frame of the answer has arrived, of so many bytes.
    pub fn arrived(&mut self, seq: u64, bytes: usize, now: Millis) {
        self.arrived = now;
        match self.is_marker(seq) {
            true => self.passed = true,
            false => {
                self.bytes += bytes;
                // One that was asked for as a marker before has passed over nothing.
                if self.marked.is_none_or(|marked| seq < marked) {
                    self.highest = self.highest.max(seq);
                }
            }
        }
    }

    /// One more request, where these frames are missing, in runs of first and last number. Returns which of them it is
    /// for. With room for `budget` bytes, all are asked for, unless nobody knows whether the last answer is lost or late.
    pub fn ask(&mut self, missing: &[(u64, u64)], last: pace::Asked, budget: usize) -> Vec<(u64, u64)> {
        self.times += 1;
        self.at = last.at;
        // Where frames are lost all the time, a gap may never close: what has arrived since is no marker any more.
        let first = missing.first().map_or(0, |(first, _)| *first);
        self.marked = self.marked.filter(|marked| *marked >= first);
        if let Some((lost, marker)) = self.mark(missing).filter(|_| !self.is_answered()) {
            let (first, last) = self.markers.unwrap_or((marker, marker));
            self.markers = Some((first.min(marker), last.max(marker)));
            self.marked = Some(self.marked.map_or(marker, |marked| marked.min(marker)));
            return lost.into_iter().chain([(marker, marker)]).collect();
        }
        *self = Asked {
            times: self.times,
            at: self.at,
            marked: self.marked,
            last,
            newest: missing.last().map_or(0, |(_, last)| *last),
            budget,
            ..Asked::default()
        };
        missing.to_vec()
    }

    /// Answers come one after the other, and each in the order of numbers. So what the last one has passed over is
    /// lost, and is returned. Of all else it may still bring, only the last frame is asked for, which is returned as
    /// well: when this marker arrives, nothing that was sent before it can come any more. None if nothing is missing
    /// that the last request was for.
    fn mark(&self, missing: &[(u64, u64)]) -> Option<(Vec<(u64, u64)>, u64)> {
        let up_to = |limit: u64| {
            let runs = missing.iter().filter(move |(first, _)| *first <= limit);
            runs.map(move |(first, last)| (*first, limit.min(*last)))
        };
        let newest = |limit| up_to(limit).next_back().map(|(_, last)| last);
        // One that an earlier request was for shows nothing of what was sent later.
        let before = self.marked.and_then(|marked| newest(marked - 1));
        let marker = before.or_else(|| newest(self.newest))?;
        Some((up_to(self.highest.min(marker - 1)).collect(), marker))
    }

    /// Bytes of the answer that are still to come, at most.
    pub fn outstanding(&self) -> usize {
        match self.gone || self.passed || self.times >= MAX_ASKED {
            true => 0,
            false => self.budget.saturating_sub(self.bytes),
        }
    }
}

/// What was refused here of what a peer holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Withheld {
    /// So many deltas are from the future, as far as is known.
    pub deltas: u64,
    /// From when on the first of them can be taken, by the wall clock; the end of time for what no honest author makes.
    pub from: Millis,
    /// When they were asked for again.
    pub asked: Millis,
}

impl Withheld {
    pub const NOTHING: Withheld = Withheld {
        deltas: 0,
        from: Millis::MAX,
        asked: 0,
    };
}

/// Frames of a peer that have arrived, and may have had no effect here: something of them was refused.
#[derive(Default, Debug)]
pub(crate) struct Doubt {
    frames: BTreeSet<u64>,
    /// All from this one on, where a comparison stood for frames.
    from: Option<u64>,
    /// When the last one was added.
    since: Millis,
}

impl Doubt {
    pub fn first(&self) -> Option<u64> {
        self.frames.first().copied().into_iter().chain(self.from).min()
    }

    pub fn add(&mut self, seq: u64, now: Millis) {
        self.since = now;
        match self.frames.len() < MAX_AHEAD {
            true => drop(self.frames.insert(seq)),
            false => self.add_from(seq, now),
        }
    }

    pub fn add_from(&mut self, seq: u64, now: Millis) {
        self.since = now;
        self.from = Some(self.from.map_or(seq, |from| from.min(seq)));
    }

    /// When the last frame was added.
    pub fn since(&self) -> Millis {
        self.since
    }

    pub fn is_about(&self, seq: u64) -> bool {
        self.from.is_some_and(|from| seq >= from) || self.frames.contains(&seq)
    }

    /// All up to `seq` is certain; `contiguous` have arrived.
    pub fn end_to(&mut self, seq: u64, contiguous: u64) {
        self.frames = self.frames.split_off(&(seq + 1));
        self.from = self
            .from
            .map(|from| from.max(seq + 1))
            .filter(|from| *from <= contiguous);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is asked for when these are missing, at `now`.
    fn ask(asked: &mut Asked, missing: &[(u64, u64)], now: Millis) -> Vec<(u64, u64)> {
        let last = pace::Pace::default().asked(now);
        asked.ask(missing, last, 1_000)
    }

    #[test]
    fn while_an_answer_may_be_late_only_a_marker_and_what_it_has_passed_over_are_asked_for() {
        let asked = &mut Asked::default();
        assert_eq!(ask(asked, &[(1, 10), (15, 20)], 100), [(1, 10), (15, 20)]);
        assert_eq!(ask(asked, &[(1, 10), (15, 20)], 200), [(20, 20)]);
        [1, 2, 5].into_iter().for_each(|seq| asked.arrived(seq, 100, 300));
        assert_eq!(ask(asked, &[(3, 4), (6, 10), (15, 20)], 400), [(3, 4), (19, 19)]);
        assert!(!asked.is_answered());
        // The first of them shows it as well.
        asked.arrived(20, 100, 500);
        assert!(asked.is_answered());
        let missing = [(3, 4), (6, 10), (15, 19)];
        assert_eq!(ask(asked, &missing, 600), missing);
    }

    #[test]
    fn a_marker_of_an_earlier_request_says_nothing_of_the_next() {
        let asked = &mut Asked::default();
        ask(asked, &[(1, 20)], 100);
        assert_eq!(ask(asked, &[(1, 20)], 200), [(20, 20)]);
        // The answer is complete, and the marker is still under way.
        (1..=10).for_each(|seq| asked.arrived(seq, 100, 300));
        assert_eq!(ask(asked, &[(11, 20)], 400), [(11, 20)]);
        assert_eq!(ask(asked, &[(11, 20)], 500), [(19, 19)]);
        asked.arrived(20, 100, 600);
        assert!(!asked.is_answered());
        assert_eq!(ask(asked, &[(11, 19)], 700), [(18, 18)], "it has passed over nothing");
        asked.arrived(19, 100, 800);
        assert!(asked.is_answered());
    }

    #[test]
    fn a_marker_that_has_arrived_is_forgotten_though_the_gap_goes_on() {
        let asked = &mut Asked::default();
        ask(asked, &[(1, 9)], 100);
        assert_eq!(ask(asked, &[(1, 9)], 200), [(9, 9)]);
        (1..=9).for_each(|seq| asked.arrived(seq, 10, 300));
        assert_eq!(ask(asked, &[(11, 20)], 400), [(11, 20)]);
        [11, 13].into_iter().for_each(|seq| asked.arrived(seq, 10, 500));
        assert_eq!(ask(asked, &[(12, 12), (14, 20)], 600), [(12, 12), (20, 20)]);
    }

    #[test]
    fn where_all_that_was_asked_for_has_come_the_next_is_asked_for_at_once() {
        let asked = &mut Asked::default();
        ask(asked, &[(1, 2)], 100);
        [1, 2].into_iter().for_each(|seq| asked.arrived(seq, 100, 200));
        assert_eq!(ask(asked, &[(5, 9)], 300), [(5, 9)]);
    }

    #[test]
    fn the_last_frame_that_is_missing_is_its_own_marker() {
        let asked = &mut Asked::default();
        (1..=4).for_each(|n| assert_eq!(ask(asked, &[(7, 7)], 100 * n), [(7, 7)]));
    }
}
