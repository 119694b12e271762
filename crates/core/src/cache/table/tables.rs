//! The tables of all partitions, their locks, and what is done to keys under these.

use std::ops::Deref;
use std::ptr;

use dashmap::mapref::one::RefMut;
use dashmap::try_result::TryResult;
use dashmap::DashMap;

use super::entry::Entry;
use super::nodes::Nodes;
use super::partition::PartitionStats;
use super::pieces::{entries, let_others_in, order_of, tables, ByPartition, Piece, Table};
use super::prefetch::{ahead, prefetch, AT_ONCE};
use super::table_hash::{Home, TableSecret};
use crate::cache::component::Part;
use crate::cache::delta::{Slot, StateDelta};
use crate::cache::hash::{Partition, PARTITIONS};
use crate::cache::horizon::Horizon;
use crate::cache::memory::{Change, Memory, Weight};
use crate::cache::reads::Reads;
use crate::cache::stamp::Millis;
use crate::cache::state::{KeyState, State};

/// Bytes of a bucket of a table: a pointer, and its control byte.
const BUCKET_BYTES: i64 = size_of::<Entry>() as i64 + 1;

/// Reads that are counted per key before half of them are forgotten.
const READS_PER_KEY: u64 = 2;

/// Where the entries of all keys lie.
pub(in crate::cache) struct Tables {
    /// Each partition has a shard of its own, and is there from the beginning.
    map: DashMap<Partition, Table, ByPartition>,
    /// Says where in the tables keys lie.
    secret: TableSecret,
    pub(super) nodes: Nodes,
    partitions: Box<[PartitionStats]>,
    memory: Memory,
    pub(in crate::cache) reads: Reads,
}

impl Tables {
    /// Empty tables. `secret` decides where in them keys lie.
    pub fn new(secret: [u64; 4]) -> Self {
        Tables {
            map: tables(),
            secret: TableSecret::new(secret),
            nodes: Nodes::new(),
            partitions: (0..PARTITIONS).map(|_| PartitionStats::default()).collect(),
            memory: Memory::default(),
            reads: Reads::default(),
        }
    }

    // --- one key

