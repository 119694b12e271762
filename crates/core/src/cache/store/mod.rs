//! The replicated map of one node. [`Cache`] is what users see; what it does stands in files of their own:
//!
//! | file | what |
//! | --- | --- |
//! | `operations.rs` | reads and local writes |
//! | `merge.rs` | merging what peers have written |
//! | `replication.rs` | what replication reads: digests, components |
//! | `slice.rs` | the same in slices of bounded size, and where these begin |
//! | `changes.rs` | what has changed since somebody took note of it |
//! | `memory.rs` | what it takes, and making room |
//! | `collect.rs`, `floor.rs` | garbage collection: the sweep and how far it goes, folding |
//!
//! Where keys lie is known to [`Tables`] alone.

mod changes;
mod collect;
mod floor;
mod memory;
mod merge;
mod operations;
mod replication;
mod slice;

use std::sync::atomic::{AtomicU64, AtomicUsize};

pub use memory::{Held, Room, Victims};
pub use operations::answer_bytes;
pub use slice::Cursor;

use floor::Floor;

use super::scalar::Moment;
use super::stamp::{Clock, Millis, NodeId, Time};
use super::table::Tables;

/// Bounds of what the cache takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Longest key, value, item or member in bytes.
    pub max_value_bytes: usize,
    /// How far ahead of this node's wall clock a peer's stamp may lie, in milliseconds.
    pub max_clock_skew_ms: Millis,
    /// How long a deletion is remembered, in milliseconds.
    pub tombstone_ttl_ms: Millis,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_value_bytes: 32 << 20,
            max_clock_skew_ms: 15 * 60 * 1_000,
            tombstone_ttl_ms: 24 * 60 * 60 * 1_000,
        }
    }
}

/// The replicated map of one node.
///
/// Reads and local writes are plain calls on `&self` that lock one partition. A local write has happened when the call
/// returns; the [`Delta`](super::Delta) it returns has to reach the peers, in any order and any number of times.
pub struct Cache {
    clock: Clock,
    limits: Limits,
    tables: Tables,
    floor: Floor,
    /// Partitions swept so far.
    swept: AtomicUsize,
    /// Bytes it may take; [`u64::MAX`] for any number.
    cap: AtomicU64,
    shared_store: AtomicU64,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("node", &self.node())
            .finish_non_exhaustive()
    }
}

impl Cache {
    /// An empty cache of the process `node`, whose tables are in an order that everybody knows. For tests, simulations
    /// and benchmarks: who knows it can make keys that all collide.
    pub fn new(node: NodeId, limits: Limits) -> Self {
        Cache::with_secret(node, limits, [0; 4])
    }

    /// An empty cache of the process `node`. `secret` is random, and decides where in its tables keys lie.
    pub fn with_secret(node: NodeId, limits: Limits, secret: [u64; 4]) -> Self {
        Cache {
            clock: Clock::new(node, limits.max_clock_skew_ms),
            limits,
            tables: Tables::new(secret),
            floor: Floor::default(),
            swept: AtomicUsize::new(0),
            cap: AtomicU64::new(u64::MAX),
            shared_store: AtomicU64::new(0),
        }
    }

    /// The process this cache belongs to.
    pub fn node(&self) -> NodeId {
        self.clock.node()
    }

    /// The hybrid logical clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The bounds given at the start.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    // --- when a key is looked at

    /// The caller's wall clock says `now`.
    fn moment(&self, now: Millis) -> Moment {
        Moment {
            now: self.clock.now(now),
            floor: self.floor(),
        }
    }

    /// What is certain without a wall clock.
    fn latest_moment(&self) -> Moment {
        self.moment_at(self.clock.latest())
    }

    fn moment_at(&self, time: Time) -> Moment {
        Moment {
            now: time.millis(),
            floor: self.floor(),
        }
    }
}
