//! Sets at full speed through the service, beside the same without a store and beside Redis.

use std::time::{Duration, Instant};

use anyhow::Result;
use kvcache_core::cache::Key;
use tempfile::TempDir;
use testkit::{RedisKind, RedisServer};

use super::kept::{flushed, named, node, KEYS, SECTION, VALUE_BYTES};
use crate::cpu;
use crate::node::{self as nodes, key, LibraryNode};
use crate::redis;
use crate::report::{Line, Target};
use crate::Arguments;

/// How long one is measured at a time: many flushes.
const SLICE: Duration = Duration::from_millis(1_000);
/// Sets between two looks at the clock.
const BURST: usize = 256;
/// Connections of redis-benchmark where they are many, and the requests that each has under way.
const CLIENTS: usize = 50;
const UNDER_WAY: usize = 16;

/// What is measured at a time.
struct Slice {
    /// Thousands.
    per_second: f64,
    /// Microseconds of processor time, of all threads of a process, for each set.
    processor: f64,
}

/// One writer goes on where it stopped. Then the store takes what is left.
async fn slice(node: &LibraryNode, keys: &mut impl Iterator<Item = Key>, round: usize) -> Result<Slice> {
    let mut value = [b'v'; VALUE_BYTES];
    value[..8].copy_from_slice(&(round as u64).to_be_bytes());
    let (before, began, mut sets) = (cpu::seconds_of(std::process::id())?, Instant::now(), 0);
    while began.elapsed() < SLICE {
        for key in keys.by_ref().take(BURST) {
            node.set(&key, &value).await?;
        }
        sets += BURST;
    }
    let per_second = sets as f64 / began.elapsed().as_secs_f64() / 1e3;
    if node.service.status().store.is_some() {
        flushed(node).await?;
    }
    let processor = (cpu::seconds_of(std::process::id())? - before) * 1e6 / sets as f64;
    Ok(Slice { per_second, processor })
}

/// The same of redis-benchmark; processor time is that of the server.
async fn of_redis(server: &RedisServer, clients: usize, requests: usize) -> Result<Slice> {
    let before = cpu::seconds_of(server.pid())?;
    let per_second = redis::sets_per_second(server, clients, UNDER_WAY, requests, VALUE_BYTES).await? / 1e3;
    let processor = (cpu::seconds_of(server.pid())? - before) * 1e6 / requests as f64;
    Ok(Slice { per_second, processor })
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
        // In turns, forwards and backwards.
        let turns = if round % 2 == 0 { [0, 1, 2] } else { [2, 1, 0] };
        for turn in turns {
            match turn {
                0 => ours.push(slice(&with, &mut keys, round).await?),
                1 => bare.push(slice(&without, &mut same_keys, round).await?),
                _ => {
                    one.push(of_redis(&server, 1, requests / 2).await?);
                    many.push(of_redis(&server, CLIENTS, requests).await?);
                }
            }
        }
    }
    with.service.stop().await;
    without.service.stop().await;
    let version = server.version().await?;
    let name = format!("Redis {version}, appendfsync everysec, {UNDER_WAY} requests under way");
    let (one_name, many_name) = (format!("{name}, 1 client"), format!("{name}, {CLIENTS} clients"));
    type Of = fn(&Slice) -> f64;
    let (rate, processor): (Of, Of) = (|slice| slice.per_second, |slice| slice.processor);
    let line = |what: &str, unit, of: Of, name: &str, samples: &[Slice], target| {
        let what = format!("sets through the service, one writer, file: (16 B + 16 B, 1,000,000 keys){what}");
        let column = |side: &[Slice]| side.iter().map(of).collect();
        Line::against(SECTION, what, unit, column(&ours), name, column(samples), target)
    };
    let spent = ": processor time of the process, until all is stored";
    Ok(vec![
        line("", "thousand/s", rate, "no store", &bare, Target::AtLeast(0.97)),
        line("", "thousand/s", rate, &one_name, &one, Target::AtLeast(3.0)),
        line("", "thousand/s", rate, &many_name, &many, Target::None),
        line(spent, "us/set", processor, "no store", &bare, Target::None),
        line(spent, "us/set", processor, &many_name, &many, Target::None),
    ])
}

/// As its documentation advises.
const EVERYSEC: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "everysec"];
