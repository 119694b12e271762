//! Section 7: what it costs to make two caches equal again of which some keys, or members of one set, differ.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use futures::StreamExt;
use kvcache_core::cache::{Cache, Delta, Key, NodeId};
use kvcache_core::wire::{Frame, Message, VERSION};
use kvcache_node::nats::Subjects;
use kvcache_node::time;
use testkit::{Lattice, NatsServer, DEFAULT_LINK_NAME};

use crate::node::{self, equal, key, meet, LibraryNode, LIMIT};
use crate::report::{median, Line, Series, Target};
use crate::table::grouped;
use crate::Arguments;

const SECTION: u8 = 7;

const KEYS: usize = 1_000_000;

/// How many of them differ.
const DIFFERING: [usize; 4] = [1, 100, 10_000, KEYS];

/// The difference that has targets.
const TARGETED: usize = 100;

/// Members of a set of which one differs.
const MEMBERS: usize = 100_000;

const VALUE_BYTES: usize = 16;

/// Counters are at rest when they have not changed for this long; they are published four times a second.
const REST: Duration = Duration::from_millis(750);

struct Repaired {
    /// From the difference to the first request of the comparison: heartbeats have to show it.
    noticed: Duration,
    /// From that request until both are equal.
    reconcile: Duration,
    /// What both have sent.
    bytes: u64,
    /// What the deltas take of it that were written.
    deltas: u64,
}

struct Pair {
    nodes: [LibraryNode; 2],
    lattice: Lattice,
    _server: NatsServer,
}

impl Pair {
    /// Two nodes that hold what `cache` holds.
    async fn start(cache: Arc<Cache>) -> Result<Self> {
        let server = NatsServer::start().await?;
        let lattice = Lattice::new(server.url());
        let one = LibraryNode::start(cache, &lattice).await?;
        let nodes = [one, LibraryNode::start(node::empty_cache(), &lattice).await?];
        meet(&nodes).await?;
        equal(&nodes).await?;
        Ok(Pair {
            nodes,
            lattice,
            _server: server,
        })
    }

    /// Bytes that both have sent to each other, once nothing is under way any more.
    async fn bytes(&self) -> u64 {
        let sent = |node: &LibraryNode| node.status().counters.repair_bytes_sent;
        let mut known = (self.nodes.iter().map(sent).sum::<u64>(), Instant::now());
        while known.1.elapsed() < REST {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = self.nodes.iter().map(sent).sum::<u64>();
            if now != known.0 {
                known = (now, Instant::now());
            }
        }
        known.0
    }

