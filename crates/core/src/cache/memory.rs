//! What keys take in memory: counted with every change, so that it can be asked at any time.
//!
//! Counted is what an allocator with the size classes of mimalloc or jemalloc gives out, and the tables. The unit is
//! bytes throughout. What trees take is an estimate: nobody outside of them knows how full their nodes are.

use std::sync::atomic::{AtomicI64, Ordering};

use dashmap::DashMap;

/// Slots of a node of [`std::collections::BTreeMap`].
const TREE_SLOTS: usize = 11;

/// How many hundredths of a slot are in use for each node, on average, where keys come in order, and where in any.
const FILLED_IN_ORDER: usize = 700;
const FILLED_IN_ANY: usize = 840;

/// From here on only the pages count that are written to: what is left of a class beyond them costs nothing.
const LARGE: usize = 16 << 10;

/// The bytes that an allocation of `bytes` takes: classes are 16 apart up to 128, then four to each power of two.
pub(super) const fn allocated(bytes: usize) -> usize {
    if bytes <= 128 {
        return bytes.next_multiple_of(16);
    }
    if bytes > LARGE {
        return bytes.next_multiple_of(4_096);
    }
    let step = 1 << ((bytes - 1).ilog2() - 2);
    bytes.next_multiple_of(step)
}

/// The bytes of an allocation that may not be there.
pub(super) const fn allocated_or_none(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        _ => allocated(bytes),
    }
}

/// About the bytes of a tree with so many elements of `slot` bytes each, without what these own. `in_order` of so many
/// `in_all` were inserted after all others, which leaves nodes half empty.
pub(super) fn of_tree(elements: usize, slot: usize, (in_order, in_all): (u32, u32)) -> usize {
    let leaf = TREE_SLOTS * slot + 16;
    let inner = leaf + (TREE_SLOTS + 1) * size_of::<usize>();
    let in_order = (FILLED_IN_ANY - FILLED_IN_ORDER) * in_order as usize / in_all.max(1) as usize;
    let filled = FILLED_IN_ANY - in_order;
    elements * 100 * (allocated(leaf) + allocated(inner) * 100 / filled) / filled
}

/// What a key takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Weight {
    /// Everything.
    pub bytes: usize,
    /// What is left of deletions, of those bytes.
    pub deletions: usize,
    /// Whether the key holds data.
    pub holds_data: bool,
}

/// What a cache takes, or a namespace of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Bytes of keys and what they hold, deletions included.
    pub bytes: u64,
    /// Those of what is left of deletions.
    pub deletions: u64,
    /// Keys that hold data.
    pub keys: u64,
}

/// Numbers that are added to by many. They are right when nobody is at it, and may be behind by what is under way.
#[derive(Debug, Default)]
struct Sums {
    bytes: AtomicI64,
    deletions: AtomicI64,
    keys: AtomicI64,
}

impl Sums {
    fn add(&self, change: &Change) {
        for (sum, change) in [
            (&self.bytes, change.bytes),
            (&self.deletions, change.deletions),
            (&self.keys, change.keys),
        ] {
            if change != 0 {
                sum.fetch_add(change, Ordering::Relaxed);
            }
        }
    }

    fn usage(&self) -> Usage {
        let of = |sum: &AtomicI64| sum.load(Ordering::Relaxed).max(0) as u64;
        Usage {
            bytes: of(&self.bytes),
            deletions: of(&self.deletions),
            keys: of(&self.keys),
        }
    }
}

/// By how much something has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Change {
    pub bytes: i64,
    pub deletions: i64,
    pub keys: i64,
}

impl Change {
    pub fn between(before: Weight, after: Weight) -> Self {
        let difference = |before: usize, after: usize| after as i64 - before as i64;
        Change {
            bytes: difference(before.bytes, after.bytes),
            deletions: difference(before.deletions, after.deletions),
            keys: i64::from(after.holds_data) - i64::from(before.holds_data),
        }
    }

    pub fn add(&mut self, other: Change) {
        self.bytes += other.bytes;
        self.deletions += other.deletions;
        self.keys += other.keys;
    }
}

