//! Which keys are read, as far as it takes to know which are read least: for a cache that makes room.
//!
//! Each entry counts its own reads in a few bits, up to a small number, and forgets half of them now and then
//! (least frequently used with aging; Robinson, Devarakonda, 1990). What other nodes read they tell in *hints*: the keys
//! of which reads were counted of late. Hints are added up in a count-min sketch of bounded size (Cormode,
//! Muthukrishnan, 2005), as TinyLFU does (Einziger, Friedman, Manes, 2017).

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, AtomicUsize, Ordering};
use std::sync::OnceLock;

use super::hash::KeyHash;

/// Keys of which counted reads are remembered until they are told: one of each slot.
const HOT_SLOTS: usize = 4_096;
/// Counters in a row of the sketch.
const SKETCH: usize = 1 << 15;
const ROWS: usize = 2;
/// Hinted reads of a key that count at most.
const MOST_HINTED: u8 = 14;
/// After so many reads that were hinted, half of them are forgotten.
const AGE: usize = 4 * SKETCH;

/// In a hint, the bits of the number of reads.
const COUNT: u64 = 0xff;

/// A key that was read, and how often that was counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Hint(u64);

impl Hint {
    /// From the 64 bits that [`Hint::bits`] returns.
    pub fn of_bits(bits: u64) -> Self {
        Hint(bits)
    }

    /// The upper 56 bits are those of the key's hash, the lower 8 the number of reads.
    pub fn bits(self) -> u64 {
        self.0
    }

    fn of(hash: KeyHash, reads: u8) -> Self {
        Hint(hash.0 & !COUNT | u64::from(reads))
    }

    /// How many reads were counted.
    pub fn reads(self) -> u8 {
        (self.0 & COUNT) as u8
    }

    fn is_of(self, hash: KeyHash) -> bool {
        (self.0 ^ hash.0) & !COUNT == 0
    }
}

/// What is known of reads, but for what entries count.
#[derive(Debug, Default)]
pub(super) struct Reads {
    counting: AtomicBool,
    hot: OnceLock<Box<[AtomicU64]>>,
    hinted: OnceLock<Sketch>,
}

impl Reads {
    /// From now on reads are counted.
    pub fn count(&self) {
        self.hot();
        self.counting.store(true, Ordering::Relaxed);
    }

    #[inline]
    pub fn are_counted(&self) -> bool {
        self.counting.load(Ordering::Relaxed)
    }

    fn hot(&self) -> &[AtomicU64] {
        self.hot
            .get_or_init(|| (0..HOT_SLOTS).map(|_| AtomicU64::new(0)).collect())
    }

    /// A read of a key was counted. Of keys that share a slot the one that is read most often stays (Misra, Gries, 1982).
    /// Of two reads at once one may be lost.
    pub fn note(&self, hash: KeyHash) {
        let slot = &self.hot()[(hash.0 >> 20) as usize % HOT_SLOTS];
        let known = Hint(slot.load(Ordering::Relaxed));
        let noted = match known.reads() {
            0 => Hint::of(hash, 1),
            reads if known.is_of(hash) => Hint(known.0 & !COUNT | u64::from(reads.saturating_add(1))),
            reads => Hint(known.0 & !COUNT | u64::from(reads - 1)),
        };
        slot.store(noted.0, Ordering::Relaxed);
    }

    /// The keys of which most reads were counted since the last call, `most` at most.
    pub fn take_hot(&self, most: usize) -> Vec<Hint> {
        if !self.are_counted() {
            return Vec::new();
        }
        let taken = self.hot().iter().map(|slot| Hint(slot.swap(0, Ordering::Relaxed)));
        let mut hot: Vec<Hint> = taken.filter(|hint| hint.reads() > 0).collect();
        if hot.len() > most {
            hot.select_nth_unstable_by_key(most, |hint| std::cmp::Reverse(hint.reads()));
            hot.truncate(most);
        }
        hot
    }

    /// Another node has read a key.
    pub fn hint(&self, hint: Hint) {
        if self.are_counted() {
            self.hinted.get_or_init(Sketch::new).add(hint);
        }
    }

    /// About how often other nodes have read a key of late, up to a small number.
    pub fn hinted(&self, hash: KeyHash) -> u8 {
        self.hinted.get().map_or(0, |sketch| sketch.estimate(hash))
    }
}

/// Counts per key, which may be too high where keys share counters.
#[derive(Debug)]
struct Sketch {
    counters: Box<[AtomicU8]>,
    /// Since half was forgotten.
    added: AtomicUsize,
}

impl Sketch {
    fn new() -> Self {
        Sketch {
            counters: (0..ROWS * SKETCH).map(|_| AtomicU8::new(0)).collect(),
            added: AtomicUsize::new(0),
        }
    }

    /// The counters of a key, by bits that a hint has.
    fn counters(&self, hash: u64) -> [&AtomicU8; ROWS] {
        [
            &self.counters[(hash >> 8) as usize % SKETCH],
            &self.counters[SKETCH + (hash >> 36) as usize % SKETCH],
        ]
    }

    fn add(&self, hint: Hint) {
        let counters = self.counters(hint.0);
        let least = counters.iter().map(|counter| counter.load(Ordering::Relaxed)).min();
        let sum = least.unwrap_or(0).saturating_add(hint.reads()).min(MOST_HINTED);
        for counter in counters {
            counter.fetch_max(sum, Ordering::Relaxed);
        }
        let reads = usize::from(hint.reads());
        if self.added.fetch_add(reads, Ordering::Relaxed) + reads >= AGE {
            self.added.store(0, Ordering::Relaxed);
            for counter in &self.counters {
                counter.store(counter.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
            }
        }
    }

    fn estimate(&self, hash: KeyHash) -> u8 {
        let counters = self.counters(hash.0);
        let least = counters.iter().map(|counter| counter.load(Ordering::Relaxed)).min();
        least.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> KeyHash {
        KeyHash::of(&n.to_le_bytes())
    }

    #[test]
    fn what_is_read_most_is_told_and_then_forgotten() {
        let reads = Reads::default();
        assert!(reads.take_hot(10).is_empty());
        reads.count();
        for n in 0..20_000 {
            reads.note(hash(n));
            if n % 2 == 0 {
                (0..8).for_each(|hot| reads.note(hash(1_000_000 + hot)));
            }
        }
        let hot = reads.take_hot(8);
        assert_eq!(hot.len(), 8);
        for n in 0..8 {
            let told = hot.iter().find(|hint| hint.is_of(hash(1_000_000 + n)));
            assert_eq!(told.map(|hint| hint.reads()), Some(u8::MAX), "{n}");
        }
        assert!(reads.take_hot(8).is_empty());
    }

    #[test]
    fn hints_add_up_to_a_small_number_and_age() {
        let reads = Reads::default();
        reads.hint(Hint::of(hash(1), 5));
        assert_eq!(reads.hinted(hash(1)), 0, "nobody counts");
        reads.count();
        reads.hint(Hint::of_bits(Hint::of(hash(1), 5).bits()));
        reads.hint(Hint::of(hash(1), 4));
        assert_eq!((reads.hinted(hash(1)), reads.hinted(hash(2))), (9, 0));
        reads.hint(Hint::of(hash(1), 200));
        assert_eq!(reads.hinted(hash(1)), MOST_HINTED);
        for n in 0..2 * AGE as u64 {
            reads.hint(Hint::of(hash(2 + n % 100), 1));
        }
        assert!(reads.hinted(hash(1)) <= MOST_HINTED / 4, "{}", reads.hinted(hash(1)));
    }
}
