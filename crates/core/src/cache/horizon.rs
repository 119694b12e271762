//! Horizons: what a reset leaves behind of a key, and what counters build upon.

use super::stamp::{NodeId, Stamp, Time};

/// The newest reset of a key: everything at or below it is gone. `void`: nothing of the reset itself is left.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Horizon {
    pub stamp: Stamp,
    pub void: bool,
}

impl Horizon {
    /// The horizon of a key that was never reset.
    pub const START: Horizon = Horizon {
        stamp: Stamp {
            time: Time(0),
            node: NodeId(0),
        },
        void: true,
    };

    /// This horizon as an adding node sees it.
    pub fn base(self, expired: bool) -> Base {
        Base {
            stamp: self.stamp,
            void: self.void,
            expired: expired && !self.void,
        }
    }
}

/// What a node saw as the horizon of a key while it added to a counter there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Base {
    /// Stamp of the reset.
    pub stamp: Stamp,
    /// Nothing of the reset itself was left (a delete, or voided by a type conflict).
    pub void: bool,
    /// The reset's deadline had passed: the counter started again from 0.
    pub expired: bool,
}

impl Base {
    /// A base that no reset made, for an entry whose first addition is stamped `first`. A node that can have forgotten
    /// what it once added to a key begins anew on such a base, so that the entry is never taken for the forgotten one.
    /// No node has the id 0, and a node makes no two additions at one time.
    pub(super) fn fresh(first: Time) -> Base {
        Base {
            stamp: Stamp {
                time: Time(first.0 - 1),
                node: NodeId(0),
            },
            void: true,
            expired: false,
        }
    }

    /// Whether no reset made this base: neither is one to come, nor was the key never reset.
    pub(super) fn is_fresh(self) -> bool {
        self.void && self.stamp.node == NodeId(0) && self.stamp.time > Time(0)
    }

    /// The horizon that was seen.
    pub(super) fn horizon(self) -> Horizon {
        Horizon {
            stamp: self.stamp,
            void: self.void,
        }
    }
}
