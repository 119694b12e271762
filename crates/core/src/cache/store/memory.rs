//! What the cache takes, what a key takes, and making room.

use std::sync::atomic::Ordering;

use super::Cache;
use crate::cache::blob::Blob;
use crate::cache::delta::{Delta, StateDelta};
use crate::cache::error::CacheError;
use crate::cache::hash::{KeyHash, Partition};
use crate::cache::key::Key;
use crate::cache::memory::{allocated, Usage};
use crate::cache::reads::Hint;
use crate::cache::stamp::{Millis, Time};
use crate::cache::table::Entry;

/// Keys that are looked at to find one that may go: the share of them that goes is one of so many.
const LOOKED_AT: usize = 16;
/// Keys that are looked at together, at least, if there are so many.
const TOGETHER: usize = 1_024;
/// Most of them: somebody may have put all of his keys into one partition.
const MOST_TOGETHER: usize = 64 * TOGETHER;

/// The part of what is given out that the allocator takes for itself, or cannot use, is one of so many.
const LOST: u64 = 32;

/// How much a cache may take, and does, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// It may take this.
    pub cap: u64,
    /// It takes this, which may be more: what peers have written is merged all the same.
    pub used: u64,
}

/// What a key holds, to say what a write would change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Held {
    /// Bytes it takes, deletions included.
    pub bytes: usize,
    /// Whether it holds data, be it past its deadline.
    pub holds_data: bool,
    /// Whether it is a value without anything beside it, or a deletion.
    pub is_small: bool,
    /// The length of the value, where it is one without anything beside it.
    pub value_length: Option<usize>,
}

/// Which keys go first where room is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Victims {
    /// Those whose deadline is nearest; never one without.
    NearestDeadline,
    /// Those that were read least often of late, and of these the ones that were written first.
    LeastRead,
}

/// A key that may go.
struct Candidate {
    /// Those with the lowest go first: by deadline, or by reads and the time of the last write.
    rank: (u64, Time),
    key: Blob,
    /// How many bytes less are taken without it.
    frees: usize,
}

impl Cache {
    /// What all keys take.
    pub fn usage(&self) -> Usage {
        self.tables.memory().all()
    }

    /// What the keys of a namespace take; of the shared keyspace if its name is empty.
    pub fn usage_of(&self, namespace: &str) -> Usage {
        self.tables.memory().of(namespace.as_bytes())
    }

    /// Bytes of all data: keys and what they hold, what is left of deletions, and the tables that keys are found by.
    /// Counted with every change, so it can be asked as often as anybody likes.
    pub fn memory_bytes(&self) -> u64 {
        let memory = self.tables.memory();
        let bytes = memory.all().bytes + memory.tables();
        bytes + bytes / LOST
    }

    /// It is to take so many bytes at most. What peers have written is merged all the same: whoever writes asks before
    /// ([`Cache::room`], and that of its peers).
    pub fn set_cap(&self, bytes: u64) {
        self.cap.store(bytes, Ordering::Relaxed);
    }

    /// How many bytes it may take, and how many it does; `None` if nothing was said.
    pub fn room(&self) -> Option<Room> {
        let cap = self.cap.load(Ordering::Relaxed);
        (cap != u64::MAX).then(|| Room {
            cap,
            used: self.memory_bytes(),
        })
    }

    /// What a key holds.
    pub fn held(&self, key: &Key) -> Held {
        self.tables.look(key.as_bytes(), |entry| {
            entry.map_or_else(Held::default, |entry| {
                let weight = entry.weight();
                Held {
                    bytes: weight.bytes,
                    holds_data: weight.holds_data,
                    is_small: entry.is_small(),
                    value_length: entry.value_length(),
                }
            })
        })
    }

    /// Whether a set has a member (Redis SISMEMBER).
    pub fn set_contains(&self, key: &Key, member: &[u8], now: Millis) -> Result<bool, CacheError> {
        self.look_at_set(key, now, |set| set.is_some_and(|set| set.contains(member)))
    }

    // --- who reads what

    /// From now on reads of keys are counted.
    pub fn count_reads(&self) {
        self.tables.reads.count();
    }

    /// The keys of which most reads were counted since the last call, `most` at most: to be told to other nodes. None as
    /// long as half of the room is left.
    pub fn take_hints(&self, most: usize) -> Vec<Hint> {
        match self.room() {
            Some(Room { cap, used }) if used > cap / 2 => self.tables.reads.take_hot(most),
            _ => Vec::new(),
        }
    }

    /// Another node has read a key.
    pub fn hint(&self, hint: Hint) {
        self.tables.reads.hint(hint);
    }

    // --- making room

