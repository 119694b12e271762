//! `figures-repair`: what repair, forgetting, authentication and acknowledged writes cost, measured on this machine and
//! printed as a table.
//!
//! All nodes run inside this process as a library and share its cores with a real nats-server. Memory after churn is
//! measured in a process of its own, on a virtual clock: the cache takes the time as an argument, so three minutes of
//! churn take as long as their writes.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures::StreamExt;
use kvcache_core::cache::{Cache, Key, Limits, Millis, NodeId, PARTITIONS};
use kvcache_core::replica::{Ack, Keyring};
use kvcache_node::nats::Replicated;
use kvcache_node::time;
use testkit::{Lattice, NatsServer};

use super::figures::{equal, key, meet, one_way, print, quantile_us, subjects, throughput, LibraryNode, Row};

const LIMIT: Duration = Duration::from_secs(120);

/// Keys of the caches that are repaired.
const KEYS: usize = 1_000_000;

/// How many of them differ.
const DIFFERING: [usize; 4] = [1, 100, 10_000, KEYS];

/// Members of a set, and how many of them differ.
const MEMBERS: usize = 100_000;
const DIFFERING_MEMBERS: [usize; 1] = [1];

/// Bytes of values and members.
const VALUE_BYTES: usize = 16;

/// Counters are at rest when they have not changed for this long; they are published four times a second.
const REST: Duration = Duration::from_millis(750);

/// What one run of live replication measures: so often so many commands, and so many single ones.
const LIVE_ROUNDS: usize = 5;
const LIVE_COMMANDS: usize = 200_000;
const LAG_SAMPLES: usize = 2_000;

/// Bytes of their values.
const LIVE_BYTES: usize = 32;

/// Writers at once, and how many commands each of them writes.
const WRITERS: usize = 64;
const COMMANDS_PER_WRITER: usize = 2_000;

/// Writes of a single writer whose latency is measured.
const LATENCY_SAMPLES: usize = 2_000;

const ACK_TIMEOUT_MS: Millis = 5_000;

/// Distinct keys created and deleted, at this rate of the virtual clock.
const CHURNED: usize = 10_000_000;
const CHURN_PER_MS: usize = 50;
const CHURN_TOMBSTONE_MS: Millis = 10_000;

/// As the provider sweeps (src/wasmbus/run.rs).
const SWEEP_PARTITIONS: usize = 8;
const SWEEP_INTERVAL_MS: Millis = 100;

/// What to measure.
#[derive(Args)]
pub struct RepairFiguresArguments {
    /// Runs per figure; the median is printed with the smallest and the largest
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Measure only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Section>,
}

/// Parts of the measurement.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    Repair,
    Churn,
    Auth,
    Ack,
}

/// Measures everything and prints the table.
pub async fn run(arguments: RepairFiguresArguments) -> Result<()> {
    let RepairFiguresArguments { runs, only } = arguments;
    ensure!(runs > 0, "--runs: expected at least 1");
    let wanted = |section| only.is_empty() || only.contains(&section);
    let mut rows = Vec::new();
    if wanted(Section::Repair) {
        rows.extend(repair(runs).await?);
    }
    if wanted(Section::Churn) {
        rows.extend(memory_after_churn(runs).await?);
    }
    if wanted(Section::Auth) {
        rows.extend(authentication(runs).await?);
    }
    if wanted(Section::Ack) {
        rows.extend(acknowledged(runs).await?);
    }
    print(&rows);
    Ok(())
}

/// Name, unit, digits and how to read it from what was measured.
type Figure<T> = (&'static str, &'static str, usize, fn(&T) -> f64);

// --- repair

/// Two synced nodes that hold the same.
struct Pair {
    nodes: [LibraryNode; 2],
    lattice: Lattice,
    _server: NatsServer,
}

struct Repaired {
    /// From the last of the differing writes until the first request of the comparison.
    noticed: Duration,
    /// From that request until both are equal.
    compared: Duration,
    /// What both sent to each other for it.
    bytes: u64,
}

