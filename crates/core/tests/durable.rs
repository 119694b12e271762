//! What outlives the process: records, what has changed, and making cache and store equal.

mod support;

use std::collections::BTreeMap;

use kvcache_core::cache::{
    Blob, Cache, Delta, Digest, Key, Limits, NodeId, Partition, Span, Stamp, StateDelta, Taken, Time, Value,
};
use kvcache_core::durable::{reconcile, Batch, Held, Record, Section, SectionState, Trust};
use proptest::prelude::*;
use support::*;

/// A store as all engines are: of two values for one id the larger stays.
#[derive(Clone, Default)]
struct Store(BTreeMap<(Section, Vec<u8>), Vec<u8>>);

impl Store {
    fn write(&mut self, batch: &Batch) {
        for record in batch.iter() {
            let held = self.0.entry((batch.section(), record.id.to_vec())).or_default();
            if held[..] < *record.value {
                *held = record.value.to_vec();
            }
        }
    }

    fn remove(&mut self, batch: &Batch) {
        for record in batch.iter() {
            let place = (batch.section(), record.id.to_vec());
            if self.0.get(&place).is_some_and(|held| held == record.value) {
                self.0.remove(&place);
            }
        }
    }

    fn held(&self, partition: Partition) -> Held {
        let of_partition = self
            .0
            .iter()
            .filter(|((section, _), _)| *section == Section::of(partition));
        of_partition
            .map(|((_, id), value)| (id[..].into(), value[..].into()))
            .collect()
    }

    /// A cache that has loaded it.
    fn loaded(&self, limits: Limits, now: u64) -> Cache {
        let cache = Cache::new(NodeId(99), limits);
        for ((_, id), value) in &self.0 {
            let record = Record { id, value };
            let delta = record.delta().expect("written by us");
            cache.apply(&delta, now).expect("an honest delta");
        }
        cache
    }
}

/// Writes what has changed, in batches of `most` records. Returns what was said of the last one.
fn flush(cache: &Cache, store: &mut Store, partition: Partition, most: usize) -> Taken {
    loop {
        let mut batch = Batch::new(Section::of(partition));
        let taken = cache.take_changes(partition, |delta| {
            batch.push_delta(&delta);
            batch.len() >= most
        });
        store.write(&batch);
        if let Some(digest) = taken.digest {
            assert_eq!(digest, cache.digest(partition), "nobody else writes here");
            return taken;
        }
    }
}

fn flush_all(cache: &Cache, store: &mut Store) {
    for partition in Partition::all().filter(|partition| cache.has_changes(*partition)) {
        flush(cache, store, partition, 7);
    }
}

