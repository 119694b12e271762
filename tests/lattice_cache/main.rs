//! The lattice cache inside real hosts of the 0.18 line: `wasmcloud-host` 0.18.2 as processes, the plugin pulled from a
//! real registry, real actors, and a provider of a wasmbus host in the same cache.

#![allow(clippy::disallowed_methods)]

mod answers;
mod hosts;
mod life;
mod settings;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};
use testkit::{plugin_0_18, Commanded, HostOptions, OciRegistry};

/// For what takes rounds of the protocol, or a host that starts.
const LIMIT: Duration = Duration::from_secs(30);
const CONTRACT: &str = "wasmcloud:keyvalue";
const PROVIDER: &str = "VAHNM37G4ARHZ3CYHB3L34M6TYQWQR6IZ4QVYC4NYZWTJCJ2LWP7S6Z2";

/// A registry with the plugin in it, and the program that runs hosts.
struct Place {
    program: PathBuf,
    registry: OciRegistry,
    reference: String,
}

impl Place {
    /// Without registry or host the test is skipped.
    async fn or_skip() -> Result<Option<Self>> {
        let Some(program) = testkit::host_0_18() else {
            return Ok(None);
        };
        let Some(registry) = OciRegistry::start_or_skip("").await? else {
            return Ok(None);
        };
        let reference = registry.reference("nats-kvcache:0.1.0");
        push_plugin(&reference)?;
        Ok(Some(Place {
            program,
            registry,
            reference,
        }))
    }

    fn host(&self) -> HostOptions {
        HostOptions::new().cache(&self.reference)
    }

    async fn start(&self, options: &HostOptions) -> Result<Commanded> {
        options.start(&self.program).await
    }
}

/// By the tool that `make par HOST=0.18` and `make push HOST=0.18` use.
fn push_plugin(reference: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (keys, archive) = (folder.path().join("keys"), folder.path().join("plugin.par.gz"));
    let xtask = || {
        let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_nats-kvcache")).with_file_name("xtask"));
        command.env("WASH_KEYS", &keys).arg("par");
        command
    };
    run(xtask()
        .arg("create")
        .arg("--bin")
        .arg(plugin_0_18()?)
        .arg("--out")
        .arg(&archive))?;
    run(xtask()
        .arg("push")
        .arg("--file")
        .arg(&archive)
        .args(["--ref", reference]))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("{command:?}: is it built? cargo build --workspace"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(())
}

/// The plugin without a host, not bound yet. Without the program the test is skipped.
fn plugin_or_skip() -> Result<Option<Commanded>> {
    let Some(program) = testkit::host_0_18() else {
        return Ok(None);
    };
    let library = plugin_0_18()?.to_str().context("a folder with a plain name")?;
    Commanded::plugin(&program, library).map(Some)
}

/// A link of this actor.
fn link(actor: &str) -> Value {
    json!({ "do": "set_link", "actor": actor, "contract": CONTRACT, "provider": PROVIDER, "values": { "of": actor } })
}

/// Actors that have links, sorted.
async fn linked(host: &mut Commanded) -> Result<Vec<String>> {
    let links = host.ask(json!({ "do": "links" })).await?;
    let links = links.as_array().context("a list of links")?;
    let mut actors = Vec::new();
    for link in links {
        let actor = link["actor_id"].as_str().context("an actor")?;
        ensure!(link["values"]["of"] == actor, "values of another link: {link}");
        actors.push(actor.to_owned());
    }
    actors.sort();
    Ok(actors)
}

/// Waits until a host has links of just these actors.
async fn wait_linked(host: &mut Commanded, expected: &[&str]) -> Result<()> {
    let deadline = std::time::Instant::now() + LIMIT;
    loop {
        let found = linked(host).await?;
        if found == expected {
            return Ok(());
        }
        ensure!(
            std::time::Instant::now() < deadline,
            "links of {found:?} instead of {expected:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
