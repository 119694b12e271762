//! One entry of a counter, and what a reset had seen of it.

use super::horizon::{Base, Horizon};
use super::stamp::{NodeId, Stamp};

/// Cumulative sum of what one node added while it saw one horizon; merged by newest stamp.
#[derive(Clone, Debug)]
pub(super) struct AddEntry {
    pub node: NodeId,
    pub base: Base,
    pub last: Stamp,
    pub sum: i64,
}

impl AddEntry {
    /// Whether this entry still means something above `horizon`.
    pub fn survives(&self, horizon: Horizon) -> bool {
        self.base.horizon() >= horizon || self.last > horizon.stamp
    }

    pub fn place(&self) -> (NodeId, Base) {
        (self.node, self.base)
    }
}

/// What the author of a reset had seen of one counter entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeenAdd {
    /// Who added.
    pub node: NodeId,
    /// On which horizon.
    pub base: Base,
    /// The cumulative sum at that time.
    pub sum: i64,
}