fn record_of(delta: &Delta) -> Batch {
    let mut batch = Batch::new(Section::HEAD);
    batch.push_delta(delta);
    batch
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn deltas_come_back_from_their_records(steps in steps()) {
        for delta in play(&steps).deltas {
            let batch = record_of(&delta);
            let record = batch.first().unwrap();
            prop_assert_eq!(record.stamp(), delta.newest());
            prop_assert_eq!(record.key(), Some(&delta.key[..]));
            prop_assert_eq!(record.delta().unwrap().to_owned(), delta);
        }
    }

    #[test]
    fn larger_values_are_those_that_merging_keeps(steps in steps()) {
        let deltas = play(&steps).deltas;
        for a in &deltas {
            for b in deltas.iter().filter(|b| b.supersedes(a)) {
                let (older, newer) = (record_of(a), record_of(b));
                let (older, newer) = (older.first().unwrap(), newer.first().unwrap());
                prop_assert_eq!(older.id, newer.id);
                prop_assert!(older.value < newer.value, "{:?} {:?}", a, b);
            }
        }
    }

    #[test]
    fn records_of_others_are_refused_not_believed(id in prop::collection::vec(any::<u8>(), 0..60),
            value in prop::collection::vec(any::<u8>(), 0..80)) {
        let record = Record { id: &id, value: &value };
        if let Ok(delta) = record.delta() {
            // What can be read is written as it was, but for lengths that are written in another way.
            let again = record_of(&delta.to_owned());
            let again = again.first().unwrap();
            prop_assert_eq!(again.delta(), Ok(delta));
        }
    }

    /// Whatever was written, merged and swept, and whenever it was flushed: a store that was flushed last is the cache.
    #[test]
    fn what_was_flushed_is_what_is_loaded(steps in steps(), limit in 1usize..6, flushes in any::<u64>()) {
        let caches: Vec<Cache> = (1..=3).map(cache).collect();
        let mut stores = vec![Store::default(); 3];
        caches.iter().for_each(|cache| cache.track_changes(limit));
        let (mut deltas, mut now): (Vec<Delta>, u64) = (Vec::new(), START);
        for (number, step) in steps.iter().enumerate() {
            match step {
                Step::Write { node, key, write, pause } => {
                    now += pause;
                    deltas.extend(perform(&caches[*node], &keys()[*key], write, now).ok().flatten());
                }
                Step::Deliver { node, delta } if !deltas.is_empty() => {
                    caches[*node].apply(delta.get(&deltas), now).unwrap();
                }
                Step::Deliver { .. } => {}
                Step::Forget { node } => drop(caches[*node].sweep(1_024, now)),
            }
            if flushes >> (number % 64) & 1 == 1 {
                caches.iter().zip(&mut stores).for_each(|(cache, store)| flush_all(cache, store));
            }
        }
        for (cache, store) in caches.iter().zip(&mut stores) {
            flush_all(cache, store);
            prop_assert_eq!(cache.changes(), 0);
            let loaded = store.loaded(Limits::default(), now);
            prop_assert_eq!(loaded.root_digest(), cache.root_digest());
            for key in keys() {
                prop_assert_eq!(loaded.get(&key, now), cache.get(&key, now));
            }
        }
    }

    /// Two nodes write to one store without having heard of each other. Whoever reconciles with it knows all.
    #[test]
    fn a_store_and_a_cache_are_made_equal(steps in steps(), whole in any::<[bool; 3]>()) {
        let History { nodes, now, .. } = play(&steps);
        let mut store = Store::default();
        for (node, whole) in nodes.iter().zip(whole) {
            // A part of what it holds.
            for partition in Partition::all() {
                let mut batch = Batch::new(Section::of(partition));
                node.deltas(partition, |delta| {
                    if whole || delta.newest().time.0 % 2 == 0 {
                        batch.push_delta(&delta);
                    }
                });
                store.write(&batch);
            }
        }
        let expected = cache(50);
        for partition in Partition::all() {
            nodes[0].deltas(partition, |delta| {
                expected.apply(&delta, now).unwrap();
            });
        }
        for ((_, id), value) in &store.0 {
            expected.apply(&Record { id, value }.delta().unwrap(), now).unwrap();
        }
        for partition in Partition::all() {
            let mut rounds = 0;
            if store.held(partition).is_empty() && nodes[0].components(Span::of(partition)).is_empty() {
                continue;
            }
            loop {
                let outcome = reconcile(&nodes[0], partition, store.held(partition), Trust::All, now);
                prop_assert_eq!(outcome.unreadable, 0);
                if outcome.is_nothing() {
                    break;
                }
                store.write(&outcome.write);
                store.remove(&outcome.elements);
                store.remove(&outcome.resets);
                rounds += 1;
                // What was taken may cover what was written, and make a conflict of types that raises the horizon.
                prop_assert!(rounds <= 3, "{:?}", outcome);
            }
        }
        prop_assert_eq!(nodes[0].root_digest(), expected.root_digest());
        prop_assert_eq!(store.loaded(Limits::default(), now).root_digest(), expected.root_digest());
    }
}

const START: u64 = 1_700_000_000_000;

fn tracked(limit: usize, limits: Limits) -> Cache {
    let cache = Cache::new(NodeId(1), limits);
    cache.track_changes(limit);
    cache
}

#[test]
fn a_hot_key_is_written_once_and_of_a_long_list_only_what_is_new() {
    let cache = tracked(512, Limits::default());
    let mut store = Store::default();
    let (hot, list) = (Key::shared(b"hot"), Key::shared(b"list"));
    for n in 0..1_000 {
        cache.set(&hot, Blob::from("x"), 0, START + n).unwrap();
    }
    assert_eq!(cache.changes(), 1);
    for n in 0..5_000 {
        cache
            .list_push(&list, Blob::from(format!("{n}").as_str()), START + n)
            .unwrap();
        if n % 100 == 0 {
            flush_all(&cache, &mut store);
        }
    }
    flush_all(&cache, &mut store);
    cache.list_push(&list, Blob::from("last"), START + 6_000).unwrap();
    cache.list_remove(&list, b"7", START + 6_001).unwrap();
    let mut written = Vec::new();
    for partition in Partition::all() {
        cache.take_changes(partition, |delta| {
            written.push(delta.to_owned());
            false
        });
    }
    assert_eq!(written.len(), 2, "{written:?}");
    let mut batch = Batch::new(Section::of(Partition::of(kvcache_core::cache::KeyHash::of(
        list.as_bytes(),
    ))));
    written.iter().for_each(|delta| batch.push_delta(delta));
    store.write(&batch);
    assert_eq!(
        store.loaded(Limits::default(), START).root_digest(),
        cache.root_digest()
    );
}

