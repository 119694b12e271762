//! Section 1: get and set through the whole wasmbus path, beside a provider that answers with constants and one that
//! keeps its values in Redis.
//!
//! The three providers run all the time, each in a lattice of its own on one nats-server, and are called in turns, in
//! another order each round; two idle while one is measured. They are started anew several times, because each process
//! has its luck with where its memory lies, which all its samples share. The slices are short and many: how fast two
//! cores are that others share changes from tenth to tenth of a second, and what changes between two slices is noise.
//! All are called by the same callers over the same connection, and every call is signed anew, as a host does. Ours is
//! the release binary with its default configuration: it replicates, to a lattice in which no peer is there.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::json;
use testkit::{eventually, Actor, Lattice, NatsServer, ProviderOptions, ProviderProcess, RedisServer};

use crate::caller::Caller;
use crate::load::{self, Operation, Slice};
use crate::report::{Line, Target};
use crate::{cpu, Arguments};

const SECTION: u8 = 1;
const START_LIMIT: Duration = Duration::from_secs(30);
const CONCURRENCY: [u64; 3] = [1, 16, 64];
/// How often each is measured after a start.
const ROUNDS: usize = 12;
/// How long it is measured each time.
const SLICE: Duration = Duration::from_millis(150);
/// The places of the three in every list here.
const OURS: usize = 0;
const NOOP: usize = 1;
const REDIS: usize = 2;

/// Measures all cells.
pub async fn lines(arguments: &Arguments) -> Result<Vec<Line>> {
    let server = NatsServer::start().await?;
    let redis = RedisServer::start().await?;
    let redis_name = format!("a provider on redis-server {}", redis.version().await?);
    let connection = async_nats::connect(server.url()).await?;
    let config = json!({ "URL": redis.url() });
    let mut cells = Vec::new();
    for operation in [Operation::Get, Operation::Set] {
        cells.extend(CONCURRENCY.map(|concurrency| Cell::new(operation, concurrency)));
    }
    for _ in 0..starts(arguments) {
        let redis_provider = ProviderOptions::new(sibling("redis_provider")?).config(config.clone());
        let contestants = [
            Contestant::start(ProviderOptions::new(&arguments.bin), &server, &connection).await?,
            Contestant::start(ProviderOptions::new(sibling("noop_provider")?), &server, &connection).await?,
            Contestant::start(redis_provider, &server, &connection).await?,
        ];
        for cell in &mut cells {
            cell.measure(&contestants).await?;
        }
    }
    Ok(cells.iter().flat_map(|cell| cell.lines(&redis_name)).collect())
}

/// A provider process and the way to it.
pub struct Contestant {
    process: ProviderProcess,
    caller: Caller,
}

impl Contestant {
    /// Starts a provider in a lattice of its own and writes all keys.
    pub async fn start(options: ProviderOptions, server: &NatsServer, connection: &async_nats::Client) -> Result<Self> {
        let (lattice, actor) = (Lattice::new(server.url()), Actor::new());
        let process = lattice.start(options.link(&actor)).await?;
        let caller = Caller::new(connection.clone(), process.client(&actor).await?);
        let answered = eventually(START_LIMIT, || async { caller.get("").await.map(drop) }).await;
        answered.with_context(|| format!("a provider does not answer; its log:\n{}", process.log().text()))?;
        load::fill(&caller).await?;
        Ok(Self { process, caller })
    }

    /// One slice, after a warm-up.
    pub async fn sample(&self, operation: Operation, concurrency: u64) -> Result<Sample> {
        let before = cpu::seconds_of(self.process.pid())?;
        let slice = load::slice(&self.caller, operation, concurrency, SLICE).await?;
        let cpu_seconds = cpu::seconds_of(self.process.pid())? - before;
        Ok(Sample { slice, cpu_seconds })
    }
}

/// One slice, and the processor time that the provider took during it and its warm-up.
pub struct Sample {
    pub slice: Slice,
    cpu_seconds: f64,
}

/// All samples of one operation at one concurrency, by contestant.
struct Cell {
    operation: Operation,
    concurrency: u64,
    samples: [Vec<Sample>; 3],
}

impl Cell {
    fn new(operation: Operation, concurrency: u64) -> Self {
        Self {
            operation,
            concurrency,
            samples: [const { Vec::new() }; 3],
        }
    }

    /// Takes the samples of one start.
    async fn measure(&mut self, contestants: &[Contestant; 3]) -> Result<()> {
        for _ in 0..ROUNDS {
            let round = self.samples[OURS].len();
            for place in order(round) {
                let sample = contestants[place].sample(self.operation, self.concurrency);
                self.samples[place].push(sample.await?);
            }
        }
        Ok(())
    }

    fn lines(&self, redis_name: &str) -> Vec<Line> {
        let noop_name = "a provider of constants";
        let throughput = |sample: &Sample| sample.slice.per_second;
        let p99 = |sample: &Sample| sample.slice.p99_us;
        vec![
            self.against(
                NOOP,
                noop_name,
                "throughput",
                "calls/s",
                throughput,
                Target::AtLeast(0.97),
            ),
            self.against(NOOP, noop_name, "p99", "µs", p99, Target::AtMost(1.1)),
            self.against(
                REDIS,
                redis_name,
                "throughput",
                "calls/s",
                throughput,
                Target::AtLeast(1.0),
            ),
            self.against(
                NOOP,
                noop_name,
                "processor time of the provider",
                "µs/call",
                cpu_us,
                Target::None,
            ),
        ]
    }

    fn against(
        &self,
        baseline: usize,
        name: &str,
        what: &str,
        unit: &str,
        number: impl Fn(&Sample) -> f64,
        target: Target,
    ) -> Line {
        let of = |place: usize| self.samples[place].iter().map(&number).collect();
        let operation = self.operation.name();
        let what = format!("RPC {operation}, 128 B, {} at once: {what}", self.concurrency);
        Line::against(SECTION, what, unit, of(OURS), name, of(baseline), target)
    }
}

/// Per call; the calls of the warm-up are counted by the rate of the rest.
fn cpu_us(sample: &Sample) -> f64 {
    let slice = &sample.slice;
    let measured = slice.calls as f64 / slice.per_second;
    let share = measured / (measured + load::WARM_UP.as_secs_f64());
    sample.cpu_seconds * share / slice.calls as f64 * 1e6
}

/// How often the providers are started.
fn starts(arguments: &Arguments) -> usize {
    if arguments.quick {
        1
    } else {
        8
    }
}

/// Who is called first, second and third: over the rounds each takes each place, forwards and backwards.
fn order(round: usize) -> [usize; 3] {
    let mut order = [OURS, NOOP, REDIS];
    order.rotate_left(round % 3);
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// A provider binary of this crate, built along with this program.
fn sibling(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(
        path.is_file(),
        "expected a provider binary at {}; `cargo build --release --locked -p bench` makes it",
        path.display()
    );
    Ok(path)
}