    /// Deletes keys of these partitions until `bytes` less are taken, or nothing more may go. One of 16 keys goes at a
    /// time, and which partitions come first is decided by `turn`, which is increased by those looked at. Returns the
    /// deletions, for the peers; what was written later than a deletion wins over it, as over any.
    pub fn evict(
        &self,
        partitions: &[Partition],
        turn: &mut usize,
        bytes: u64,
        victims: Victims,
        now: Millis,
    ) -> Vec<Delta> {
        let mut deltas = Vec::new();
        let mut freed = 0;
        let mut looked_at = 0;
        while freed < bytes && looked_at < partitions.len() {
            let mut candidates = Vec::new();
            while candidates.len() < TOGETHER && looked_at < partitions.len() {
                let partition = partitions[*turn % partitions.len()];
                *turn = turn.wrapping_add(1);
                looked_at += 1;
                self.candidates(partition, victims, &mut candidates);
            }
            let share = candidates.len().div_ceil(LOOKED_AT);
            if share < candidates.len() {
                candidates.select_nth_unstable_by_key(share, |candidate| candidate.rank);
                candidates.truncate(share);
            }
            candidates.sort_unstable_by_key(|candidate| candidate.rank);
            for candidate in candidates {
                if freed >= bytes {
                    break;
                }
                let frees = candidate.frees as u64;
                if let Some(delta) = self.evict_key(&candidate, victims, now) {
                    freed += frees;
                    deltas.push(delta);
                }
            }
        }
        deltas
    }

    fn candidates(&self, partition: Partition, victims: Victims, candidates: &mut Vec<Candidate>) {
        self.tables.visit(partition, |entry| {
            if !entry.holds_data() || candidates.len() >= MOST_TOGETHER {
                return;
            }
            if let Some(rank) = self.rank(entry, victims) {
                let left = allocated(entry.key().len() + LOOKED_AT);
                candidates.push(Candidate {
                    rank,
                    key: Blob::new(entry.key()),
                    frees: entry.weight().bytes.saturating_sub(left),
                });
            }
        });
        self.tables.cool(partition);
    }

    fn rank(&self, entry: &Entry, victims: Victims) -> Option<(u64, Time)> {
        let state = self.tables.state(entry);
        match victims {
            Victims::NearestDeadline => state.expires_at().map(|deadline| (deadline, Time(0))),
            Victims::LeastRead => {
                let hinted = self.tables.reads.hinted(KeyHash::of(entry.key()));
                let reads = entry.reads() + hinted;
                Some((reads.into(), state.newest().time))
            }
        }
    }

    /// Deletes a key, unless it was written since it was looked at.
    fn evict_key(&self, candidate: &Candidate, victims: Victims, now: Millis) -> Option<Delta> {
        let (rank, key) = (candidate.rank, &candidate.key);
        let decided = self.write_bytes(key, now, |state, at, _| {
            let unchanged = match victims {
                Victims::NearestDeadline => state.expires_at() == Some(rank.0),
                Victims::LeastRead => state.newest().time == rank.1,
            };
            let delete = unchanged.then(|| StateDelta::Delete { at, seen: state.seen() });
            Ok(((), delete))
        });
        decided.ok().and_then(|((), delta)| delta)
    }

    /// Forgets half of the reads of the keys of each partition in which many were counted. To be called now and then.
    pub fn cool(&self) {
        if self.tables.reads.are_counted() {
            Partition::all().for_each(|partition| self.tables.cool(partition));
        }
    }

