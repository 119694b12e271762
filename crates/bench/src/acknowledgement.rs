//! Section 14: what it costs that other nodes confirm a write before it is answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use kvcache_node::service::{AckLevel, AckPolicy, Scope};
use testkit::{Lattice, NatsServer};

use crate::node::{self, equal, key, LibraryNode};
use crate::report::{Line, Target};
use crate::sample::quantile_us;
use crate::Arguments;

const SECTION: u8 = 14;

/// Writers at once, and how many writes each of them does.
const WRITERS: usize = 64;
const WRITES_PER_WRITER: usize = 2_000;

/// Writes of a single writer, and the pause between two of them: each begins on a system at rest.
const SINGLE: usize = 2_000;
const PAUSE: Duration = Duration::from_millis(1);

const VALUE: [u8; 16] = [b'v'; 16];

const TIMEOUT_MS: u64 = 5_000;

const MODES: [(&str, AckLevel); 3] = [
    ("ACK=0", AckLevel::Local),
    ("ACK=1", AckLevel::Peers(1)),
    ("ACK=all (two others)", AckLevel::All),
];

/// What one run measures.
struct Acknowledged {
    /// Thousands.
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
}

async fn write(node: &LibraryNode, number: usize, wanted: AckLevel) -> Result<()> {
    let acks = AckPolicy {
        wanted,
        stored: false,
        timeout_ms: TIMEOUT_MS,
    };
    let scope = Scope {
        acks,
        ..Scope::shared("bench")
    };
    node.set_in(&scope, &key(number), &VALUE).await
}

async fn measure(wanted: AckLevel, single: usize) -> Result<Acknowledged> {
    let server = NatsServer::start().await?;
    let lattice = Lattice::new(server.url());
    let nodes = node::that_meet(3, &lattice).await?;
    let mut latencies = Vec::with_capacity(single);
    for number in 0..single {
        let started = Instant::now();
        write(&nodes[0], number, wanted).await?;
        latencies.push(started.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    equal(&nodes).await?;

    let nodes = Arc::new(nodes);
    let started = Instant::now();
    let writers = (0..WRITERS).map(|writer| {
        let nodes = nodes.clone();
        tokio::spawn(async move {
            for number in 0..WRITES_PER_WRITER {
                write(&nodes[0], writer * WRITES_PER_WRITER + number, wanted).await?;
            }
            anyhow::Ok(())
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await??;
    }
    equal(&nodes).await?;
    let seconds = started.elapsed().as_secs_f64();
    for node in nodes.iter() {
        node.service.stop().await;
    }
    Ok(Acknowledged {
        per_second: (WRITERS * WRITES_PER_WRITER) as f64 / seconds / 1e3,
        p50_us: quantile_us(&mut latencies, 0.5),
        p99_us: quantile_us(&mut latencies, 0.99),
    })
}

/// Measures the section.
pub async fn lines(arguments: &Arguments) -> Result<Vec<Line>> {
    let single = if arguments.quick { SINGLE / 4 } else { SINGLE };
    let mut samples = MODES.map(|_| Vec::new());
    for run in 0..arguments.runs() {
        for turn in 0..MODES.len() {
            let place = (run + turn) % MODES.len();
            samples[place].push(measure(MODES[place].1, single).await?);
        }
    }
    type Of = fn(&Acknowledged) -> f64;
    let figures: [(&str, &str, Of); 3] = [
        ("64 writers, until all three nodes are equal", "thousand/s", |run| {
            run.per_second
        }),
        ("a single writer, p50", "us", |run| run.p50_us),
        ("a single writer, p99", "us", |run| run.p99_us),
    ];
    let [unconfirmed, confirmed @ ..] = &samples;
    let [(baseline, _), modes @ ..] = MODES;
    let mut lines = Vec::new();
    for (what, unit, of) in figures {
        let column = |runs: &[Acknowledged]| runs.iter().map(of).collect();
        for (runs, (mode, _)) in confirmed.iter().zip(modes) {
            let what = format!("{mode}: {what}");
            let (ours, theirs) = (column(runs), column(unconfirmed));
            lines.push(Line::against(SECTION, what, unit, ours, baseline, theirs, Target::None));
        }
    }
    Ok(lines)
}
