//! What one message may hold at most. The sender keeps to it, the receiver takes nothing beyond.

/// Most symbols of a sketch. A difference that needs more is found span by span.
pub const MAX_SYMBOLS: usize = 4_096;

/// Most bytes that are asked for in one request. Whoever answers ends there, however much is asked for, and whoever
/// asks counts on that. The end of each answer is a chance for another peer to take over.
pub(crate) const MAX_BUDGET: usize = 1 << 20;

/// Most foreign issuers a heartbeat names.
pub(crate) const MAX_FOREIGN_IN_HEARTBEAT: usize = 4;

/// Most keys that a heartbeat tells were read often.
pub const MAX_HINTS: usize = 1_024;

/// Longest host name, release text or issuer that is kept.
pub(crate) const MAX_TEXT_BYTES: usize = 256;

/// Largest number of a frame that is believed: nobody gets that far, and there is room to count on from it.
pub(super) const MAX_SEQ: u64 = u64::MAX >> 1;
