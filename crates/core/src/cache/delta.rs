//! Idempotent deltas: fragments of a key's state. Applying one is a merge, in any order and any number of times.

use super::add_entry::SeenAdd;
use super::blob::Blob;
use super::hash;
use super::horizon::Base;
use super::stamp::{Millis, NodeId, Stamp, Time};

/// The value of a Put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value<B = Blob> {
    /// The bytes of the scalar.
    Held(B),
    /// Its deadline has passed, and the sender has given it back. What is left is its content hash.
    GivenBack(u64),
}

impl<B: AsRef<[u8]>> Value<B> {
    /// The bytes, if they are still there.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Held(bytes) => Some(bytes.as_ref()),
            Value::GivenBack(_) => None,
        }
    }

    /// The same value, its bytes left where they are.
    pub(super) fn borrowed(&self) -> Value<&[u8]> {
        match self {
            Value::Held(bytes) => Value::Held(bytes.as_ref()),
            Value::GivenBack(hash) => Value::GivenBack(*hash),
        }
    }

    /// The same value with bytes of its own.
    pub(super) fn owned(&self) -> Value {
        match self {
            Value::Held(bytes) => Value::Held(Blob::new(bytes.as_ref())),
            Value::GivenBack(hash) => Value::GivenBack(*hash),
        }
    }

    /// The same value once it is given back.
    pub fn given_back(&self) -> Value<B> {
        Value::GivenBack(self.hash())
    }

    /// The content hash of the value.
    pub(super) fn hash(&self) -> u64 {
        match self {
            Value::Held(bytes) => hash::of_value(bytes.as_ref()),
            Value::GivenBack(hash) => *hash,
        }
    }
}

/// What a delta does to its key. `B` is how its bytes are held: [`Blob`], or `&[u8]` where they lie in a received
/// message or in the cache.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StateDelta<B = Blob> {
    /// A scalar replaces whatever the key held.
    Put {
        /// When and by whom.
        at: Stamp,
        /// The scalar.
        value: Value<B>,
        /// Deadline, if any.
        expires_at: Option<Millis>,
        /// Counter entries the author had seen, each once, in the order of nodes and their bases.
        seen: Vec<SeenAdd>,
    },
    /// The key is deleted, whatever it held.
    Delete {
        /// When and by whom.
        at: Stamp,
        /// Counter entries the author had seen, in the same order.
        seen: Vec<SeenAdd>,
    },
    /// The counter entry `(node, base)` has reached `sum`.
    Add {
        /// Who adds.
        node: NodeId,
        /// On which horizon.
        base: Base,
        /// Cumulative sum of this entry.
        sum: i64,
        /// Stamp of the newest addition.
        at: Stamp,
    },
    /// An item is in the list, at the place of its id.
    ListPush {
        /// The item's identity and place.
        id: Stamp,
        /// The item.
        value: B,
    },
    /// The item `id` is gone from the list.
    ListRemove {
        /// Which item.
        id: Stamp,
        /// When and by whom.
        at: Stamp,
    },
    /// A member is in the set.
    SetAdd {
        /// The member.
        member: B,
        /// When and by whom.
        at: Stamp,
    },
    /// A member is not in the set.
    SetRemove {
        /// The member.
        member: B,
        /// When and by whom.
        at: Stamp,
    },
}

/// One change of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delta<B = Blob> {
    /// The key, with its namespace ([`super::Key`]).
    pub key: B,
    /// What happens to it.
    pub change: StateDelta<B>,
}

/// What of its key a delta is about. Deltas of one key with equal slots write the same component.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Slot<'a> {
    /// The newest reset.
    Reset,
    /// The counter entry of a node on a base.
    Add(NodeId, Base),
    /// The list item with this id.
    Item(Stamp),
    /// This member of the set.
    Member(&'a [u8]),
}

/// Why a delta of a peer cannot be merged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DeltaError {
    /// Its stamp lies too far in the future: a broken clock, or malice.
    #[error("stamp {ahead_ms} ms ahead of this node's clock")]
    FromTheFuture {
        /// How far.
        ahead_ms: u64,
    },
    /// No honest author makes it.
    #[error("impossible stamps: {0}")]
    Impossible(&'static str),
}

impl<B: AsRef<[u8]>> StateDelta<B> {
    /// What of its key it is about.
    pub(super) fn slot(&self) -> Slot<'_> {
        match self {
            StateDelta::Put { .. } | StateDelta::Delete { .. } => Slot::Reset,
            StateDelta::Add { node, base, .. } => Slot::Add(*node, *base),
            StateDelta::ListPush { id, .. } | StateDelta::ListRemove { id, .. } => Slot::Item(*id),
            StateDelta::SetAdd { member, .. } | StateDelta::SetRemove { member, .. } => Slot::Member(member.as_ref()),
        }
    }
}

