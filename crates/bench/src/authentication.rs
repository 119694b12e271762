//! Section 13: what it costs that messages prove who sent them.
//!
//! All modes run at once and take turns in short steps: what else this machine does hits all of them alike.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use kvcache_core::replica::Keyring;
use kvcache_node::service::ReplicatorConfig;
use testkit::{sdk_readable, Lattice, NatsServer};
use wasmbus_rpc::wascap::prelude::KeyPair;

use crate::cpu;
use crate::lag::{self, once};
use crate::node::{self, equal, key, meet, LibraryNode};
use crate::report::{Line, Target};
use crate::sample::quantile_us;
use crate::Arguments;

const SECTION: u8 = 13;

/// What one run measures: so often so many writes, and so many single ones.
const ROUNDS: usize = 5;
const COMMANDS: usize = 200_000;
const SINGLE: usize = 2_000;

/// Bytes of their values.
const VALUE_BYTES: usize = 32;

#[derive(Clone, Copy)]
enum Mode {
    Off,
    OneSeed,
    TwoIssuers,
}

impl Mode {
    const ALL: [Mode; 3] = [Mode::Off, Mode::OneSeed, Mode::TwoIssuers];

    fn name(self) -> &'static str {
        match self {
            Mode::Off => "FRAME_AUTH=off",
            Mode::OneSeed => "one seed",
            Mode::TwoIssuers => "two issuers that list each other",
        }
    }

    /// The keyring of the writer, or of a reader, for the subjects of `replication`.
    fn keyring(
        self,
        replication: &ReplicatorConfig,
        writer: &KeyPair,
        readers: &KeyPair,
        writes: bool,
    ) -> Result<Keyring> {
        let (own, others) = match (self, writes) {
            (Mode::Off, _) => return Ok(Keyring::disabled()),
            (Mode::OneSeed, _) => (writer, vec![]),
            (Mode::TwoIssuers, true) => (writer, vec![readers.public_key()]),
            (Mode::TwoIssuers, false) => (readers, vec![writer.public_key()]),
        };
        Ok(Keyring::new(&own.seed()?, &others, replication.subjects.commands())?)
    }
}

/// One writer and two readers, and what they were measured to do.
struct Trio {
    nodes: [LibraryNode; 3],
    /// Thousand writes per second, and microseconds of processor time per write on all three.
    rates: Vec<f64>,
    processor: Vec<f64>,
    /// Microseconds of each run.
    p50: Vec<f64>,
    p99: Vec<f64>,
}

impl Trio {
    async fn start(mode: Mode, server: &NatsServer) -> Result<Self> {
        let lattice = Lattice::new(server.url());
        let [writer, readers] = [(); 2].map(|()| sdk_readable(KeyPair::new_cluster));
        let start = async |writes| {
            let cache = node::empty_cache();
            let mut replication = lattice.replication(cache.node(), lattice.nats_url())?;
            replication.keyring = Arc::new(mode.keyring(&replication, &writer, &readers, writes)?);
            LibraryNode::start_with(cache, replication).await
        };
        let nodes = [start(true).await?, start(false).await?, start(false).await?];
        meet(&nodes).await?;
        Ok(Trio {
            nodes,
            rates: Vec::new(),
            processor: Vec::new(),
            p50: Vec::new(),
            p99: Vec::new(),
        })
    }

    /// How long one write takes to be readable on another node.
    async fn single(&self, number: u64) -> Result<Duration> {
        let [writer, reader, _] = &self.nodes;
        let value = lag::value(number, VALUE_BYTES);
        once(writer.set(&key(0), &value), || reader.holds(&key(0), &value)).await
    }

    async fn at_full_speed(&mut self, round: u64) -> Result<()> {
        let value = lag::value(round, VALUE_BYTES);
        let (before, started) = (cpu::seconds_of(std::process::id())?, Instant::now());
        for number in 0..COMMANDS {
            self.nodes[0].set(&key(number), &value).await?;
        }
        equal(&self.nodes).await?;
        self.rates.push(COMMANDS as f64 / started.elapsed().as_secs_f64() / 1e3);
        let spent = cpu::seconds_of(std::process::id())? - before;
        self.processor.push(spent * 1e6 / COMMANDS as f64);
        Ok(())
    }
}

async fn measure(trios: &mut [Trio; 3], run: usize, arguments: &Arguments) -> Result<()> {
    let order = |turn: usize| (0..Mode::ALL.len()).map(move |place| (place + turn) % Mode::ALL.len());
    let single = if arguments.quick { SINGLE / 4 } else { SINGLE };
    let mut lags = [const { Vec::new() }; 3];
    for sample in 0..single {
        for place in order(sample) {
            lags[place].push(trios[place].single((run * SINGLE + sample) as u64).await?);
        }
    }
    for (trio, mut lags) in trios.iter_mut().zip(lags) {
        trio.p50.push(quantile_us(&mut lags, 0.5));
        trio.p99.push(quantile_us(&mut lags, 0.99));
    }
    for round in 0..ROUNDS {
        for place in order(run + round) {
            trios[place].at_full_speed((run * ROUNDS + round) as u64).await?;
        }
    }
    Ok(())
}

/// Measures the section.
pub async fn lines(arguments: &Arguments) -> Result<Vec<Line>> {
    let server = NatsServer::start().await?;
    let mut trios = [
        Trio::start(Mode::Off, &server).await?,
        Trio::start(Mode::OneSeed, &server).await?,
        Trio::start(Mode::TwoIssuers, &server).await?,
    ];
    for run in 0..arguments.runs() {
        measure(&mut trios, run, arguments).await?;
    }
    for node in trios.iter().flat_map(|trio| &trio.nodes) {
        node.service.stop().await;
    }
    type Of = fn(&Trio) -> &Vec<f64>;
    let figures: [(&str, &str, Of); 4] = [
        ("throughput", "thousand/s", |trio| &trio.rates),
        ("processor time per write on all three nodes", "us", |trio| {
            &trio.processor
        }),
        ("write on one to readable on another, idle, p50", "us", |trio| &trio.p50),
        ("the same, p99", "us", |trio| &trio.p99),
    ];
    let [off, with @ ..] = &trios;
    let [no_authentication, modes @ ..] = Mode::ALL;
    let mut lines = Vec::new();
    for (what, unit, of) in figures {
        for (trio, mode) in with.iter().zip(modes) {
            let what = format!("one writer to two nodes (16 B + 32 B), {}: {what}", mode.name());
            let (ours, baseline) = (of(trio).clone(), of(off).clone());
            lines.push(Line::against(
                SECTION,
                what,
                unit,
                ours,
                no_authentication.name(),
                baseline,
                Target::None,
            ));
        }
    }
    Ok(lines)
}
