//! Memory that is not needed any more goes back to the system.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// A thread gives memory back no more often than this.
const INTERVAL: Duration = Duration::from_secs(1);

thread_local! {
    static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Gives back what this thread has freed. The allocator does so by itself only while it is used, and a little at a time:
/// after a replay or a burst of writes, when a process falls idle, their buffers would stay for ever. For a thread of
/// the runtime that has nothing to do.
pub(super) fn give_back() {
    let now = Instant::now();
    let due = LAST.get().is_none_or(|last| now.duration_since(last) >= INTERVAL);
    if due {
        LAST.set(Some(now));
        // SAFETY: may be called at any time, and where another allocator is in use as well.
        unsafe { libmimalloc_sys::mi_collect(true) };
    }
}
