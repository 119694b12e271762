//! Section 11: an empty node is filled over a slow link, beside what the link takes for the bytes alone.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use testkit::{promptly, Direction, FaultyProxy, Lattice, NatsServer, ProviderOptions};

use crate::node::{self, field, LibraryNode, LIMIT};
use crate::report::{Line, Target};
use crate::Arguments;

/// Keys of 16 bytes with values of as many as this.
const VALUE_BYTES: usize = 100;

/// Bytes per second, milliseconds there and back, and keys.
const LINKS: [(u64, u64, usize); 7] = [
    (125_000, 0, 20_000),
    (250_000, 0, 20_000),
    (1_000_000, 0, 90_000),
    (4_000_000, 0, 90_000),
    (8_000_000, 0, 90_000),
    (250_000, 300, 20_000),
    (1_000_000, 300, 90_000),
];

/// What one cold start took.
struct Cold {
    seconds: f64,
    /// Bytes that came over the link.
    carried: u64,
    /// Bytes of the bootstrap, as the node counts them.
    bytes: f64,
}

async fn cold_start(arguments: &Arguments, lattice: &Lattice, proxy: &FaultyProxy) -> Result<Cold> {
    let settings = json!({ "NATS_URL": proxy.url() });
    let mut provider = lattice
        .start(ProviderOptions::new(&arguments.bin).config(settings))
        .await?;
    let line = promptly(Duration::from_millis(5), LIMIT, || async {
        let lines = provider.log().matching("synced keys=");
        lines.into_iter().next().context("not synced")
    })
    .await?;
    let carried = proxy.stats().bytes_to_client;
    let health = provider.health().await?.message.unwrap_or_default();
    provider.shutdown().await?;
    Ok(Cold {
        seconds: field(&line, "took_ms=")? / 1_000.0,
        carried,
        bytes: field(&health, "replay_bytes=")?,
    })
}

/// Measures the section.
pub async fn lines(arguments: &Arguments) -> Result<Vec<Line>> {
    let server = NatsServer::start().await?;
    let mut lines = Vec::new();
    for (rate, round_trip, keys) in LINKS {
        // A lattice of its own: no other node answers.
        let lattice = Lattice::new(server.url());
        let source = LibraryNode::start(node::filled(keys, VALUE_BYTES, 0), &lattice).await?;
        let reference = FaultyProxy::before(&server).await?;
        let bytes = cold_start(arguments, &lattice, &reference).await?.bytes;
        let proxy = FaultyProxy::before(&server).await?;
        for direction in Direction::BOTH {
            proxy.limit(direction, rate);
            proxy.delay(direction, Duration::from_millis(round_trip / 2));
        }
        let cold = cold_start(arguments, &lattice, &proxy).await?;
        source.service.stop().await;
        let what = format!(
            "cold start of {:.1} MB over {} MB/s, {round_trip} ms there and back",
            bytes / 1e6,
            rate as f64 / 1e6
        );
        let least = bytes / rate as f64;
        lines.push(Line::against(
            11,
            &what,
            "s",
            vec![cold.seconds],
            "the bytes alone",
            vec![least],
            Target::AtMost(1.2),
        ));
        lines.push(Line::against(
            11,
            what,
            "MB",
            vec![cold.carried as f64 / 1e6],
            "without the limit",
            vec![bytes / 1e6],
            Target::AtMost(1.1),
        ));
    }
    Ok(lines)
}
