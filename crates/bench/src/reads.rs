//! Section 9: reads of a node that takes in 500,000 deltas of a peer a second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use kvcache_core::cache::Key;
use kvcache_node::time;
use testkit::{Lattice, NatsServer};

use crate::node::{self, equal, key, meet, LibraryNode};
use crate::report::{Line, Target};
use crate::sample::quantile_us;
use crate::Arguments;

const KEYS: usize = 1_000_000;
const VALUE_BYTES: usize = 32;

/// Deltas per second.
const FLOOD: f64 = 500_000.0;

/// How long one run lasts.
const RUN: Duration = Duration::from_secs(3);

/// Reads at once, and the pause after them: with two processors a reader without pauses would starve the flood.
const BURST: usize = 32;
const PAUSE: Duration = Duration::from_micros(500);

/// Deltas per second that arrived, and p99 of reads in microseconds.
async fn flood(nodes: &[LibraryNode; 2], keys: &[Key]) -> Result<(f64, f64)> {
    let done = Arc::new(AtomicBool::new(false));
    let (over, cache, read) = (done.clone(), nodes[1].cache.clone(), keys[..100_000].to_vec());
    let reader = std::thread::spawn(move || {
        let mut samples = Vec::new();
        for burst in read.chunks(BURST).cycle() {
            for key in burst {
                let started = Instant::now();
                let found = cache.get(key, time::wall());
                samples.push(started.elapsed());
                assert!(found.is_ok_and(|found| found.is_some()));
            }
            if over.load(Ordering::Relaxed) {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        quantile_us(&mut samples, 0.99)
    });
    let value = [b'w'; VALUE_BYTES];
    let (started, mut written) = (Instant::now(), 0usize);
    while started.elapsed() < RUN {
        let due = (started.elapsed().as_secs_f64() * FLOOD) as usize;
        while written < due {
            nodes[0].set(&keys[written % KEYS], &value).await?;
            written += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    equal(nodes).await?;
    let rate = written as f64 / started.elapsed().as_secs_f64();
    done.store(true, Ordering::Relaxed);
    Ok((rate, reader.join().expect("keys that are there")))
}

/// Measures the section.
pub async fn lines(arguments: &Arguments) -> Result<Vec<Line>> {
    let server = NatsServer::start().await?;
    let lattice = Lattice::new(server.url());
    let first = LibraryNode::start(node::filled(KEYS, VALUE_BYTES, 0), &lattice).await?;
    let nodes = [first, LibraryNode::start(node::empty_cache(), &lattice).await?];
    meet(&nodes).await?;
    equal(&nodes).await?;
    let keys: Vec<Key> = node::shuffled(KEYS).into_iter().map(key).collect();
    let (mut rates, mut reads) = (Vec::new(), Vec::new());
    for _ in 0..arguments.runs() {
        let (rate, p99) = flood(&nodes, &keys).await?;
        rates.push(rate / 1e3);
        reads.push(p99);
    }
    for node in nodes {
        node.service.stop().await;
    }
    // What arrives is what was written, in the time until it had all arrived.
    let asked = Target::AtLeast(0.95 * FLOOD / 1e3);
    Ok(vec![
        Line::alone(
            9,
            "get in process during that flood, p99",
            "us",
            reads,
            Target::AtMost(20.0),
        ),
        Line::alone(9, "flood of deltas from a peer over NATS", "thousand/s", rates, asked),
    ])
}
