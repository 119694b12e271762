//! Components by name: what two caches compare and reconcile, in an order that is equal on every node.
//!
//! A component is one of those the digests are sums of: the newest reset of a key, a counter entry, a list item (there
//! or removed), a set member (there or not). Its [`Position`] depends on what it is about and never on its newest
//! stamp, so a component that is written again keeps its position and changes its hash.

use std::ops::RangeInclusive;

use super::add_entry::AddEntry;
use super::delta::{Slot, StateDelta};
use super::hash::{self, KeyHash, Partition};
use super::reset::Reset;
use super::stamp::Stamp;

/// Bits of [`Position::key`] below the number of the partition.
const BITS_IN_PARTITION: u32 = 54;

/// What a delta takes beside its bytes, about.
pub(super) const DELTA_BYTES: usize = 32;

/// Where a component stands in the order over which two caches are compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position {
    /// The key hash, rotated so that the bits of the partition come first.
    pub key: u64,
    /// What the component is about within its key: 0 for the reset, else a hash of its identity.
    pub element: u64,
}

/// One component by name. `hash` is its component hash (the one digests are sums of).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Component {
    /// Where it stands.
    pub position: Position,
    /// Its hash over identity, stamp and content.
    pub hash: u64,
}

/// Positions first..=last (both included), within one partition.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Span {
    /// The first position.
    pub first: Position,
    /// The last position; it belongs to the span.
    pub last: Position,
}

impl Span {
    /// A whole partition.
    pub fn of(partition: Partition) -> Span {
        let first = u64::from(partition.0) << BITS_IN_PARTITION;
        let last = first | ((1 << BITS_IN_PARTITION) - 1);
        Span {
            first: Position { key: first, element: 0 },
            last: Position {
                key: last,
                element: u64::MAX,
            },
        }
    }

    /// From `first` to `last`; `None` if that is reversed or crosses partitions.
    pub fn new(first: Position, last: Position) -> Option<Span> {
        let one_partition = first.key >> BITS_IN_PARTITION == last.key >> BITS_IN_PARTITION;
        (first <= last && one_partition).then_some(Span { first, last })
    }

    /// Whether a position lies in the span.
    pub fn contains(self, position: Position) -> bool {
        self.first <= position && position <= self.last
    }

    /// The partition it lies in.
    pub fn partition(self) -> Partition {
        Partition((self.first.key >> BITS_IN_PARTITION) as u16)
    }

    /// The elements of `key` that lie in the span, if the key does.
    pub(super) fn elements(self, key: KeyHash) -> Option<RangeInclusive<u64>> {
        let key = key.path();
        if key < self.first.key || key > self.last.key {
            return None;
        }
        let first = if key == self.first.key { self.first.element } else { 0 };
        let last = if key == self.last.key {
            self.last.element
        } else {
            u64::MAX
        };
        Some(first..=last)
    }
}

