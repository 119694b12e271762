//! Measures loading and flushing 100,000 records beside a plain pipelined client of the same bucket, which compares
//! nothing: `cargo run --release -p kvcache-node --features store-jetstream --example figures_jetstream`.
//!
//! Both in turn, medians of five. What is flushed first meets an empty bucket, then one that holds smaller values.
//! `NATS_SERVER` names another server.

// Measures in real time.
#![allow(clippy::disallowed_methods)]

use std::future::IntoFuture;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use async_nats::jetstream::consumer::{pull, AckPolicy};
use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt, TryStreamExt};
use kvcache_node::nats::{Credentials, Tls};
use kvcache_node::store::jetstream::JetStreamOpener;
use kvcache_node::store::{Batch, Opener, Record, Section, Store, StoreUrl};
use testkit::{cache_name, NatsServer};

const RECORDS: u64 = 100_000;
const SECTIONS: u64 = 1_024;
const ROUNDS: usize = 5;
/// Acknowledgements that the plain client waits for at a time.
const UNDER_WAY: usize = 256;
/// Sections that the cache loads from a shared store at a time.
const AT_ONCE: usize = 128;
const STREAM: &str = "KV_figures";

#[tokio::main]
async fn main() -> Result<()> {
    let server = NatsServer::builder().jetstream().start().await?;
    let servers = vec![server.url().parse()?];
    let opener = JetStreamOpener::new(servers, Credentials::None, Tls::default());
    let url = StoreUrl::parse("jetstream:figures")?;
    let store = opener.open(&url, &cache_name("figures", "default")).await?;
    let options = async_nats::ConnectOptions::new().client_capacity(1_024);
    let plain = jetstream::new(options.connect(server.url()).await?);
    let sections: Vec<Section> = (0..=SECTIONS as u16).filter_map(Section::numbered).collect();
    let (first, second) = (batches(1), batches(2));
    let (plain_first, plain_second) = (messages(&first), messages(&second));
    let mut taken: [Vec<Duration>; 7] = Default::default();
    for _ in 0..ROUNDS {
        purge(&plain).await?;
        taken[0].push(timed(plain_flush(&plain, &plain_first)).await?);
        taken[1].push(timed(plain_flush(&plain, &plain_second)).await?);
        taken[2].push(timed(plain_load(&plain)).await?);
        purge(&plain).await?;
        taken[3].push(timed(flush(&*store, &first)).await?);
        taken[4].push(timed(flush(&*store, &second)).await?);
        taken[5].push(timed(load(&*store, &sections, RECORDS)).await?);
        taken[6].push(timed(load_in_calls(&*store, &sections)).await?);
    }
    println!("nats-server {}, medians of {ROUNDS}:", server.version()?);
    let medians = taken.map(|mut taken| {
        taken.sort_unstable();
        taken[ROUNDS / 2].as_secs_f64() * 1e3
    });
    for (n, what) in ["flush", "flush over smaller values", "load"].into_iter().enumerate() {
        let (plain, ours) = (medians[n], medians[n + 3]);
        println!(
            "  {what:26} plain {plain:7.1} ms   store {ours:7.1} ms   {:.2}",
            ours / plain
        );
    }
    println!(
        "  load, {AT_ONCE} sections a call                  store {:7.1} ms",
        medians[6]
    );
    Ok(())
}

/// The records, by their sections; ids and values as small keys and values have them.
fn batches(stamp: u64) -> Vec<Batch> {
    let mut batches: Vec<Batch> = (0..SECTIONS as u16)
        .filter_map(Section::numbered)
        .map(Batch::new)
        .collect();
    for n in 0..RECORDS {
        let id = format!("\x10key-{n:012}");
        let stamp = [&(stamp << 40 | n).to_be_bytes()[..], &7u64.to_be_bytes(), b"\0"].concat();
        let value = [&stamp[..], format!("value-{n:010}").as_bytes()].concat();
        let section = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
        batches[section as usize].push(Record {
            id: id.as_bytes(),
            value: &value,
        });
    }
    batches
}

/// What a plain client puts: a key of its own for each record, and the value.
fn messages(batches: &[Batch]) -> Vec<(String, Bytes)> {
    let message = |record: Record<'_>| {
        let key = String::from_utf8_lossy(&record.id[1..]).into_owned();
        (format!("$KV.figures.plain.{key}"), Bytes::copy_from_slice(record.value))
    };
    batches.iter().flat_map(Batch::iter).map(message).collect()
}

async fn timed(what: impl std::future::Future<Output = Result<()>>) -> Result<Duration> {
    let began = Instant::now();
    what.await?;
    Ok(began.elapsed())
}

async fn flush(store: &dyn Store, batches: &[Batch]) -> Result<()> {
    let written = store.write(batches).await?;
    ensure!(written.conflicts == 0, "{written:?}");
    Ok(())
}

async fn load(store: &dyn Store, sections: &[Section], expected: u64) -> Result<()> {
    let (records, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let sink = |_: Section, record: Record<'_>| {
        records.fetch_add(1, Ordering::Relaxed);
        bytes.fetch_add(record.id.len() + record.value.len(), Ordering::Relaxed);
    };
    store.load(sections, &sink).await?;
    let records = records.into_inner() as u64;
    ensure!(expected == 0 || records == expected, "{records} records");
    Ok(())
}

async fn load_in_calls(store: &dyn Store, sections: &[Section]) -> Result<()> {
    for sections in sections.chunks(AT_ONCE) {
        load(store, sections, 0).await?;
    }
    Ok(())
}

async fn purge(plain: &Context) -> Result<()> {
    plain.get_stream(STREAM).await?.purge().await?;
    Ok(())
}

async fn plain_flush(plain: &Context, messages: &[(String, Bytes)]) -> Result<()> {
    let mut under_way = FuturesUnordered::new();
    for (subject, payload) in messages {
        if under_way.len() == UNDER_WAY {
            under_way.try_next().await?;
        }
        let acknowledged = plain.publish(subject.clone(), payload.clone()).await?;
        under_way.push(acknowledged.into_future());
    }
    while under_way.try_next().await?.is_some() {}
    Ok(())
}

async fn plain_load(plain: &Context) -> Result<()> {
    let stream = plain.get_stream(STREAM).await?;
    let config = pull::Config {
        filter_subject: "$KV.figures.plain.>".into(),
        ack_policy: AckPolicy::None,
        memory_storage: true,
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let mut messages = consumer.stream().max_messages_per_batch(1_024).messages().await?;
    let (mut records, mut bytes) = (0, 0);
    while let Some(message) = messages.next().await {
        let message = message?;
        records += 1;
        bytes += message.payload.len();
        if message.info().is_ok_and(|info| info.pending == 0) {
            break;
        }
    }
    ensure!(
        records == RECORDS && bytes > 0,
        "the plain client has read {records} records"
    );
    Ok(())
}
