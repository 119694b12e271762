//! Nodes of this cache inside the process of the benchmark.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use kvcache_core::cache::{Cache, Delta, Key, Limits, NodeId};
use kvcache_core::replica::Status;
use kvcache_node::service::{self, ReplicatorConfig, Scope, Service, SyncState};
use kvcache_node::time;
use testkit::{eventually, Lattice};

/// How long anything may take.
pub const LIMIT: Duration = Duration::from_secs(180);

/// Bytes of a key as its user names it.
pub const KEY_BYTES: usize = 16;

/// Key number `number`, of 16 bytes.
pub fn key(number: usize) -> Key {
    Key::shared(key_text(number).as_bytes())
}

/// The text of that key.
pub fn key_text(number: usize) -> String {
    format!("{number:0KEY_BYTES$}")
}

/// The numbers 0..count in an order that looks random and is always the same (a full-period linear congruence).
pub fn shuffled(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for place in (1..count).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        order.swap(place, ((state >> 33) as usize) % (place + 1));
    }
    order
}

/// An empty cache of a process of its own.
pub fn empty_cache() -> Arc<Cache> {
    Arc::new(Cache::new(time::fresh_node_id(), Limits::default()))
}

/// A cache of `keys` keys with values of `value_bytes`; they expire after so many seconds, 0 for never.
pub fn filled(keys: usize, value_bytes: usize, expires: u32) -> Arc<Cache> {
    let cache = empty_cache();
    let value = vec![b'v'; value_bytes];
    for number in 0..keys {
        cache
            .set(&key(number), &value[..], expires, time::wall())
            .expect("within all limits");
    }
    cache
}

/// The deltas of another process that writes `keys` keys, in an order that looks random.
pub fn deltas(keys: usize, value_bytes: usize) -> Vec<Delta> {
    let author = Cache::new(NodeId(77), Limits::default());
    let value = vec![b'v'; value_bytes];
    let now = time::wall();
    shuffled(keys)
        .into_iter()
        .map(|number| author.set(&key(number), &value[..], 0, now).expect("within all limits"))
        .collect()
}

/// A node inside this process.
pub struct LibraryNode {
    pub cache: Arc<Cache>,
    pub service: Service,
}

impl LibraryNode {
    /// Starts a node that holds the seed of the lattice, with the defaults of the provider.
    pub async fn start(cache: Arc<Cache>, lattice: &Lattice) -> Result<Self> {
        let service = lattice.node(cache.clone(), lattice.nats_url()).await?;
        Ok(LibraryNode { cache, service })
    }

    /// Starts a node that replicates in this way.
    pub async fn start_with(cache: Arc<Cache>, replication: ReplicatorConfig) -> Result<Self> {
        let service = Service::start(cache.clone(), service::ServiceConfig::with(Some(replication))).await?;
        let synced = service.first_sync().await.is_some_and(SyncState::is_whole);
        ensure!(synced, "a node does not get in sync");
        Ok(LibraryNode { cache, service })
    }

    /// A write as a caller of the provider makes it: applied here and queued for the peers.
    pub async fn set(&self, key: &Key, value: &[u8]) -> Result<()> {
        self.set_in(&Scope::shared("bench"), key, value).await
    }

    /// A write that waits for what its scope asks for.
    pub async fn set_in(&self, scope: &Scope<'_>, key: &Key, value: &[u8]) -> Result<()> {
        // Behind the length of the namespace.
        let name = &key.as_bytes()[1..];
        Ok(self.service.set(scope, name, value, 0).await?)
    }

    /// Whether a read finds this value.
    pub fn holds(&self, key: &Key, value: &[u8]) -> bool {
        matches!(self.cache.get(key, time::wall()), Ok(Some(found)) if found == value)
    }

    /// What replication says.
    pub fn status(&self) -> Status {
        self.service.status().replication.expect("a node that replicates")
    }
}

/// So many empty nodes that count each other as synced peers.
pub async fn that_meet(count: usize, lattice: &Lattice) -> Result<Vec<LibraryNode>> {
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(LibraryNode::start(empty_cache(), lattice).await?);
    }
    meet(&nodes).await?;
    Ok(nodes)
}

/// Waits until each of the nodes counts all others as synced peers.
pub async fn meet(nodes: &[LibraryNode]) -> Result<()> {
    eventually(LIMIT, || async {
        for node in nodes {
            let peers = node.status().peers;
            let synced = peers.iter().filter(|peer| peer.synced).count();
            ensure!(synced == nodes.len() - 1, "a node has {synced} synced peers");
        }
        Ok(())
    })
    .await
}

/// Waits until all nodes hold the same. Looks every millisecond.
pub async fn equal(nodes: &[LibraryNode]) -> Result<()> {
    let started = Instant::now();
    while !nodes
        .iter()
        .all(|node| node.cache.root_digest() == nodes[0].cache.root_digest())
    {
        ensure!(started.elapsed() < LIMIT, "the nodes do not get equal");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// A number out of a line or message of `name=value` pairs.
pub fn field(text: &str, name: &str) -> Result<f64> {
    let value = text.split_whitespace().find_map(|word| word.strip_prefix(name));
    let value = value.with_context(|| format!("no '{name}' in '{text}'"))?;
    value.parse().with_context(|| format!("'{name}{value}' is no number"))
}