impl Pair {
    /// `fill` writes into the first of two caches and hands each command to the second.
    async fn start(fill: impl FnOnce(&Cache, &Cache)) -> Result<Self> {
        let server = NatsServer::start().await?;
        let lattice = Lattice::new(server.url());
        let cache = || Arc::new(Cache::new(time::fresh_node_id(), Limits::default()));
        let (one, two) = (cache(), cache());
        fill(&one, &two);
        let one = LibraryNode::start(one, &lattice).await?;
        let two = LibraryNode::start(two, &lattice).await?;
        let pair = Pair {
            nodes: [one, two],
            lattice,
            _server: server,
        };
        meet(&pair.nodes).await?;
        equal(&pair.nodes).await?;
        Ok(pair)
    }

    /// Bytes that both have sent to each other, replays included, once nothing is under way any more.
    async fn bytes(&self) -> u64 {
        let count = || -> u64 {
            let sent = |node: &LibraryNode| node.replicator.status().counters.repair_bytes_sent;
            self.nodes.iter().map(sent).sum()
        };
        let mut known = (count(), Instant::now());
        while known.1.elapsed() < REST {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = count();
            if now != known.0 {
                known = (now, Instant::now());
            }
        }
        known.0
    }

    /// Writes behind the back of replication, as while the nodes could not reach each other, and waits until they are
    /// equal again.
    async fn diverge(&self, writes: impl FnOnce(&[&Cache; 2])) -> Result<Repaired> {
        let before = self.bytes().await;
        // The first message to a single node begins the comparison.
        let connection = self.lattice.connection().await?;
        let to_nodes = subjects(&self.lattice).node(NodeId(0));
        let to_nodes = to_nodes.rsplit_once('.').context("a subject without tokens")?.0;
        let mut requests = connection.subscribe(format!("{to_nodes}.*")).await?;
        requests.unsubscribe_after(1).await?;
        connection.flush().await?;
        let first_request = tokio::spawn(async move { requests.next().await.map(|_| Instant::now()) });

        let caches = [&*self.nodes[0].cache, &*self.nodes[1].cache];
        writes(&caches);
        let written = Instant::now();
        ensure!(caches[0].root_digest() != caches[1].root_digest(), "nothing differs");
        while caches[0].root_digest() != caches[1].root_digest() {
            ensure!(written.elapsed() < LIMIT, "the nodes do not become equal");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let equal = Instant::now();
        let request = tokio::time::timeout(LIMIT, first_request).await??;
        let request = request.context("no request was seen")?;
        Ok(Repaired {
            noticed: request.saturating_duration_since(written),
            compared: equal.saturating_duration_since(request),
            bytes: self.bytes().await - before,
        })
    }

    async fn stop(self) {
        for node in self.nodes {
            node.replicator.stop().await;
        }
    }
}

/// With commas between thousands.
fn grouped(number: usize) -> String {
    match number / 1_000 {
        0 => number.to_string(),
        thousands => format!("{},{:03}", grouped(thousands), number % 1_000),
    }
}

fn value(number: usize) -> Bytes {
    format!("{number:0VALUE_BYTES$}").into()
}

fn fill_keys(one: &Cache, two: &Cache) {
    for number in 0..KEYS {
        let now = time::wall();
        let command = one.set(&key(number), value(0), 0, now).expect("within all limits");
        two.apply(&command, now).expect("an honest command");
    }
}

fn set_key() -> Key {
    Key::shared(b"the large set")
}

fn fill_set(one: &Cache, two: &Cache) {
    for number in 0..MEMBERS {
        let now = time::wall();
        let added = one.set_add(&set_key(), value(number), now);
        let (_, command) = added.expect("within all limits");
        two.apply(&command, now).expect("an honest command");
    }
}

/// Makes `differing` of the keys newer: half of them here and half there, or all of them here if that is all there are.
fn make_newer(caches: &[&Cache; 2], differing: usize, round: usize) {
    let step = KEYS / differing;
    for number in 0..differing {
        let side = if differing == KEYS { 0 } else { number % 2 };
        let key = key((number * step + round) % KEYS);
        let written = caches[side].set(&key, value(round + 1), 0, time::wall());
        written.expect("within all limits");
    }
}

/// Adds members, half of them here and half there.
fn add_members(caches: &[&Cache; 2], differing: usize, round: usize) {
    for number in 0..differing {
        let member = value(MEMBERS + round * differing + number);
        let added = caches[number % 2].set_add(&set_key(), member, time::wall());
        added.expect("within all limits");
    }
}

async fn repair(runs: usize) -> Result<Vec<Row>> {
    let mut samples: Vec<(String, Vec<Repaired>)> = Vec::new();
    let pair = Pair::start(fill_keys).await?;
    for differing in DIFFERING {
        let mut all = Vec::new();
        for round in 0..runs {
            all.push(pair.diverge(|caches| make_newer(caches, differing, round)).await?);
        }
        samples.push((
            format!(
                "{} differing of {} keys (16 B + 16 B)",
                grouped(differing),
                grouped(KEYS)
            ),
            all,
        ));
    }
    pair.stop().await;
    for differing in DIFFERING_MEMBERS {
        let pair = Pair::start(fill_set).await?;
        let mut all = Vec::new();
        for round in 0..runs {
            let add = |caches: &[&Cache; 2]| add_members(caches, differing, round);
            all.push(pair.diverge(add).await?);
        }
        pair.stop().await;
        let name = format!(
            "{} differing of {} set members (16 B)",
            grouped(differing),
            grouped(MEMBERS)
        );
        samples.push((name, all));
    }

    let mut rows = Vec::new();
    for (name, all) in samples {
        let row = |what: &str, unit: &str, digits, figure: fn(&Repaired) -> f64| {
            Row::of(
                &format!("{name}: {what}"),
                unit,
                digits,
                all.iter().map(figure).collect(),
            )
        };
        rows.push(row("from healed to equal", "s", 2, |run| {
            (run.noticed + run.compared).as_secs_f64()
        }));
        rows.push(row("of that the exchange", "s", 3, |run| run.compared.as_secs_f64()));
        rows.push(row("bytes sent by both", "kB", 2, |run| run.bytes as f64 / 1e3));
    }
    Ok(rows)
}

// --- churn

/// How to churn.
#[derive(Args)]
pub struct ChurnArguments {
    /// Distinct keys
    #[arg(long, default_value_t = CHURNED)]
    keys: usize,
}

/// Creates and deletes keys at an even rate of a virtual clock. Prints resident memory and entries ten times, and once
/// more when all deletions are forgotten.
pub fn churn(arguments: &ChurnArguments) -> Result<()> {
    let limits = Limits {
        tombstone_ttl_ms: CHURN_TOMBSTONE_MS,
        ..Limits::default()
    };
    let cache = Cache::new(NodeId(1), limits);
    let mut clock = Clock {
        now: 1_700_000_000_000,
        next_sweep: 0,
    };
    println!("{} {}", resident_bytes()?, cache.entries());
    for number in 0..arguments.keys {
        cache.set(&key(number), value(number), 0, clock.now)?;
        let (deleted, _) = cache.delete(&key(number), clock.now).expect("a short key");
        ensure!(deleted, "a key that was just set is not there");
        if number % CHURN_PER_MS == CHURN_PER_MS - 1 {
            clock.advance(&cache);
        }
        if (number + 1) % (arguments.keys / 10).max(1) == 0 {
            println!("{} {}", resident_bytes()?, cache.entries());
        }
    }
    let round = PARTITIONS as Millis / SWEEP_PARTITIONS as Millis * SWEEP_INTERVAL_MS;
    for _ in 0..2 * CHURN_TOMBSTONE_MS + round {
        clock.advance(&cache);
    }
    println!("{} {}", resident_bytes()?, cache.entries());
    Ok(())
}

struct Clock {
    now: Millis,
    next_sweep: Millis,
}

impl Clock {
    fn advance(&mut self, cache: &Cache) {
        self.now += 1;
        if self.now >= self.next_sweep {
            self.next_sweep = self.now + SWEEP_INTERVAL_MS;
            cache.sweep(SWEEP_PARTITIONS, self.now);
        }
    }
}

fn resident_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kibibytes.context("no VmRSS")?.parse::<u64>()? * 1_024)
}

