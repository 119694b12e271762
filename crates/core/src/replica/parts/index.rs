//! Answers to questions about all peers, without looking at all of them.
//!
//! They are asked for each message, so that with a look at each peer every write would cost the lattice the square of
//! its nodes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::cache::{Millis, NodeId, Time};

/// In which order nodes are challenged that have yet to prove that they are alive: by the number of challenges they
/// have not answered, then the one first whose clock was the latest when it spoke.
pub(crate) type Rank = (u32, Reverse<Time>);

/// What of one peer matters for such questions; of a node that is not known, nothing does.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Marks {
    /// It has proven to be alive.
    pub proven: bool,
    /// It is synced, and has proven to be alive.
    pub synced: bool,
    /// It still has to be challenged.
    pub unverified: bool,
    /// It has proven to be alive, but does not count this node as a peer.
    pub unaware: bool,
    /// Its place among those that were not challenged yet.
    pub rank: Option<Rank>,
    /// Its clock when it spoke last, if it was challenged and has yet to prove that it is alive.
    pub challenged: Option<Reverse<Time>>,
    /// When it may be challenged next, if it has to be.
    pub challenge_at: Option<Millis>,
    /// Frames of it are missing.
    pub gap: bool,
    /// Its digest differs although no frame is missing.
    pub differs: bool,
    /// It holds what was refused here.
    pub withholds: bool,
    /// It authenticates with another issuer's seed, and has proven to be alive.
    pub other_issuer: bool,
    /// The newest version it speaks.
    pub version: Option<u8>,
    /// Until when it is certain to be in contact, if it has proven to be alive.
    pub present_until: Option<Millis>,
}

/// The marks of all peers by what is asked. Changed in one place, [`Index::update`]; debug builds compare it with the
/// peers at each tick.
#[derive(PartialEq, Eq, Default, Debug)]
pub(crate) struct Index {
    proven: BTreeSet<NodeId>,
    synced: BTreeSet<NodeId>,
    unverified: BTreeSet<NodeId>,
    /// Those that are unaware, and the others that have to be challenged, by when that may be.
    unaware: BTreeSet<(Millis, NodeId)>,
    unproven: BTreeSet<(Millis, NodeId)>,
    ranks: BTreeSet<(Rank, NodeId)>,
    /// The one that spoke last, first.
    challenged: BTreeSet<(Reverse<Time>, NodeId)>,
    gaps: BTreeSet<NodeId>,
    differing: BTreeSet<NodeId>,
    withholding: BTreeSet<NodeId>,
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
        mark(&mut self.proven, node, before.proven, after.proven);
        mark(&mut self.synced, node, before.synced, after.synced);
        mark(&mut self.unverified, node, before.unverified, after.unverified);
        if (before.challenge_at, before.unaware) != (after.challenge_at, after.unaware) {
            if let Some(at) = before.challenge_at {
                self.challenges(before.unaware).remove(&(at, node));
            }
            if let Some(at) = after.challenge_at {
                self.challenges(after.unaware).insert((at, node));
            }
        }
        if before.rank != after.rank {
            if let Some(rank) = before.rank {
                self.ranks.remove(&(rank, node));
            }
            if let Some(rank) = after.rank {
                self.ranks.insert((rank, node));
            }
        }
        if before.challenged != after.challenged {
            if let Some(clock) = before.challenged {
                self.challenged.remove(&(clock, node));
            }
            if let Some(clock) = after.challenged {
                self.challenged.insert((clock, node));
            }
        }
        mark(&mut self.gaps, node, before.gap, after.gap);
        mark(&mut self.differing, node, before.differs, after.differs);
        mark(&mut self.withholding, node, before.withholds, after.withholds);
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

    fn challenges(&mut self, unaware: bool) -> &mut BTreeSet<(Millis, NodeId)> {
        match unaware {
            true => &mut self.unaware,
            false => &mut self.unproven,
        }
    }

    pub fn any_unaware(&self) -> bool {
        !self.unaware.is_empty()
    }

    pub fn due_unaware(&self, now: Millis) -> Vec<NodeId> {
        due(&self.unaware, now).collect()
    }

    /// The first in rank of those that were not challenged yet.
    pub fn first_unchallenged(&self) -> Option<(Rank, NodeId)> {
        self.ranks.first().copied()
    }

    /// Those that were challenged and have yet to prove that they are alive, the one that spoke last first.
    pub fn challenged(&self) -> impl Iterator<Item = (Reverse<Time>, NodeId)> + '_ {
        self.challenged.iter().copied()
    }

    /// When the next challenge may follow: of the unaware, and of the others.
    pub fn next_challenges(&self) -> (Option<Millis>, Option<Millis>) {
        let first = |set: &BTreeSet<(Millis, NodeId)>| set.first().map(|(at, _)| *at);
        (first(&self.unaware), first(&self.unproven))
    }

    /// How many were not challenged yet.
    pub fn unchallenged(&self) -> usize {
        self.ranks.len()
    }

    /// The last in rank of those that were not challenged yet.
    pub fn last_unchallenged(&self) -> Option<(Rank, NodeId)> {
        self.ranks.last().copied()
    }

    pub fn proven(&self) -> &BTreeSet<NodeId> {
        &self.proven
    }

    pub fn synced(&self) -> &BTreeSet<NodeId> {
        &self.synced
    }

    pub fn unverified(&self) -> &BTreeSet<NodeId> {
        &self.unverified
    }

    pub fn gaps(&self) -> &BTreeSet<NodeId> {
        &self.gaps
    }

    pub fn withholding(&self) -> &BTreeSet<NodeId> {
        &self.withholding
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

fn due(set: &BTreeSet<(Millis, NodeId)>, now: Millis) -> impl Iterator<Item = NodeId> + '_ {
    set.range(..=(now, NodeId(u64::MAX))).map(|(_, node)| *node)
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
