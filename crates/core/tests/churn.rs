//! Memory does not follow the number of keys that ever were: what is deleted or expired is forgotten in time.

use kvcache_core::cache::{Blob, Cache, Delta, Digest, Key, Limits, Millis, NodeId, PARTITIONS};

const GENERATIONS: usize = 6;
const KEYS_PER_GENERATION: usize = 50_000;
const TOMBSTONE_TTL_MS: Millis = 10_000;
const START: Millis = 1_700_000_000_000;

fn cache(node: u64) -> Cache {
    let limits = Limits {
        tombstone_ttl_ms: TOMBSTONE_TTL_MS,
        ..Limits::default()
    };
    Cache::new(NodeId(node), limits)
}

/// One life of a key, of one type each: all the deltas that its writers send.
fn life(cache: &Cache, number: usize, now: Millis) -> Vec<Delta> {
    let key = Key::shared(format!("a key of churn, number {number}").as_bytes());
    let value = || Blob::from(&*format!("value {number}"));
    let there = "within all limits";
    let mut deltas = Vec::new();
    match number % 6 {
        0 => deltas.push(cache.set(&key, value(), 0, now).expect(there)),
        // Nobody deletes this one; its deadline does.
        1 => return vec![cache.set(&key, value(), 1, now).expect(there)],
        2 => deltas.push(cache.increment(&key, 7, now).expect(there).1),
        3 => deltas.push(cache.list_push(&key, value(), now).expect(there).1),
        4 => {
            deltas.push(cache.set_add(&key, value(), now).expect(there).1);
            // The key goes with its last member.
            let (removed, delta) = cache.set_remove(&key, value(), now).expect(there);
            assert!(removed);
            deltas.extend(delta);
            return deltas;
        }
        // Of what never was.
        _ => {}
    }
    let (deleted, delta) = cache.delete(&key, now).unwrap();
    assert_eq!(deleted, number % 6 != 5);
    deltas.push(delta);
    deltas
}

#[test]
fn what_is_deleted_takes_no_memory_for_long() {
    let (writer, reader) = (cache(1), cache(2));
    let mut now = START;
    let mut most = (0, 0);
    for generation in 0..GENERATIONS {
        for number in 0..KEYS_PER_GENERATION {
            for delta in life(&writer, generation * KEYS_PER_GENERATION + number, now) {
                reader.apply(&delta, now).expect("an honest delta");
            }
        }
        assert_eq!(writer.root_digest(), reader.root_digest(), "generation {generation}");
        now += TOMBSTONE_TTL_MS / 2;
        for cache in [&writer, &reader] {
            cache.sweep(PARTITIONS, now);
        }
        most = (most.0.max(writer.entries()), most.1.max(reader.entries()));
    }
    // A generation is forgotten within three halves of the lifetime: at most three are there at a time.
    let bound = 3 * KEYS_PER_GENERATION;
    assert!(
        most.0 <= bound && most.1 <= bound,
        "{most:?} entries of at most {bound}"
    );

    now += 2 * TOMBSTONE_TTL_MS;
    for cache in [&writer, &reader] {
        cache.sweep(PARTITIONS, now);
        assert_eq!((cache.entries(), cache.keys()), (0, 0));
        assert_eq!(cache.root_digest(), Digest(0));
        assert_eq!(cache.recomputed_digest(), Digest(0));
    }
}
