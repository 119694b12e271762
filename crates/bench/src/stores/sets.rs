//! Sets at full speed through the service, beside the same without a store and beside Redis.

use std::time::{Duration, Instant};

use anyhow::Result;
use kvcache_core::cache::Key;
use tempfile::TempDir;
use testkit::{RedisKind, RedisServer};

use super::{flushed, named, node, KEYS, SECTION, VALUE_BYTES};
use crate::node::{self as nodes, key, LibraryNode};
use crate::redis;
use crate::report::{Line, Target};
use crate::Arguments;

/// How long one is measured at a time: many flushes.
const SLICE: Duration = Duration::from_millis(1_000);
/// Sets between two looks at the clock.
const BURST: usize = 256;
/// Connections of redis-benchmark where they are many, each with 16 requests under way.
const CLIENTS: usize = 50;

/// Thousand sets a second of one writer, who goes on where it stopped.
async fn slice(node: &LibraryNode, keys: &mut impl Iterator<Item = Key>, round: usize) -> Result<f64> {
    let mut value = [b'v'; VALUE_BYTES];
    value[..8].copy_from_slice(&(round as u64).to_be_bytes());
    let (began, mut sets) = (Instant::now(), 0);
    while began.elapsed() < SLICE {
        for key in keys.by_ref().take(BURST) {
            node.set(&key, &value).await?;
        }
        sets += BURST;
    }
    Ok(sets as f64 / began.elapsed().as_secs_f64() / 1e3)
}

pub async fn lines(arguments: &Arguments) -> Result<Vec<Line>> {
    let folder = TempDir::new()?;
    let with = node(nodes::empty_cache(), Some((folder.path(), named("sets")))).await?;
    let without = node(nodes::empty_cache(), None).await?;
    let server = RedisServer::start_with(RedisKind::Redis, &EVERYSEC).await?;
    let order: Vec<Key> = nodes::shuffled(KEYS).into_iter().map(key).collect();
    // Every key is there: what is measured are not tables that grow.
    for node in [&with, &without] {
        for key in &order {
            node.set(key, &[b'v'; VALUE_BYTES]).await?;
        }
    }
    redis::fill(&server, KEYS, VALUE_BYTES, 0).await?;
    flushed(&with).await?;
    let (mut keys, mut same_keys) = (order.iter().cloned().cycle(), order.iter().cloned().cycle());
    let (mut ours, mut bare, mut one, mut many) = (vec![], vec![], vec![], vec![]);
    let requests = if arguments.quick { 500_000 } else { 1_000_000 };
    for round in 0..2 * arguments.runs() {
        // In turns, forwards and backwards. What waits for the store is written before anybody else is measured.
        let turns = if round % 2 == 0 { [0, 1, 2] } else { [2, 1, 0] };
        for turn in turns {
            match turn {
                0 => {
                    ours.push(slice(&with, &mut keys, round).await?);
                    flushed(&with).await?;
                }
                1 => bare.push(slice(&without, &mut same_keys, round).await?),
                _ => {
                    one.push(redis::sets_per_second(&server, 1, 16, requests / 2, VALUE_BYTES).await? / 1e3);
                    many.push(redis::sets_per_second(&server, CLIENTS, 16, requests, VALUE_BYTES).await? / 1e3);
                }
            }
        }
    }
    with.service.stop().await;
    without.service.stop().await;
    let what = "sets through the service, one writer, file: (16 B + 16 B, 1,000,000 keys)";
    let line =
        |name: String, samples, target| Line::against(SECTION, what, "thousand/s", ours.clone(), name, samples, target);
    let version = server.version().await?;
    let redis = |clients: &str| format!("Redis {version}, appendfsync everysec, 16 requests under way, {clients}");
    Ok(vec![
        line("no store".into(), bare, Target::AtLeast(0.97)),
        line(redis("1 client"), one, Target::AtLeast(3.0)),
        line(redis("50 clients"), many, Target::None),
    ])
}

/// As its documentation advises.
const EVERYSEC: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "everysec"];
