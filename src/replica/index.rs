//! Answers to questions about all peers, without looking at all of them.
//!
//! They are asked for each message, so that with a look at each peer every write would cost the lattice the square of its
//! nodes.

use std::collections::{BTreeMap, BTreeSet};

use crate::cache::{Millis, NodeId};

/// What of one peer matters for such questions; of a node that is not known, nothing does.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Marks {
    /// It still has to be challenged.
    pub strange: bool,
    /// Frames of it are missing.
    pub gap: bool,
    /// Its digest differs although no frame is missing.
    pub differs: bool,
    /// It seals with another issuer's seed, and has proven to be alive.
    pub other_issuer: bool,
    /// The newest version it speaks.
    pub version: Option<u8>,
    /// Until when it is certain to be in contact, if it has proven to be alive.
    pub present_until: Option<Millis>,
}

/// The marks of all peers by what is asked. Changed in one place, [`Index::update`]; debug builds compare it with the
/// peers at each tick.
#[derive(PartialEq, Eq, Default, Debug)]
pub(super) struct Index {
    strange: BTreeSet<NodeId>,
    gaps: BTreeSet<NodeId>,
    differing: BTreeSet<NodeId>,
    other_issuers: BTreeSet<NodeId>,
    /// How many speak it.
    versions: BTreeMap<u8, usize>,
    present: BTreeSet<(Millis, NodeId)>,
}

impl Index {
    /// The marks of a peer have changed.
    pub fn update(&mut self, node: NodeId, before: Marks, after: Marks) {
        if before == after {
            return;
        }
        mark(&mut self.strange, node, before.strange, after.strange);
        mark(&mut self.gaps, node, before.gap, after.gap);
        mark(&mut self.differing, node, before.differs, after.differs);
        mark(&mut self.other_issuers, node, before.other_issuer, after.other_issuer);
        if before.version != after.version {
            if let Some(version) = after.version {
                *self.versions.entry(version).or_default() += 1;
            }
            if let Some(version) = before.version {
                let count = self.versions.entry(version).or_default();
                *count -= 1;
                if *count == 0 {
                    self.versions.remove(&version);
                }
            }
        }
        if before.present_until != after.present_until {
            if let Some(until) = before.present_until {
                self.present.remove(&(until, node));
            }
            if let Some(until) = after.present_until {
                self.present.insert((until, node));
            }
        }
    }

    pub fn strange(&self) -> &BTreeSet<NodeId> {
        &self.strange
    }

    pub fn gaps(&self) -> &BTreeSet<NodeId> {
        &self.gaps
    }

    pub fn differing(&self) -> &BTreeSet<NodeId> {
        &self.differing
    }

    pub fn any_other_issuer(&self) -> bool {
        !self.other_issuers.is_empty()
    }

    /// The newest version that all speak.
    pub fn version(&self) -> Option<u8> {
        self.versions.keys().next().copied()
    }

    /// Until when all are certain to be in contact.
    pub fn present_until(&self) -> Option<Millis> {
        self.present.first().map(|(until, _)| *until)
    }
}

fn mark(set: &mut BTreeSet<NodeId>, node: NodeId, before: bool, after: bool) {
    match (before, after) {
        (false, true) => {
            set.insert(node);
        }
        (true, false) => {
            set.remove(&node);
        }
        _ => {}
    }
}
