//! The table of one partition: where the entries of its keys are found.
//!
//! Which keys share a partition is known to everybody, so a partition takes as many as somebody wants it to. One table
//! that doubles hashes all its keys again while everybody waits. So from some size on it is cut in two instead, by the
//! hash under the secret of this process ([`TableSecret`](super::table_hash::TableSecret)), and so are its pieces: none
//! is larger than [`MAX_BUCKETS`]. What walks a partition takes its lock for one piece at a time.

use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use dashmap::DashMap;
use hashbrown_raw::raw::{Bucket, RawTable};

use super::changes::Changes;
use super::entry::Entry;
use super::prefetch::ahead;
use crate::cache::hash::{Partition, PARTITIONS};

/// Buckets of a piece. A partition of a cache of 10,000,000 keys is one piece.
const MAX_BUCKETS: usize = 1 << 15;

/// Entries that a piece takes.
const MAX_ENTRIES: usize = MAX_BUCKETS / 8 * 7;

/// A part of a table, in which keys lie by the hash of [`Table`].
pub(in crate::cache) type Piece = RawTable<Entry>;

/// Where a key stands in the order over which pieces are cut. Tables look at the upper 7 bits of a hash to tell keys
/// apart, and at the lower ones to place them; both have to differ within a piece, so the order begins between them.
pub(super) fn order_of(place: u64) -> u64 {
    place.rotate_left(7)
}

/// A table, in pieces that follow one another in the order of [`order_of`]. `place_of` in its functions hashes the key
/// of an entry, and `place` is that of a key.
pub(in crate::cache) struct Table {
    first: Piece,
    /// Buckets of all pieces.
    buckets: usize,
    /// All others, each with the order at which it begins.
    rest: Vec<(u64, Piece)>,
    /// What has changed since somebody took note of it.
    pub changes: Changes,
}

