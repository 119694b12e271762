//! Section 16: what of the reads a cache answers that makes room, beside one that sees all reads.
//!
//! Three nodes in this process, each with keys of its own that it reads most (Zipf, 0.99). A read that misses writes the
//! key, which every node then holds; what is written is merged at once, and hints travel after so many reads. Beside it
//! moka, which is one W-TinyLFU for all of them (Einziger, Friedman, Manes, 2017) with as many keys.

use anyhow::Result;
use kvcache_core::cache::{Cache, Delta, Key, Limits, Millis, NodeId, Partition, Victims};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::report::{Line, Target};
use crate::Arguments;

const SECTION: u8 = 16;

const KEYS: usize = 50_000;
/// Keys that fit.
const CAP: usize = KEYS / 5;
const NODES: usize = 3;
const READS: usize = 900_000;
const READS_QUICK: usize = 450_000;
/// Reads of all nodes between two heartbeats, and what one hints.
const BEAT: usize = 15_000;
const HINTS: usize = 1_024;
const VALUE: [u8; 100] = [b'v'; 100];
const SHARE: f64 = 0.95;

/// Any time of a wall clock.
const BEGAN: Millis = 1_700_000_000_000;

/// Reads as node and key, in turns.
fn trace(reads: usize, seed: u64) -> Vec<(usize, usize)> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut sum = 0.0;
    let weights = (1..=KEYS).map(|rank| {
        sum += (rank as f64).powf(-0.99);
        sum
    });
    let sums: Vec<f64> = weights.collect();
    let rankings: Vec<Vec<usize>> = (0..NODES)
        .map(|_| {
            let mut keys: Vec<usize> = (0..KEYS).collect();
            keys.shuffle(&mut random);
            keys
        })
        .collect();
    let draw = |read: usize| {
        let place = random.random_range(0.0..sum);
        let rank = sums.partition_point(|sum| *sum < place).min(KEYS - 1);
        (read % NODES, rankings[read % NODES][rank])
    };
    (0..reads).map(draw).collect()
}

/// The part of the reads that are answered, once a third of them has been made.
#[derive(Default)]
struct Hits {
    reads: usize,
    hits: usize,
}

impl Hits {
    fn count(&mut self, read: usize, reads: usize, hit: bool) {
        if read >= reads / 3 {
            self.reads += 1;
            self.hits += usize::from(hit);
        }
    }

    fn ratio(&self) -> f64 {
        self.hits as f64 / self.reads as f64
    }
}

fn of_moka(trace: &[(usize, usize)]) -> f64 {
    let cache: moka::sync::Cache<usize, ()> = moka::sync::Cache::new(CAP as u64);
    let mut hits = Hits::default();
    for (read, (_, key)) in trace.iter().enumerate() {
        let hit = cache.get(key).is_some();
        hits.count(read, trace.len(), hit);
        if !hit {
            cache.insert(*key, ());
        }
        // What it has noted and not looked at yet; otherwise done by another thread, some time.
        if read % 16 == 0 {
            cache.run_pending_tasks();
        }
    }
    hits.ratio()
}

/// Nodes of which each makes room in a third of the partitions.
struct Nodes {
    caches: Vec<Cache>,
    owned: Vec<Vec<Partition>>,
    turns: Vec<usize>,
    /// Bytes of keys that hold data.
    cap: u64,
}

impl Nodes {
    fn new(hints: bool) -> Result<Self> {
        let caches: Vec<Cache> = (1..=NODES as u64)
            .map(|node| Cache::new(NodeId(node), Limits::default()))
            .collect();
        let owned = |node| Partition::all().filter(move |partition| usize::from(partition.0) % NODES == node);
        let probe = Cache::new(NodeId(9), Limits::default());
        probe.set(&key(0), &VALUE[..], 0, BEGAN)?;
        let cap = CAP as u64 * probe.usage().bytes;
        for cache in &caches {
            cache.count_reads();
            // Hints are told by caches that are half full.
            cache.set_cap(if hints { 1 } else { u64::MAX });
        }
        Ok(Nodes {
            caches,
            owned: (0..NODES).map(|node| owned(node).collect()).collect(),
            turns: vec![0; NODES],
            cap,
        })
    }

    fn merge(&self, from: usize, delta: &Delta, now: Millis) -> Result<()> {
        for cache in (0..NODES).filter(|node| *node != from).map(|node| &self.caches[node]) {
            cache.apply(delta, now)?;
        }
        Ok(())
    }

    fn live(&self) -> u64 {
        let usage = self.caches[0].usage();
        usage.bytes - usage.deletions
    }

    /// As the service does: one part of 64 more than is needed, each node its share.
    fn make_room(&mut self, now: Millis) -> Result<()> {
        let target = self.cap - self.cap / 64;
        for node in 0..NODES {
            let held: u64 = self.owned[node]
                .iter()
                .map(|partition| self.caches[node].live_bytes(*partition))
                .sum();
            let over = held.saturating_sub(target / NODES as u64);
            let (owned, turn) = (&self.owned[node], &mut self.turns[node]);
            let deltas = self.caches[node].evict(owned, turn, over, Victims::LeastRead, now);
            for delta in &deltas {
                self.merge(node, delta, now)?;
            }
        }
        Ok(())
    }

    fn tell_hints(&self) {
        for (node, cache) in self.caches.iter().enumerate() {
            for hint in cache.take_hints(HINTS) {
                let others = (0..NODES).filter(|other| *other != node);
                others.for_each(|other| self.caches[other].hint(hint));
            }
        }
    }
}

fn key(number: usize) -> Key {
    Key::shared(format!("key {number:012}").as_bytes())
}

fn of_nodes(trace: &[(usize, usize)], hints: bool) -> Result<f64> {
    let mut nodes = Nodes::new(hints)?;
    let keys: Vec<Key> = (0..KEYS).map(key).collect();
    let mut hits = Hits::default();
    for (read, (node, key)) in trace.iter().enumerate() {
        let now = BEGAN + read as Millis / 15;
        let hit = nodes.caches[*node].get(&keys[*key], now)?.is_some();
        hits.count(read, trace.len(), hit);
        if !hit {
            let delta = nodes.caches[*node].set(&keys[*key], &VALUE[..], 0, now)?;
            nodes.merge(*node, &delta, now)?;
            if nodes.live() > nodes.cap {
                nodes.make_room(now)?;
            }
        }
        if read % BEAT == BEAT - 1 {
            nodes.tell_hints();
        }
        if read % (BEAT / 10) == 0 {
            nodes.caches.iter().for_each(Cache::cool);
        }
    }
    Ok(hits.ratio())
}

/// Measures the section.
pub fn lines(arguments: &Arguments) -> Result<Vec<Line>> {
    let reads = if arguments.quick { READS_QUICK } else { READS };
    let (mut ours, mut without, mut moka) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..arguments.runs() as u64 {
        let trace = trace(reads, 7 + run);
        ours.push(of_nodes(&trace, true)?);
        without.push(of_nodes(&trace, false)?);
        moka.push(of_moka(&trace));
    }
    let what = "reads that three nodes answer, room for a fifth of the keys";
    let line = |what: String, ours, target| {
        Line::against(
            SECTION,
            what,
            "of 1",
            ours,
            "moka, one for all of them",
            moka.clone(),
            target,
        )
    };
    Ok(vec![
        line(what.into(), ours, Target::AtLeast(SHARE)),
        line(format!("{what}; without hints"), without, Target::None),
    ])
}