async fn memory_after_churn(runs: usize) -> Result<Vec<Row>> {
    let names = [
        "after 1,000,000",
        "at most",
        "after 10,000,000",
        "when all is forgotten",
    ];
    let (mut resident, mut entries) = ([(); 4].map(|()| Vec::new()), [(); 4].map(|()| Vec::new()));
    for _ in 0..runs {
        let output = tokio::process::Command::new(std::env::current_exe()?)
            .arg("churn")
            .stderr(Stdio::inherit())
            .output()
            .await?;
        ensure!(output.status.success(), "the churning process failed");
        let mut samples = Vec::new();
        for line in String::from_utf8(output.stdout)?.lines() {
            let Some((resident, entries)) = line.split_once(' ') else {
                bail!("cannot read {line:?}");
            };
            samples.push((resident.parse::<u64>()?, entries.parse::<u64>()?));
        }
        let [empty, churning @ .., forgotten] = &samples[..] else {
            bail!("no samples");
        };
        let most = |pick: fn(&(u64, u64)) -> u64| churning.iter().map(pick).max().context("no samples");
        let largest = (most(|sample| sample.0)?, most(|sample| sample.1)?);
        let last = *churning.last().context("no samples")?;
        for (place, sample) in [churning[0], largest, last, *forgotten].into_iter().enumerate() {
            resident[place].push((sample.0 as f64 - empty.0 as f64) / 1e6);
            entries[place].push(sample.1 as f64);
        }
    }
    let mut rows = Vec::new();
    let what = "10,000,000 keys created and deleted, 50,000/s, deletions kept 10 s";
    for (name, samples) in names.iter().zip(resident) {
        rows.push(Row::of(
            &format!("{what}: resident memory {name}, beyond an empty process"),
            "MB",
            1,
            samples,
        ));
    }
    for (name, samples) in names.iter().zip(entries) {
        rows.push(Row::of(&format!("{what}: entries {name}"), "", 0, samples));
    }
    Ok(rows)
}