    /// Shows the state of a key to somebody who reads it, under the lock of its partition.
    pub fn read<T>(&self, key: &[u8], look: impl FnOnce(State<'_>) -> T) -> T {
        let home = self.home(key);
        let table = self.table(home.partition);
        let piece = table.piece(home.place);
        fetch_bucket(piece, home.place);
        let Some(entry) = piece.get(home.place, |known| known.key() == key) else {
            return look(State::NEW);
        };
        if self.reads.are_counted() && entry.count_read() {
            self.note_read(home);
        }
        look(entry.state(&self.nodes))
    }

    fn note_read(&self, home: Home) {
        self.stats(home.partition).count_read();
        self.reads.note(home.hash);
    }

    /// Shows the entry of a key, under the lock of its partition, without that counting as a read.
    pub fn look<T>(&self, key: &[u8], look: impl FnOnce(Option<&Entry>) -> T) -> T {
        let home = self.home(key);
        let table = self.table(home.partition);
        look(table.piece(home.place).get(home.place, |known| known.key() == key))
    }

    /// Forgets half of the reads of the keys of a partition if twice as many were counted as there are keys.
    pub fn cool(&self, partition: Partition) {
        let stats = self.stats(partition);
        if stats.reads() as u64 > READS_PER_KEY * stats.keys().max(1) {
            stats.forget_reads();
            self.visit(partition, Entry::halve_reads);
        }
    }

    /// One operation on a key, under the lock of its partition: see [`Locked::merge`].
    pub fn write<T, B: AsRef<[u8]>>(
        &self,
        key: &[u8],
        now: Millis,
        decide: impl FnOnce(State<'_>) -> T,
        change: impl for<'t> FnOnce(&'t T) -> Option<(&'t StateDelta<B>, bool)>,
    ) -> (T, bool) {
        let home = self.home(key);
        // At the same time as the lock.
        prefetch(ptr::from_ref(self.stats(home.partition)).cast());
        let mut locked = self.lock(home.partition);
        fetch_bucket(locked.table.piece(home.place), home.place);
        locked.merge(key, home, now, decide, change)
    }

    /// Locks a partition, to change several of its keys.
    // Inlined by hand, as `stats` and `home` are: each merge begins with it, in another module.
    #[inline]
    pub fn lock(&self, partition: Partition) -> Locked<'_> {
        Locked {
            tables: self,
            stats: self.stats(partition),
            table: self.table_mut(partition),
        }
    }

    // --- what several keys need

    /// Asks the processor for what the deltas after number `done` need, in the two steps in which a hash table is
    /// looked through: where the hash leads to, and, one group of deltas later, the entry that is found there.
    /// `fetched` counts the deltas of which the first step is done.
    pub fn fetch_ahead(&self, homes: &[Home], done: usize, fetched: &mut usize) {
        let entries = fetched.saturating_sub(AT_ONCE);
        if done + AT_ONCE < entries {
            return;
        }
        let (buckets, entries) = ((*fetched).max(done), entries.max(done));
        *fetched = entries + 2 * AT_ONCE;
        let within = |delta: usize| delta.min(homes.len());
        for home in &homes[within(buckets)..within(*fetched)] {
            self.fetch_bucket(*home);
        }
        // Of a delta that is alone only the bucket can be fetched ahead.
        if homes.len() > 1 {
            for home in &homes[within(entries)..within(entries + AT_ONCE)] {
                self.fetch_entry(*home);
            }
        }
    }

    /// Asks the processor to fetch where a key with this hash is looked for first.
    fn fetch_bucket(&self, home: Home) {
        if let Some((control, bucket)) = self.stats(home.partition).place(home.place, size_of::<Entry>()) {
            prefetch(control);
            prefetch(bucket);
        }
    }

    /// Asks the processor to fetch the first entry that may be that of a key with this hash.
    fn fetch_entry(&self, home: Home) {
        if !self.stats(home.partition).is_large() {
            return;
        }
        if let TryResult::Present(table) = self.map.try_get(&home.partition) {
            table.piece(home.place).find(home.place, |entry| {
                entry.prefetch();
                true
            });
        }
    }

    // --- all keys of a partition

    /// Shows all entries of a partition, each once.
    pub fn visit(&self, partition: Partition, mut show: impl FnMut(&Entry)) {
        let mut from = Some(0);
        while let Some(order) = from {
            let table = self.table(partition);
            let (piece, first, last) = table.piece_around(order);
            for entry in entries(piece) {
                // Pieces that were put together since begin with what was seen already.
                if first == order || self.order_of(entry) >= order {
                    show(entry);
                }
            }
            drop(table);
            from = last.checked_add(1);
            from.iter().for_each(|_| let_others_in());
        }
    }

    /// Runs `change` on every key of a partition that `wanted` accepts, under the partition's lock; it returns the
    /// change of the digest, and whether the key is to be dropped. Returns how many were dropped.
    pub fn change_all(
        &self,
        partition: Partition,
        now: Millis,
        wanted: impl Fn(&[u8], State<'_>) -> bool,
        mut change: impl FnMut(&[u8], &mut KeyState) -> (u64, bool),
    ) -> usize {
        let mut dropped = 0;
        let mut from = Some(0);
        while let Some(order) = from {
            let (of_piece, last) = self.change_piece(partition, order, now, &wanted, &mut change);
            dropped += of_piece;
            from = last.checked_add(1);
            from.iter().for_each(|_| let_others_in());
        }
        dropped
    }

    /// The same with the keys of one piece. Returns how many were dropped, and the last order in that piece.
    #[allow(unsafe_code)]
    fn change_piece(
        &self,
        partition: Partition,
        order: u64,
        now: Millis,
        wanted: impl Fn(&[u8], State<'_>) -> bool,
        mut change: impl FnMut(&[u8], &mut KeyState) -> (u64, bool),
    ) -> (usize, u64) {
        let stats = self.stats(partition);
        let mut table = self.table_mut(partition);
        let mut changes = std::mem::take(&mut table.changes);
        let (piece, _, last) = table.piece_around_mut(order);
        let mut dropped = 0;
        // SAFETY: the partition is locked for writing and the piece borrowed exclusively throughout, so nobody else
        // looks at its entries. Nothing is inserted meanwhile, so the table stays where it is and the buckets that were
        // fetched ahead stay those of entries: the only one erased is the one whose turn it is, which the iterator has
        // left behind, as it may be. Each bucket comes once, and `entry` is not used after its bucket was erased.
        unsafe {
            for bucket in ahead(piece.iter(), |bucket| bucket.as_ref().prefetch()) {
                let entry = bucket.as_mut();
                let state = entry.state(&self.nodes);
                if !wanted(entry.key(), state) {
                    continue;
                }
                let (before, elements, horizon) = (entry.weight(), entry.elements(), state.horizon());
                let (delta, drop) = entry.change(&self.nodes, &mut change);
                let after = if drop { Weight::default() } else { entry.weight() };
                let (held, holds) = (before.holds_data, after.holds_data);
                stats.record(delta, now);
                self.weigh(stats, entry.key(), before, after);
                if changes.are_tracked() {
                    changes.vanished |= drop || entry.elements() < elements;
                    let now = entry.state(&self.nodes).horizon();
                    // A value that was given back changes neither horizon nor digest.
                    if !drop && (horizon != now || held != holds) {
                        changes.note(entry, self.place_of(entry), (horizon, now), Slot::Reset);
                    }
                }
                if drop {
                    piece.erase(bucket);
                    dropped += 1;
                }
            }
        }
        stats.set_changes(changes.len());
        table.changes = changes;
        if dropped > 0 && table.shrink(order, |entry| self.place_of(entry)) {
            self.note_table(stats, &table);
        }
        (dropped, last)
    }

    // --- memory

    /// What keys take, in all and by namespace.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Takes note of what a key takes now.
    #[inline]
    fn weigh(&self, stats: &PartitionStats, key: &[u8], before: Weight, after: Weight) {
        if before != after {
            let change = Change::between(before, after);
            stats.weigh(change);
            self.memory.record(key, change);
        }
    }

    /// Where the table of a partition lies now, and what it takes. One in pieces is not asked for ahead.
    fn note_table(&self, stats: &PartitionStats, table: &Table) {
        match table.whole() {
            // The control bytes follow the buckets.
            Some(whole) => stats.lies_at(whole.data_end().as_ptr().cast(), whole.buckets()),
            None => stats.lies_at(ptr::null_mut(), 1),
        }
        let buckets = table.buckets();
        let grown = buckets as i64 - stats.set_buckets(buckets) as i64;
        self.memory.record_tables(grown * BUCKET_BYTES);
    }

    // --- partitions

    /// Digests and bookkeeping of all partitions, in order.
    pub fn all_stats(&self) -> &[PartitionStats] {
        &self.partitions
    }

    /// Number of entries.
    pub fn entries(&self) -> usize {
        self.map.iter().map(|table| table.len()).sum()
    }

    // --- where keys lie

    /// The state of an entry.
    pub fn state<'e>(&self, entry: &'e Entry) -> State<'e> {
        entry.state(&self.nodes)
    }

    /// Where a key lives.
    #[inline]
    pub fn home(&self, key: &[u8]) -> Home {
        Home::of(key, &self.secret)
    }

    /// Where a table puts an entry.
    pub(super) fn place_of(&self, entry: &Entry) -> u64 {
        self.secret.hash(entry.key())
    }

    /// Where it stands in the order of pieces.
    pub fn order_of(&self, entry: &Entry) -> u64 {
        order_of(self.place_of(entry))
    }

    /// Where an element of a key stands among those of the key, and the reset before them.
    pub fn order_of_part(&self, part: &Part<'_>) -> u64 {
        part.identity(|bytes| self.secret.hash(bytes)).unwrap_or(0)
    }

    /// The table of a partition, locked to be looked at.
    pub fn table(&self, partition: Partition) -> impl Deref<Target = Table> + '_ {
        self.map.get(&partition).expect("all partitions are there")
    }

