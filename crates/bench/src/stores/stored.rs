//! Writes that wait for the store (`ACK=stored`), beside writes that wait for the disk of Redis.

use std::time::{Duration, Instant};

use anyhow::Result;
use kvcache_node::service::{AckLevel, AckPolicy, Scope};
use tempfile::TempDir;
use testkit::{RedisKind, RedisServer};

use super::kept::{named, node, SECTION, VALUE_BYTES};
use crate::node::{self as nodes, key, LibraryNode};
use crate::redis;
use crate::report::{Line, Target};
use crate::Arguments;

const WRITERS: [usize; 2] = [1, 64];
const SLICE: Duration = Duration::from_millis(1_500);
/// Different keys of each writer.
const KEYS_PER_WRITER: usize = 1_000;

/// Acknowledged writes per second of so many writers.
async fn slice(node: &LibraryNode, writers: usize) -> Result<f64> {
    let acks = AckPolicy {
        wanted: AckLevel::Local,
        stored: true,
        timeout_ms: 10_000,
    };
    let began = Instant::now();
    let write = async |writer: usize| {
        let scope = Scope {
            acks,
            ..Scope::shared("bench")
        };
        let mut written = 0;
        while began.elapsed() < SLICE {
            let number = writer * KEYS_PER_WRITER + written % KEYS_PER_WRITER;
            node.set_in(&scope, &key(number), &[b'v'; VALUE_BYTES]).await?;
            written += 1;
        }
        anyhow::Ok(written)
    };
    let written = futures::future::try_join_all((0..writers).map(write)).await?;
    Ok(written.iter().sum::<usize>() as f64 / began.elapsed().as_secs_f64())
}

pub async fn lines(arguments: &Arguments) -> Result<Vec<Line>> {
    let folder = TempDir::new()?;
    let node = node(nodes::empty_cache(), Some((folder.path(), named("stored")))).await?;
    let server = RedisServer::start_persistent(RedisKind::Redis, &[]).await?;
    let mut samples = WRITERS.map(|_| (Vec::new(), Vec::new()));
    for _ in 0..arguments.runs() {
        for (writers, (ours, redis)) in WRITERS.into_iter().zip(&mut samples) {
            let ours_per_second = slice(&node, writers).await?;
            // About as many as it does in a second and a half, too.
            let requests = (ours_per_second * SLICE.as_secs_f64()) as usize;
            ours.push(ours_per_second / 1e3);
            redis.push(redis::sets_per_second(&server, writers, 1, requests.max(100), VALUE_BYTES).await? / 1e3);
        }
    }
    node.service.stop().await;
    let name = format!("Redis {}, appendfsync always", server.version().await?);
    let line = |(writers, (ours, redis)): (usize, (Vec<f64>, Vec<f64>))| {
        let writers = match writers {
            1 => "1 writer".into(),
            many => format!("{many} writers"),
        };
        let what = format!("ACK=stored, file:, {writers} (16 B + 16 B)");
        Line::against(
            SECTION,
            what,
            "thousand/s",
            ours,
            name.clone(),
            redis,
            Target::AtLeast(1.0),
        )
    };
    Ok(WRITERS.into_iter().zip(samples).map(line).collect())
}