/// One component of a key's state, where it lies in memory.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part<'a> {
    Reset(Reset<'a>),
    Add(&'a AddEntry),
    Item { id: Stamp, value: &'a [u8] },
    Removed { id: Stamp, at: Stamp },
    Member { member: &'a [u8], at: Stamp, present: bool },
}

impl<'a> Part<'a> {
    /// [`Position::element`].
    pub fn element(&self) -> u64 {
        match self {
            Part::Reset(_) => 0,
            Part::Add(entry) => hash::element_of_add(entry.node, entry.base),
            Part::Item { id, .. } | Part::Removed { id, .. } => hash::element_of_item(*id),
            Part::Member { member, .. } => hash::element_of_member(member),
        }
    }

    /// The component hash.
    pub fn hash(&self, key: KeyHash) -> u64 {
        match self {
            Part::Reset(reset) => reset.hash(key),
            Part::Add(entry) => hash::of_add(key, entry),
            Part::Item { id, value } => hash::of_item(key, *id, value),
            Part::Removed { id, at } => hash::of_removed(key, *id, *at),
            Part::Member { member, at, present } => hash::of_member(key, member, *at, *present),
        }
    }

    /// What of its key it is.
    pub fn slot(&self) -> Slot<'a> {
        match *self {
            Part::Reset(_) => Slot::Reset,
            Part::Add(entry) => Slot::Add(entry.node, entry.base),
            Part::Item { id, .. } | Part::Removed { id, .. } => Slot::Item(id),
            Part::Member { member, .. } => Slot::Member(member),
        }
    }

    /// Hash of what it is about within its key, by a function of bytes; `None` for the reset.
    pub fn identity(&self, hash: impl Fn(&[u8]) -> u64) -> Option<u64> {
        identity(self.slot(), hash)
    }

    /// About how many bytes its delta has, beside the key.
    pub fn written_bytes(&self) -> usize {
        DELTA_BYTES
            + match self {
                Part::Reset(reset) => reset.bytes().map_or(0, <[u8]>::len) + reset.seen.len() * DELTA_BYTES,
                Part::Add(_) => DELTA_BYTES,
                Part::Item { value, .. } => value.len(),
                Part::Removed { .. } => 0,
                Part::Member { member, .. } => member.len(),
            }
    }

    /// The newest stamp in it.
    pub fn newest(&self) -> Stamp {
        match self {
            Part::Reset(reset) => reset.horizon.stamp,
            Part::Add(entry) => entry.last,
            Part::Item { id, .. } => *id,
            Part::Removed { id, at } => (*id).max(*at),
            Part::Member { at, .. } => *at,
        }
    }

    /// The change that brings this component to a state that lacks it.
    pub fn change(&self) -> StateDelta<&'a [u8]> {
        match *self {
            Part::Reset(reset) => reset.change(),
            Part::Add(entry) => StateDelta::Add {
                node: entry.node,
                base: entry.base,
                sum: entry.sum,
                at: entry.last,
            },
            Part::Item { id, value } => StateDelta::ListPush { id, value },
            Part::Removed { id, at } => StateDelta::ListRemove { id, at },
            Part::Member {
                member,
                at,
                present: true,
            } => StateDelta::SetAdd { member, at },
            Part::Member {
                member,
                at,
                present: false,
            } => StateDelta::SetRemove { member, at },
        }
    }
}

/// Hash of a slot within its key, by a function of bytes; `None` for the reset.
fn identity(slot: Slot<'_>, hash: impl Fn(&[u8]) -> u64) -> Option<u64> {
    let of_words = |words: &[u64]| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        hash(&bytes)
    };
    Some(match slot {
        Slot::Reset => return None,
        Slot::Add(node, base) => {
            let flags = u64::from(base.void) | u64::from(base.expired) << 1;
            of_words(&[node.0, base.stamp.time.0, base.stamp.node.0, flags])
        }
        Slot::Item(id) => of_words(&[id.time.0, id.node.0]),
        Slot::Member(member) => hash(member),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_a_span() {
        for n in 0..5_000 {
            let hash = KeyHash::of(format!("key{n}").as_bytes());
            let position = Position {
                key: hash.path(),
                element: n,
            };
            let partition = Partition::of(hash);
            assert_eq!(position.key >> 54, u64::from(partition.0));
            for other in Partition::all() {
                assert_eq!(Span::of(other).contains(position), other == partition);
            }
            assert_eq!(Span::new(position, position).unwrap().partition(), partition);
        }
    }

    #[test]
    fn spans_neither_run_backwards_nor_leave_their_partition() {
        let at = |key, element| Position { key, element };
        assert!(Span::new(at(5, 9), at(5, 9)).is_some());
        assert!(Span::new(at(5, 9), at(6, 0)).is_some());
        assert_eq!(Span::new(at(5, 9), at(5, 8)), None);
        assert_eq!(Span::new(at(6, 0), at(5, 0)), None);
        assert_eq!(Span::new(at(0, 0), at(1 << 54, 0)), None);
        let whole = Span::of(Partition(1023));
        assert_eq!(whole.last, at(u64::MAX, u64::MAX));
        assert_eq!(Span::new(whole.first, whole.last), Some(whole));
    }
}
