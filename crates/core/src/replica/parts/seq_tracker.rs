//! Which numbered frames have arrived.

use std::collections::BTreeSet;

/// Frames received beyond a gap that are remembered one by one.
pub(crate) const MAX_AHEAD: usize = 4_096;

/// Runs of missing frames asked for at a time.
const MAX_RUNS: usize = 64;

/// Which frames of one author have arrived.
#[derive(Default, Debug)]
pub(crate) struct SeqTracker {
    /// All frames up to this one have arrived, or their effect has.
    contiguous: u64,
    /// Frames that arrived beyond a gap.
    ahead: BTreeSet<u64>,
    /// The newest frame known to exist.
    newest: u64,
}

impl SeqTracker {
    /// Whether a frame has not arrived yet and can be taken note of.
    pub fn takes(&self, seq: u64) -> bool {
        let next = seq == self.contiguous + 1;
        seq > self.contiguous && !self.ahead.contains(&seq) && (next || self.ahead.len() < MAX_AHEAD)
    }

    /// Whether the frame before this one has arrived.
    pub fn follows(&self, seq: u64) -> bool {
        seq == self.contiguous + 1 || self.ahead.contains(&seq.wrapping_sub(1))
    }

    /// Takes note of a frame. Returns whether the contiguous part has grown.
    pub fn arrived(&mut self, seq: u64) -> bool {
        self.announced(seq);
        if self.takes(seq) {
            self.ahead.insert(seq);
        }
        self.advance()
    }

    pub fn announced(&mut self, seq: u64) {
        self.newest = self.newest.max(seq);
    }

    /// The effect of all frames up to `seq` is here.
    pub fn complete_to(&mut self, seq: u64) {
        self.announced(seq);
        if seq > self.contiguous {
            self.contiguous = seq;
            self.ahead = self.ahead.split_off(&(seq + 1));
            self.advance();
        }
    }

    fn advance(&mut self) -> bool {
        let before = self.contiguous;
        while self.ahead.remove(&(self.contiguous + 1)) {
            self.contiguous += 1;
        }
        self.contiguous > before
    }

    pub fn has_gap(&self) -> bool {
        self.contiguous < self.newest
    }

    pub fn contiguous(&self) -> u64 {
        self.contiguous
    }

    /// Whether all frames `first..=last` have arrived.
    pub fn covers(&self, first: u64, last: u64) -> bool {
        (first.max(self.contiguous + 1)..=last).all(|seq| self.ahead.contains(&seq))
    }

    /// The first runs of missing frames, as first and last number each.
    pub fn missing(&self) -> Vec<(u64, u64)> {
        let mut runs = Vec::new();
        let mut next = self.contiguous + 1;
        for &seq in &self.ahead {
            if runs.len() == MAX_RUNS {
                return runs;
            }
            if seq > next {
                runs.push((next, seq - 1));
            }
            next = seq + 1;
        }
        if next <= self.newest && runs.len() < MAX_RUNS {
            runs.push((next, self.newest));
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_shows_and_closes() {
        let mut frames = SeqTracker::default();
        frames.arrived(1);
        frames.arrived(3);
        assert!(frames.has_gap());
        assert!(!frames.covers(1, 3));
        frames.arrived(2);
        assert!(!frames.has_gap());
        assert!(frames.covers(1, 3));
        frames.announced(4);
        assert!(frames.has_gap());
        frames.complete_to(4);
        assert!(!frames.has_gap());
    }

    #[test]
    fn frames_beyond_a_pulled_gap_count() {
        let mut frames = SeqTracker::default();
        for seq in [5, 6, 8] {
            frames.arrived(seq);
        }
        frames.complete_to(4);
        assert!(frames.has_gap());
        frames.arrived(7);
        assert!(!frames.has_gap());
    }

    #[test]
    fn missing_frames_are_named_in_runs() {
        let mut frames = SeqTracker::default();
        for seq in [1, 4, 5, 9] {
            frames.arrived(seq);
        }
        frames.announced(12);
        assert_eq!(frames.missing(), [(2, 3), (6, 8), (10, 12)]);
        frames.complete_to(12);
        assert_eq!(frames.missing(), []);
    }

    #[test]
    fn a_frame_is_taken_once() {
        let mut frames = SeqTracker::default();
        for seq in [1, 3] {
            assert!(frames.takes(seq));
            frames.arrived(seq);
            assert!(!frames.takes(seq));
        }
        frames.complete_to(10);
        assert!(!frames.takes(7) && frames.takes(11));
    }

    #[test]
    fn what_is_remembered_of_a_broken_sequence_is_bounded() {
        let mut frames = SeqTracker::default();
        for seq in (2..).step_by(2).take(3 * MAX_AHEAD) {
            frames.arrived(seq);
        }
        assert_eq!(frames.ahead.len(), MAX_AHEAD);
        assert!(frames.takes(1), "the next frame always finds room");
        assert_eq!(frames.missing().len(), MAX_RUNS);
    }
}
