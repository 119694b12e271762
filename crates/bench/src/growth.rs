//! Section 8: what get, set and apply cost in caches of different sizes, beside a plain map of the same sizes.

use std::hint::black_box;
use std::sync::Arc;

use anyhow::Result;
use dashmap::DashMap;
use kvcache_core::cache::{Cache, Delta, Key, Limits, NodeId};
use kvcache_node::time;
use testkit::{Lattice, NatsServer};

use crate::apply;
use crate::cold;
use crate::memory;
use crate::node::{self, LibraryNode};
use crate::report::{median, Line, Series, Target};
use crate::sample::rate;
use crate::table::grouped;
use crate::Arguments;

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
        let value = &[b'w'; VALUE_BYTES][..];
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
                let _ = black_box(self.cache.set(key, value, 0, time::wall()));
            }
        });
        // Made only now: older than what has just been set, they would change nothing.
        let deltas = self.deltas(&keys);
        let applied = nanos(&mut || apply::merge(&self.cache, &deltas));
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
    fn deltas(&self, keys: &[Key]) -> Vec<Delta> {
        let author = Cache::new(NodeId(78), Limits::default());
        author.clock().observe(self.cache.clock().latest());
        let value = &[b'x'; VALUE_BYTES][..];
        let put = |key: &Key| author.set(key, value, 0, time::wall()).expect("within all limits");
        keys.iter().map(put).collect()
    }
}

/// Nanoseconds for one read of memory at an address that only the read before it has told, in as much memory as `keys`
/// keys take: what no map can do without, and does two or three times for one key.
fn dependent_read(keys: usize) -> f64 {
    /// What a key takes, table included.
    const KEY_BYTES: usize = 72;
    let order = node::shuffled((keys * KEY_BYTES / LINE_BYTES).next_power_of_two());
    let mut lines = vec![Cacheline([0; LINE_BYTES / 8]); order.len()];
    for (place, line) in order.iter().enumerate() {
        lines[*line].0[0] = order[(place + 1) % order.len()];
    }
    let mut line = order[0];
    let reads = |line: &mut usize| {
        for _ in 0..OPERATIONS {
            *line = lines[*line].0[0];
        }
    };
    let nanos = 1e9 / rate(OPERATIONS, || reads(&mut line));
    black_box(line);
    nanos
}

const LINE_BYTES: usize = 64;

#[derive(Clone)]
#[repr(align(64))]
struct Cacheline([usize; LINE_BYTES / 8]);

/// Seconds to fill an empty process, and its resident bytes then, per million keys.
async fn bootstrap(arguments: &Arguments, keys: usize) -> Result<Vec<(f64, f64)>> {
    let server = NatsServer::start().await?;
    let lattice = Lattice::new(server.url());
    let source = LibraryNode::start(node::filled(keys, VALUE_BYTES, 0), &lattice).await?;
    let millions = keys as f64 / 1e6;
    let mut samples = Vec::new();
    for _ in 0..arguments.runs() {
        let filled = cold::fill_provider(arguments, &lattice, keys).await?;
        let seconds = filled.seconds;
        let resident = memory::resident(filled).await? as f64 / 1e6;
        samples.push((seconds / millions, resident / millions));
    }
    source.service.stop().await;
    Ok(samples)
}

/// Measures the section in process.
pub fn lines(arguments: &Arguments) -> (Vec<Line>, Vec<Series>) {
    let sizes: &[usize] = if arguments.quick {
        &[10_000, 100_000, 1_000_000]
    } else {
        &[10_000, 100_000, 1_000_000, 10_000_000]
    };
    let caches: Vec<Size> = sizes.iter().map(|keys| Size::of(*keys)).collect();
    let mut samples: Vec<Vec<[f64; 6]>> = vec![Vec::new(); sizes.len()];
    for _ in 0..arguments.runs() {
        for (size, samples) in caches.iter().zip(&mut samples) {
            let [get, set, apply, map_get, map_insert] = size.measure();
            samples.push([get, set, apply, map_get, map_insert, dependent_read(size.keys)]);
        }
    }
    let column = |size: usize, column: usize| samples[size].iter().map(|row| row[column]).collect::<Vec<_>>();
    let (small, large) = (0, sizes.len() - 1);
    let twice = Target::AtMost(2.0);
    let columns = [
        ("get", twice),
        ("set", twice),
        ("apply", twice),
        ("DashMap<String, String> get", Target::None),
        ("DashMap<String, String> insert", Target::None),
        ("one dependent read of memory", Target::None),
    ];
    let mut lines = Vec::new();
    let mut series = Vec::new();
    for (place, (what, target)) in columns.into_iter().enumerate() {
        let what_at = format!("{what} at {} keys", grouped(sizes[large] as f64));
        let baseline = format!("{} keys", grouped(sizes[small] as f64));
        let line = Line::against(
            8,
            what_at,
            "ns",
            column(large, place),
            baseline,
            column(small, place),
            target,
        );
        lines.push(line);
        series.push(Series {
            section: 8,
            name: what.into(),
            size: "keys".into(),
            unit: "ns".into(),
            points: (0..sizes.len())
                .filter_map(|size| Some((sizes[size] as f64, median(&column(size, place))?)))
                .collect(),
        });
    }
    let nanos = |size, place| median(&column(size, place)).unwrap_or(f64::NAN);
    let dependent = nanos(large, columns.len() - 1);
    for (place, line) in lines.iter_mut().enumerate().take(2) {
        *line = line.clone().note(format!(
            "Of a large cache it waits for two reads of memory that depend on each other (table and entry), each of \
             which may first have to look up its page, and nothing else about it grows. The target leaves {:.0} ns for \
             them; one takes {dependent:.0} ns (\"one dependent read of memory\"), and no map does without one.",
            nanos(small, place),
        ));
    }
    (lines, series)
}

/// Measures how bootstrap and memory grow.
pub async fn bootstraps(arguments: &Arguments) -> Result<(Vec<Line>, Vec<Series>)> {
    let sizes: &[usize] = if arguments.quick {
        &[100_000, 1_000_000]
    } else {
        &[100_000, 1_000_000, 10_000_000]
    };
    let mut samples = Vec::new();
    for keys in sizes {
        samples.push(bootstrap(arguments, *keys).await?);
    }
    let (last, before) = (sizes.len() - 1, sizes.len() - 2);
    let mut lines = Vec::new();
    let mut series = Vec::new();
    type Of = fn(&(f64, f64)) -> f64;
    let columns: [(&str, &str, Of); 2] = [
        ("bootstrap into an empty process, per million keys", "s", |sample| {
            sample.0
        }),
        ("resident memory of the process, per million keys", "MB", |sample| {
            sample.1
        }),
    ];
    for (what, unit, of) in columns {
        let column = |size: usize| samples[size].iter().map(of).collect::<Vec<_>>();
        lines.push(Line::against(
            8,
            format!("{what}, at {}", grouped(sizes[last] as f64)),
            unit,
            column(last),
            format!("{} keys", grouped(sizes[before] as f64)),
            column(before),
            // Linear, with what tables waste at one size and not at another.
            Target::AtMost(1.25),
        ));
        series.push(Series {
            section: 8,
            name: what.into(),
            size: "keys".into(),
            unit: unit.into(),
            points: (0..sizes.len())
                .filter_map(|size| Some((sizes[size] as f64, median(&column(size))?)))
                .collect(),
        });
    }
    Ok((lines, series))
}