// --- authentication

#[derive(Clone, Copy)]
enum Mode {
    Off,
    SharedSeed,
    TwoIssuers,
}

impl Mode {
    const ALL: [Mode; 3] = [Mode::Off, Mode::SharedSeed, Mode::TwoIssuers];

    fn name(self) -> &'static str {
        match self {
            Mode::Off => "authentication off",
            Mode::SharedSeed => "one seed",
            Mode::TwoIssuers => "two issuers",
        }
    }

    /// The keyring of the writer, or of a reader.
    fn keyring(self, lattice: &Lattice, readers: &nkeys::KeyPair, writes: bool) -> Result<Keyring> {
        let subjects = subjects(lattice);
        let writer = nkeys::KeyPair::from_seed(&lattice.cluster_seed()?)?;
        let (own, others) = match (self, writes) {
            (Mode::Off, _) => return Ok(Keyring::open()),
            (Mode::SharedSeed, _) => (&writer, vec![]),
            (Mode::TwoIssuers, true) => (&writer, vec![readers.public_key()]),
            (Mode::TwoIssuers, false) => (readers, vec![writer.public_key()]),
        };
        Ok(Keyring::new(&own.seed()?, &others, subjects.commands())?)
    }
}

/// One writer and two readers.
async fn trio(lattice: &Lattice, keyring: impl Fn(bool) -> Result<Keyring>) -> Result<[LibraryNode; 3]> {
    let start = |number: u64, keyring| {
        let cache = Arc::new(Cache::new(NodeId(number), Limits::default()));
        LibraryNode::start_with(cache, lattice, keyring)
    };
    let nodes = [
        start(1, keyring(true)?).await?,
        start(2, keyring(false)?).await?,
        start(3, keyring(false)?).await?,
    ];
    meet(&nodes).await?;
    Ok(nodes)
}

