//! What is on the disk, and what is written there, beside the append-only file of Redis.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use tempfile::TempDir;
use testkit::{RedisKind, RedisServer};

use super::kept::{at_rest, flushed, named, node, KEYS, SECTION, VALUE_BYTES};
use crate::node::{self as nodes, key, LIMIT};
use crate::redis;
use crate::report::{Line, Target};

const UPDATES: usize = 10;

/// Plain commands, and no rewriting but when it is asked for.
const COMMANDS: [&str; 6] = [
    "--appendonly",
    "yes",
    "--aof-use-rdb-preamble",
    "no",
    "--auto-aof-rewrite-percentage",
    "0",
];

/// Bytes of all files in a folder, as the disk has them.
fn bytes_in(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for file in std::fs::read_dir(folder)? {
        use std::os::unix::fs::MetadataExt;
        bytes += file?.metadata()?.blocks() * 512;
    }
    Ok(bytes)
}

/// Bytes that this process has handed to the system. It writes nothing but the store meanwhile.
fn written() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/io").context("what this process has written")?;
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.and_then(|number| number.parse().ok())
        .context("no wchar in /proc/self/io")
}

/// Bytes on the disk per key, and bytes written by so many updates per key, of which the store sees each.
async fn ours() -> Result<(f64, f64)> {
    let folder = TempDir::new()?;
    let node = node(nodes::empty_cache(), Some((folder.path(), named("disk")))).await?;
    let order = nodes::shuffled(KEYS);
    let write = async |value: u8| {
        for number in &order {
            node.set(&key(*number), &[value; VALUE_BYTES]).await?;
        }
        flushed(&node).await
    };
    write(b'a').await?;
    at_rest(&node).await?;
    let on_disk = bytes_in(folder.path())?;
    let before = written()?;
    for update in 0..UPDATES {
        write(b'b' + update as u8).await?;
    }
    at_rest(&node).await?;
    let written = written()? - before;
    node.service.stop().await;
    Ok((on_disk as f64 / KEYS as f64, written as f64 / KEYS as f64))
}

async fn aof_bytes(server: &RedisServer) -> Result<f64> {
    let bytes = server.info("persistence", "aof_current_size").await?;
    bytes.parse().with_context(|| format!("{bytes} bytes"))
}

async fn of_redis(server: &RedisServer) -> Result<(f64, f64)> {
    redis::fill(server, KEYS, VALUE_BYTES, 0).await?;
    server.command(&["BGREWRITEAOF"]).await?;
    let began = Instant::now();
    while server.info("persistence", "aof_rewrite_in_progress").await? != "0" {
        ensure!(began.elapsed() < LIMIT, "Redis does not rewrite its AOF");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let rewritten = aof_bytes(server).await?;
    for _ in 0..UPDATES {
        redis::fill(server, KEYS, VALUE_BYTES, 0).await?;
    }
    let written = aof_bytes(server).await? - rewritten;
    Ok((rewritten / KEYS as f64, written / KEYS as f64))
}

pub async fn lines() -> Result<Vec<Line>> {
    // Counts of bytes are the same each time, so one sample of each is enough.
    let (on_disk, written) = ours().await?;
    let server = RedisServer::start_with(RedisKind::Redis, &COMMANDS).await?;
    let (aof, appended) = of_redis(&server).await?;
    let name = format!("Redis {}, AOF", server.version().await?);
    let line = |what: &str, ours: f64, name: String, redis: f64| {
        Line::against(
            SECTION,
            what,
            "B/key",
            vec![ours],
            name,
            vec![redis],
            Target::AtMost(1.0),
        )
    };
    Ok(vec![
        line(
            "disk of 1,000,000 keys (16 B + 16 B) in file:, at rest",
            on_disk,
            format!("{name} rewritten, without RDB"),
            aof,
        ),
        line("bytes written by 10 updates of each of them", written, name, appended),
    ])
}
