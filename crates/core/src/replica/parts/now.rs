//! The time as a replica sees it.

use crate::cache::Millis;

/// The time as the shell reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Milliseconds since the Unix epoch; may jump. Stamps and deadlines of values come from here.
    pub wall: Millis,
    /// Milliseconds of a clock that never goes back. Timers come from here.
    pub mono: Millis,
}
