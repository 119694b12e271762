//! Hosts that start again with what they have kept, beside Redis that loads its RDB or its AOF.
//!
//! Ours is a process of the release binary, from its start to its first answer; of Redis what its log says that loading
//! took, so without its start.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use serde_json::json;
use tempfile::TempDir;
use testkit::{
    Actor, Lattice, NatsServer, ProviderOptions, ProviderProcess, RedisKind, RedisServer, DEFAULT_LINK_NAME,
};
use wasmbus_rpc::wascap::prelude::KeyPair;

use super::kept::{at_rest, named, node, KEYS, SECTION, VALUE_BYTES};
use crate::caller::Caller;
use crate::node::{self as nodes, key, key_text, LIMIT};
use crate::redis;
use crate::report::{Line, Target};
use crate::Arguments;

/// Between two questions whether a process answers.
const PAUSE: Duration = Duration::from_millis(1);
/// Hosts of a lattice that all start at once.
const HOSTS: usize = 3;

/// Writes the file of a cache of this lattice.
async fn fill(folder: &Path, lattice: &Lattice) -> Result<()> {
    let node = node(nodes::empty_cache(), Some((folder, named(lattice.prefix())))).await?;
    for number in nodes::shuffled(KEYS) {
        node.set(&key(number), &[b'v'; VALUE_BYTES]).await?;
    }
    at_rest(&node).await?;
    node.service.stop().await;
    Ok(())
}

fn store_in(folder: &Path) -> String {
    format!("file:{}", folder.display())
}

/// Seconds until a host that is there alone answers what it has kept.
async fn alone(arguments: &Arguments, lattice: &Lattice, folder: &Path) -> Result<f64> {
    let (actor, provider_key) = (Actor::new(), KeyPair::new_service().public_key());
    let signer = lattice.client_of(&actor, &provider_key, DEFAULT_LINK_NAME).await?;
    let caller = Caller::new(async_nats::connect(lattice.nats_url()).await?, signer);
    let options = ProviderOptions::new(&arguments.bin)
        .provider_key(&provider_key)
        .link(&actor)
        .config(json!({ "REPLICATION": "off", "STORE": store_in(folder) }));
    let began = Instant::now();
    let mut process = lattice.start(options).await?;
    let answer = loop {
        match caller.get(&key_text(KEYS - 1)).await {
            Ok(answer) => break answer,
            Err(error) if began.elapsed() > LIMIT => return Err(error.context(process.log().text())),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    ensure!(answer.exists, "the last key is missing");
    let keys = process.status().await?.keys;
    ensure!(keys == KEYS as u64, "{keys} keys are there");
    process.kill()?;
    Ok(seconds)
}

/// Seconds until all hosts of a lattice have read their stores, and until they answer: those who have nobody to ask
/// listen for others first.
async fn together(arguments: &Arguments, lattice: &Lattice, folders: &[TempDir]) -> Result<(f64, f64)> {
    let began = Instant::now();
    let mut hosts: Vec<ProviderProcess> = Vec::new();
    for folder in folders {
        let config = json!({ "STORE": store_in(folder.path()) });
        hosts.push(
            lattice
                .start(ProviderOptions::new(&arguments.bin).config(config))
                .await?,
        );
    }
    for host in &hosts {
        host.wait_for_log("the store is read", LIMIT).await?;
    }
    let read = began.elapsed().as_secs_f64();
    for host in &mut hosts {
        let status = host.wait_ready(LIMIT).await?;
        ensure!(status.keys == KEYS as u64, "{} keys are there", status.keys);
    }
    let ready = began.elapsed().as_secs_f64();
    for host in &mut hosts {
        host.kill()?;
    }
    Ok((read, ready))
}

/// A Redis that has kept all keys in one of its two ways.
async fn filled(options: &[&str]) -> Result<RedisServer> {
    let server = RedisServer::start_with(RedisKind::Redis, options).await?;
    redis::fill(&server, KEYS, VALUE_BYTES, 0).await?;
    Ok(server)
}

/// Seconds that its start has spent on loading.
async fn loading(server: &mut RedisServer) -> Result<f64> {
    server.restart().await?;
    let keys = server.command(&["DBSIZE"]).await?;
    ensure!(keys == KEYS.to_string(), "Redis has loaded {keys} keys");
    let log = server.log();
    // Of an AOF each of its files, and all of them last.
    let said = log.lines().rev().find_map(|line| line.split_once("DB loaded from "));
    let (_, said) = said.with_context(|| format!("Redis does not say how long it has loaded:\n{log}"))?;
    let seconds = said
        .split_once(": ")
        .and_then(|(_, rest)| rest.split_whitespace().next());
    seconds
        .and_then(|text| text.parse().ok())
        .with_context(|| format!("no seconds in '{said}'"))
}

pub async fn lines(arguments: &Arguments) -> Result<Vec<Line>> {
    let nats = NatsServer::start().await?;
    let (single, lattice) = (Lattice::new(nats.url()), Lattice::new(nats.url()));
    let folder = TempDir::new()?;
    fill(folder.path(), &single).await?;
    let folders = (0..HOSTS).map(|_| TempDir::new()).collect::<Result<Vec<_>, _>>()?;
    for folder in &folders {
        fill(folder.path(), &lattice).await?;
    }
    let mut rdb = filled(&[]).await?;
    rdb.command(&["SAVE"]).await?;
    let mut aof = filled(&["--appendonly", "yes", "--auto-aof-rewrite-percentage", "0"]).await?;
    let (mut ours, mut read, mut ready, mut of_rdb, mut of_aof) = (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..arguments.runs() {
        ours.push(alone(arguments, &single, folder.path()).await?);
        of_rdb.push(loading(&mut rdb).await?);
        of_aof.push(loading(&mut aof).await?);
        let (all_read, all_ready) = together(arguments, &lattice, &folders).await?;
        read.push(all_read);
        ready.push(all_ready);
    }
    let what = "restart with 1,000,000 keys (16 B + 16 B) in file:, from the start of the process to its first answer";
    let version = rdb.version().await?;
    let line = |file: &str, samples| {
        let name = format!("Redis {version} loading its {file}");
        Line::against(SECTION, what, "s", ours.clone(), name, samples, Target::AtMost(0.5))
    };
    let together = |what: &str, samples| {
        let what = format!("the same of a lattice, {HOSTS} hosts at once on this machine, {what}");
        Line::alone(SECTION, what, "s", samples, Target::None)
    };
    Ok(vec![
        line("RDB", of_rdb),
        line("AOF", of_aof),
        together("until all have read their stores", read),
        together("until all are ready", ready)
            .note("A host that has read its store listens for 2.5 s whether others are there that know more."),
    ])
}
