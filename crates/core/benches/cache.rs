//! Hot paths of one node: reads, local writes, merging of remote deltas, and the wire.
#![allow(clippy::disallowed_methods)]

use std::hint::black_box;

use criterion::{criterion_group, criterion_main, BatchSize, Criterion, Throughput};
use kvcache_core::cache::{Cache, Delta, Key, Limits, NodeId};
use kvcache_core::wire::{Frame, Message, VERSION};

const KEYS: usize = 100_000;
const NOW: u64 = 1_700_000_000_000;

fn key(number: usize) -> Key {
    Key::shared(format!("{number:016}").as_bytes())
}

fn filled(node: u64) -> (Cache, Vec<Delta>) {
    let cache = Cache::new(NodeId(node), Limits::default());
    let value = "a value of 32 bytes, all printed";
    let set = |number| cache.set(&key(number), value, 0, NOW).expect("a small value");
    let deltas = (0..KEYS).map(set).collect();
    (cache, deltas)
}

fn operations(c: &mut Criterion) {
    let (cache, deltas) = filled(1);
    let keys: Vec<Key> = (0..KEYS).map(key).collect();
    let mut next = 0;
    let mut turn = move || {
        next = (next + 7_919) % KEYS;
        next
    };
    let mut group = c.benchmark_group("cache");
    group.bench_function("get", |b| b.iter(|| cache.get(black_box(&keys[turn()]), NOW)));
    let value = "another value";
    group.bench_function("set", |b| b.iter(|| cache.set(black_box(&keys[turn()]), value, 0, NOW)));
    let counter = Key::shared(b"counter");
    group.bench_function("increment", |b| {
        b.iter(|| cache.increment(&counter, if turn() % 2 == 0 { 1 } else { -1 }, NOW))
    });
    group.throughput(Throughput::Elements(KEYS as u64));
    group.sample_size(20);
    group.bench_function("apply 100,000 puts to an empty cache", |b| {
        b.iter_batched(
            || Cache::new(NodeId(2), Limits::default()),
            |empty| {
                for frame in deltas.chunks(1_000) {
                    empty.apply_all(frame, NOW, |merged| {
                        merged.expect("an honest delta");
                    });
                }
                empty
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
    c.bench_function("digest of the cache, as a heartbeat has it", |b| {
        b.iter(|| cache.root_digest())
    });
}

fn wire(c: &mut Criterion) {
    let (_, deltas) = filled(1);
    let frame = Message::Frame(Frame {
        seq: 1,
        wants_ack: false,
        clock: Default::default(),
        deltas: deltas[..1_000].to_vec(),
    });
    let bytes = bytes::Bytes::from(frame.encode(VERSION, NodeId(1)));
    let mut group = c.benchmark_group("wire");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode a frame of 1,000 puts", |b| {
        b.iter(|| black_box(&frame).encode(VERSION, NodeId(1)))
    });
    group.bench_function("decode a frame of 1,000 puts", |b| {
        b.iter(|| Message::borrow(black_box(&bytes)).is_ok())
    });
    group.finish();
}

criterion_group!(benches, operations, wire);
criterion_main!(benches);
