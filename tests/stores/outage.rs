//! A store that is away for long, under load.
//!
//! `make store-outage SECONDS=3600` has it away for so long. In the suite it is a matter of seconds.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use serde_json::json;
use testkit::{eventually, KeyValue, KeyValueClient, RedisKind, RedisServer};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::hosts::{pair, said, Hosts, BINARY};

const SECONDS: u64 = 15;
const KEYS: u64 = 12_000;
const WRITERS: u64 = 8;
/// Of each writer, between two calls; and where that goes on for long, beside other work of the machine.
const PAUSE: Duration = Duration::from_millis(4);
const LONG_PAUSE: Duration = Duration::from_millis(40);
const LONG: Duration = Duration::from_secs(60);
/// What the store takes when it is back.
const CATCH_UP: Duration = Duration::from_secs(120);
/// Memory is looked at so often.
const SAMPLE: Duration = Duration::from_millis(500);
/// Megabytes: the allocator's own, and what is being written, 4 MB at most.
const ALLOWED_GROWTH: f64 = 6.0;
/// Megabytes of that at a time, as often as somebody has a copy of it.
const ALLOWED_PEAK: f64 = 30.0;

/// One call on a key of its own kind: texts, numbers, lists, sets, and deletions of the texts.
async fn change(client: &KeyValue<KeyValueClient>, number: u64, round: u64) -> Result<()> {
    match number % 8 {
        0 => client.increment(&format!("number {number}"), 1).await.map(drop),
        1 => {
            // Items that are removed one by one are remembered for an hour; what is cleared is not.
            let (key, item) = (format!("list {number}"), format!("{}", round % 4));
            match round % 4 {
                3 => client.list_clear(&key).await.map(drop),
                _ => client.list_add(&key, &item).await.map(drop),
            }
        }
        2 => {
            let (key, member) = (format!("set {number}"), format!("{}", round % 4));
            match round / 4 % 2 {
                0 => client.set_add(&key, &member).await.map(drop),
                _ => client.set_del(&key, &member).await.map(drop),
            }
        }
        3 if round % 2 == 1 => client.del(&format!("text {number}")).await.map(drop),
        _ => {
            let value = format!("value {round:060}");
            client.set(&format!("text {number}"), &value).await
        }
    }
    .map_err(said)
}

/// Times of calls, in the middle and in the worst of a thousand, in milliseconds.
fn quantiles(mut times: Vec<Duration>) -> [f64; 2] {
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    [at(0.5), at(0.999)]
}

/// Writes until it is told to stop; returns how long each call took, with when it was made.
async fn write(
    client: KeyValue<KeyValueClient>,
    writer: u64,
    pause: Duration,
    stop: watch::Receiver<bool>,
) -> Result<Vec<(Instant, Duration)>> {
    let mut times = Vec::new();
    for call in 0_u64.. {
        if *stop.borrow() {
            break;
        }
        let own = KEYS / WRITERS;
        // All over the keys, each of them as often.
        let number = writer * own + call * 7_919 % own;
        let began = Instant::now();
        change(&client, number, call / own).await?;
        times.push((began, began.elapsed()));
        tokio::time::sleep(pause).await;
    }
    Ok(times)
}

