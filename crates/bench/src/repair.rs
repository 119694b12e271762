//! Bar 7: what it costs to make two caches equal again of which 100 of 1,000,000 keys differ.

use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use futures::StreamExt;
use kvcache_core::cache::{Command, NodeId};
use kvcache_core::wire::{Frame, Message, VERSION};
use kvcache_node::nats::Subjects;
use kvcache_node::time;
use testkit::{Lattice, NatsServer, DEFAULT_LINK_NAME};

use crate::node::{self, equal, key, meet, LibraryNode, LIMIT};
use crate::report::{Limit, Line};
use crate::Arguments;

const KEYS: usize = 1_000_000;
const DIFFERING: usize = 100;
const VALUE_BYTES: usize = 16;

/// Counters are at rest when they have not changed for this long; they are published four times a second.
const REST: Duration = Duration::from_millis(750);

struct Repaired {
    /// From the difference to the first request of the comparison: beats have to show it.
    noticed: Duration,
    /// From that request until both are equal.
    exchange: Duration,
    /// What both have sent, less the commands of the keys that differed.
    bytes: u64,
}

struct Pair {
    nodes: [LibraryNode; 2],
    lattice: Lattice,
    _server: NatsServer,
}

impl Pair {
    async fn start() -> Result<Self> {
        let server = NatsServer::start().await?;
        let lattice = Lattice::new(server.url());
        let one = LibraryNode::start(node::filled(KEYS, VALUE_BYTES, 0), &lattice).await?;
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

    /// Writes behind the back of replication, half here and half there, and waits until the nodes are equal again.
    async fn diverge(&self, round: usize) -> Result<Repaired> {
        let before = self.bytes().await;
        let connection = self.lattice.connection().await?;
        let to_nodes = Subjects::of(self.lattice.prefix(), DEFAULT_LINK_NAME).node(NodeId(0));
        let to_nodes = to_nodes.rsplit_once('.').context("a subject without tokens")?.0;
        let mut requests = connection.subscribe(format!("{to_nodes}.*")).await?;
        requests.unsubscribe_after(1).await?;
        connection.flush().await?;
        let first_request = tokio::spawn(async move { requests.next().await.map(|_| Instant::now()) });
        let caches = [&self.nodes[0].cache, &self.nodes[1].cache];
        let mut commands = Vec::new();
        for number in 0..DIFFERING {
            let key = key((number * (KEYS / DIFFERING) + round) % KEYS);
            let value = format!("{:0VALUE_BYTES$}", round + 1);
            commands.push(caches[number % 2].set(&key, &*value, 0, time::wall())?);
        }
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
            exchange: reached.saturating_duration_since(request),
            bytes: (self.bytes().await - before).saturating_sub(encoded(commands)),
        })
    }
}

/// Bytes of commands on the wire, without what is around them.
fn encoded(commands: Vec<Command>) -> u64 {
    let length = |commands: Vec<Command>| {
        let frame = Frame {
            seq: 1,
            wants_ack: false,
            clock: Default::default(),
            commands,
        };
        Message::Frame(frame).encode(VERSION, NodeId(1)).len()
    };
    (length(commands) - length(Vec::new())) as u64
}

/// Measures the bar.
pub async fn lines(arguments: &Arguments) -> Result<Vec<Line>> {
    let pair = Pair::start().await?;
    let mut runs = Vec::new();
    for round in 0..arguments.runs() {
        runs.push(pair.diverge(round).await?);
    }
    for node in pair.nodes {
        node.service.stop().await;
    }
    let column = |of: fn(&Repaired) -> f64| runs.iter().map(of).collect::<Vec<_>>();
    let line = |what: &str, unit: &str, samples, limit| {
        Line::alone(
            7,
            format!("100 differing of 1,000,000 keys: {what}"),
            unit,
            samples,
            limit,
        )
    };
    Ok(vec![
        line(
            "bytes sent by both, the 100 commands apart",
            "B",
            column(|run| run.bytes as f64),
            Limit::AtMost(16_000.0),
        ),
        line(
            "exchange, from the first request to equal",
            "ms",
            column(|run| run.exchange.as_secs_f64() * 1e3),
            Limit::AtMost(250.0),
        ),
        line(
            "until beats (one a second) have shown the difference",
            "ms",
            column(|run| run.noticed.as_secs_f64() * 1e3),
            Limit::None,
        ),
    ])
}
