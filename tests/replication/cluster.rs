//! A few nodes of one lattice.

use std::future::Future;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use futures::future::try_join_all;
use serde_json::Value;
use testkit::{
    eventually, Actor, KeyValue, KeyValueClient, Lattice, NatsServer, ProviderOptions, ProviderProcess, Status,
    SyncState, Workload,
};

pub const BINARY: &str = env!("CARGO_BIN_EXE_nats-kvcache");
/// For everything that is waited for; a debug build shares two cores with other tests.
pub const LIMIT: Duration = Duration::from_secs(60);

pub type Kv = KeyValue<KeyValueClient>;

/// A provider process and a client of the actor that is linked to it.
pub struct Node {
    pub provider: ProviderProcess,
    pub kv: Kv,
}

/// Nodes that replicate with each other. All of them have one linked actor.
pub struct Cluster {
    pub lattice: Lattice,
    pub actor: Actor,
    pub settings: Option<Value>,
    pub nodes: Vec<Node>,
}

impl Cluster {
    /// No node yet.
    pub fn new(server: &NatsServer) -> Self {
        Self {
            lattice: Lattice::new(server.url()),
            actor: Actor::new(),
            settings: None,
            nodes: Vec::new(),
        }
    }

    /// `count` nodes that have seen each other.
    pub async fn start(server: &NatsServer, count: usize) -> Self {
        let mut cluster = Self::new(server);
        cluster.join(count).await;
        cluster
    }

    /// Settings for the nodes that are started from now on.
    pub fn with_settings(mut self, settings: Value) -> Self {
        self.settings = Some(settings);
        self
    }

    /// Starts `count` more nodes at the same moment and waits until all nodes are synced and see each other.
    pub async fn join(&mut self, count: usize) {
        let starting = (0..count).map(|_| self.start_node(self.options().link(&self.actor)));
        let started = try_join_all(starting).await.expect("the nodes start");
        self.nodes.extend(started);
        self.wait_peers().await;
    }

    pub fn options(&self) -> ProviderOptions {
        let options = ProviderOptions::new(BINARY);
        match &self.settings {
            Some(settings) => options.config(settings.clone()),
            None => options,
        }
    }

    /// One node that is ready, not yet counted among the nodes.
    pub async fn start_node(&self, options: ProviderOptions) -> Result<Node> {
        let provider = self.lattice.start_ready(options, LIMIT).await?;
        let kv = provider.keyvalue(&self.actor).await?;
        Ok(Node { provider, kv })
    }

    /// Waits until every node is synced and sees all others.
    pub async fn wait_peers(&mut self) {
        let others = self.nodes.len() as u64 - 1;
        for node in &mut self.nodes {
            let whole =
                |status: &Status| status.sync == SyncState::Synced || (others, status.sync) == (0, SyncState::Alone);
            let seen = |status: &Status| status.peers == others && whole(status);
            node.provider
                .wait_status(LIMIT, seen)
                .await
                .expect("every node sees all others");
        }
    }

    pub fn kv(&self, node: usize) -> &Kv {
        &self.nodes[node].kv
    }

    pub fn kvs(&self) -> Vec<Kv> {
        self.nodes.iter().map(|node| node.kv.clone()).collect()
    }

    /// Waits until all nodes are synced with equal digests and key counts, and returns the status they share.
    ///
    /// Every acknowledged write is in the digest of the node that took it, so equal digests mean that it is everywhere.
    pub async fn converge(&self) -> Status {
        let converged = eventually(LIMIT, || async {
            let statuses = try_join_all(self.nodes.iter().map(|node| node.provider.status())).await?;
            let first = &statuses[0];
            let told = || statuses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
            let equal = statuses.iter().all(|status| {
                let whole = matches!(status.sync, SyncState::Synced | SyncState::Alone);
                whole && (&status.digest, status.keys, status.sync) == (&first.digest, first.keys, first.sync)
            });
            ensure!(equal, "{}", told());
            Ok(first.clone())
        });
        converged.await.expect("all nodes become equal")
    }

    /// Reads with `read` on every node and expects the same.
    pub async fn expect_everywhere<T, F>(&self, what: &str, expected: &T, read: impl Fn(Kv) -> F)
    where
        T: PartialEq + std::fmt::Debug,
        F: Future<Output = testkit::RpcResult<T>>,
    {
        for (number, node) in self.nodes.iter().enumerate() {
            let found = read(node.kv.clone())
                .await
                .unwrap_or_else(|error| panic!("{what} on node {number}: {error}"));
            assert_eq!(&found, expected, "{what} on node {number}");
        }
    }

    pub async fn expect_text(&self, key: &str, expected: Option<&str>) {
        let expected = expected.map(str::to_owned);
        self.expect_everywhere(key, &expected, |kv| async move { kv.get(key).await })
            .await;
    }

    pub async fn expect_list(&self, key: &str, expected: &[&str]) {
        let expected: Vec<_> = expected.iter().map(|item| (*item).to_owned()).collect();
        self.expect_everywhere(key, &expected, |kv| async move { kv.list(key).await })
            .await;
    }

    pub async fn expect_set(&self, key: &str, expected: &[&str]) {
        let expected: Vec<_> = expected.iter().map(|item| (*item).to_owned()).collect();
        self.expect_everywhere(key, &expected, |kv| async move { kv.set_query(key).await })
            .await;
    }

    /// Fills the cluster with `keys` keys of all types.
    ///
    /// FILL: every key is a signed call or two, which is what takes the time of the tests with many keys. If the
    /// library offers a node in the test's own process, put it to use here: same keys, same contents.
    pub async fn fill(&self, keys: usize) -> Workload {
        let workload = Workload::new(keys);
        workload.write(&self.kvs()).await.expect("the keys are written");
        workload
    }

    /// Reads every `step`-th key of `workload` on every node.
    pub async fn verify(&self, workload: &Workload, step: usize) {
        for (number, node) in self.nodes.iter().enumerate() {
            let read = workload
                .verify(&node.kv, step)
                .await
                .with_context(|| format!("on node {number}"));
            read.unwrap_or_else(|error| panic!("{error:#}"));
        }
    }
}
