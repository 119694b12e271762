//! The floor: how far deletions are forgotten.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::cache::stamp::{Millis, Time};

/// Deletions stamped before this time are forgotten.
#[derive(Default)]
pub(super) struct Floor {
    time: AtomicU64,
    /// Until when the sweep does not raise it.
    kept_until: AtomicU64,
}

impl Floor {
    pub fn time(&self) -> Time {
        Time(self.time.load(Ordering::Relaxed))
    }

    /// Raises the floor to `floor` if that is higher.
    pub fn raise(&self, floor: Time) {
        self.time.fetch_max(floor.0, Ordering::Relaxed);
    }

    /// Nothing is forgotten by age until then.
    pub fn keep_until(&self, until: Millis) {
        self.kept_until.store(until, Ordering::Relaxed);
    }

    pub fn is_kept(&self, now: Millis) -> bool {
        now < self.kept_until.load(Ordering::Relaxed)
    }

    /// A floor after `newest`, which no clock that is right can have, was raised while the wall clock was ahead: it
    /// comes down to what is `due`. What was collected then is gone, but peers may have it, and give it back.
    pub fn lower(&self, newest: Time, due: Time) {
        let lower = |floor: u64| (floor > newest.0).then_some(due.0);
        // Nothing to do is what happens.
        let _ = self.time.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lower);
    }
}
