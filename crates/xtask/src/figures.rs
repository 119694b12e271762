//! `figures`: the numbers of the README, measured on this machine and printed as a table.
//!
//! Source nodes run inside this process as a library, so that filling them costs no RPC; the nodes whose start and
//! memory are measured are real provider processes. All share the cores of this machine with the nats-server.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use kvcache_core::cache::{Cache, Key, Limits, NodeId};
use kvcache_core::replica::{Ack, Keyring, Start};
use kvcache_node::nats::{Credentials, Replicated, Replicator, Settings, Subjects};
use kvcache_node::time;
use testkit::{eventually, Lattice, NatsServer, ProviderOptions, ProviderProcess, DEFAULT_LINK_NAME};

const LIMIT: Duration = Duration::from_secs(120);
const KEY_BYTES: usize = 16;
const LAG_SAMPLES: usize = 2_000;

/// What to measure.
#[derive(Args)]
pub struct FiguresArguments {
    /// The provider's release binary
    #[arg(long, default_value = "target/release/nats-kvcache")]
    bin: PathBuf,
    /// The provider archive, for its size
    #[arg(long, default_value = "build/nats-kvcache.par.gz")]
    par: PathBuf,
    /// Only these
    #[arg(long, value_enum)]
    only: Vec<Figure>,
    /// Runs per figure; the median is printed with the smallest and the largest
    #[arg(long, default_value_t = 5)]
    runs: usize,
}

/// What can be measured on its own.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Figure {
    /// An empty provider joins
    Replay,
    /// Throughput and lag of live replication
    Live,
    /// Resident memory per key
    Memory,
    /// Sizes of the binary and the archive
    Size,
}

impl FiguresArguments {
    fn wants(&self, figure: Figure) -> bool {
        self.only.is_empty() || self.only.contains(&figure)
    }
}

/// Measures everything and prints the table.
pub async fn run(arguments: FiguresArguments) -> Result<()> {
    ensure!(arguments.runs > 0, "--runs: expected at least 1");
    ensure!(
        arguments.bin.is_file(),
        "--bin: expected a provider binary at {}; `make build` makes it",
        arguments.bin.display()
    );
    let mut rows = Vec::new();
    if arguments.wants(Figure::Replay) {
        rows.extend(replay_rows(&arguments).await?);
    }
    if arguments.wants(Figure::Live) {
        rows.extend(live_rows(&arguments).await?);
    }
    if arguments.wants(Figure::Memory) {
        rows.extend(memory_rows(&arguments).await?);
    }
    if arguments.wants(Figure::Size) {
        rows.extend(size_rows(&arguments));
    }
    print(&rows);
    Ok(())
}

async fn replay_rows(arguments: &FiguresArguments) -> Result<Vec<Row>> {
    let (mut seconds, mut megabytes) = (Vec::new(), Vec::new());
    for _ in 0..arguments.runs {
        let replay = replay(arguments, 100_000, 32).await?;
        seconds.push(replay.seconds);
        megabytes.push(replay.bytes as f64 / 1e6);
    }
    let name = "replay of 100,000 keys (16 B + 32 B) into an empty provider";
    Ok(vec![
        Row::of(name, "s", 3, seconds),
        Row::of("bytes of that replay", "MB", 2, megabytes),
    ])
}

async fn live_rows(arguments: &FiguresArguments) -> Result<Vec<Row>> {
    let (mut rate, mut p50, mut p99) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.runs {
        let live = live(500_000, 32).await?;
        rate.push(live.per_second / 1e3);
        p50.push(live.lag_p50_us);
        p99.push(live.lag_p99_us);
    }
    let name = "live replication, one writer to two nodes (16 B + 32 B)";
    Ok(vec![
        Row::of(name, "thousand commands/s", 0, rate),
        Row::of("one-way lag on an idle system, p50", "us", 0, p50),
        Row::of("one-way lag on an idle system, p99", "us", 0, p99),
    ])
}

async fn memory_rows(arguments: &FiguresArguments) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (value_bytes, name) in [(16, "16 B + 16 B"), (32, "16 B + 32 B")] {
        let mut per_key = Vec::new();
        for _ in 0..arguments.runs {
            per_key.push(replay(arguments, 1_000_000, value_bytes).await?.resident_per_key);
        }
        let name = format!("resident memory per key at 1,000,000 keys ({name})");
        rows.push(Row::of(&name, "B", 0, per_key));
    }
    Ok(rows)
}