impl<B: AsRef<[u8]>> Delta<B> {
    /// The newest stamp the delta carries.
    pub fn newest(&self) -> Stamp {
        match &self.change {
            StateDelta::Put { at, .. }
            | StateDelta::Delete { at, .. }
            | StateDelta::Add { at, .. }
            | StateDelta::ListRemove { at, .. }
            | StateDelta::SetAdd { at, .. }
            | StateDelta::SetRemove { at, .. } => *at,
            StateDelta::ListPush { id, .. } => *id,
        }
    }

    /// What of its key the delta is about: of two deltas with equal slots, the newer one says all that the older
    /// one says.
    pub fn slot(&self) -> Slot<'_> {
        self.change.slot()
    }

    /// Whether applying this delta alone ends in the same state as applying `older` as well, whatever else is
    /// applied before, between or after. (Unless both are stamped before the floor: a removal then leaves no trace of
    /// its own, but a trace of what it removes.)
    pub fn supersedes(&self, older: &Delta<B>) -> bool {
        let newer = match (&self.change, &older.change) {
            // Items never change, so only a removal says more than a push.
            (StateDelta::ListPush { .. }, _) => false,
            // Of equal stamps: a reset that lost its value to elements of another type.
            (StateDelta::Delete { at, .. }, StateDelta::Put { at: before, .. }) => at >= before,
            _ => self.newest() > older.newest(),
        };
        newer && self.key.as_ref() == older.key.as_ref() && self.slot() == older.slot()
    }

    /// Checks what merging relies on: stamps not after `latest`, causes before their effects, values that are given
    /// back after their deadline only, and what was seen in order.
    pub fn check(&self, latest: Time) -> Result<(), DeltaError> {
        let newest = self.newest();
        if newest.time > latest {
            return Err(DeltaError::FromTheFuture {
                ahead_ms: newest.time.millis() - latest.millis(),
            });
        }
        if newest == Stamp::default() {
            return Err(DeltaError::Impossible("zero stamp"));
        }
        if let StateDelta::Put { seen, .. } | StateDelta::Delete { seen, .. } = &self.change {
            if !seen.is_sorted_by(|a, b| (a.node, a.base) < (b.node, b.base)) {
                return Err(DeltaError::Impossible("seen entries out of order"));
            }
        }
        match &self.change {
            StateDelta::Put {
                value: Value::GivenBack(hash),
                expires_at,
                ..
            } => match expires_at {
                Some(deadline) if *hash != 0 && *deadline <= latest.millis() => Ok(()),
                // By a clock that is ahead.
                Some(deadline) if *hash != 0 => Err(DeltaError::FromTheFuture {
                    ahead_ms: deadline - latest.millis(),
                }),
                _ => Err(DeltaError::Impossible("value given back without a deadline")),
            },
            StateDelta::Add { base, at, .. } if base.stamp >= *at => Err(DeltaError::Impossible("base after addition")),
            StateDelta::ListRemove { id, at } if id >= at => Err(DeltaError::Impossible("item removed before it was")),
            _ => Ok(()),
        }
    }

    /// Whether the delta only says that an element is gone.
    pub(super) fn removes_an_element(&self) -> bool {
        matches!(
            self.change,
            StateDelta::ListRemove { .. } | StateDelta::SetRemove { .. }
        )
    }
}

impl Delta<&[u8]> {
    /// The same delta with bytes of its own.
    pub fn to_owned(&self) -> Delta {
        let own = |bytes: &&[u8]| Blob::new(bytes);
        let change = match &self.change {
            StateDelta::Put {
                at,
                value,
                expires_at,
                seen,
            } => StateDelta::Put {
                at: *at,
                value: value.owned(),
                expires_at: *expires_at,
                seen: seen.clone(),
            },
            StateDelta::Delete { at, seen } => StateDelta::Delete {
                at: *at,
                seen: seen.clone(),
            },
            StateDelta::Add { node, base, sum, at } => StateDelta::Add {
                node: *node,
                base: *base,
                sum: *sum,
                at: *at,
            },
            StateDelta::ListPush { id, value } => StateDelta::ListPush {
                id: *id,
                value: own(value),
            },
            StateDelta::ListRemove { id, at } => StateDelta::ListRemove { id: *id, at: *at },
            StateDelta::SetAdd { member, at } => StateDelta::SetAdd {
                member: own(member),
                at: *at,
            },
            StateDelta::SetRemove { member, at } => StateDelta::SetRemove {
                member: own(member),
                at: *at,
            },
        };
        Delta {
            key: own(&self.key),
            change,
        }
    }
}