    /// Writes behind the back of replication, and waits until the nodes are equal again.
    async fn diverge(&self, write: impl FnOnce([&Cache; 2]) -> Result<Vec<Delta>>) -> Result<Repaired> {
        let before = self.bytes().await;
        let connection = self.lattice.connection().await?;
        let to_nodes = Subjects::of(self.lattice.prefix(), DEFAULT_LINK_NAME).node(NodeId(0));
        let to_nodes = to_nodes.rsplit_once('.').context("a subject without tokens")?.0;
        let mut requests = connection.subscribe(format!("{to_nodes}.*")).await?;
        requests.unsubscribe_after(1).await?;
        connection.flush().await?;
        let first_request = tokio::spawn(async move { requests.next().await.map(|_| Instant::now()) });
        let caches = [&*self.nodes[0].cache, &*self.nodes[1].cache];
        let deltas = write(caches)?;
        let written = Instant::now();
        while caches[0].root_digest() != caches[1].root_digest() {
            ensure!(written.elapsed() < LIMIT, "the nodes do not become equal");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let reached = Instant::now();
        let request = tokio::time::timeout(LIMIT, first_request)
            .await??
            .context("no request was seen")?;
        Ok(Repaired {
            noticed: request.saturating_duration_since(written),
            reconcile: reached.saturating_duration_since(request),
            bytes: self.bytes().await - before,
            deltas: encoded(deltas),
        })
    }

    async fn stop(self) {
        for node in self.nodes {
            node.service.stop().await;
        }
    }
}

/// Writes some keys once more, half here and half there.
fn rewrite(caches: [&Cache; 2], differing: usize, round: usize) -> Result<Vec<Delta>> {
    let value = format!("{:0VALUE_BYTES$}", round + 1);
    let write = |number: usize| {
        let key = key((number * (KEYS / differing) + round) % KEYS);
        Ok(caches[number % 2].set(&key, &*value, 0, time::wall())?)
    };
    (0..differing).map(write).collect()
}

fn set_key() -> Key {
    Key::shared(b"the large set")
}

/// Adds a member to the set.
fn add_member(cache: &Cache, number: usize) -> Result<Delta> {
    let member = format!("{number:0VALUE_BYTES$}");
    let (_, delta) = cache.set_add(&set_key(), &*member, time::wall())?;
    Ok(delta)
}

/// Bytes of deltas on the wire, without what is around them.
fn encoded(deltas: Vec<Delta>) -> u64 {
    let length = |deltas: Vec<Delta>| {
        let frame = Frame {
            seq: 1,
            wants_ack: false,
            clock: Default::default(),
            deltas,
        };
        Message::Frame(frame).encode(VERSION, NodeId(1)).len()
    };
    (length(deltas) - length(Vec::new())) as u64
}

/// Measures the section.
pub async fn lines(arguments: &Arguments) -> Result<(Vec<Line>, Vec<Series>)> {
    let mut lines = Vec::new();
    let (mut bytes, mut times) = (Vec::new(), Vec::new());
    let pair = Pair::start(node::filled(KEYS, VALUE_BYTES, 0)).await?;
    for differing in DIFFERING {
        let mut runs = Vec::new();
        for round in 0..arguments.runs() {
            runs.push(pair.diverge(|caches| rewrite(caches, differing, round)).await?);
        }
        let what = format!(
            "{} differing of {} keys",
            grouped(differing as f64),
            grouped(KEYS as f64)
        );
        lines.extend(lines_of(&what, &runs, differing == TARGETED));
        let middle = |of: fn(&Repaired) -> f64| median(&runs.iter().map(of).collect::<Vec<_>>());
        bytes.extend(middle(sent).map(|bytes| (differing as f64, bytes)));
        times.extend(middle(reconcile).map(|time| (differing as f64, time)));
    }
    pair.stop().await;
    lines.extend(of_a_set(arguments).await?);
    let series = |name: &str, unit: &str, points| Series {
        section: SECTION,
        name: name.into(),
        size: "differing keys".into(),
        unit: unit.into(),
        points,
    };
    let series = vec![
        series("sent by both", "B", bytes),
        series("from the first request to equal", "ms", times),
    ];
    Ok((lines, series))
}

async fn of_a_set(arguments: &Arguments) -> Result<Vec<Line>> {
    let cache = node::empty_cache();
    for number in 0..MEMBERS {
        add_member(&cache, number)?;
    }
    let pair = Pair::start(cache).await?;
    let mut runs = Vec::new();
    for round in 0..arguments.runs() {
        let add = |caches: [&Cache; 2]| Ok(vec![add_member(caches[0], MEMBERS + round)?]);
        runs.push(pair.diverge(add).await?);
    }
    pair.stop().await;
    let what = format!("1 differing of {} members of a set", grouped(MEMBERS as f64));
    Ok(lines_of(&what, &runs, false))
}

fn sent(run: &Repaired) -> f64 {
    run.bytes as f64
}

fn reconcile(run: &Repaired) -> f64 {
    run.reconcile.as_secs_f64() * 1e3
}

/// What some runs say of one difference.
fn lines_of(differing: &str, runs: &[Repaired], has_target: bool) -> Vec<Line> {
    let line = |what: &str, unit: &str, of: fn(&Repaired) -> f64, target: Target| {
        let target = if has_target { target } else { Target::None };
        let samples = runs.iter().map(of).collect();
        Line::alone(SECTION, format!("{differing}: {what}"), unit, samples, target)
    };
    let mut lines = Vec::new();
    if has_target {
        lines.push(line(
            &format!("bytes sent by both, the {TARGETED} deltas apart"),
            "B",
            |run| run.bytes.saturating_sub(run.deltas) as f64,
            Target::AtMost(16_000.0),
        ));
    }
    lines.extend([
        line("bytes sent by both", "B", sent, Target::None),
        line(
            "reconcile, from the first request to equal",
            "ms",
            reconcile,
            Target::AtMost(250.0),
        ),
        line(
            "until heartbeats (one a second) have shown the difference",
            "ms",
            |run| run.noticed.as_secs_f64() * 1e3,
            Target::None,
        ),
    ]);
    lines
}