fn size_rows(arguments: &FiguresArguments) -> Vec<Row> {
    let files = [("release binary", &arguments.bin), ("provider archive", &arguments.par)];
    let sizes = files.into_iter().filter_map(|(name, path)| {
        let megabytes = std::fs::metadata(path).ok()?.len() as f64 / 1e6;
        Some(Row::of(&format!("size of the {name}"), "MB", 2, vec![megabytes]))
    });
    sizes.collect()
}

/// Prints the table, and where and when it was measured.
pub fn print(rows: &[Row]) {
    println!("| what | median | smallest | largest | unit |\n| --- | --- | --- | --- | --- |");
    rows.iter().for_each(|row| println!("{}", row.0));
    println!("\n{}", machine());
}

/// One line of the table.
pub struct Row(String);

impl Row {
    /// The line of some samples.
    pub fn of(name: &str, unit: &str, digits: usize, mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let (median, min, max) = (samples[samples.len() / 2], samples[0], samples[samples.len() - 1]);
        Row(format!(
            "| {name} | {median:.digits$} | {min:.digits$} | {max:.digits$} | {unit} |"
        ))
    }
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1))
        .unwrap_or("unknown CPU");
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    let date = Command::new("date").args(["-u", "+%F"]).output();
    let date = date.map_or_else(
        |_| "unknown date".into(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    );
    format!("{model}, {cores} cores, {}, {date}", std::env::consts::OS)
}

/// The subjects of the library nodes of a lattice.
pub fn subjects(lattice: &Lattice) -> Subjects {
    Subjects::of(lattice.prefix(), DEFAULT_LINK_NAME)
}

/// A node inside this process.
pub struct LibraryNode {
    pub cache: Arc<Cache>,
    pub replicator: Replicator,
}

impl LibraryNode {
    /// Starts a node that holds the seed of the lattice.
    pub async fn start(cache: Arc<Cache>, lattice: &Lattice) -> Result<Self> {
        let keyring = Keyring::new(&lattice.cluster_seed()?, &[], subjects(lattice).commands())?;
        Self::start_with(cache, lattice, keyring).await
    }

    /// Starts a node that authenticates with `keyring`.
    pub async fn start_with(cache: Arc<Cache>, lattice: &Lattice, keyring: Keyring) -> Result<Self> {
        let subjects = subjects(lattice);
        let settings = Settings {
            servers: vec![lattice.nats_url().parse()?],
            credentials: Credentials::None,
            tls: Default::default(),
            subjects,
            host: "figures".into(),
            beat_interval_ms: 1_000,
            sync_limit_ms: 30_000,
            min_peers: 0,
            keyring: Arc::new(keyring),
            queue_bytes: 64 << 20,
            inbox_bytes: 64 << 20,
            ring_bytes: 16 << 20,
        };
        let replicator = Replicator::start(cache.clone(), settings, async { Start::Empty }).await?;
        ensure!(
            replicator.first_sync().await.is_whole(),
            "a library node does not get in sync"
        );
        Ok(LibraryNode { cache, replicator })
    }
}

/// Key number `number`, of 16 bytes.
pub fn key(number: usize) -> Key {
    Key::shared(format!("{number:0KEY_BYTES$}").as_bytes())
}

fn filled(keys: usize, value_bytes: usize) -> Arc<Cache> {
    let cache = Arc::new(Cache::new(time::fresh_node_id(), Limits::default()));
    let value = Bytes::from(vec![b'v'; value_bytes]);
    for number in 0..keys {
        cache
            .set(&key(number), value.clone(), 0, time::wall())
            .expect("within all limits");
    }
    cache
}

struct Replay {
    seconds: f64,
    bytes: u64,
    resident_per_key: f64,
}

/// A provider process joins a node of `keys` keys.
async fn replay(arguments: &FiguresArguments, keys: usize, value_bytes: usize) -> Result<Replay> {
    let server = NatsServer::start().await?;
    let lattice = Lattice::new(server.url());
    let options = || ProviderOptions::new(&arguments.bin);
    let empty = start_and_measure(&Lattice::new(server.url()).with_prefix("empty"), options(), 0).await?;
    let source = LibraryNode::start(filled(keys, value_bytes), &lattice).await?;
    let joined = start_and_measure(&lattice, options(), keys as u64).await?;
    source.replicator.stop().await;
    Ok(Replay {
        seconds: joined.sync_seconds,
        bytes: joined.replay_bytes,
        resident_per_key: (joined.resident - empty.resident) as f64 / keys as f64,
    })
}

struct Joined {
    sync_seconds: f64,
    replay_bytes: u64,
    resident: i64,
}

