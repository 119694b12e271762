//! Each engine as a store: 100,000 records flushed to it and loaded from it, beside a plain pipelined client of the same
//! library that compares nothing.

mod cassandra;
mod consul;
mod engine;
mod jetstream;
mod redis;

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{ensure, Result};
use kvcache_node::store::{Batch, Record, Section, Store};
use testkit::RedisKind;

use self::cassandra::Cassandra;
use self::consul::Consul;
use self::engine::{Engine, RECORDS, SECTIONS};
use self::jetstream::JetStream;
use self::redis::Redis;
use super::kept::SECTION;
use crate::report::{Line, Target};
use crate::Arguments;

/// Measures the engines that are installed. The others are named, and have no lines.
pub async fn lines(arguments: &Arguments) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for kind in RedisKind::ALL {
        lines.extend(measured(kind.name(), Redis::start(kind), arguments).await?);
    }
    lines.extend(measured("JetStream", JetStream::start(), arguments).await?);
    lines.extend(measured("Cassandra", Cassandra::start(), arguments).await?);
    lines.extend(measured("Consul", Consul::start(), arguments).await?);
    Ok(lines)
}

async fn measured<E: Engine>(
    name: &str,
    engine: impl Future<Output = Result<E>>,
    arguments: &Arguments,
) -> Result<Vec<Line>> {
    match engine.await {
        Ok(engine) => measure(engine, arguments).await,
        Err(error) => {
            eprintln!("\n*** SKIPPED: {name} as a store is not measured: {error:#}\n");
            Ok(Vec::new())
        }
    }
}

/// Seconds of one side.
struct Took {
    flush: f64,
    /// Over smaller values.
    again: f64,
    load: f64,
}

async fn measure<E: Engine>(mut engine: E, arguments: &Arguments) -> Result<Vec<Line>> {
    let (first, second) = (batches(1), batches(2));
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    // The first round warms up the server and does not count.
    for round in 0..=arguments.runs() {
        // Who comes first finds other work of the server going on than who comes second.
        for turn in 0..2 {
            if (round + turn) % 2 == 0 {
                let store = engine.store(round).await?;
                let took = Took {
                    flush: timed(write(&*store, &first)).await?,
                    again: timed(write(&*store, &second)).await?,
                    load: timed(read(&*store)).await?,
                };
                ours.push(took);
            } else {
                engine.clear(round).await?;
                let took = Took {
                    flush: timed(engine.flush(round, &first)).await?,
                    again: timed(engine.flush(round, &second)).await?,
                    load: timed(all(engine.load(round))).await?,
                };
                plain.push(took);
            }
        }
    }
    type Of = fn(&Took) -> f64;
    let within = Target::AtMost(1.5);
    let figures: [(&str, Of, Target); 3] = [
        ("flush 100,000 keys", |took| took.flush, within),
        // The plain client asks nobody what is there; nothing it writes is compared.
        ("flush them again, newer", |took| took.again, Target::None),
        ("load 100,000 keys", |took| took.load, within),
    ];
    let line = |(what, of, target): (&str, Of, Target)| {
        let column = |side: &[Took]| side.iter().skip(1).map(|took| of(took) * 1e3).collect();
        let what = format!("{} as a store: {what}", engine.name());
        let baseline = "a plain pipelined client";
        Line::against(SECTION, what, "ms", column(&ours), baseline, column(&plain), target)
    };
    Ok(figures.into_iter().map(line).collect())
}

async fn timed(work: impl Future<Output = Result<()>>) -> Result<f64> {
    let began = Instant::now();
    work.await?;
    Ok(began.elapsed().as_secs_f64())
}

async fn write(store: &dyn Store, batches: &[Batch]) -> Result<()> {
    let written = store.write(batches).await?;
    ensure!(written.conflicts == 0, "{written:?}");
    Ok(())
}

/// Sections that are asked for at a time, as a node does where a store is not read in one go.
const SECTIONS_AT_ONCE: usize = 128;

async fn read(store: &dyn Store) -> Result<()> {
    let (records, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let sink = |_: Section, record: Record<'_>| {
        records.fetch_add(1, Ordering::Relaxed);
        bytes.fetch_add(record.id.len() + record.value.len(), Ordering::Relaxed);
    };
    let sections: Vec<Section> = (0..SECTIONS as u16).filter_map(Section::numbered).collect();
    let at_once = match store.is_read_at_once() {
        true => SECTIONS,
        false => SECTIONS_AT_ONCE,
    };
    for sections in sections.chunks(at_once) {
        store.load(sections, &sink).await?;
    }
    all(async { Ok(records.into_inner()) }).await
}

async fn all(records: impl Future<Output = Result<usize>>) -> Result<()> {
    let records = records.await?;
    ensure!(records == RECORDS, "{records} records were read");
    Ok(())
}

/// The records, by their sections: keys of 16 bytes with their length, values of 16 behind their stamp and their kind.
fn batches(generation: u64) -> Vec<Batch> {
    let sections = (0..SECTIONS as u16).filter_map(Section::numbered);
    let mut batches: Vec<Batch> = sections.map(Batch::new).collect();
    for n in 0..RECORDS {
        let id = format!("\u{10}key-{n:012}");
        // As stamps of our days are, which Cassandra makes its own.
        let time = ((1_790_000_000_000 + generation) << 16) | (n as u64 & 0xffff);
        let stamp = [&time.to_be_bytes()[..], &7u64.to_be_bytes(), &[0]].concat();
        let value = [&stamp[..], format!("value-{n:010}").as_bytes()].concat();
        batches[n % SECTIONS].push(Record {
            id: id.as_bytes(),
            value: &value,
        });
    }
    batches
}
