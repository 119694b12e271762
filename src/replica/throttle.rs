//! At most one log line per interval for things that strangers can cause as often as they like.

use crate::cache::Millis;

const INTERVAL_MS: Millis = 10_000;

#[derive(Default)]
pub(super) struct Throttle {
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