#[test]
fn a_log_that_is_full_loses_nothing_and_takes_no_more_memory() {
    let cache = tracked(4, Limits::default());
    let mut store = Store::default();
    let set = Key::shared(b"members");
    for n in 0..40_000 {
        let key = Key::shared(format!("key {}", n % 10_000).as_bytes());
        cache
            .set(&key, Blob::from(format!("{n}").as_str()), 0, START + n)
            .unwrap();
        if n % 8 == 0 {
            cache
                .set_add(&set, Blob::from(format!("{n}").as_str()), START + n)
                .unwrap();
        }
    }
    assert!(cache.changes() <= 5 * 1_024, "{}", cache.changes());
    flush_all(&cache, &mut store);
    assert_eq!(
        store.loaded(Limits::default(), START + 50_000).root_digest(),
        cache.root_digest()
    );
    assert_eq!(cache.changes(), 0);
    cache.note_all_as_changed(Partition(7));
    let mut again = 0;
    cache.take_changes(Partition(7), |_| {
        again += 1;
        false
    });
    let mut held = 0;
    cache.deltas(Partition(7), |_| held += 1);
    assert_eq!(again, held);
}

#[test]
fn what_is_covered_or_forgotten_is_said_to_have_vanished_and_goes_when_the_two_are_made_equal() {
    let limits = Limits {
        tombstone_ttl_ms: 60_000,
        ..Limits::default()
    };
    let cache = tracked(512, limits);
    let mut store = Store::default();
    let list = Key::shared(b"list");
    let partition = Partition::of(kvcache_core::cache::KeyHash::of(list.as_bytes()));
    for n in 0..50 {
        cache.list_push(&list, Blob::from("item"), START + n).unwrap();
    }
    assert!(!flush(&cache, &mut store, partition, 1_000).vanished);
    cache.delete(&list, START + 100).unwrap();
    assert!(flush(&cache, &mut store, partition, 1_000).vanished);
    assert_eq!(store.0.len(), 51, "what it covers lies beside the deletion");
    assert_eq!(store.loaded(limits, START + 200).root_digest(), cache.root_digest());
    let outcome = reconcile(&cache, partition, store.held(partition), Trust::All, START + 200);
    assert_eq!(
        (outcome.elements.len(), outcome.resets.len(), outcome.merged),
        (50, 0, 0)
    );
    // The deletion is forgotten: first what it covers goes, then the deletion.
    let later = START + 200_000;
    cache.sweep(1_024, later);
    assert_eq!(cache.entries(), 0);
    assert!(flush(&cache, &mut store, partition, 1_000).vanished);
    let outcome = reconcile(&cache, partition, store.held(partition), Trust::All, later);
    assert_eq!((outcome.elements.len(), outcome.resets.len()), (50, 1));
    assert_eq!((outcome.merged, cache.entries()), (0, 0), "{outcome:?}");
    store.remove(&outcome.elements);
    store.remove(&outcome.resets);
    assert!(store.0.is_empty());
}

#[test]
fn an_old_store_brings_nothing_back_that_may_have_been_deleted() {
    let limits = Limits {
        tombstone_ttl_ms: 60_000,
        ..Limits::default()
    };
    let old = Cache::new(NodeId(1), limits);
    let later = START + 600_000;
    let put = |cache: &Cache, key: &str, at| drop(cache.set(&Key::shared(key.as_bytes()), Blob::from("x"), 0, at));
    put(&old, "old", START);
    put(&old, "new", later - 1);
    let mut store = Store::default();
    for partition in Partition::all() {
        let mut batch = Batch::new(Section::of(partition));
        old.deltas(partition, |delta| batch.push_delta(&delta));
        store.write(&batch);
    }
    for (trust, expected) in [(Trust::SinceFloor, 1), (Trust::All, 2)] {
        let cache = Cache::new(NodeId(2), limits);
        cache.sweep(1, later);
        let mut merged = 0;
        let mut removed = 0;
        for partition in Partition::all() {
            let outcome = reconcile(&cache, partition, store.held(partition), trust, later);
            merged += outcome.merged;
            removed += outcome.resets.len();
        }
        assert_eq!(
            (merged, removed, cache.keys()),
            (expected, 2 - expected, expected as u64)
        );
    }
    let floor = Time::from_millis(later - 60_000);
    assert_eq!(Trust::in_store_of(floor, floor), Trust::All);
    assert_eq!(Trust::in_store_of(Time(floor.0 - 1), floor), Trust::SinceFloor);
}

