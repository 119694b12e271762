//! Bar 8: what get, set and apply cost in caches of different sizes, beside a plain map of the same sizes.

use std::hint::black_box;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use dashmap::DashMap;
use nats_kvcache::cache::{Cache, Command, Key, Limits, NodeId};
use nats_kvcache::time;

use crate::apply;
use crate::node;
use crate::report::{Limit, Line};
use crate::sample::rate;
use crate::Arguments;

/// Keys of the smallest and the largest cache that are compared.
const SMALL: usize = 10_000;

/// Operations per sample.
const OPERATIONS: usize = 1_000_000;

const VALUE_BYTES: usize = 16;

/// One cache and one plain map of the same content.
struct Size {
    keys: usize,
    cache: Arc<Cache>,
    map: DashMap<String, String>,
}

impl Size {
    fn of(keys: usize) -> Self {
        let cache = node::filled(keys, VALUE_BYTES, 0);
        let map = DashMap::new();
        for number in 0..keys {
            map.insert(node::key_text(number), "v".repeat(VALUE_BYTES));
        }
        Size { keys, cache, map }
    }

    /// Keys to work on, in an order that looks random.
    fn numbers(&self) -> Vec<usize> {
        let mut state = 0x1234_5678_9abc_def1u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % self.keys
        };
        (0..OPERATIONS).map(|_| next()).collect()
    }

    /// Nanoseconds per operation: get, set and apply of the cache, get and insert of the map.
    fn measure(&self) -> [f64; 5] {
        let numbers = self.numbers();
        let keys: Vec<Key> = numbers.iter().map(|number| node::key(*number)).collect();
        let texts: Vec<String> = numbers.iter().map(|number| node::key_text(*number)).collect();
        let commands = self.commands(&keys);
        let value = Bytes::from(vec![b'w'; VALUE_BYTES]);
        let text = "w".repeat(VALUE_BYTES);
        let nanos = |work: &mut dyn FnMut()| 1e9 / rate(OPERATIONS, work);
        // The clock is read once per operation, as the handlers of the provider do.
        let get = nanos(&mut || {
            for key in &keys {
                let _ = black_box(self.cache.get(key, time::wall()));
            }
        });
        let set = nanos(&mut || {
            for key in &keys {
                let _ = black_box(self.cache.set(key, value.clone(), 0, time::wall()));
            }
        });
        let applied = nanos(&mut || apply::merge(&self.cache, &commands));
        let map_get = nanos(&mut || {
            for key in &texts {
                black_box(self.map.get(key).map(|value| value.clone()));
            }
        });
        let map_insert = nanos(&mut || {
            for key in &texts {
                black_box(self.map.insert(key.clone(), text.clone()));
            }
        });
        [get, set, applied, map_get, map_insert]
    }

    /// Another process writes these keys once more, newer than what is there.
    fn commands(&self, keys: &[Key]) -> Vec<Command> {
        let author = Cache::new(NodeId(78), Limits::default());
        author.clock().observe(self.cache.clock().latest());
        let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
        let put = |key: &Key| {
            author
                .set(key, value.clone(), 0, time::wall())
                .expect("within all limits")
        };
        keys.iter().map(put).collect()
    }
}

/// Measures the bar.
pub fn lines(arguments: &Arguments) -> Result<Vec<Line>> {
    let large = if arguments.quick { 1_000_000 } else { 10_000_000 };
    let sizes = [Size::of(SMALL), Size::of(large)];
    let mut samples: [Vec<[f64; 5]>; 2] = Default::default();
    for _ in 0..arguments.runs() {
        for (size, samples) in sizes.iter().zip(&mut samples) {
            samples.push(size.measure());
        }
    }
    let column = |size: usize, column: usize| samples[size].iter().map(|row| row[column]).collect::<Vec<_>>();
    let mut lines = Vec::new();
    for (place, what) in ["get", "set", "apply"].into_iter().enumerate() {
        lines.push(Line::against(
            8,
            format!("{what} at {large} keys, beside {SMALL} keys"),
            "ns",
            column(1, place),
            format!("{SMALL} keys"),
            column(0, place),
            Limit::AtMost(2.0),
        ));
    }
    for (place, what) in [
        (3, "DashMap<String, String> get"),
        (4, "DashMap<String, String> insert"),
    ] {
        lines.push(Line::against(
            8,
            format!("{what} at {large} keys, beside {SMALL} keys"),
            "ns",
            column(1, place),
            format!("{SMALL} keys"),
            column(0, place),
            Limit::None,
        ));
    }
    Ok(lines)
}
