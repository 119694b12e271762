//! Digest and bookkeeping of one partition, kept up to date in O(1) per change.

use std::fmt;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use crate::cache::memory::Change;
use crate::cache::stamp::Millis;

/// Wrapping sum of component hashes: equal digests mean equal state (but for one chance in 2^64).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Digest(pub u64);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::iter::Sum for Digest {
    fn sum<I: Iterator<Item = Digest>>(iter: I) -> Self {
        Digest(iter.fold(0, |sum, digest| sum.wrapping_add(digest.0)))
    }
}

/// From so many buckets on a table counts as large: with entries, 1,024 of them are some 10 MB.
const LARGE_TABLE: usize = 128;

/// Written only while the partition's shard is locked for writing, so no step of reading, adding and writing needs to
/// be atomic; read at any time.
#[derive(Debug, Default)]
pub(in crate::cache) struct PartitionStats {
    digest: AtomicU64,
    keys: AtomicU64,
    changed_at: AtomicU64,
    /// What the keys take, and of that what is left of deletions, in bytes.
    bytes: AtomicU64,
    deletions: AtomicU64,
    /// Reads that were counted since half of them were forgotten; about, as readers do not wait for each other.
    reads: AtomicUsize,
    /// Buckets of the table.
    buckets: AtomicUsize,
    /// Changes that nobody has taken note of yet.
    changes: AtomicUsize,
    /// Where the control bytes of the table lie, and their number less one; only for hints to the processor.
    control: AtomicPtr<u8>,
    mask: AtomicUsize,
}

impl PartitionStats {
    pub fn digest(&self) -> Digest {
        Digest(self.digest.load(Ordering::Relaxed))
    }

    /// Keys that hold data.
    pub fn keys(&self) -> u64 {
        self.keys.load(Ordering::Relaxed)
    }

    /// When the digest last changed.
    pub fn changed_at(&self) -> Millis {
        self.changed_at.load(Ordering::Relaxed)
    }

    /// How many changes wait for somebody to take note of them; 0 for none.
    pub fn changes(&self) -> usize {
        self.changes.load(Ordering::Relaxed)
    }

    /// So many changes wait.
    pub fn set_changes(&self, number: usize) {
        self.changes.store(number, Ordering::Relaxed);
    }

    /// Bytes that keys take which hold data, but for what is left of the removal of their elements.
    pub fn live_bytes(&self) -> u64 {
        let bytes = self.bytes.load(Ordering::Relaxed);
        bytes.saturating_sub(self.deletions.load(Ordering::Relaxed))
    }

    /// A read of a key was counted.
    pub fn count_read(&self) {
        self.reads.store(self.reads() + 1, Ordering::Relaxed);
    }

    /// Reads that were counted since the last were forgotten.
    pub fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    pub fn forget_reads(&self) {
        self.reads.store(0, Ordering::Relaxed);
    }

    /// Takes note of the number of buckets. Returns what it was.
    pub fn set_buckets(&self, buckets: usize) -> usize {
        let before = self.buckets.load(Ordering::Relaxed);
        self.buckets.store(buckets, Ordering::Relaxed);
        before
    }

    /// Takes note of one change of the digest.
    pub fn record(&self, delta: u64, now: Millis) {
        if delta != 0 {
            add(&self.digest, delta);
            self.changed_at.store(now, Ordering::Relaxed);
        }
    }

    /// Takes note of a change of what the keys take.
    pub fn weigh(&self, change: Change) {
        let sums = [
            (&self.keys, change.keys),
            (&self.bytes, change.bytes),
            (&self.deletions, change.deletions),
        ];
        for (sum, change) in sums {
            add(sum, change as u64);
        }
    }

    /// Takes note of where the table of the partition lies.
    pub fn lies_at(&self, control: *mut u8, buckets: usize) {
        self.control.store(control, Ordering::Relaxed);
        self.mask.store(buckets - 1, Ordering::Relaxed);
    }

    /// Where a hash is looked for first: the control bytes, and the bucket, which is one of `bucket_bytes` counted
    /// downwards from the control bytes. Perhaps in a table that is gone, so only for [`prefetch`](super::prefetch).
    /// `None` where the table is small.
    pub fn place(&self, hash: u64, bucket_bytes: usize) -> Option<(*const u8, *const u8)> {
        let place = hash as usize & self.mask.load(Ordering::Relaxed);
        let control = self.control.load(Ordering::Relaxed);
        let bucket = control.wrapping_sub((place + 1) * bucket_bytes);
        self.is_large()
            .then(|| (control.wrapping_add(place).cast_const(), bucket.cast_const()))
    }

    /// Whether the table is one of those which, all together, do not fit into the cache of a processor.
    pub fn is_large(&self) -> bool {
        self.mask.load(Ordering::Relaxed) >= LARGE_TABLE
    }
}

/// Adds to a number that nobody else writes meanwhile.
fn add(number: &AtomicU64, delta: u64) {
    let sum = number.load(Ordering::Relaxed).wrapping_add(delta);
    number.store(sum, Ordering::Relaxed);
}
