//! Digest and bookkeeping of one partition, kept up to date in O(1) per change.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::stamp::Millis;

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

/// Written only while the partition's shard is locked; read at any time.
#[derive(Debug, Default)]
pub(super) struct PartitionStats {
    digest: AtomicU64,
    keys: AtomicU64,
    changed_at: AtomicU64,
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

    /// Takes note of one change of one key: of the digest, and of whether the key holds data.
    pub fn record(&self, delta: u64, held: bool, holds: bool, now: Millis) {
        if delta != 0 {
            self.digest.fetch_add(delta, Ordering::Relaxed);
            self.changed_at.store(now, Ordering::Relaxed);
        }
        match (held, holds) {
            (false, true) => self.keys.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.keys.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
    }
}
