//! Section 10: from the start of the process to its first answer, and the sizes of the binary and of the archive.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use serde_json::json;
use testkit::{Actor, Lattice, NatsServer, ProviderOptions, DEFAULT_LINK_NAME};
use wasmbus_rpc::wascap::prelude::KeyPair;

use crate::caller::Caller;
use crate::report::{Line, Target};
use crate::Arguments;

const SECTION: u8 = 10;
const LIMIT: Duration = Duration::from_secs(10);
/// Between two requests: the first answer is seen at most this much late, and the process keeps the processor to
/// itself.
const PAUSE: Duration = Duration::from_millis(1);

/// Measures starts and looks at the size.
pub async fn lines(arguments: &Arguments) -> Result<Vec<Line>> {
    let server = NatsServer::start().await?;
    let connection = async_nats::connect(server.url()).await?;
    let mut milliseconds = Vec::new();
    for _ in 0..if arguments.quick { 5 } else { 15 } {
        milliseconds.push(first_answer(arguments, &server, &connection).await?.as_secs_f64() * 1e3);
    }
    let what = "process start to first answered RPC get, standalone, link in the host data";
    Ok(vec![
        Line::alone(SECTION, what, "ms", milliseconds, Target::AtMost(50.0)),
        Line::alone(
            SECTION,
            "size of the release binary",
            "MB",
            vec![megabytes(&arguments.bin).context("--bin")?],
            Target::AtMost(15.0),
        ),
        Line::alone(
            SECTION,
            "size of the provider archive",
            "MB",
            vec![megabytes(&arguments.par).context("--par; `make par` makes it")?],
            Target::None,
        ),
    ])
}

fn megabytes(file: &Path) -> Result<f64> {
    Ok(std::fs::metadata(file)?.len() as f64 / 1e6)
}

/// Asks from before the process is there; until it has subscribed the server says at once that nobody listens.
async fn first_answer(arguments: &Arguments, server: &NatsServer, connection: &async_nats::Client) -> Result<Duration> {
    let (lattice, actor) = (Lattice::new(server.url()), Actor::new());
    let provider_key = KeyPair::new_service().public_key();
    let signer = lattice.client_of(&actor, &provider_key, DEFAULT_LINK_NAME).await?;
    let caller = Caller::new(connection.clone(), signer);
    let options = ProviderOptions::new(&arguments.bin)
        .provider_key(&provider_key)
        .link(&actor)
        .config(json!({ "REPLICATION": "off" }));
    let started = Instant::now();
    let process = lattice.start(options).await?;
    while let Err(error) = caller.get("key").await {
        let log = || process.log().text();
        ensure!(
            started.elapsed() < LIMIT,
            "no answer: {error:#}; the provider's log:\n{}",
            log()
        );
        tokio::time::sleep(PAUSE).await;
    }
    Ok(started.elapsed())
}
