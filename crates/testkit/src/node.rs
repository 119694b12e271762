//! A node in this process: the service without a front end around it.

use std::sync::Arc;

use anyhow::{ensure, Context, Result};
use kvcache_core::cache::{Cache, NodeId};
use kvcache_node::service::{self, ReplicatorConfig, Service, SyncState};
use kvcache_node::settings::{self, ClusterKeys, Credentials, LatticeServer, RawSettings};

use crate::host::DEFAULT_LINK_NAME;
use crate::lattice::Lattice;

/// How long a node may take for its bootstrap.
const SYNC_LIMIT_MS: u64 = 30_000;

impl Lattice {
    /// How `node` replicates with the hosts of the lattice over the server at `nats_url`, with the defaults of the
    /// provider.
    pub fn replication(&self, node: NodeId, nats_url: &str) -> Result<ReplicatorConfig> {
        let place = settings::Lattice {
            name: self.prefix().into(),
            link_name: DEFAULT_LINK_NAME.into(),
            host: "a test".into(),
            server: Some(LatticeServer {
                address: nats_url.parse()?,
                credentials: Credentials::None,
            }),
            cluster: Ok(Some(ClusterKeys::new(&self.cluster_seed()?, &[])?)),
        };
        let raw = RawSettings::default();
        let replication = place.replication(node, &settings::Settings::new(&raw)?, &raw)?;
        Ok(ReplicatorConfig {
            sync_limit_ms: SYNC_LIMIT_MS,
            ..replication.context("a lattice has a name")?
        })
    }

    /// Serves a cache as a node of the lattice. Returns after the bootstrap.
    pub async fn node(&self, cache: Arc<Cache>, nats_url: &str) -> Result<Service> {
        let replication = self.replication(cache.node(), nats_url)?;
        let service = Service::start(cache, service::ServiceConfig::with(Some(replication))).await?;
        let synced = service.first_sync().await.is_some_and(SyncState::is_whole);
        ensure!(synced, "a node in this process does not get in sync");
        Ok(service)
    }
}