/// What a cache takes in all, and each of its namespaces.
#[derive(Debug, Default)]
pub(super) struct Memory {
    all: Sums,
    /// Those of `all` that are in a namespace; the others are in the keyspace that all links share.
    named: Sums,
    /// Tables that keys are found by.
    tables: AtomicI64,
    namespaces: DashMap<Box<[u8]>, Change>,
}

impl Memory {
    /// Takes note of a change of one key.
    #[inline]
    pub fn record(&self, key: &[u8], change: Change) {
        if change == Change::default() {
            return;
        }
        self.all.add(&change);
        let namespace = namespace_of(key);
        if !namespace.is_empty() {
            self.record_named(namespace, change);
        }
    }

    fn record_named(&self, namespace: &[u8], change: Change) {
        self.named.add(&change);
        match self.namespaces.get_mut(namespace) {
            Some(mut sum) => sum.add(change),
            None => self.namespaces.entry(namespace.into()).or_default().add(change),
        }
        if change.bytes < 0 {
            self.namespaces.remove_if(namespace, |_, sum| *sum == Change::default());
        }
    }

    /// Takes note of a change of the tables.
    pub fn record_tables(&self, bytes: i64) {
        if bytes != 0 {
            self.tables.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// What all keys take.
    pub fn all(&self) -> Usage {
        self.all.usage()
    }

    /// What the tables take, in bytes.
    pub fn tables(&self) -> u64 {
        self.tables.load(Ordering::Relaxed).max(0) as u64
    }

    /// What the keys of a namespace take; of the shared keyspace if its name is empty.
    pub fn of(&self, namespace: &[u8]) -> Usage {
        let of = |sum: i64| sum.max(0) as u64;
        if namespace.is_empty() {
            let (all, named) = (self.all.usage(), self.named.usage());
            return Usage {
                bytes: all.bytes.saturating_sub(named.bytes),
                deletions: all.deletions.saturating_sub(named.deletions),
                keys: all.keys.saturating_sub(named.keys),
            };
        }
        let sum = self.namespaces.get(namespace).map(|sum| *sum).unwrap_or_default();
        Usage {
            bytes: of(sum.bytes),
            deletions: of(sum.deletions),
            keys: of(sum.keys),
        }
    }
}

/// The namespace in a key ([`super::Key`]).
fn namespace_of(key: &[u8]) -> &[u8] {
    match key.split_first() {
        Some((&length, rest)) => rest.get(..usize::from(length)).unwrap_or(rest),
        None => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_are_those_of_the_allocator() {
        let classes = [
            (1, 16),
            (16, 16),
            (17, 32),
            (128, 128),
            (129, 160),
            (160, 160),
            (161, 192),
            (256, 256),
        ];
        for (bytes, class) in classes {
            assert_eq!(allocated(bytes), class, "{bytes}");
        }
        assert_eq!(allocated(257), 320);
        assert_eq!(allocated(10_000), 10 << 10);
        assert_eq!(allocated(1_000_000), 1_003_520);
        assert_eq!(allocated_or_none(0), 0);
    }

    #[test]
    fn a_namespace_that_is_empty_again_is_not_kept() {
        let memory = Memory::default();
        let change = |sign: i64| Change {
            bytes: sign * 100,
            deletions: sign * 10,
            keys: sign,
        };
        memory.record(b"\x01nkey", change(1));
        memory.record(b"\x00key", change(1));
        let one = Usage {
            bytes: 100,
            deletions: 10,
            keys: 1,
        };
        assert_eq!(
            (memory.of(b"n"), memory.of(b""), memory.of(b"other")),
            (one, one, Usage::default())
        );
        memory.record(b"\x01nkey", change(-1));
        assert!(memory.namespaces.is_empty());
        assert_eq!(memory.all(), one);
    }

    #[test]
    fn a_key_of_any_bytes_has_a_namespace() {
        assert_eq!(namespace_of(b""), b"");
        assert_eq!(namespace_of(b"\x00abc"), b"");
        assert_eq!(namespace_of(b"\x02abc"), b"ab");
        assert_eq!(namespace_of(b"\x7fabc"), b"abc");
    }
}