/// Changes every key so often.
async fn change_all(hosts: &Hosts, rounds: u64) -> Result<()> {
    let mut writers = JoinSet::new();
    for writer in 0..4 * WRITERS {
        let client = hosts.client(0).await?;
        writers.spawn(async move {
            for number in (writer..KEYS).step_by(4 * WRITERS as usize) {
                for round in 0..rounds {
                    change(&client, number, round).await?;
                }
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_for_long_costs_no_memory_and_is_made_equal() -> Result<()> {
    if let Err(missing) = RedisKind::Redis.find() {
        testkit::skip_test(&missing.to_string());
        return Ok(());
    }
    let seconds = match std::env::var("OUTAGE_SECONDS") {
        Ok(text) if !text.is_empty() => text.parse().context("OUTAGE_SECONDS: expected a whole number")?,
        _ => SECONDS,
    };
    let away = Duration::from_secs(seconds);
    let mut server = RedisServer::start_persistent(RedisKind::Redis, &[]).await?;
    // What is kept for peers is full at once, and does not grow beside what is measured.
    let Some(mut hosts) = Hosts::new(1, json!({ "RING_BYTES": 65_536 })).await? else {
        return Ok(());
    };
    let url = format!("redis://{}", server.address());
    hosts.share(&url);
    hosts.start_all().await?;

    // Every key is there once, and its removals as well: memory that grows later grows for another reason.
    change_all(&hosts, 8).await?;
    hosts.wait_flushed().await?;

    let (stop_sender, stop) = watch::channel(false);
    let mut writers = JoinSet::new();
    let pause = if away > LONG { LONG_PAUSE } else { PAUSE };
    for writer in 0..WRITERS {
        writers.spawn(write(hosts.client(0).await?, writer, pause, stop.clone()));
    }
    tokio::time::sleep(away.min(Duration::from_secs(10)) / 2).await;
    server.kill()?;
    // Which keys have changed is remembered, up to a limit: after this no more than that is.
    change_all(&hosts, 1).await?;
    let (began, mut memory) = (Instant::now(), Vec::new());
    while began.elapsed() < away {
        memory.push(hosts.providers[0].resident_bytes()?);
        tokio::time::sleep(SAMPLE).await;
    }
    let status = hosts.providers[0].status().await?;
    ensure!(pair(&status, "store_state").starts_with("failing"), "{status}");
    let back = Instant::now();
    server.restart().await?;
    stop_sender.send_replace(true);
    let mut times = Vec::new();
    while let Some(ended) = writers.join_next().await {
        times.extend(ended.context("a writer panicked")??);
    }
    eventually(CATCH_UP, || async {
        let status = hosts.providers[0].status().await?;
        let (state, dirty) = (pair(&status, "store_state"), pair(&status, "store_dirty"));
        ensure!(
            state == "ready" && dirty == "0",
            "store_state={state} store_dirty={dirty}"
        );
        Ok(())
    })
    .await?;
    let caught_up = back.elapsed();

    let of = |from: Instant, to: Instant| {
        let within = times.iter().filter(|(at, _)| (from..to).contains(at));
        quantiles(within.map(|(_, time)| *time).collect())
    };
    let before = of(began - Duration::from_secs(600), began);
    let meanwhile = of(began, back);
    let third = memory.len() / 3;
    // In the middle: what is being written, and tried again, comes and goes.
    let median = |samples: &[u64]| {
        let mut samples = samples.to_vec();
        samples.sort_unstable();
        samples[samples.len() / 2] as f64 / 1e6
    };
    let most = memory.iter().copied().max().unwrap_or(0) as f64 / 1e6;
    let (first, last) = (median(&memory[..third]), median(&memory[memory.len() - third..]));
    println!(
        "the store was away for {:.0} s: {} calls, median {:.2} ms and {:.2} ms at 99.9 % (before {:.2} and {:.2}); \
         memory {first:.1} MB in the first third and {last:.1} MB in the last, {most:.1} MB at most; made equal {:.1} s after it was back",
        away.as_secs_f64(),
        times.iter().filter(|(at, _)| (began..back).contains(at)).count(),
        meanwhile[0],
        meanwhile[1],
        before[0],
        before[1],
        caught_up.as_secs_f64(),
    );
    ensure!(
        last <= first + ALLOWED_GROWTH && most <= first + ALLOWED_PEAK,
        "memory grew from {first} MB to {last} MB, {most} MB at most"
    );

    // The check: by the tool for it, and by what a process has that knows nothing but the store.
    let held = hosts.wait_equal().await?;
    hosts.kill_all()?;
    let mut verify = Command::new(BINARY);
    verify.args(["store", "verify", &url, "--lattice", hosts.lattice()]);
    let verified = verify.output()?;
    ensure!(verified.status.success(), "{verify:?}: {verified:?}");
    hosts.start_all().await?;
    let stored = hosts.wait_equal().await?;
    ensure!(stored.digest == held.digest, "{held} became {stored}");
    Ok(())
}