#[test]
fn a_section_says_how_it_is() {
    let state = SectionState {
        written: Stamp {
            time: Time(1 << 40),
            node: NodeId(7),
        },
        contact: Time(5),
        floor: Time(3),
        digest: Digest(u64::MAX),
    };
    let bytes = state.to_bytes();
    assert_eq!(SectionState::of(Record { id: b"", value: &bytes }), Some(state));
    assert_eq!(
        SectionState::of(Record {
            id: b"x",
            value: &bytes
        }),
        None
    );
    assert_eq!(
        SectionState::of(Record {
            id: b"",
            value: &bytes[1..]
        }),
        None
    );
    assert!(Section::numbered(1_025).is_none());
}

#[test]
fn lengths_that_are_lies_take_no_memory() {
    let put = Delta {
        key: Blob::from("key"),
        change: StateDelta::Put {
            at: Stamp {
                time: Time(1),
                node: NodeId(1),
            },
            value: Value::Held(Blob::from("v")),
            expires_at: None,
            seen: Vec::new(),
        },
    };
    let batch = record_of(&put);
    let record = batch.first().unwrap();
    let mut value = record.value.to_vec();
    // Entries seen: so many that they would take all memory.
    value.splice(17..18, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    assert!(Record {
        value: &value,
        ..record
    }
    .delta()
    .is_err());
}

#[test]
fn what_was_loaded_is_not_forgotten_at_once_however_old_it_is() {
    let limits = Limits {
        tombstone_ttl_ms: 24_000,
        ..Limits::default()
    };
    let old = Cache::new(NodeId(1), limits);
    let key = Key::shared(b"key");
    old.set(&key, Blob::from("x"), 0, START).unwrap();
    old.delete(&key, START + 1).unwrap();
    let now = START + 1_000_000;
    let loaded = Cache::new(NodeId(2), limits);
    Partition::all()
        .for_each(|partition| old.deltas(partition, |delta| assert_eq!(loaded.apply(&delta, now), Ok(true))));
    let floor = Time::from_millis(START - 24_000);
    loaded.loaded(floor, now);
    loaded.sweep(1_024, now + 999);
    assert_eq!(
        (loaded.floor(), loaded.entries()),
        (floor, 1),
        "another one may come up that has yet to hear of it"
    );
    loaded.sweep(1_024, now + 2_000);
    assert_eq!(loaded.entries(), 0);
}

#[test]
fn a_horizon_that_is_raised_is_written_with_the_element_that_raised_it() {
    let cache = tracked(512, Limits::default());
    let key = Key::shared(b"key");
    let partition = Partition::of(kvcache_core::cache::KeyHash::of(key.as_bytes()));
    let mut store = Store::default();
    for n in 0..100 {
        cache
            .set_add(&key, Blob::from(format!("{n}").as_str()), START + n)
            .unwrap();
    }
    flush(&cache, &mut store, partition, 1_000);
    // Somebody else has begun a list, in the middle.
    let other = Cache::new(NodeId(2), Limits::default());
    let (_, delta) = other.list_push(&key, Blob::from("item"), START + 50).unwrap();
    assert_eq!(cache.apply(&delta, START + 200), Ok(true));
    flush(&cache, &mut store, partition, 1_000);
    let loaded = store.loaded(Limits::default(), START + 200);
    assert_eq!(loaded.root_digest(), cache.root_digest());
}

#[test]
fn a_key_that_moves_keeps_its_note() {
    let cache = tracked(512, Limits::default());
    let key = Key::shared(b"key");
    cache.set(&key, Blob::from("short"), 1, START).unwrap();
    // Longer, and in other memory; nothing is noted anew. Then a sweep gives the value back.
    cache
        .set(&key, Blob::from("longer than what was there before"), 1, START + 1)
        .unwrap();
    cache.sweep(1_024, START + 5_000);
    let mut store = Store::default();
    flush_all(&cache, &mut store);
    assert_eq!(store.0.len(), 1);
    assert_eq!(
        store.loaded(Limits::default(), START + 5_000).root_digest(),
        cache.root_digest()
    );
    assert_eq!(cache.changes(), 0);
    cache.set(&key, Blob::from("again"), 0, START + 6_000).unwrap();
    assert_eq!(cache.changes(), 1);
    // In the log, but without its bit a second change would be logged again.
    cache
        .set(&key, Blob::from("and again, of another length"), 0, START + 6_001)
        .unwrap();
    cache.set(&key, Blob::from("!"), 0, START + 6_002).unwrap();
    assert_eq!(cache.changes(), 1);
}
