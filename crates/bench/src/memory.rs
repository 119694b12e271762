//! Section 6: resident memory of a whole process per key, filled by a bootstrap, beside a replica of Redis
//! or Valkey filled by a full sync.

use std::time::Duration;

use anyhow::Result;
use testkit::{Lattice, NatsServer, RedisKind, RedisServer};

use crate::cold::{self, Filled};
use crate::node::{self, LibraryNode};
use crate::redis;
use crate::report::{Line, Target};
use crate::Arguments;

const KEYS: usize = 1_000_000;

/// Far enough away that nothing expires while it is measured.
const EXPIRES_SECONDS: u32 = 100_000;

/// How long a process has nothing to do before its memory is looked at. Until then it may hold what it freed last.
const IDLE: Duration = Duration::from_secs(3);

/// Resident bytes of a provider process that was filled, once it is idle.
pub async fn resident(mut filled: Filled) -> Result<u64> {
    tokio::time::sleep(IDLE).await;
    let resident = filled.provider.resident_bytes()?;
    filled.provider.shutdown().await?;
    Ok(resident)
}

/// Resident bytes per key of a provider process.
async fn provider(arguments: &Arguments, value_bytes: usize, expires: u32) -> Result<f64> {
    let server = NatsServer::start().await?;
    let lattice = Lattice::new(server.url());
    let source = LibraryNode::start(node::filled(KEYS, value_bytes, expires), &lattice).await?;
    let resident = resident(cold::fill_provider(arguments, &lattice, KEYS).await?).await?;
    source.service.stop().await;
    Ok(resident as f64 / KEYS as f64)
}

async fn replica(kind: RedisKind, value_bytes: usize, expires: u32) -> Result<f64> {
    let primary = RedisServer::start_kind(kind).await?;
    redis::fill(&primary, KEYS, value_bytes, expires).await?;
    let replica = RedisServer::replica_of(&primary).await?;
    tokio::time::sleep(IDLE).await;
    Ok(replica.resident_bytes()? as f64 / KEYS as f64)
}

/// Measures the section.
pub async fn lines(arguments: &Arguments) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (name, value_bytes, expires, bytes, ratio) in [
        ("16 B + 16 B", 16, 0, Target::AtMost(80.0), Target::None),
        (
            "16 B + 16 B with expiry",
            16,
            EXPIRES_SECONDS,
            Target::AtMost(88.0),
            Target::None,
        ),
        ("16 B + 32 B", 32, 0, Target::None, Target::AtMost(0.75)),
    ] {
        let (mut ours, mut others) = (Vec::new(), RedisKind::ALL.map(|kind| (kind, Vec::new())));
        for _ in 0..arguments.runs() {
            ours.push(provider(arguments, value_bytes, expires).await?);
            for (kind, samples) in &mut others {
                samples.push(replica(*kind, value_bytes, expires).await?);
            }
        }
        let what = format!("resident bytes of the whole process per key at 1,000,000 keys, idle for 3 s, {name}");
        if bytes != Target::None {
            lines.push(Line::alone(6, &what, "B", ours.clone(), bytes));
        }
        for (kind, samples) in others {
            // The targets are from when Redis alone was measured.
            let target = match kind {
                RedisKind::Redis => ratio,
                RedisKind::Valkey => Target::None,
            };
            let baseline = format!("{} replica", kind.name());
            lines.push(Line::against(6, &what, "B", ours.clone(), baseline, samples, target));
        }
    }
    Ok(lines)
}
