//! What a store says of itself.

use std::fmt;

use kvcache_core::cache::Millis;

/// How far a store is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreState {
    /// It is being opened.
    Opening,
    /// What it holds is being read.
    Loading {
        /// Of all sections, in percent.
        percent: u8,
    },
    /// It holds what the cache holds, but for what was written lately.
    Ready,
    /// It could not be opened or read. It is tried again.
    Missing {
        /// Why.
        why: String,
    },
    /// It was read, and cannot be written to. It is tried again.
    Failing {
        /// Why.
        why: String,
    },
}

/// In words that stand in one field of health.
impl fmt::Display for StoreState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreState::Opening => f.write_str("opening"),
            StoreState::Loading { percent } => write!(f, "loading {percent} %"),
            StoreState::Ready => f.write_str("ready"),
            StoreState::Missing { why } => write!(f, "missing: {why}"),
            StoreState::Failing { why } => write!(f, "failing: {why}"),
        }
    }
}

/// How a store is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreStatus {
    /// What and where it is, without secrets.
    pub name: String,
    /// How far it is.
    pub state: StoreState,
    /// Nodes that write to it, of those that are there and synced; this one as well.
    pub hosts: usize,
    /// Changes that are noted and not written yet; where there are many of one partition, they count less.
    pub dirty: usize,
    /// For how long the oldest of them has waited, in milliseconds.
    pub lag_ms: Millis,
    /// Records written.
    pub writes: u64,
    /// Records that were not written because another node had written something newer.
    pub conflicts: u64,
    /// Questions that failed.
    pub errors: u64,
    /// Sections that were compared with the cache.
    pub audits: u64,
    /// Records that an audit had to write, to remove or to take.
    pub repairs: u64,
    /// Records that cannot be read, and are left alone.
    pub unreadable: u64,
}

impl StoreStatus {
    /// Whether somebody has to do something about it.
    pub fn is_bad(&self) -> bool {
        matches!(self.state, StoreState::Missing { .. } | StoreState::Failing { .. })
    }
}
