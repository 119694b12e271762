//! Calls of a provider with a store, beside one without: as section 1 makes them.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tempfile::TempDir;
use testkit::{NatsServer, ProviderOptions, RedisServer};

use super::kept::{FLUSH_MS, SECTION};
use crate::load::Operation;
use crate::report::{Line, Target};
use crate::rpc::Contestant;
use crate::Arguments;

const CONCURRENCY: u64 = 64;

/// A provider, and thousand calls a second of each operation that were measured.
struct Kept {
    store: &'static str,
    contestant: Contestant,
    samples: [Vec<f64>; OPERATIONS.len()],
}

const OPERATIONS: [Operation; 2] = [Operation::Get, Operation::Set];

pub async fn lines(arguments: &Arguments) -> Result<Vec<Line>> {
    let server = NatsServer::builder().jetstream().start().await?;
    let redis = RedisServer::start().await?;
    let folder = TempDir::new()?;
    let connection = async_nats::connect(server.url()).await?;
    let stores = [
        ("no store", None),
        ("file:", Some(format!("file:{}", folder.path().display()))),
        ("jetstream:", Some("jetstream:calls".into())),
        ("redis:", Some(redis.url())),
    ];
    let mut all = Vec::new();
    for (store, url) in stores {
        let options = ProviderOptions::new(&arguments.bin);
        let options = match url {
            Some(url) => options.config(json!({ "STORE": url })),
            None => options,
        };
        all.push(Kept {
            store,
            contestant: Contestant::start(options, &server, &connection).await?,
            samples: [const { Vec::new() }; OPERATIONS.len()],
        });
    }
    let rounds = if arguments.quick { 12 } else { 48 };
    for round in 0..rounds {
        for (place, operation) in OPERATIONS.into_iter().enumerate() {
            // Everybody is first, second, third and last in turn, forwards and backwards.
            let mut order: Vec<usize> = (0..all.len()).collect();
            order.rotate_left(round % all.len());
            if round / all.len() % 2 == 1 {
                order.reverse();
            }
            for who in order {
                let kept = &mut all[who];
                let sample = kept.contestant.sample(operation, CONCURRENCY).await?;
                kept.samples[place].push(sample.slice.per_second / 1e3);
                // What waits for the store is written before somebody else is measured.
                tokio::time::sleep(Duration::from_millis(FLUSH_MS * 3 / 2)).await;
            }
        }
    }
    let mut lines = Vec::new();
    let [bare, stores @ ..] = &all[..] else {
        return Ok(lines);
    };
    for (place, operation) in OPERATIONS.into_iter().enumerate() {
        for kept in stores {
            let what = format!("RPC {}, 128 B, {CONCURRENCY} at once, {}", operation.name(), kept.store);
            let (ours, baseline) = (kept.samples[place].clone(), bare.samples[place].clone());
            let target = Target::AtLeast(0.97);
            lines.push(Line::against(
                SECTION,
                what,
                "thousand/s",
                ours,
                bare.store,
                baseline,
                target,
            ));
        }
    }
    Ok(lines)
}
