//! How long Consul takes to be written and read by the store, beside a plain client of the same crates that keeps no rule:
//! `cargo run --release -p kvcache-store-consul --example consul_figures`. With an address (`host:8500`) as its argument
//! it uses that server, else one of its own.

// It measures in real time.
#![allow(clippy::disallowed_methods)]

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use anyhow::{ensure, Context, Result};
use base64::prelude::{Engine, BASE64_STANDARD};
use futures::{stream, StreamExt, TryStreamExt};
use kvcache_core::cache::Partition;
use kvcache_node::store::{Batch, Opener, Record, Section, StoreUrl};
use kvcache_store_consul::ConsulOpener;
use serde_json::{json, Value};
use testkit::{cache_name, ConsulServer};

const RECORDS: usize = 100_000;
const SECTIONS: usize = 1_024;
const ROUNDS: usize = 5;
const IN_FLIGHT: usize = 4;
const OPERATIONS: usize = 64;
/// Sections with one prefix of their keys, in hex, which the plain client reads at a time.
const SECTIONS_READ: usize = 16;

#[tokio::main]
async fn main() -> Result<()> {
    let own = match std::env::args().nth(1) {
        Some(_) => None,
        None => Some(ConsulServer::start().await?),
    };
    let address = match (&own, std::env::args().nth(1)) {
        (Some(server), _) => server.address(),
        (None, address) => address.unwrap_or_default(),
    };
    let opener = ConsulOpener::new();
    let url = StoreUrl::parse(&format!("consul://{address}/figures"))?;
    let plain = Plain {
        client: reqwest::Client::builder()
            .tls_backend_preconfigured(no_tls()?)
            .build()?,
        address,
    };
    let mut took = [const { Vec::new() }; 7];
    // The first round warms up the server and does not count.
    for round in 0..=ROUNDS {
        let batches = batches(round as u64);
        let store = opener.open(&url, &cache_name("figures", &round.to_string())).await?;
        let sections: Vec<Section> = batches.iter().map(Batch::section).collect();
        let found = AtomicUsize::new(0);
        let count = |_: Section, _: Record<'_>| {
            found.fetch_add(1, Relaxed);
        };
        let write = || timed(store.write(&batches));
        let load = || timed(store.load(&sections, &count));
        let each = format!("each-{round}");
        let whole = format!("whole-{round}");
        let singly = timed(plain.write_each(&each, &batches)).await?;
        let singly_loaded = timed(plain.load(&each, RECORDS)).await?;
        // Who comes first finds other work of the server going on than who comes second: by turns.
        let (written, plainly, loaded, plainly_loaded) = if round % 2 == 0 {
            let written = write().await?;
            let plainly = timed(plain.write_sections(&whole, &batches)).await?;
            let loaded = load().await?;
            (written, plainly, loaded, timed(plain.load(&whole, SECTIONS)).await?)
        } else {
            let plainly = timed(plain.write_sections(&whole, &batches)).await?;
            let written = write().await?;
            let plainly_loaded = timed(plain.load(&whole, SECTIONS)).await?;
            (written, plainly, load().await?, plainly_loaded)
        };
        ensure!(found.load(Relaxed) == RECORDS, "all are loaded");
        let again = write().await?;
        let times = [written, again, singly, plainly, loaded, singly_loaded, plainly_loaded];
        if round > 0 {
            took.iter_mut().zip(times).for_each(|(all, time)| all.push(time));
        }
        plain.forget(&each).await?;
        plain.forget(&whole).await?;
    }
    let names = [
        "written by the store",
        "the same again",
        "written plainly, a key each",
        "written plainly, by section",
        "loaded by the store",
        "loaded plainly, a key each",
        "loaded plainly, by section",
    ];
    println!("{RECORDS} records in {SECTIONS} sections, medians of {ROUNDS}:");
    for (name, times) in names.iter().zip(&mut took) {
        times.sort_by(f64::total_cmp);
        let (least, most) = (times[0], times[ROUNDS - 1]);
        println!("{name:<28} {:>7.3} s   ({least:.3} to {most:.3})", times[ROUNDS / 2]);
    }
    Ok(())
}

fn no_tls() -> Result<rustls::ClientConfig> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth())
}