    /// The same, locked to be changed.
    #[inline]
    pub(super) fn table_mut(&self, partition: Partition) -> RefMut<'_, Partition, Table> {
        self.map.get_mut(&partition).expect("all partitions are there")
    }

    /// Digest and bookkeeping of a partition.
    #[inline]
    pub fn stats(&self, partition: Partition) -> &PartitionStats {
        &self.partitions[partition.0 as usize]
    }
}

/// A partition that is locked to be changed.
pub(in crate::cache) struct Locked<'t> {
    tables: &'t Tables,
    stats: &'t PartitionStats,
    table: RefMut<'t, Partition, Table>,
}

impl Locked<'_> {
    /// So many keys are about to come.
    pub fn expect(&mut self, keys: usize) {
        let tables = self.tables;
        self.table.expect(keys, |entry| tables.place_of(entry));
    }

    /// One operation on a key of this partition: `decide` sees the state and `change` says what is to be merged after
    /// that, and whether that is a removal from before the floor ([`KeyState::apply_forgotten`]). Returns what was
    /// decided, and whether the state has changed.
    pub fn merge<T, B: AsRef<[u8]>>(
        &mut self,
        key: &[u8],
        Home { hash, partition, place }: Home,
        now: Millis,
        decide: impl FnOnce(State<'_>) -> T,
        change: impl for<'t> FnOnce(&'t T) -> Option<(&'t StateDelta<B>, bool)>,
    ) -> (T, bool) {
        debug_assert_eq!(*self.table.key(), partition);
        let (tables, stats, table) = (self.tables, self.stats, &mut *self.table);
        let nodes = &tables.nodes;
        let (piece, changes) = table.piece_and_changes(place);
        let tracked = changes.are_tracked();
        let known = piece.get_mut(place, |known| known.key() == key);
        let Some(entry) = known else {
            let decided = decide(State::NEW);
            let made = match change(&decided) {
                Some((change, false)) => Entry::made_by(nodes, key, hash, change),
                _ => None,
            };
            let Some((mut entry, delta)) = made else {
                return (decided, false);
            };
            stats.record(delta, now);
            tables.weigh(stats, key, Weight::default(), entry.weight());
            if tracked {
                changes.note(&mut entry, place, (Horizon::START, Horizon::START), Slot::Reset);
                stats.set_changes(changes.len());
            }
            if tables.reads.are_counted() {
                // What was just written is not the first to go.
                entry.count_read();
            }
            table.insert(place, entry, |entry| tables.place_of(entry));
            tables.note_table(stats, table);
            return (decided, true);
        };
        let decided = decide(entry.state(nodes));
        let Some((change, forgotten)) = change(&decided) else {
            return (decided, false);
        };
        let weight = entry.weight();
        let before = tracked.then(|| (entry.state(nodes).horizon(), entry.elements()));
        let delta = match forgotten {
            false => entry.apply(nodes, hash, change),
            true => entry.change(nodes, |_, state| state.apply_forgotten(hash, change)),
        };
        stats.record(delta, now);
        tables.weigh(stats, key, weight, entry.weight());
        if let Some((horizon, elements)) = before.filter(|_| delta != 0) {
            let raised = entry.state(nodes).horizon();
            changes.vanished |= forgotten || entry.elements() < elements || elements > 0 && raised != horizon;
            changes.note(entry, place, (horizon, raised), change.slot());
            stats.set_changes(changes.len());
        }
        (decided, delta != 0)
    }
}

