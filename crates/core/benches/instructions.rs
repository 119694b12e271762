//! Instructions of the hot paths, counted by valgrind: they show a regression that the noise of a clock would hide.
//!
//! `make bench-instructions` compares them with `benches/instructions.json`. Every function does its work [`TIMES`]
//! times or on a frame of [`TIMES`] deltas, on data that is the same in every run; nothing starts a thread.
#![allow(clippy::disallowed_methods)]

use std::hint::black_box;

use bytes::Bytes;
use gungraun::prelude::*;
use kvcache_core::cache::{Cache, Delta, Digest, Key, Limits, NodeId};
use kvcache_core::replica::Keyring;
use kvcache_core::wire::{Frame, Message, VERSION};
use nkeys::{KeyPair, KeyPairType};

// That of the provider's main.rs.
#[global_allocator]
static ALLOCATOR: kvcache_allocator::Allocator = kvcache_allocator::Allocator;

/// Keys in the cache that is worked on.
const KEYS: usize = 10_000;
/// Operations that are counted together.
const TIMES: usize = 1_000;
/// Milliseconds.
const NOW: u64 = 1_700_000_000_000;

fn key(number: usize) -> Key {
    Key::shared(format!("{number:016}").as_bytes())
}

fn value(byte: u8) -> [u8; 32] {
    [byte; 32]
}

fn set(cache: &Cache, number: usize) -> Delta {
    cache
        .set(&key(number), &value(b'a')[..], 0, NOW)
        .expect("a small value is taken")
}

fn filled() -> Cache {
    let cache = Cache::new(NodeId(1), Limits::default());
    for number in 0..KEYS {
        set(&cache, number);
    }
    cache
}

/// A cache of [`KEYS`] keys, and [`TIMES`] keys from the number `first` on.
fn with_keys(first: usize) -> (Cache, Vec<Key>) {
    (filled(), (first..first + TIMES).map(key).collect())
}

/// A cache of [`KEYS`] keys, and what a later peer has put to [`TIMES`] keys from the number `first` on.
fn with_deltas(first: usize) -> (Cache, Vec<Delta>) {
    (filled(), deltas(first))
}

fn deltas(first: usize) -> Vec<Delta> {
    let peer = Cache::new(NodeId(2), Limits::default());
    // The stamps of all of them are newer than those of the cache.
    peer.clock().observe(filled().clock().latest());
    (first..first + TIMES).map(|number| set(&peer, number)).collect()
}

fn frame() -> Message {
    Message::Frame(Frame {
        seq: 1,
        wants_ack: false,
        clock: Default::default(),
        deltas: deltas(0),
    })
}

fn encoded() -> Bytes {
    frame().encode(VERSION, NodeId(2)).into()
}

fn keyring() -> (Keyring, Vec<u8>) {
    let seed = KeyPair::new_from_raw(KeyPairType::Cluster, [7; 32])
        .and_then(|pair| pair.seed())
        .expect("32 bytes are a seed");
    let keyring = Keyring::new(&seed, &[], "deltas").expect("a seed of a cluster");
    (keyring, vec![b'm'; 1_024])
}

#[library_benchmark(setup = with_keys)]
#[bench::hit(0)]
#[bench::miss(KEYS)]
fn get((cache, keys): (Cache, Vec<Key>)) -> (Cache, Vec<Key>) {
    for key in &keys {
        let _ = black_box(cache.get(black_box(key), NOW));
    }
    (cache, keys)
}

#[library_benchmark(setup = with_keys)]
#[bench::new(KEYS)]
#[bench::overwrite(0)]
fn set_key((cache, keys): (Cache, Vec<Key>)) -> (Cache, Vec<Key>) {
    let value = value(b'b');
    for key in &keys {
        let _ = black_box(cache.set(black_box(key), &value[..], 0, NOW));
    }
    (cache, keys)
}

#[library_benchmark(setup = filled)]
#[bench::one_counter()]
fn increment(cache: Cache) -> Cache {
    let counter = key(KEYS);
    for _ in 0..TIMES {
        let _ = black_box(cache.increment(black_box(&counter), 1, NOW));
    }
    cache
}

#[library_benchmark(setup = with_deltas)]
#[bench::put_new(KEYS)]
#[bench::put_overwrite(0)]
fn apply((cache, deltas): (Cache, Vec<Delta>)) -> (Cache, Vec<Delta>) {
    for delta in &deltas {
        let _ = black_box(cache.apply(black_box(delta), NOW));
    }
    (cache, deltas)
}

#[library_benchmark(setup = with_deltas)]
#[bench::frame_of_1000(0)]
fn apply_all((cache, deltas): (Cache, Vec<Delta>)) -> (Cache, Vec<Delta>) {
    cache.apply_all(black_box(&deltas), NOW, |merged| {
        let _ = black_box(merged);
    });
    (cache, deltas)
}

#[library_benchmark(setup = frame)]
#[bench::frame_of_1000()]
fn encode(frame: Message) -> (Message, Vec<u8>) {
    let bytes = black_box(&frame).encode(VERSION, NodeId(2));
    (frame, bytes)
}

#[library_benchmark(setup = encoded)]
#[bench::frame_of_1000()]
fn decode(bytes: Bytes) -> Bytes {
    let message = Message::borrow(black_box(&bytes)).expect("a frame of our own");
    black_box(message);
    bytes
}

#[library_benchmark(setup = keyring)]
#[bench::of_1kb()]
fn authenticator_and_verify((keyring, message): (Keyring, Vec<u8>)) -> Keyring {
    let authenticated = keyring.authenticate(black_box(message), false);
    let _ = black_box(keyring.verify(&authenticated));
    keyring
}

#[library_benchmark(setup = filled)]
#[bench::of_a_heartbeat()]
fn root_digest(cache: Cache) -> (Cache, Digest) {
    let digest = black_box(&cache).root_digest();
    (cache, digest)
}

library_benchmark_group!(
    name = hot_paths,
    benchmarks = [
        get,
        set_key,
        increment,
        apply,
        apply_all,
        encode,
        decode,
        authenticator_and_verify,
        root_digest
    ]
);
main!(library_benchmark_groups = hot_paths);
