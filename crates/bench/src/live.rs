//! Section 4: sustained live replication of one writer to two nodes, beside SET of Redis and Valkey with one replica.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use kvcache_core::cache::Key;
use kvcache_node::time;
use testkit::{Lattice, NatsServer, RedisKind, RedisServer};

use crate::node::{self, equal, key, LibraryNode};
use crate::redis;
use crate::report::{Line, Target};
use crate::Arguments;

/// Keys that are written, in an order that looks random.
const KEYS: usize = 1_000_000;

/// Bytes of a value.
pub const VALUE_BYTES: usize = 32;

/// What one run measures.
pub struct Live {
    /// Writes per second, from the first until all nodes hold the last.
    pub per_second: f64,
    /// The longest that a write, looked at now and then, took to be readable on each of the others, in ms.
    pub lag_ms: f64,
    /// How much the process has grown beyond what the caches hold in the end, at most, in MB.
    pub grown_mb: f64,
    /// Frames that were asked for again.
    pub asked: u64,
}

/// Writes `commands` values through the first of three nodes.
pub async fn measure(commands: usize) -> Result<Live> {
    let server = NatsServer::start().await?;
    let lattice = Lattice::new(server.url());
    let nodes = node::that_meet(3, &lattice).await?;
    let order = node::shuffled(KEYS);
    let keys: Vec<Key> = order.into_iter().map(key).collect();
    // Every key is there, so that memory that grows is memory that waits.
    write(&nodes[0], &keys, 0..KEYS, &AtomicU64::new(0)).await?;
    equal(&nodes).await?;
    let watch = Watch::start(&nodes, keys.clone());
    let started = Instant::now();
    write(&nodes[0], &keys, KEYS..KEYS + commands, &watch.written).await?;
    equal(&nodes).await?;
    let per_second = commands as f64 / started.elapsed().as_secs_f64();
    let (lag, grown) = watch.stop();
    let mut asked = 0;
    for node in nodes {
        asked += node.status().counters.frames_asked;
        node.service.stop().await;
    }
    Ok(Live {
        per_second,
        lag_ms: lag.as_secs_f64() * 1e3,
        grown_mb: grown as f64 / 1e6,
        asked,
    })
}

/// Value number `number`.
fn value(number: u64) -> [u8; VALUE_BYTES] {
    let mut bytes = [b'v'; VALUE_BYTES];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Writes the values with these numbers, key after key.
async fn write(node: &LibraryNode, keys: &[Key], numbers: Range<usize>, written: &AtomicU64) -> Result<()> {
    for number in numbers {
        node.set(&keys[number % keys.len()], &value(number as u64)).await?;
        written.store(number as u64 + 1, Ordering::Release);
    }
    Ok(())
}

/// Looks now and then how far behind the others are, and how large the process is.
struct Watch {
    written: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(Duration, u64)>,
}

impl Watch {
    fn start(nodes: &[LibraryNode], keys: Vec<Key>) -> Self {
        let written = Arc::new(AtomicU64::new(0));
        let done = Arc::new(AtomicBool::new(false));
        let caches: Vec<_> = nodes[1..].iter().map(|node| node.cache.clone()).collect();
        let (noted, over) = (written.clone(), done.clone());
        let thread = std::thread::spawn(move || {
            let before = resident();
            let (mut longest, mut largest) = (Duration::ZERO, before);
            while !over.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(20));
                largest = largest.max(resident());
                let Some(number) = noted.load(Ordering::Acquire).checked_sub(1) else {
                    continue;
                };
                let (started, place) = (Instant::now(), number as usize % keys.len());
                let reached = |cache: &Arc<kvcache_core::cache::Cache>| {
                    let found = cache.get(&keys[place], time::wall()).ok().flatten();
                    found.is_some_and(|found| found[..8] >= number.to_be_bytes()[..])
                };
                while !caches.iter().all(reached) && !over.load(Ordering::Acquire) {
                    std::thread::sleep(Duration::from_micros(200));
                }
                longest = longest.max(started.elapsed());
            }
            (longest, largest - before)
        });
        Watch { written, done, thread }
    }

    fn stop(self) -> (Duration, u64) {
        self.done.store(true, Ordering::Release);
        self.thread.join().expect("looking does not fail")
    }
}

/// Resident bytes of this process.
pub fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    pages * 4096
}

/// A primary with one replica, and what it was measured to do.
struct Other {
    kind: RedisKind,
    primary: RedisServer,
    replica: RedisServer,
    /// Thousand SETs per second of one client, and of many.
    one: Vec<f64>,
    many: Vec<f64>,
}

impl Other {
    async fn start(kind: RedisKind) -> Result<Self> {
        let primary = RedisServer::start_kind(kind).await?;
        let replica = RedisServer::replica_of(&primary).await?;
        Ok(Other {
            kind,
            primary,
            replica,
            one: Vec::new(),
            many: Vec::new(),
        })
    }

    async fn measure(&mut self, commands: usize) -> Result<()> {
        for (clients, samples) in [(1, &mut self.one), (CLIENTS, &mut self.many)] {
            samples.push(redis::sets_per_second(&self.primary, clients, 16, commands, VALUE_BYTES).await? / 1e3);
            self.replica.wait_in_sync(&self.primary).await?;
        }
        Ok(())
    }

    fn lines(self, rate: &[f64]) -> [Line; 2] {
        let name = self.kind.name();
        // The targets are from when Redis alone was measured.
        let target = match self.kind {
            RedisKind::Redis => Target::AtLeast(4.0),
            RedisKind::Valkey => Target::None,
        };
        let line = |clients: &str, samples, target| {
            let baseline = format!("{name} SET, one replica, {clients}");
            Line::against(4, WHAT, "thousand/s", rate.to_vec(), baseline, samples, target)
        };
        [
            line("1 client", self.one, target),
            line(&format!("{CLIENTS} clients"), self.many, Target::None),
        ]
    }
}

const WHAT: &str = "live replication over NATS, one writer to two nodes (16 B + 32 B)";

/// Clients at once, where they are many.
const CLIENTS: usize = 50;

/// Measures the section.
pub async fn lines(arguments: &Arguments) -> Result<Vec<Line>> {
    let commands = if arguments.quick { 1_000_000 } else { 3_000_000 };
    let mut others = Vec::new();
    for kind in RedisKind::ALL {
        others.push(Other::start(kind).await?);
    }
    let mut runs = Vec::new();
    for _ in 0..arguments.runs() {
        runs.push(measure(commands).await?);
        for other in &mut others {
            other.measure(commands / 2).await?;
        }
    }
    let column = |of: fn(&Live) -> f64| runs.iter().map(of).collect::<Vec<_>>();
    let rate = column(|run| run.per_second / 1e3);
    let mut lines: Vec<Line> = others.into_iter().flat_map(|other| other.lines(&rate)).collect();
    lines.extend([
        Line::alone(
            4,
            "longest lag during it",
            "ms",
            column(|run| run.lag_ms),
            Target::AtMost(1_000.0),
        ),
        Line::alone(
            4,
            "memory of queues during it, all nodes",
            "MB",
            column(|run| run.grown_mb),
            Target::AtMost(256.0),
        ),
        Line::alone(
            4,
            "frames asked for again during it",
            "frames",
            column(|run| run.asked as f64),
            Target::None,
        ),
    ]);
    Ok(lines)
}