impl Table {
    pub const fn new() -> Self {
        Table {
            first: Piece::new(),
            buckets: 0,
            rest: Vec::new(),
            changes: Changes::new(),
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.pieces().map(Piece::len).sum()
    }

    /// Buckets of all pieces.
    pub fn buckets(&self) -> usize {
        self.buckets
    }

    fn count_buckets(&mut self) {
        self.buckets = self.pieces().map(Piece::buckets).sum();
    }

    /// The pieces in order.
    pub fn pieces(&self) -> impl Iterator<Item = &Piece> {
        std::iter::once(&self.first).chain(self.rest.iter().map(|(_, piece)| piece))
    }

    /// The piece that is all of the table, unless it was cut.
    pub fn whole(&self) -> Option<&Piece> {
        self.rest.is_empty().then_some(&self.first)
    }

    /// The piece in which a key lies.
    #[inline]
    pub fn piece(&self, place: u64) -> &Piece {
        match self.whole() {
            Some(whole) => whole,
            None => self.at(self.index(order_of(place))),
        }
    }

    /// The same.
    #[inline]
    pub fn piece_mut(&mut self, place: u64) -> &mut Piece {
        match self.rest.is_empty() {
            true => &mut self.first,
            false => self.at_mut(self.index(order_of(place))),
        }
    }

    /// The same, and beside it what has changed.
    #[inline]
    pub fn piece_and_changes(&mut self, place: u64) -> (&mut Piece, &mut Changes) {
        let index = match self.rest.is_empty() {
            true => 0,
            false => self.index(order_of(place)),
        };
        let piece = match index.checked_sub(1) {
            None => &mut self.first,
            Some(index) => &mut self.rest[index].1,
        };
        (piece, &mut self.changes)
    }

    /// The piece in which `order` lies, where it begins, and the last order in it.
    pub fn piece_around(&self, order: u64) -> (&Piece, u64, u64) {
        let index = self.index(order);
        let (first, last) = self.bounds(index);
        (self.at(index), first, last)
    }

    /// The same.
    pub fn piece_around_mut(&mut self, order: u64) -> (&mut Piece, u64, u64) {
        let index = self.index(order);
        let (first, last) = self.bounds(index);
        (self.at_mut(index), first, last)
    }

    /// So many entries are about to come: an empty table takes its size at once.
    pub fn expect(&mut self, entries: usize, place_of: impl Fn(&Entry) -> u64) {
        if self.rest.is_empty() && self.first.is_empty() {
            self.first.reserve(entries, place_of);
            self.count_buckets();
        }
    }

    /// Inserts a key that is not there.
    pub fn insert(&mut self, place: u64, entry: Entry, place_of: impl Fn(&Entry) -> u64) {
        let piece = self.piece(place);
        let full = piece.len() == piece.capacity();
        if full {
            self.make_room(place, &place_of);
        }
        self.piece_mut(place).insert(place, entry, place_of);
        if full {
            self.count_buckets();
        }
    }

    /// The piece of this place is full. It doubles, or is cut.
    #[cold]
    fn make_room(&mut self, place: u64, place_of: &impl Fn(&Entry) -> u64) {
        let index = self.index(order_of(place));
        let piece = self.at_mut(index);
        // One that is full of what was removed only has to be put in order.
        if piece.buckets() < MAX_BUCKETS || piece.len() <= MAX_ENTRIES / 2 {
            // It may double, and then hash all its keys again, which lie anywhere in memory.
            entries(piece).for_each(drop);
            return;
        }
        let (first, last) = self.bounds(index);
        if first == last {
            return;
        }
        let middle = first + (last - first) / 2 + 1;
        let full = std::mem::replace(self.at_mut(index), Piece::with_capacity(MAX_ENTRIES));
        let mut upper = Piece::with_capacity(MAX_ENTRIES);
        let lower = self.at_mut(index);
        for entry in ahead(full.into_iter(), Entry::prefetch) {
            let place = place_of(&entry);
            let half = if order_of(place) < middle {
                &mut *lower
            } else {
                &mut upper
            };
            half.insert(place, entry, place_of);
        }
        self.rest.insert(index, (middle, upper));
    }

    /// Entries were removed: a piece that was mostly emptied gives its memory back, and few entries need no pieces.
    /// Returns whether anything lies elsewhere now.
    pub fn shrink(&mut self, order: u64, place_of: impl Fn(&Entry) -> u64) -> bool {
        let index = self.index(order);
        let piece = self.at_mut(index);
        let mut moved = false;
        if piece.len() * 4 < piece.capacity() {
            piece.shrink_to(piece.len(), &place_of);
            moved = true;
        }
        if !self.rest.is_empty() && self.len() < MAX_ENTRIES / 4 {
            let mut one = Piece::with_capacity(self.len());
            let rest = std::mem::take(&mut self.rest).into_iter().map(|(_, piece)| piece);
            for entry in std::iter::once(std::mem::take(&mut self.first)).chain(rest).flatten() {
                one.insert(place_of(&entry), entry, &place_of);
            }
            self.first = one;
            moved = true;
        }
        if moved {
            self.count_buckets();
        }
        moved
    }

    /// The number of the piece in which `order` lies.
    fn index(&self, order: u64) -> usize {
        self.rest.partition_point(|(first, _)| *first <= order)
    }

    fn at(&self, index: usize) -> &Piece {
        match index.checked_sub(1) {
            None => &self.first,
            Some(index) => &self.rest[index].1,
        }
    }

    fn at_mut(&mut self, index: usize) -> &mut Piece {
        match index.checked_sub(1) {
            None => &mut self.first,
            Some(index) => &mut self.rest[index].1,
        }
    }

    /// The first and the last order of a piece.
    fn bounds(&self, index: usize) -> (u64, u64) {
        let first = index.checked_sub(1).map_or(0, |index| self.rest[index].0);
        let last = self.rest.get(index).map_or(u64::MAX, |(next, _)| next - 1);
        (first, last)
    }
}

/// Gives each partition the shard of its number.
pub(super) type ByPartition = BuildHasherDefault<PartitionHasher>;

/// The map of all tables, in which each partition has a shard, and with it a lock, of its own.
pub(super) fn tables() -> DashMap<Partition, Table, ByPartition> {
    let map = DashMap::with_hasher_and_shard_amount(ByPartition::default(), PARTITIONS);
    Partition::all().for_each(|partition| drop(map.insert(partition, Table::new())));
    map
}

/// Takes the number of a partition.
#[derive(Default)]
pub(super) struct PartitionHasher(u16);

impl Hasher for PartitionHasher {
    /// The map chooses a shard by the bits that follow the upper 7.
    fn finish(&self) -> u64 {
        u64::from(self.0) << (64 - 7 - PARTITIONS.trailing_zeros())
    }

    fn write(&mut self, bytes: &[u8]) {
        // A partition writes its number alone.
        self.0 = bytes.iter().fold(0, |number, byte| number << 8 | u16::from(*byte));
    }