async fn timed<E>(work: impl Future<Output = Result<impl Sized, E>>) -> Result<f64, E> {
    let began = Instant::now();
    work.await?;
    Ok(began.elapsed().as_secs_f64())
}

/// A key of 16 bytes with its length, a value of 16 bytes behind its stamp and its kind.
fn batches(round: u64) -> Vec<Batch> {
    let sections = (0..SECTIONS as u16).map(|number| Section::of(Partition(number)));
    let mut batches: Vec<Batch> = sections.map(Batch::new).collect();
    for n in 0..RECORDS {
        let id = format!("\u{10}key-{n:012}").into_bytes();
        let stamp = (((1_790_000_000_000 + round) << 16) | (n as u64 & 0xffff)).to_be_bytes();
        let content = format!("value-{n:010}");
        let value = [&stamp[..], &7u64.to_be_bytes(), &[0], content.as_bytes()].concat();
        batches[n % SECTIONS].push(Record { id: &id, value: &value });
    }
    batches
}

/// Writes keys in transactions, and reads folders.
struct Plain {
    client: reqwest::Client,
    address: String,
}

impl Plain {
    async fn write_each(&self, folder: &str, batches: &[Batch]) -> Result<()> {
        let mut keys = Vec::new();
        for batch in batches {
            let number = batch.section().number();
            for record in batch.iter() {
                let id = String::from_utf8_lossy(&record.id[1..]).into_owned();
                keys.push((format!("{folder}/{number:04x}/{id}"), record.value));
            }
        }
        self.write(&keys).await
    }

    async fn write_sections(&self, folder: &str, batches: &[Batch]) -> Result<()> {
        let key = |batch: &Batch| format!("{folder}/{:04x}/all", batch.section().number());
        let keys: Vec<_> = batches.iter().map(|batch| (key(batch), batch.as_bytes())).collect();
        self.write(&keys).await
    }

    async fn write(&self, keys: &[(String, &[u8])]) -> Result<()> {
        let mut bodies = Vec::new();
        let mut rest = keys;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fitting = rest.iter().take(OPERATIONS).take_while(|(key, value)| {
                bytes += 80 + key.len() + value.len().div_ceil(3) * 4;
                bytes < 480_000
            });
            let (some, more) = rest.split_at(fitting.count());
            rest = more;
            let operation = |(key, value): &(String, &[u8])| json!({"KV": {"Verb": "set", "Key": key, "Value": BASE64_STANDARD.encode(value)}});
            bodies.push(Value::from_iter(some.iter().map(operation)).to_string());
        }
        let url = format!("http://{}/v1/txn", self.address);
        let sending = bodies.into_iter().map(|body| {
            let request = self.client.put(&url).body(body);
            async move {
                let answer = request.send().await?;
                ensure!(answer.status() == 200, "{}", answer.text().await?);
                answer.bytes().await.context("an answer")
            }
        });
        let sending: Vec<_> = sending.collect();
        let sending = stream::iter(sending).buffer_unordered(IN_FLIGHT);
        sending.try_for_each(|_| async { Ok(()) }).await
    }

    async fn load(&self, folder: &str, expected: usize) -> Result<()> {
        let reading: Vec<_> = (0..SECTIONS / SECTIONS_READ)
            .map(|part| self.load_part(folder, part))
            .collect();
        let reading = stream::iter(reading).buffer_unordered(IN_FLIGHT);
        let found: Vec<usize> = reading.try_collect().await?;
        ensure!(found.iter().sum::<usize>() == expected, "all are loaded plainly");
        Ok(())
    }

    async fn load_part(&self, folder: &str, part: usize) -> Result<usize> {
        let url = format!("http://{}/v1/kv/{folder}/{part:03x}?recurse&consistent", self.address);
        let answer = self.client.get(url).send().await?.bytes().await?;
        let keys: Vec<Value> = serde_json::from_slice(&answer)?;
        for key in &keys {
            BASE64_STANDARD.decode(key["Value"].as_str().context("a value")?)?;
        }
        Ok(keys.len())
    }

    async fn forget(&self, folder: &str) -> Result<()> {
        let url = format!("http://{}/v1/kv/{folder}/?recurse", self.address);
        self.client.delete(url).send().await?.error_for_status()?;
        Ok(())
    }
}
