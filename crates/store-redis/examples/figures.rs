//! Measures loading and flushing 100,000 records beside a plain pipelined client of the same library, which compares
//! nothing: `cargo run --release -p kvcache-store-redis --example figures`.
//!
//! Both in turn, medians of five. What is flushed first meets an empty store, then one that holds smaller values.

// Measures in real time.
#![allow(clippy::disallowed_methods)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use kvcache_node::store::{Batch, Opener, Record, Section, Store, StoreUrl};
use kvcache_store_redis::RedisOpener;
use redis::aio::MultiplexedConnection;
use redis::{pipe, Client, Value};
use testkit::{cache_name, RedisKind, RedisServer};

const RECORDS: u64 = 100_000;
const SECTIONS: u64 = 1_024;
const ROUNDS: usize = 5;
/// Commands of the plain client that are sent together.
const PIPELINE: usize = 64;

#[tokio::main]
async fn main() -> Result<()> {
    for kind in RedisKind::ALL {
        match kind.find() {
            Ok(_) => measure(kind).await?,
            Err(error) => println!("{}: {error}", kind.name()),
        }
    }
    Ok(())
}

async fn measure(kind: RedisKind) -> Result<()> {
    let server = RedisServer::start_kind(kind).await?;
    let url = StoreUrl::parse(&server.url())?;
    let store = RedisOpener.open(&url, &cache_name("figures", "default")).await?;
    let mut plain = Client::open(server.url())?.get_multiplexed_async_connection().await?;
    plain.set_response_timeout(Duration::from_secs(60));
    let sections: Vec<Section> = (0..=SECTIONS as u16).filter_map(Section::numbered).collect();
    let (first, second) = (batches(1), batches(2));
    let mut taken: [Vec<Duration>; 6] = Default::default();
    for _ in 0..ROUNDS {
        server.command(&["FLUSHALL"]).await?;
        taken[0].push(timed(plain_flush(&mut plain, &first)).await?);
        taken[1].push(timed(plain_flush(&mut plain, &second)).await?);
        taken[2].push(timed(plain_load(&mut plain)).await?);
        server.command(&["FLUSHALL"]).await?;
        taken[3].push(timed(flush(&*store, &first)).await?);
        taken[4].push(timed(flush(&*store, &second)).await?);
        taken[5].push(timed(load(&*store, &sections)).await?);
    }
    println!("{} {}, medians of {ROUNDS}:", kind.name(), server.version().await?);
    let medians = taken.map(|mut taken| {
        taken.sort_unstable();
        taken[ROUNDS / 2].as_secs_f64() * 1e3
    });
    for (n, what) in ["flush", "flush over smaller values", "load"].into_iter().enumerate() {
        let (plain, ours) = (medians[n], medians[n + 3]);
        println!(
            "  {what:26} plain {plain:6.1} ms   store {ours:6.1} ms   {:.2}",
            ours / plain
        );
    }
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

async fn load(store: &dyn Store, sections: &[Section]) -> Result<()> {
    let (records, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let sink = |_: Section, record: Record<'_>| {
        records.fetch_add(1, Ordering::Relaxed);
        bytes.fetch_add(record.id.len() + record.value.len(), Ordering::Relaxed);
    };
    store.load(sections, &sink).await?;
    ensure!(records.into_inner() as u64 == RECORDS && bytes.into_inner() > 0);
    Ok(())
}

fn plain_key(section: usize) -> String {
    format!("plain:{section}")
}

async fn plain_flush(connection: &mut MultiplexedConnection, batches: &[Batch]) -> Result<()> {
    for batches in batches.chunks(PIPELINE) {
        let mut pipeline = pipe();
        for batch in batches {
            pipeline.cmd("HSET").arg(plain_key(batch.section().number().into()));
            for record in batch.iter() {
                pipeline.arg(record.id).arg(record.value);
            }
        }
        pipeline.exec_async(connection).await?;
    }
    Ok(())
}

async fn plain_load(connection: &mut MultiplexedConnection) -> Result<()> {
    let (mut records, mut bytes) = (0, 0);
    let sections: Vec<usize> = (0..SECTIONS as usize).collect();
    for sections in sections.chunks(PIPELINE) {
        let mut pipeline = pipe();
        for section in sections {
            pipeline.cmd("HGETALL").arg(plain_key(*section));
        }
        let answers: Vec<Value> = pipeline.query_async(connection).await?;
        for answer in answers {
            let Value::Array(fields) = answer else {
                anyhow::bail!("an answer to HGETALL that Redis does not give")
            };
            records += fields.len() / 2;
            for field in fields {
                if let Value::BulkString(field) = field {
                    bytes += field.len();
                }
            }
        }
    }
    ensure!(records as u64 == RECORDS && bytes > 0);
    Ok(())
}
