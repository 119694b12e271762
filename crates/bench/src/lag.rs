//! Section 2: how long a write on one node takes to be readable on another, beside a raw NATS message of the same
//! value.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use bytes::Bytes;
use futures::StreamExt;
use testkit::{Lattice, NatsServer};

use crate::node::{self, key, meet, LibraryNode, LIMIT};
use crate::raw::subscribed;
use crate::report::{Line, Target};
use crate::sample::quantile_us;
use crate::Arguments;

/// Bytes of the value.
const VALUE_BYTES: usize = 128;

/// Writes per run.
const SAMPLES: usize = 2_000;

/// Between two writes the system is at rest.
const PAUSE: Duration = Duration::from_millis(1);

/// A value that carries its number.
pub fn value(number: u64, bytes: usize) -> Bytes {
    let mut value = format!("{number:016}").into_bytes();
    value.resize(bytes, b'v');
    value.into()
}

/// From just before `send` until `arrived`. Both sides of the comparison look the same way: this task looks again and
/// again, and lets the others run in between.
pub async fn once(send: impl Future<Output = Result<()>>, arrived: impl Fn() -> bool) -> Result<Duration> {
    tokio::time::sleep(PAUSE).await;
    let started = Instant::now();
    send.await?;
    while !arrived() {
        ensure!(started.elapsed() < LIMIT, "a write does not arrive");
        std::thread::yield_now();
    }
    Ok(started.elapsed())
}

struct Ours([LibraryNode; 2]);

impl Ours {
    async fn start(server: &NatsServer) -> Result<Self> {
        let lattice = Lattice::new(server.url());
        let nodes = [
            LibraryNode::start(node::empty_cache(), &lattice).await?,
            LibraryNode::start(node::empty_cache(), &lattice).await?,
        ];
        meet(&nodes).await?;
        Ok(Ours(nodes))
    }

    async fn samples(&self, first: u64, count: usize) -> Result<Vec<Duration>> {
        let [writer, reader] = &self.0;
        let mut samples = Vec::with_capacity(count);
        for number in first..first + count as u64 {
            let value = value(number, VALUE_BYTES);
            let there = || reader.holds(&key(0), &value);
            samples.push(once(writer.set(&key(0), &value), there).await?);
        }
        Ok(samples)
    }
}

struct Raw {
    sender: async_nats::Client,
    newest: Arc<AtomicU64>,
}

impl Raw {
    async fn start(server: &NatsServer) -> Result<Self> {
        let receiver = async_nats::connect(server.url()).await?;
        let mut subscription = subscribed(&receiver, "raw").await?;
        let newest = Arc::new(AtomicU64::new(0));
        let noted = newest.clone();
        tokio::spawn(async move {
            // Kept for as long as messages come.
            let _receiver = receiver;
            while let Some(message) = subscription.next().await {
                let number = std::str::from_utf8(&message.payload[..16])
                    .ok()
                    .and_then(|text| text.parse().ok());
                noted.store(number.unwrap_or(0), Ordering::Release);
            }
        });
        let sender = async_nats::connect(server.url()).await?;
        Ok(Raw { sender, newest })
    }

    async fn samples(&self, first: u64, count: usize) -> Result<Vec<Duration>> {
        let mut samples = Vec::with_capacity(count);
        for number in first..first + count as u64 {
            let send = async { Ok(self.sender.publish("raw", value(number, VALUE_BYTES)).await?) };
            samples.push(once(send, || self.newest.load(Ordering::Acquire) == number).await?);
        }
        Ok(samples)
    }
}

/// Measures the section.
pub async fn lines(arguments: &Arguments) -> Result<Vec<Line>> {
    let server = NatsServer::start().await?;
    let (ours, raw) = (Ours::start(&server).await?, Raw::start(&server).await?);
    let samples = if arguments.quick { SAMPLES / 4 } else { SAMPLES };
    let quantiles = |mut samples: Vec<Duration>| [0.5, 0.99].map(|part| quantile_us(&mut samples, part));
    let (mut us, mut them) = (Vec::new(), Vec::new());
    for run in 0..2 * arguments.runs() as u64 {
        let first = 1 + run * samples as u64;
        if run % 2 == 0 {
            us.push(quantiles(ours.samples(first, samples).await?));
            them.push(quantiles(raw.samples(first, samples).await?));
        } else {
            them.push(quantiles(raw.samples(first, samples).await?));
            us.push(quantiles(ours.samples(first, samples).await?));
        }
    }
    for node in ours.0 {
        node.service.stop().await;
    }
    let column = |rows: &[[f64; 2]], place: usize| rows.iter().map(|row| row[place]).collect::<Vec<_>>();
    let line = |place: usize, name: &str, most: f64| {
        let what = format!("write on one node to readable on another, 128 B, idle, {name}");
        let target = Target::AtMost(most);
        Line::against(
            2,
            what,
            "us",
            column(&us, place),
            "raw NATS, one way",
            column(&them, place),
            target,
        )
    };
    Ok(vec![line(0, "p50", 1.5), line(1, "p99", 2.0)])
}
