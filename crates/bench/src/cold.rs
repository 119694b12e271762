//! Section 5: an empty node is filled by its peers, beside a full sync of Redis or Valkey and the same bytes
//! sent raw over NATS.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use bytes::Bytes;
use futures::StreamExt;
use kvcache_core::cache::{Cache, Key};
use kvcache_node::time;
use testkit::{promptly, Lattice, NatsServer, ProviderOptions, ProviderProcess, RedisKind, RedisServer};

use crate::node::{self, field, key, LibraryNode, LIMIT};
use crate::raw::subscribed;
use crate::redis;
use crate::report::{Line, Target};
use crate::sample::quantile_us;
use crate::Arguments;

/// Keys of 16 bytes with values of as many.
const KEYS: usize = 1_000_000;
const VALUE_BYTES: usize = 16;

/// Bytes of a raw message, as the answers of a bootstrap have them.
const RAW_BYTES: usize = 256 << 10;

/// A provider process that was empty and has been filled by the lattice.
pub struct Filled {
    pub provider: ProviderProcess,
    /// From its start.
    pub seconds: f64,
    /// Bytes of its bootstrap.
    pub bytes: usize,
}

/// Fills an empty provider process.
pub async fn fill_provider(arguments: &Arguments, lattice: &Lattice, keys: usize) -> Result<Filled> {
    let started = Instant::now();
    let mut provider = lattice.start(ProviderOptions::new(&arguments.bin)).await?;
    let line = promptly(Duration::from_millis(1), LIMIT, || async {
        let lines = provider.log().matching("synced keys=");
        lines.into_iter().next().context("not synced")
    })
    .await?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(field(&line, "keys=")? as usize == keys, "not all keys arrived: {line}");
    let status = provider.wait_status(LIMIT, |status| status.keys == keys as u64).await?;
    ensure!(status.keys == keys as u64, "not all keys arrived");
    let health = provider.health().await?.message.unwrap_or_default();
    let bytes = field(&health, "replay_bytes=")? as usize;
    Ok(Filled {
        provider,
        seconds,
        bytes,
    })
}

/// Seconds for `bytes` in messages of [`RAW_BYTES`] from one client to another.
async fn raw(server: &NatsServer, bytes: usize) -> Result<f64> {
    let (sender, receiver) = (
        async_nats::connect(server.url()).await?,
        async_nats::connect(server.url()).await?,
    );
    let mut subscription = subscribed(&receiver, "raw").await?;
    let received = tokio::spawn(async move {
        let mut received = 0;
        while received < bytes {
            let Some(message) = subscription.next().await else {
                break;
            };
            received += message.payload.len();
        }
        drop(receiver);
        received
    });
    let payload = Bytes::from(vec![b'r'; RAW_BYTES]);
    let started = Instant::now();
    for _ in 0..bytes.div_ceil(RAW_BYTES) {
        sender.publish("raw", payload.clone()).await?;
    }
    let received = tokio::time::timeout(LIMIT, received).await;
    let received = received.context("raw messages were lost")??;
    ensure!(received >= bytes, "raw messages were lost");
    Ok(started.elapsed().as_secs_f64())
}

/// Reads on the responder, again and again, from a thread of their own.
struct Reader {
    done: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<Duration>>,
}

impl Reader {
    fn start(cache: Arc<Cache>) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let over = done.clone();
        let keys: Vec<Key> = node::shuffled(KEYS).into_iter().take(100_000).map(key).collect();
        let thread = std::thread::spawn(move || {
            let mut samples = Vec::new();
            for burst in keys.chunks(32).cycle() {
                for key in burst {
                    let started = Instant::now();
                    let found = cache.get(key, time::wall());
                    samples.push(started.elapsed());
                    assert!(found.is_ok_and(|found| found.is_some()));
                }
                if over.load(Ordering::Relaxed) {
                    return samples;
                }
                std::thread::sleep(Duration::from_micros(500));
            }
            samples
        });
        Reader { done, thread }
    }

    /// p99 in microseconds.
    fn stop(self) -> f64 {
        self.done.store(true, Ordering::Relaxed);
        let mut samples = self.thread.join().expect("keys that are there");
        quantile_us(&mut samples, 0.99)
    }
}

/// Measures the section.
pub async fn lines(arguments: &Arguments) -> Result<Vec<Line>> {
    let server = NatsServer::start().await?;
    let lattice = Lattice::new(server.url());
    let source = LibraryNode::start(node::filled(KEYS, VALUE_BYTES, 0), &lattice).await?;
    let mut others = Vec::new();
    for kind in RedisKind::ALL {
        let primary = RedisServer::start_kind(kind).await?;
        redis::fill(&primary, KEYS, VALUE_BYTES, 0).await?;
        others.push((kind, primary, Vec::new()));
    }
    let (mut ours, mut sent, mut bytes, mut idle, mut serving) = (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..arguments.runs() {
        let mut filled = fill_provider(arguments, &lattice, KEYS).await?;
        filled.provider.shutdown().await?;
        ours.push(filled.seconds);
        bytes.push(filled.bytes as f64 / 1e6);
        sent.push(raw(&server, filled.bytes).await?);
        for (_, primary, seconds) in &mut others {
            let started = Instant::now();
            drop(RedisServer::replica_of(primary).await?);
            seconds.push(started.elapsed().as_secs_f64());
        }
        // Reads take processor time from the bootstrap, so they are measured in bootstraps of their own.
        let reader = Reader::start(source.cache.clone());
        tokio::time::sleep(Duration::from_millis(500)).await;
        idle.push(reader.stop());
        let reader = Reader::start(source.cache.clone());
        let mut filled = fill_provider(arguments, &lattice, KEYS).await?;
        serving.push(reader.stop());
        filled.provider.shutdown().await?;
    }
    source.service.stop().await;
    let what = "cold start: 1,000,000 keys (16 B + 16 B) into an empty process, from its start";
    let mut lines = Vec::new();
    for (kind, _, seconds) in others {
        // The targets are from when Redis alone was measured.
        let target = match kind {
            RedisKind::Redis => Target::AtMost(0.3),
            RedisKind::Valkey => Target::None,
        };
        let name = format!("{} full sync", kind.name());
        lines.push(Line::against(5, what, "s", ours.clone(), name, seconds, target));
    }
    lines.extend([
        Line::against(
            5,
            what,
            "s",
            ours,
            "the same bytes raw over NATS",
            sent,
            Target::AtMost(4.0),
        ),
        Line::alone(5, "bytes of that bootstrap", "MB", bytes, Target::None),
        Line::against(
            5,
            "get on the responder while it serves a bootstrap, p99",
            "us",
            serving,
            "idle",
            idle,
            Target::AtMost(3.0),
        ),
    ]);
    Ok(lines)
}