/// What one run says of one mode.
#[derive(Default)]
struct Live {
    lag: Vec<Duration>,
    per_second: Vec<f64>,
    /// Of all three nodes.
    processor_us: Vec<f64>,
}

impl Live {
    fn lag_us(&self, part: f64) -> f64 {
        let mut sorted = self.lag.clone();
        sorted.sort();
        quantile_us(&sorted, part)
    }
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// Time that this process has spent on processors, in microseconds.
fn processor_us() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').context("a stat without name")?.1;
    let ticks = |place| -> Result<u64> { Ok(fields.split_whitespace().nth(place).context("a short stat")?.parse()?) };
    // User and system time in hundredths of a second.
    Ok((ticks(11)? + ticks(12)?) as f64 * 1e4)
}

/// All modes run at once and take turns in short steps: what else this machine does hits all of them alike.
async fn live_in_turns(run: usize) -> Result<[Live; 3]> {
    let server = NatsServer::start().await?;
    let mut trios = Vec::new();
    for mode in Mode::ALL {
        let lattice = Lattice::new(server.url());
        let readers = nkeys::KeyPair::new_cluster();
        trios.push(trio(&lattice, |writes| mode.keyring(&lattice, &readers, writes)).await?);
    }
    let mut live = Mode::ALL.map(|_| Live::default());
    let order = |turn: usize| (0..trios.len()).map(move |place| (place + turn) % Mode::ALL.len());
    for sample in 0..LAG_SAMPLES {
        for place in order(sample) {
            let nodes = &trios[place];
            let lag = one_way(&nodes[0], &nodes[1].cache, sample, LIVE_BYTES).await?;
            live[place].lag.push(lag);
        }
    }
    for round in 0..LIVE_ROUNDS {
        for place in order(run + round) {
            let before = processor_us()?;
            let per_second = throughput(&trios[place], LIVE_COMMANDS, LIVE_BYTES).await?;
            live[place].per_second.push(per_second);
            let spent = processor_us()? - before;
            live[place].processor_us.push(spent / LIVE_COMMANDS as f64);
        }
    }
    for node in trios.iter().flatten() {
        node.replicator.stop().await;
    }
    Ok(live)
}

async fn authentication(runs: usize) -> Result<Vec<Row>> {
    let mut all = Vec::new();
    for run in 0..runs {
        all.push(live_in_turns(run).await?);
    }
    let mut rows = Vec::new();
    let what = "one writer to two nodes (16 B + 32 B)";
    let figures: [Figure<Live>; 4] = [
        ("throughput", "thousand commands/s", 0, |live| {
            median(live.per_second.clone()) / 1e3
        }),
        ("processor time per command on all three", "us", 2, |live| {
            median(live.processor_us.clone())
        }),
        ("one-way lag p50", "us", 1, |live| live.lag_us(0.5)),
        ("one-way lag p99", "us", 0, |live| live.lag_us(0.99)),
    ];
    for (figure, unit, digits, get) in figures {
        for (place, mode) in Mode::ALL.iter().enumerate() {
            let name = format!("{what}, {}: {figure}", mode.name());
            let samples = all.iter().map(|run| get(&run[place])).collect();
            rows.push(Row::of(&name, unit, digits, samples));
        }
    }
    for (place, mode) in Mode::ALL.iter().enumerate().skip(1) {
        let name = format!("{what}, {} against off", mode.name());
        // Each with the one that ran next to it.
        let of_off = |get: fn(&Live) -> &Vec<f64>| -> Vec<f64> {
            let pairs = all.iter().flat_map(|run| get(&run[place]).iter().zip(get(&run[0])));
            pairs.map(|(this, off)| this / off * 100.0).collect()
        };
        let throughput = of_off(|live| &live.per_second);
        rows.push(Row::of(&format!("{name}: throughput"), "%", 1, throughput));
        let processor = of_off(|live| &live.processor_us);
        rows.push(Row::of(&format!("{name}: processor time"), "%", 1, processor));
        let added = |run: &[Live; 3]| run[place].lag_us(0.5) - run[0].lag_us(0.5);
        let added = all.iter().map(added).collect();
        rows.push(Row::of(&format!("{name}: added lag p50"), "us", 1, added));
    }
    Ok(rows)
}

