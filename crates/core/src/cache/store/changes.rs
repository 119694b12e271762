//! What has changed since somebody took note of it: for those who write it elsewhere.

use std::sync::atomic::Ordering;

use super::Cache;
use crate::cache::delta::Delta;
use crate::cache::hash::Partition;
use crate::cache::table::Taken;

impl Cache {
    /// Takes note of what changes from now on, whoever changes it. Up to `limit` changes of a partition are remembered
    /// one by one, at 40 bytes each and at most 64 on average for the members of sets; beyond that a mark on each key that has changed, which takes no memory.
    pub fn track_changes(&self, limit: usize) {
        self.tables.track_changes(limit);
    }

    /// From now on the number of the store that this node writes to with others; 0 for none. Heartbeats say so: partitions
    /// are divided among those that write to the same one.
    pub fn set_shared_store(&self, number: u64) {
        self.shared_store.store(number, Ordering::Relaxed);
    }

    /// The number of the store that this node writes to with others, or 0.
    pub fn shared_store(&self) -> u64 {
        self.shared_store.load(Ordering::Relaxed)
    }

    /// Notes all that a partition holds as changed.
    pub fn note_all_as_changed(&self, partition: Partition) {
        self.tables.note_all(partition);
    }

    /// Whether anything of a partition has changed that nobody has taken note of.
    pub fn has_changes(&self, partition: Partition) -> bool {
        self.tables.stats(partition).has_changes()
    }

    /// How many changes of a partition nobody has taken note of. Those of a key with few components count once, and what
    /// is beyond the limit counts once in all.
    pub fn changes_in(&self, partition: Partition) -> usize {
        self.tables.stats(partition).changes()
    }

    /// The same of all partitions.
    pub fn changes(&self) -> usize {
        Partition::all().map(|partition| self.changes_in(partition)).sum()
    }

    /// Writes out the components of a partition that have changed since the last time, each as a delta that brings it to
    /// a cache that lacks it, until `emit` answers that it has enough. A key with few components is written out whole.
    /// `emit` is called with the partition locked.
    ///
    /// What is written out has been taken note of: who cannot use it has to keep it, or to ask for all of the partition
    /// ([`Cache::note_all_as_changed`]).
    pub fn take_changes(&self, partition: Partition, mut emit: impl FnMut(Delta<&[u8]>) -> bool) -> Taken {
        self.tables.take_changes(partition, |key, part| {
            let change = part.change();
            emit(Delta { key, change })
        })
    }
}