/// Asks the processor to fetch the bucket in which a key with this hash is looked for first: so it comes at the same
/// time as the control bytes, not after them.
pub(super) fn fetch_bucket(piece: &Piece, place: u64) {
    let place = place as usize & (piece.buckets() - 1);
    // Buckets are counted downwards.
    prefetch(piece.data_end().as_ptr().wrapping_sub(place + 1).cast());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::delta::Value;
    use crate::cache::key::Key;
    use crate::cache::stamp::{NodeId, Stamp, Time};

    /// Were all partitions of a size, it would swing between 1.14 and 2.29.
    #[test]
    fn tables_take_the_same_per_key_at_every_number_of_keys() {
        let tables = Tables::new([0; 4]);
        let put = StateDelta::Put {
            at: Stamp {
                time: Time(1 << 16),
                node: NodeId(1),
            },
            value: Value::Held(&b"value"[..]),
            expires_at: None,
            seen: Vec::new(),
        };
        let keys = |from: usize, to: usize| (from..to).map(|n| Key::shared(format!("key{n}").as_bytes()));
        let mut held = 0;
        for number in (0..8).map(|eighth| (40_000.0 * (eighth as f64 / 8.0).exp2()) as usize) {
            for key in keys(held, number) {
                tables.write(key.as_bytes(), 1, |_| &put, |put| Some((*put, false)));
            }
            held = number;
            let buckets_of = |table: &Table| table.pieces().map(Piece::buckets).sum::<usize>();
            let buckets: usize = tables.map.iter().map(|table| buckets_of(&table)).sum();
            let per_key = buckets as f64 / number as f64;
            assert!((1.5..1.8).contains(&per_key), "{number} keys: {per_key}");
        }
    }
}
