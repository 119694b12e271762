//! What a node knows of its store, and what it is about to do there.

use std::collections::VecDeque;

use kvcache_core::cache::{Millis, NodeId, Partition, Time};
use kvcache_core::durable::{Held, Keeper, Loaded, Present};
use kvcache_core::replica::Lineage;

use crate::books::Covered;
use crate::engine::Op;

/// What the keeper of a store does next.
pub(crate) enum Step {
    /// Reads the head.
    Open,
    /// Reads sections into an empty cache, from this one on.
    Load(u16),
    /// Makes a store that could not be read at first and a cache in service equal, from this section on.
    TakeOver(u16),
    /// The head is written: the store is in use.
    Opened,
    /// Writes what has changed.
    Round { due: bool },
    /// The next part of it.
    Gather,
    /// What sections say of themselves.
    Renew,
    /// All of it is written.
    Complete { due: bool },
    /// An operation: to be begun, or under way.
    Do { op: Op, why: Why, began: Option<Millis> },
    /// Reads a section to compare it.
    Audit { partition: Partition },
    /// Compares it.
    Compare {
        partition: Partition,
        held: Held,
        present: Present,
    },
    /// It is equal.
    Compared { partition: Partition, present: Present },
}

/// What an operation belongs to.
pub(crate) enum Why {
    /// The head of a store that is new, before anything else: what has none is not read.
    Head,
    Open,
    Flush(Vec<Covered>),
    Renew,
    Audit(Vec<Partition>),
}

/// What a node knows of its store.
pub(crate) struct Keeping {
    pub keeper: Keeper,
    pub todo: VecDeque<Step>,
    /// Number of the event that goes on with it; others mean nothing.
    pub turn: u64,
    /// What the head says.
    pub state_since: Option<Time>,
    pub loaded: Loaded,
    /// Whether the cache is in service: the store was read, or could not be.
    pub begun: bool,
    /// Whether the store is in use.
    pub ready: bool,
    /// Whether the process is there.
    pub started: bool,
    pub synced: Vec<NodeId>,
    pub lineage: Option<Lineage>,
    pub partitions: VecDeque<Partition>,
    /// Partitions that clients wait for.
    pub waiting: Vec<Partition>,
    pub next_round: Millis,
}

impl Keeping {
    pub fn new(keeper: Keeper) -> Self {
        Keeping {
            keeper,
            todo: VecDeque::from([Step::Open]),
            turn: 0,
            state_since: None,
            loaded: Loaded::default(),
            begun: false,
            ready: false,
            started: false,
            synced: Vec::new(),
            lineage: None,
            partitions: VecDeque::new(),
            waiting: Vec::new(),
            next_round: 0,
        }
    }
}
