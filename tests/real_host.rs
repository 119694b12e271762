//! The archive on real hosts 0.8x, as an operator does it: `make archive`, `make push`, `make start`, `wash link put`,
//! `wash stop`. No registry has the program of such a host, so these tests run only where one is given:
//!
//! ```text
//! make test-real-host HOST_BIN=/path/to/wasmcloud
//! ```

// Tests wait and measure in real time; the clock rule of clippy.toml is for the provider's core.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use serde_json::{json, Value};
use testkit::{
    eventually, Actor, HostProgram, KeyValue, Lattice, NatsServer, OciRegistry, Status, SyncState, Wash, CONTRACT_ID,
    DEFAULT_LINK_NAME,
};

const PROVIDER: &str = env!("CARGO_BIN_EXE_nats-kvcache");
/// Generous: host and provider may be debug builds, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// A goodbye is heard at once; without one a peer counts as gone after some heartbeats.
const GOODBYE_LIMIT: Duration = Duration::from_secs(2);

/// The parent of the process is looked at once a second.
const ORPHAN_LIMIT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the program of a real host: make test-real-host HOST_BIN=/path/to/wasmcloud"]
async fn two_hosts_share_a_cache_and_one_provider_ends_orderly() -> Result<()> {
    let Some(stage) = Stage::set().await? else {
        return Ok(());
    };
    let hosts = [stage.start_host(&[]).await?, stage.start_host(&[]).await?];
    stage.expect_hosts(&hosts).await?;

    step("make start, twice: an auction each, so both hosts get a provider");
    let settings = stage.file("settings.json", &json!({ "SYNC_TIMEOUT_SECS": 20 }).to_string())?;
    stage.make_start(&[("CONFIG_JSON", &settings)])?;
    let provider = stage.provider_of_one_in(&hosts).await?;
    stage.make_start(&[("CONFIG_JSON", &settings)])?;
    for host in &hosts {
        eventually(LIMIT, || async { host.only_provider() }).await?;
    }

    step("wash link put: an actor that is played, and one that runs on the first host");
    let played = Actor::new();
    stage.link(played.id(), &provider)?;
    let relay = stage.start_relay(&hosts[0]).await?;
    stage.link(relay.id(), &provider)?;
    let direct = KeyValue::via(stage.lattice.client_of(&played, &provider, DEFAULT_LINK_NAME).await?);
    eventually(LIMIT, || async { Ok(direct.contains("").await.map(drop)?) }).await?;
    let relayed = KeyValue::via(stage.lattice.client_of_actor(&relay).await?);
    eventually(LIMIT, || async { Ok(relayed.contains("").await.map(drop)?) }).await?;

    step("calls of both, then equal digests on both hosts");
    relayed.set("by the real actor", "value").await?;
    for _ in 0..100 {
        direct.increment("count", 1).await?;
    }
    let both = stage.expect_equal(&provider, 2).await?;
    println!("both hosts: {}", both.values().next().context("a status")?);
    assert_eq!(direct.get("by the real actor").await?.as_deref(), Some("value"));
    assert_eq!(relayed.get("count").await?.as_deref(), Some("100"));

    step("wash stop provider on the first host");
    let stopped = hosts[0].only_provider()?;
    stage.wash(&[
        "stop",
        "provider",
        hosts[0].id(),
        &provider,
        DEFAULT_LINK_NAME,
        CONTRACT_ID,
    ])?;
    eventually(LIMIT, || async {
        ensure!(
            !Path::new(&format!("/proc/{stopped}")).exists(),
            "the provider still runs"
        );
        Ok(())
    })
    .await?;
    hosts[0].log().wait_for("the host says shutdown", LIMIT).await?;
    eventually(GOODBYE_LIMIT, || async {
        let left = stage.lattice.status_of(&provider, DEFAULT_LINK_NAME).await?;
        ensure!(left.peers == 0, "the other host still counts a peer: {left}");
        Ok(())
    })
    .await?;

    step("the other host has all of it, also for the actor on the first");
    assert_eq!(direct.get("count").await?.as_deref(), Some("100"));
    assert_eq!(relayed.get("count").await?.as_deref(), Some("100"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the program of a real host: make test-real-host HOST_BIN=/path/to/wasmcloud"]
async fn unusable_settings_are_named_in_the_log_of_the_host() -> Result<()> {
    let Some(stage) = Stage::set().await? else {
        return Ok(());
    };
    let host = stage.start_host(&[]).await?;
    let settings = json!({ "SYNC_TIMEOUT_SECS": "soon", "REPLICATION": "maybe" });
    let settings = stage.file("bad.json", &settings.to_string())?;

    step("make start with settings that cannot be used: the host accepts them, the provider does not");
    stage.make_start(&[("CONFIG_JSON", &settings)])?;
    for (setting, found) in [("SYNC_TIMEOUT_SECS", "'soon'"), ("REPLICATION", "'maybe'")] {
        let line = host.log().wait_for(setting, LIMIT).await?;
        println!("{line}");
        assert!(line.contains("expected") && line.contains(found), "{setting}: {line}");
    }
    eventually(LIMIT, || async {
        ensure!(host.providers()?.is_empty(), "the provider still runs");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the program of a real host: make test-real-host HOST_BIN=/path/to/wasmcloud"]
async fn a_provider_ends_with_its_killed_host() -> Result<()> {
    let Some(stage) = Stage::set().await? else {
        return Ok(());
    };
    let mut host = stage.start_host(&[]).await?;
    stage.make_start(&[])?;
    eventually(LIMIT, || async { host.only_provider() }).await?;
    let provider = host.only_provider()?;
    stage.provider_of_one_in(std::slice::from_ref(&host)).await?;

    step("SIGKILL of the host: it ends none of its providers");
    host.kill()?;
    eventually(ORPHAN_LIMIT, || async {
        ensure!(
            !Path::new(&format!("/proc/{provider}")).exists(),
            "the provider goes on without its host"
        );
        Ok(())
    })
    .await?;
    let line = host.log().wait_for("EXIT_WITH_HOST", LIMIT).await?;
    println!("{line}");
    Ok(())
}

// ------------------------------------------------------------------ helpers

/// What an operator has around the hosts: a server, a registry with the archive, and `wash`.
struct Stage {
    server: NatsServer,
    registry: OciRegistry,
    wash: Wash,
    lattice: Lattice,
    reference: String,
    folder: tempfile::TempDir,
    binary: std::path::PathBuf,
}

impl Stage {
    async fn set() -> Result<Option<Self>> {
        let binary = HostProgram::given()?;
        // Hosts keep links in JetStream.
        let Some(server) = NatsServer::builder().jetstream().start_or_skip().await else {
            return Ok(None);
        };
        let (Some(registry), Some(wash)) = (OciRegistry::start_or_skip("").await?, Wash::find_or_skip()?) else {
            return Ok(None);
        };
        let stage = Self {
            lattice: Lattice::new(server.url()),
            reference: registry.reference("nats-kvcache:1.2.3"),
            folder: tempfile::tempdir()?,
            server,
            registry,
            wash,
            binary,
        };
        step("make archive, make push");
        let archive = stage.path("provider.par.gz");
        let variables = [("BINARY", PROVIDER), ("PAR", &archive), ("OCI_REF", &stage.reference)];
        run(&mut stage.wash.make("archive", &variables))?;
        run(&mut stage.wash.make("push", &variables))?;
        Ok(Some(stage))
    }

    async fn start_host(&self, options: &[&str]) -> Result<HostProgram> {
        HostProgram::start(&self.binary, &self.lattice, &self.registry, options).await
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    fn file(&self, name: &str, content: &str) -> Result<String> {
        let path = self.path(name);
        std::fs::write(&path, content)?;
        Ok(path)
    }

    /// `wash` on the lattice of this stage.
    fn wash(&self, arguments: &[&str]) -> Result<String> {
        let port = self.server.port().to_string();
        let mut command = self.wash.command();
        command.args(arguments);
        command.args(["--ctl-port", &port, "--lattice-prefix", self.lattice.prefix()]);
        run(&mut command)
    }

    fn wash_json(&self, arguments: &[&str]) -> Result<Value> {
        let said = self.wash(&[arguments, &["--output", "json"]].concat())?;
        serde_json::from_str(&said).with_context(|| said.clone())
    }

    fn make_start(&self, more: &[(&str, &str)]) -> Result<()> {
        let port = self.server.port().to_string();
        let mut variables = vec![
            ("OCI_REF", self.reference.as_str()),
            ("LATTICE_PREFIX", self.lattice.prefix()),
            ("CTL_PORT", &port),
        ];
        variables.extend(more);
        run(&mut self.wash.make("start", &variables)).map(drop)
    }

    async fn expect_hosts(&self, hosts: &[HostProgram]) -> Result<()> {
        eventually(LIMIT, || async {
            let seen = self.wash_json(&["get", "hosts"])?.to_string();
            for host in hosts {
                ensure!(seen.contains(host.id()), "wash does not see host {}: {seen}", host.id());
            }
            Ok(())
        })
        .await
    }

    /// The public key of the provider, from the inventory of the host that has it.
    async fn provider_of_one_in(&self, hosts: &[HostProgram]) -> Result<String> {
        eventually(LIMIT, || async {
            for host in hosts {
                let inventory = self.wash_json(&["get", "inventory", host.id()])?;
                if let Some(id) = provider_in(&inventory) {
                    return Ok(id);
                }
            }
            bail!("no host has a provider")
        })
        .await
    }

    fn link(&self, actor: &str, provider: &str) -> Result<()> {
        self.wash(&["link", "put", actor, provider, CONTRACT_ID]).map(drop)
    }

    /// Signs, pushes and starts the actor of `relay.wat`.
    async fn start_relay(&self, host: &HostProgram) -> Result<Actor> {
        let (unsigned, signed) = (self.path("relay.wasm"), self.path("relay_s.wasm"));
        std::fs::write(&unsigned, wat::parse_str(include_str!("relay.wat"))?)?;
        let reference = self.registry.reference("relay:1.2.3");
        let sign = [
            "claims",
            "sign",
            &unsigned,
            "--name",
            "relay",
            "--keyvalue",
            "--ver",
            "1.2.3",
            "--rev",
            "1",
        ];
        run(self.wash.command().args(sign).args(["--destination", &signed]))?;
        run(self.wash.command().args(["push", &reference, &signed, "--insecure"]))?;
        self.wash(&["start", "actor", &reference, "--host-id", host.id()])?;
        let inspected = run(self.wash.command().args(["inspect", &signed, "--output", "json"]))?;
        let claims: Value = serde_json::from_str(&inspected)?;
        Ok(Actor::with_id(
            claims["module"].as_str().context("the key of the actor")?,
        ))
    }

    /// Asks until `count` nodes have answered, which know each other and hold the same.
    async fn expect_equal(&self, provider: &str, count: usize) -> Result<BTreeMap<String, Status>> {
        let seen = tokio::sync::Mutex::new(BTreeMap::new());
        eventually(LIMIT, || async {
            // Whichever node is first answers.
            let status = self.lattice.status_of(provider, DEFAULT_LINK_NAME).await?;
            let mut seen = seen.lock().await;
            seen.insert(status.node.clone(), status);
            ensure!(seen.len() == count, "heard of {} nodes", seen.len());
            for status in seen.values() {
                let digests_agree = seen.values().all(|other| other.digest == status.digest);
                let synced = matches!(status.sync, SyncState::Synced | SyncState::Alone);
                ensure!(digests_agree && synced && status.peers + 1 == count as u64, "{seen:?}");
            }
            Ok(seen.clone())
        })
        .await
    }
}

/// Tells where a run of minutes is.
fn step(what: &str) {
    println!("--- {what}");
}

fn provider_in(inventory: &Value) -> Option<String> {
    let providers = inventory.pointer("/inventories/0/providers")?;
    Some(providers.get(0)?["id"].as_str()?.to_owned())
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let (said, complained) = (
        String::from_utf8(output.stdout)?,
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{said}{complained}",
        output.status
    );
    print!("{complained}");
    Ok(said)
}