// --- acknowledged writes

struct Acknowledged {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
}

async fn write(node: &LibraryNode, number: usize, ack: Ack) -> Result<()> {
    let command = node.cache.set(&key(number), value(number), 0, time::wall())?;
    let replicated = node.replicator.replicate(command, ack, ACK_TIMEOUT_MS).await;
    ensure!(
        replicated == Replicated::Done,
        "a write was not confirmed: {replicated:?}"
    );
    Ok(())
}

async fn write_acknowledged(ack: Ack) -> Result<Acknowledged> {
    let server = NatsServer::start().await?;
    let lattice = Lattice::new(server.url());
    let seed = lattice.cluster_seed()?;
    let keyring = |_| Ok(Keyring::new(&seed, &[], subjects(&lattice).commands())?);
    let nodes = trio(&lattice, keyring).await?;
    let mut latency = Vec::with_capacity(LATENCY_SAMPLES);
    for number in 0..LATENCY_SAMPLES {
        let started = Instant::now();
        write(&nodes[0], number, ack).await?;
        latency.push(started.elapsed());
        // An idle system: the next write waits for a quiet moment.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    latency.sort();
    equal(&nodes).await?;

    let nodes = Arc::new(nodes);
    let started = Instant::now();
    let writers = (0..WRITERS).map(|writer| {
        let nodes = nodes.clone();
        tokio::spawn(async move {
            for number in 0..COMMANDS_PER_WRITER {
                write(&nodes[0], writer * COMMANDS_PER_WRITER + number, ack).await?;
            }
            anyhow::Ok(())
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await??;
    }
    equal(&nodes[..]).await?;
    let seconds = started.elapsed().as_secs_f64();
    for node in nodes.iter() {
        node.replicator.stop().await;
    }
    Ok(Acknowledged {
        per_second: (WRITERS * COMMANDS_PER_WRITER) as f64 / seconds,
        p50_us: quantile_us(&latency, 0.5),
        p99_us: quantile_us(&latency, 0.99),
    })
}

async fn acknowledged(runs: usize) -> Result<Vec<Row>> {
    let modes = [("0", Ack::Local), ("1", Ack::Peers(1)), ("all (2 peers)", Ack::All)];
    let mut samples = modes.map(|_| Vec::new());
    for round in 0..runs {
        for turn in 0..modes.len() {
            let place = (round + turn) % modes.len();
            samples[place].push(write_acknowledged(modes[place].1).await?);
        }
    }
    let figures: [Figure<Acknowledged>; 3] = [
        (
            "64 writers, until all nodes are equal",
            "thousand commands/s",
            1,
            |run| run.per_second / 1e3,
        ),
        ("latency of a single writer, p50", "us", 0, |run| run.p50_us),
        ("latency of a single writer, p99", "us", 0, |run| run.p99_us),
    ];
    let mut rows = Vec::new();
    for (figure, unit, digits, get) in figures {
        for ((mode, _), samples) in modes.iter().zip(&samples) {
            let name = format!("ACK={mode}: {figure}");
            rows.push(Row::of(&name, unit, digits, samples.iter().map(get).collect()));
        }
    }
    Ok(rows)
}