    /// Bytes that may be made room of in a partition: keys that hold data.
    pub fn live_bytes(&self, partition: Partition) -> u64 {
        self.tables.stats(partition).live_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::stamp::NodeId;
    use crate::cache::store::Limits;

    const NOW: Millis = 1_700_000_000_000;

    fn cache(node: u64) -> Cache {
        Cache::new(NodeId(node), Limits::default())
    }

    fn all() -> Vec<Partition> {
        Partition::all().collect()
    }

    /// What is counted with every change has to be what there is.
    fn check(cache: &Cache, namespaces: &[&str]) {
        let mut sums = vec![Usage::default(); namespaces.len() + 1];
        for partition in Partition::all() {
            let mut live = 0;
            cache.tables.visit(partition, |entry| {
                let (weight, key) = (entry.weight(), entry.key());
                let state = cache.tables.state(entry);
                assert!(state.list().is_none_or(|list| list.sums_hold()), "{key:?}");
                assert!(state.set().is_none_or(|set| set.sums_hold()), "{key:?}");
                let namespace = &key[1..=usize::from(key[0])];
                let of = namespaces.iter().position(|known| known.as_bytes() == namespace);
                for sum in [0].into_iter().chain(of.map(|of| of + 1)) {
                    sums[sum].bytes += weight.bytes as u64;
                    sums[sum].deletions += weight.deletions as u64;
                    sums[sum].keys += u64::from(weight.holds_data);
                }
                live += (weight.bytes - weight.deletions) as u64;
            });
            assert_eq!(cache.live_bytes(partition), live);
        }
        assert_eq!(cache.usage(), sums[0]);
        assert_eq!(cache.keys(), sums[0].keys);
        for (namespace, sum) in namespaces.iter().zip(&sums[1..]) {
            assert_eq!(cache.usage_of(namespace), *sum, "{namespace:?}");
        }
    }

    #[test]
    fn what_is_counted_is_what_there_is() {
        let caches = [cache(1), cache(2)];
        let namespaces = ["", "a", "another"];
        let mut now = NOW;
        let mut random = 7u64;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        for round in 0..20_000u64 {
            now += draw(50);
            let cache = &caches[draw(2) as usize];
            let name = format!("key{}", draw(40));
            let key = Key::new(namespaces[draw(3) as usize], name.as_bytes()).unwrap();
            let value = vec![b'v'; [3, 20, 60, 300, 5_000][draw(5) as usize]];
            let member = format!("{}{}", draw(30), "m".repeat(draw(60) as usize));
            let delta = match draw(10) {
                0 => cache.set(&key, &value[..], 0, now).ok(),
                1 => cache.set(&key, &value[..], 1 + draw(3) as u32, now).ok(),
                2 => cache.delete(&key, now).ok().map(|(_, delta)| delta),
                3 => cache.increment(&key, 1, now).ok().map(|(_, delta)| delta),
                4 | 5 => cache.list_push(&key, &value[..], now).ok().map(|(_, delta)| delta),
                6 => cache.list_remove(&key, &value, now).ok().flatten(),
                7 => cache
                    .set_remove(&key, member.as_str(), now)
                    .ok()
                    .and_then(|(_, delta)| delta),
                _ => cache.set_add(&key, member.as_str(), now).ok().map(|(_, delta)| delta),
            };
            if let Some(delta) = delta.filter(|_| draw(3) > 0) {
                for cache in &caches {
                    cache.apply(&delta, now).unwrap();
                }
            }
            if round % 1_000 == 0 {
                if round % 5_000 == 0 {
                    now += Limits::default().tombstone_ttl_ms;
                }
                for cache in &caches {
                    cache.sweep(1_024, now);
                }
                caches[1].evict(&all(), &mut 0, 4_000, Victims::LeastRead, now);
            }
            if round % 200 == 0 {
                caches.iter().for_each(|cache| check(cache, &namespaces));
            }
        }
        // All of it goes, and nothing is left over.
        for cache in &caches {
            for namespace in namespaces {
                for n in 0..40 {
                    let key = Key::new(namespace, format!("key{n}").as_bytes()).unwrap();
                    cache.delete(&key, now).unwrap();
                }
            }
            check(cache, &namespaces);
            assert_eq!((cache.usage().keys, cache.usage().bytes), (0, cache.usage().deletions));
            cache.sweep(1_024, now + 2 * Limits::default().tombstone_ttl_ms);
            assert_eq!(cache.usage(), Usage::default());
        }
    }

    fn fill(cache: &Cache, keys: u32, expires: impl Fn(u32) -> u32) -> Vec<Key> {
        let keys: Vec<Key> = (0..keys).map(|n| Key::shared(format!("key{n}").as_bytes())).collect();
        for (n, key) in (0..).zip(&keys) {
            cache
                .set(key, &[b'v'; 100][..], expires(n), NOW + u64::from(n))
                .unwrap();
        }
        keys
    }

    #[test]
    fn the_nearest_deadline_goes_first_and_never_a_key_without() {
        let cache = cache(1);
        let keys = fill(&cache, 200, |n| if n % 2 == 0 { 1_000 - n } else { 0 });
        let before = cache.usage().bytes;
        let deltas = cache.evict(&all(), &mut 0, 3 * 100, Victims::NearestDeadline, NOW + 1_000);
        assert!(before - cache.usage().bytes >= 300);
        let gone: Vec<usize> = (0..keys.len())
            .filter(|n| !cache.contains(&keys[*n], NOW + 1_000))
            .collect();
        assert_eq!(gone, [192, 194, 196, 198]);
        assert_eq!(deltas.len(), gone.len());
        for _ in 0..100 {
            cache.evict(&all(), &mut 0, 1_000_000, Victims::NearestDeadline, NOW + 1_000);
        }
        assert_eq!(cache.keys(), 100);
    }

    #[test]
    fn what_is_read_here_or_elsewhere_stays() {
        let cache = cache(1);
        cache.count_reads();
        let keys = fill(&cache, 2_000, |_| 0);
        let stays = |n: usize| n % 10 < 2;
        for _ in 0..2 {
            (0..keys.len())
                .step_by(10)
                .for_each(|n| drop(cache.get(&keys[n], NOW + 5_000)));
        }
        for n in (1..keys.len()).step_by(10) {
            cache.hint(Hint::of_bits(KeyHash::of(keys[n].as_bytes()).0 & !0xff | 2));
        }
        let mut turn = 0;
        while cache.keys() > 600 {
            assert!(!cache
                .evict(&all(), &mut turn, 10_000, Victims::LeastRead, NOW + 6_000)
                .is_empty());
        }
        let lost = (0..keys.len()).filter(|n| stays(*n) && !cache.contains(&keys[*n], NOW + 6_000));
        let lost = lost.count();
        // Of the sketch some counters are shared.
        assert!(lost <= 2, "{lost} of 400");
    }

    #[test]
    fn of_those_that_nobody_reads_the_oldest_go() {
        let cache = cache(1);
        cache.count_reads();
        let keys = fill(&cache, 1_000, |_| 0);
        let deltas = cache.evict(&all(), &mut 0, 20 * 100, Victims::LeastRead, NOW + 5_000);
        let (oldest, rest) = keys.split_at(deltas.len());
        assert!((20..70).contains(&deltas.len()), "{}", deltas.len());
        assert!(oldest.iter().all(|key| !cache.contains(key, NOW + 5_000)));
        assert!(rest.iter().all(|key| cache.contains(key, NOW + 5_000)));
    }

    #[test]
    fn an_eviction_is_a_deletion_that_a_newer_write_survives() {
        let (here, there) = (cache(1), cache(2));
        let key = Key::shared(b"key");
        let set = here.set(&key, "old", 0, NOW).unwrap();
        there.apply(&set, NOW).unwrap();
        let evicted = here.evict(&all(), &mut 0, 1, Victims::LeastRead, NOW + 10);
        let newer = there.set(&key, "new", 0, NOW + 20).unwrap();
        assert_eq!(evicted.len(), 1);
        there.apply(&evicted[0], NOW + 20).unwrap();
        here.apply(&newer, NOW + 20).unwrap();
        assert_eq!(here.get(&key, NOW + 20).unwrap().as_deref(), Some(&b"new"[..]));
        assert_eq!(here.root_digest(), there.root_digest());
    }

    #[test]
    fn what_was_written_since_it_was_looked_at_is_not_evicted() {
        let cache = cache(1);
        let keys = fill(&cache, 1, |_| 100);
        for victims in [Victims::LeastRead, Victims::NearestDeadline] {
            let mut candidates = Vec::new();
            let partition = Partition::of(KeyHash::of(keys[0].as_bytes()));
            cache.candidates(partition, victims, &mut candidates);
            cache.set(&keys[0], "newer", 200, NOW + 50).unwrap();
            assert!(cache.evict_key(&candidates[0], victims, NOW + 60).is_none());
        }
        assert_eq!(cache.keys(), 1);
    }

    #[test]
    fn reads_are_forgotten_with_time() {
        let cache = cache(1);
        cache.count_reads();
        let keys = fill(&cache, 100, |_| 0);
        let reads = |cache: &Cache| cache.tables.look(keys[0].as_bytes(), |entry| entry.unwrap().reads());
        (0..20).for_each(|_| drop(cache.get(&keys[0], NOW)));
        assert_eq!(reads(&cache), 7);
        for key in &keys {
            (0..7).for_each(|_| drop(cache.get(key, NOW)));
        }
        cache.cool();
        assert_eq!(reads(&cache), 3);
        cache.cool();
        assert_eq!(reads(&cache), 3, "nothing was read meanwhile");
        // Notes outlive other changes of the entry.
        cache.set(&keys[0], "a value of another length", 0, NOW + 1).unwrap();
        assert_eq!(reads(&cache), 3);
    }

    #[test]
    fn room_is_what_is_left_of_the_cap() {
        let cache = cache(1);
        assert_eq!(cache.room(), None);
        cache.set_cap(1 << 20);
        let empty = cache.room().unwrap();
        fill(&cache, 100, |_| 0);
        let room = cache.room().unwrap();
        assert_eq!((room.cap, room.used), (1 << 20, cache.memory_bytes()));
        assert!(room.used > empty.used + 100 * 100);
    }
}
