//! Hosts of a lattice, each with a provider that has a store.

use std::time::Duration;

use anyhow::{ensure, Result};
use serde_json::{json, Value};
use tempfile::TempDir;
use testkit::{
    eventually, Actor, KeyValue, KeyValueClient, Lattice, NatsServer, ProviderOptions, ProviderProcess, Status,
};

pub const BINARY: &str = env!("CARGO_BIN_EXE_nats-kvcache");
pub const LIMIT: Duration = Duration::from_secs(30);

/// A lattice of hosts whose providers keep what they hold.
pub struct Hosts {
    _server: NatsServer,
    pub actor: Actor,
    /// A folder for each host.
    folders: Vec<TempDir>,
    settings: Value,
    /// A store for all of them instead of a file for each.
    shared: Option<String>,
    /// They do not hear each other.
    pub apart: bool,
    pub providers: Vec<ProviderProcess>,
    lattice: Lattice,
}

impl Hosts {
    /// So many hosts, none of which has a provider yet, with settings beside that of the store. `None` where the tests
    /// are to be skipped.
    pub async fn new(hosts: usize, settings: Value) -> Result<Option<Self>> {
        let Some(server) = NatsServer::builder().jetstream().start_or_skip().await else {
            return Ok(None);
        };
        let folders = (0..hosts).map(|_| TempDir::new()).collect::<Result<_, _>>()?;
        Ok(Some(Hosts {
            lattice: Lattice::new(server.url()),
            _server: server,
            actor: Actor::new(),
            folders,
            settings,
            shared: None,
            apart: false,
            providers: Vec::new(),
        }))
    }

    /// Name of the lattice.
    pub fn lattice(&self) -> &str {
        self.lattice.prefix()
    }

    /// All hosts use this store.
    pub fn share(&mut self, url: &str) {
        self.shared = Some(url.into());
    }

    /// The URL of the store of a host.
    pub fn store(&self, host: usize) -> String {
        if let Some(shared) = &self.shared {
            return shared.clone();
        }
        format!("file:{}", self.folders[host].path().join("store").display())
    }

    pub fn folder(&self, host: usize) -> &std::path::Path {
        self.folders[host].path()
    }

    fn options(&self, host: usize, store: Option<String>) -> ProviderOptions {
        let mut settings = self.settings.clone();
        if let Some(store) = store {
            settings["STORE"] = json!(store);
        }
        let mut options = ProviderOptions::new(BINARY);
        if self.apart {
            // The link name stays, so it is the store of one cache. Calls go to one host only.
            settings["STATE_REPL_SUBJECT"] = json!(format!("apart.{host}"));
            options = options.provider_key(format!("{:V<56}", format!("VAPART{host}")));
        }
        options
            .host_id(format!("host-{host}"))
            .config(settings)
            .link(&self.actor)
    }

    /// Starts a provider. Does not wait for anything.
    pub async fn start(&self, host: usize) -> Result<ProviderProcess> {
        self.lattice.start(self.options(host, Some(self.store(host)))).await
    }

    /// The same, with another store or none.
    pub async fn start_with(&self, host: usize, store: Option<&str>) -> Result<ProviderProcess> {
        self.lattice.start(self.options(host, store.map(String::from))).await
    }

    /// Starts all providers and waits until they hold the same.
    pub async fn start_all(&mut self) -> Result<()> {
        for host in 0..self.folders.len() {
            self.providers.push(self.start(host).await?);
        }
        for provider in &mut self.providers {
            provider.wait_ready(LIMIT).await?;
        }
        self.wait_equal().await?;
        Ok(())
    }

    /// Kills all providers at once (SIGKILL).
    pub fn kill_all(&mut self) -> Result<()> {
        for provider in &mut self.providers {
            provider.kill()?;
        }
        self.providers.clear();
        Ok(())
    }

    /// Waits until all know each other and hold the same.
    pub async fn wait_equal(&self) -> Result<Status> {
        eventually(LIMIT, || async {
            let mut all = Vec::new();
            for provider in &self.providers {
                all.push(provider.status().await?);
            }
            ensure!(
                all.iter().all(|status| status.peers as usize == all.len() - 1),
                "not all know each other"
            );
            ensure!(
                all.iter().all(|status| status.digest == all[0].digest),
                "not equal: {all:?}"
            );
            Ok(all.swap_remove(0))
        })
        .await
    }

    /// Waits until the stores of all hosts hold what they hold.
    pub async fn wait_flushed(&self) -> Result<()> {
        for provider in &self.providers {
            eventually(LIMIT, || async {
                let dirty = pair(&provider.status().await?, "store_dirty");
                ensure!(dirty == "0", "store_dirty={dirty}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    pub async fn client(&self, host: usize) -> Result<KeyValue<KeyValueClient>> {
        self.providers[host].keyvalue(&self.actor).await
    }
}

/// What health says of something.
pub fn pair(status: &Status, name: &str) -> String {
    status.pairs.get(name).cloned().unwrap_or_default()
}

/// What calls answer is another error type.
pub fn said(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow::anyhow!("{error}")
}
