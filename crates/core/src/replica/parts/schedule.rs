//! When which repair may begin, and whom to compare with for what a departed peer has left missing.

use std::collections::BTreeSet;

use crate::cache::{Millis, NodeId};

/// What is compared for, where not every heartbeat may begin a comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Repair {
    /// Digests differ.
    Difference,
    /// Missing frames that their author no longer keeps.
    Gap,
    /// This node was alone, and others are there.
    Meeting,
    /// Missing frames of a peer that is gone.
    Departed,
    /// What a peer that compares has shown to be missing here.
    Reverse,
}

/// Times are of the monotonic clock.
#[derive(Default)]
pub(crate) struct Schedule {
    next: [Millis; 5],
    /// Something of a peer that is gone is missing here: peers that may have it and have not been compared with since.
    candidates: BTreeSet<NodeId>,
}

impl Schedule {
    /// From when on this repair may begin.
    pub fn next(&self, repair: Repair) -> Millis {
        self.next[repair as usize]
    }

    /// It may begin at `at`.
    pub fn set(&mut self, repair: Repair, at: Millis) {
        self.next[repair as usize] = at;
    }

    /// It may not begin before `at`.
    pub fn not_before(&mut self, repair: Repair, at: Millis) {
        let next = &mut self.next[repair as usize];
        *next = at.max(*next);
    }

    pub fn candidates(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.candidates.iter().copied()
    }

    pub fn add_candidates(&mut self, nodes: impl Iterator<Item = NodeId>) {
        self.candidates.extend(nodes);
    }

    /// It has nothing that is missing here, or is gone.
    pub fn no_candidate(&mut self, node: NodeId) {
        self.candidates.remove(&node);
    }
}
