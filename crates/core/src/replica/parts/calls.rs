//! When the replica was called, and how far behind the caller is.

use crate::cache::Millis;

/// Times are of the monotonic clock.
#[derive(Default)]
pub(crate) struct Calls {
    first: Option<Millis>,
    last: Millis,
    /// When the oldest message arrived that the shell has not handed over yet, if one waits.
    behind_since: Option<Millis>,
}

impl Calls {
    /// The replica is called. Returns when it was called before, 0 for never.
    pub fn called(&mut self, now: Millis) -> Millis {
        self.first.get_or_insert(now);
        std::mem::replace(&mut self.last, now)
    }

    /// For how long the replica has been called.
    pub fn running_for(&self, now: Millis) -> Millis {
        self.first.map_or(0, |first| now.saturating_sub(first))
    }

    pub fn last(&self) -> Millis {
        self.last
    }

    pub fn behind_since(&mut self, arrived: Option<Millis>) {
        self.behind_since = arrived;
    }

    /// All that arrived until then has been taken in.
    pub fn taken_in(&self, now: Millis) -> Millis {
        self.behind_since.map_or(now, |arrived| arrived.min(now))
    }
}