    fn write_u16(&mut self, number: u16) {
        self.0 = number;
    }
}

/// How long a walk keeps away from a lock between two pieces.
const APART: Duration = Duration::from_micros(50);

/// Between two pieces. The lock is not fair: who takes it again at once is faster than those that it has just woken.
pub(in crate::cache) fn let_others_in() {
    std::thread::sleep(APART);
}

/// The entries of a piece, whose memory is asked for ahead.
#[allow(unsafe_code)]
pub(in crate::cache) fn entries(piece: &Piece) -> impl Iterator<Item = &Entry> {
    // SAFETY: the iterator and what it shows borrow the piece, as its type says. So for as long as they live the table
    // is there, and nobody inserts, removes or changes an entry: buckets ahead stay those of entries.
    let entries = unsafe { piece.iter().map(|bucket: Bucket<Entry>| bucket.as_ref()) };
    ahead(entries, |entry| entry.prefetch())
}

#[cfg(test)]
mod tests {
    use super::super::nodes::Nodes;
    use super::super::table_hash::TableSecret;
    use super::*;
    use crate::cache::delta::{StateDelta, Value};
    use crate::cache::hash::KeyHash;
    use crate::cache::stamp::{NodeId, Stamp, Time};

    fn entry(nodes: &Nodes, key: &[u8]) -> Entry {
        let at = Stamp {
            time: Time(1 << 16),
            node: NodeId(1),
        };
        let (value, seen) = (Value::Held(&b"value"[..]), Vec::new());
        let put = StateDelta::Put {
            at,
            value,
            expires_at: None,
            seen,
        };
        Entry::made_by(nodes, key, KeyHash::of(key), &put)
            .expect("a put makes an entry")
            .0
    }

    fn key(n: usize) -> Vec<u8> {
        format!("key{n}").into_bytes()
    }

    #[test]
    fn each_partition_has_a_lock_of_its_own() {
        let tables = tables();
        let locked: Vec<_> = Partition::all()
            .map(|partition| tables.try_get_mut(&partition))
            .collect();
        assert!(locked.iter().all(|table| table.is_present()));
    }

    #[test]
    fn a_table_is_cut_and_put_together_and_loses_nothing() {
        const KEYS: usize = 5 * MAX_ENTRIES;
        let (nodes, secret) = (Nodes::new(), TableSecret::new([1, 2, 3, 4]));
        let place_of = |entry: &Entry| secret.hash(entry.key());
        let mut table = Table::new();
        for n in 0..KEYS {
            table.insert(secret.hash(&key(n)), entry(&nodes, &key(n)), place_of);
        }
        assert!((5..=16).contains(&table.pieces().count()), "{}", table.pieces().count());
        assert!(table.pieces().all(|piece| piece.buckets() <= MAX_BUCKETS));
        assert_eq!(table.len(), KEYS);
        let there = |table: &Table, n: usize| {
            let place = secret.hash(&key(n));
            table.piece(place).get(place, |entry| entry.key() == key(n)).is_some()
        };
        assert!((0..KEYS).all(|n| there(&table, n)));

        // Each key lies in the piece of its order, and a walk from piece to piece meets each once.
        let (mut from, mut met) = (0, 0);
        loop {
            let (piece, first, last) = table.piece_around(from);
            assert_eq!(first, from);
            met += entries(piece)
                .inspect(|entry| assert!((first..=last).contains(&order_of(place_of(entry)))))
                .count();
            match last.checked_add(1) {
                Some(next) => from = next,
                None => break,
            }
        }
        assert_eq!(met, KEYS);

        for n in 100..KEYS {
            let place = secret.hash(&key(n));
            assert!(table
                .piece_mut(place)
                .remove_entry(place, |entry| entry.key() == key(n))
                .is_some());
        }
        assert!(table.shrink(0, place_of));
        assert!(table.whole().is_some_and(|whole| whole.buckets() < 1_024));
        assert!((0..200).all(|n| there(&table, n) == (n < 100)));
    }

    #[test]
    fn a_piece_full_of_what_was_removed_is_not_cut() {
        let (nodes, secret) = (Nodes::new(), TableSecret::new([1, 2, 3, 4]));
        let place_of = |entry: &Entry| secret.hash(entry.key());
        let mut table = Table::new();
        for n in 0..20 * MAX_ENTRIES {
            table.insert(secret.hash(&key(n)), entry(&nodes, &key(n)), place_of);
            if let Some(old) = n.checked_sub(MAX_ENTRIES / 3) {
                let place = secret.hash(&key(old));
                table
                    .piece_mut(place)
                    .remove_entry(place, |entry| entry.key() == key(old));
            }
        }
        assert!(table.whole().is_some());
    }
}