async fn start_and_measure(lattice: &Lattice, options: ProviderOptions, keys: u64) -> Result<Joined> {
    let mut provider: ProviderProcess = lattice.start(options).await?;
    let line = provider.wait_for_log("synced keys=", LIMIT).await?;
    let status = provider.wait_status(LIMIT, |status| status.keys == keys).await?;
    let field = |name: &str| -> Result<u64> {
        let value = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix(name))
            .context("no such field in the log line")?;
        Ok(value.parse()?)
    };
    let health = provider.health().await?.message.unwrap_or_default();
    let replay_bytes = health
        .split_whitespace()
        .find_map(|word| word.strip_prefix("replay_bytes="))
        .context("health without replay_bytes")?;
    let joined = Joined {
        sync_seconds: field("took_ms=")? as f64 / 1e3,
        replay_bytes: replay_bytes.parse()?,
        resident: provider.resident_bytes()? as i64,
    };
    ensure!(status.keys == keys, "{} keys instead of {keys}", status.keys);
    provider.kill()?;
    Ok(joined)
}

struct Live {
    per_second: f64,
    lag_p50_us: f64,
    lag_p99_us: f64,
}

/// One writer, two readers.
async fn live(commands: usize, value_bytes: usize) -> Result<Live> {
    let server = NatsServer::start().await?;
    let lattice = Lattice::new(server.url());
    let mut nodes = Vec::new();
    for number in 1..=3u64 {
        let cache = Arc::new(Cache::new(NodeId(number), Limits::default()));
        nodes.push(LibraryNode::start(cache, &lattice).await?);
    }
    meet(&nodes).await?;
    let mut lag = Vec::with_capacity(LAG_SAMPLES);
    for sample in 0..LAG_SAMPLES {
        lag.push(one_way(&nodes[0], &nodes[1].cache, sample, value_bytes).await?);
    }
    lag.sort();
    let per_second = throughput(&nodes, commands, value_bytes).await?;
    for node in nodes {
        node.replicator.stop().await;
    }
    Ok(Live {
        per_second,
        lag_p50_us: quantile_us(&lag, 0.5),
        lag_p99_us: quantile_us(&lag, 0.99),
    })
}

/// Commands per second that the first node writes and all of them hold in the end.
pub async fn throughput(nodes: &[LibraryNode], commands: usize, value_bytes: usize) -> Result<f64> {
    let value = Bytes::from(vec![b'v'; value_bytes]);
    let started = Instant::now();
    for number in 0..commands {
        let command = nodes[0].cache.set(&key(number), value.clone(), 0, time::wall())?;
        let replicated = nodes[0].replicator.replicate(command, Ack::Local, 0).await;
        ensure!(replicated == Replicated::Done, "replication has stopped");
    }
    equal(nodes).await?;
    Ok(commands as f64 / started.elapsed().as_secs_f64())
}

/// A quantile of sorted samples, in microseconds.
pub fn quantile_us(sorted: &[Duration], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6
}

/// Waits until each of the nodes counts all others as synced peers.
pub async fn meet(nodes: &[LibraryNode]) -> Result<()> {
    eventually(LIMIT, || async {
        for node in nodes {
            let peers = node.replicator.status().peers;
            let synced = peers.iter().filter(|peer| peer.synced).count();
            ensure!(synced == nodes.len() - 1, "a node has {synced} synced peers");
        }
        Ok(())
    })
    .await
}

/// Waits until all nodes hold the same.
pub async fn equal(nodes: &[LibraryNode]) -> Result<()> {
    let digest = |node: &LibraryNode| node.cache.root_digest();
    eventually(LIMIT, || async {
        let first = digest(&nodes[0]);
        let equal = nodes.iter().all(|node| digest(node) == first);
        equal.then_some(()).context("the nodes are not equal")
    })
    .await
}

/// From before a write on one node until another shows it, on an idle system. The writes of one pair need different
/// numbers.
pub async fn one_way(writer: &LibraryNode, reader: &Cache, number: usize, value_bytes: usize) -> Result<Duration> {
    // The last write is at rest everywhere before the next one comes.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut text = format!("{number:08}");
    text.extend(std::iter::repeat_n('v', value_bytes - 8));
    let value = Bytes::from(text);
    let started = Instant::now();
    let command = writer.cache.set(&key(0), value.clone(), 0, time::wall())?;
    writer.replicator.replicate(command, Ack::Local, 0).await;
    while reader.get(&key(0), time::wall())?.as_ref() != Some(&value) {
        ensure!(started.elapsed() < LIMIT, "a write does not arrive");
        // Looks again at once, but lets the nodes and the server run first: they share these cores.
        std::thread::yield_now();
    }
    Ok(started.elapsed())
}
