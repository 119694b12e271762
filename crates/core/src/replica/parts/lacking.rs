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
    /// The last one.
    pub last: pace::Asked,
    /// When a frame that it asks for arrived last.
    arrived: Millis,
    /// Number of the newest frame that it asks for.
    pub newest: u64,
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
        self.last.at.max(self.arrived)
    }

    /// Whether the author has sent as much as it was asked for.
    pub fn is_answered(&self) -> bool {
        self.budget > 0 && self.bytes >= self.budget
    }

    /// So many bytes of the answer have arrived.
    pub fn arrived(&mut self, bytes: usize, now: Millis) {
        self.bytes += bytes;
        self.arrived = now;
    }

    /// One more request.
    pub fn again(&mut self, last: pace::Asked, newest: u64, budget: usize) {
        *self = Asked {
            times: self.times + 1,
            last,
            newest,
            budget,
            ..Asked::default()
        };
    }

    /// Bytes of the answer that are still to come, at most.
    pub fn outstanding(&self) -> usize {
        match self.gone || self.times >= MAX_ASKED {
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
