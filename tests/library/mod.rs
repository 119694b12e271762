//! A node in the process of the test: the service without a front end around it.

use std::sync::Arc;

use kvcache_core::cache::Cache;
use kvcache_core::replica::SyncState;
use kvcache_node::secret::Secret;
use kvcache_node::service::{self, Service};
use kvcache_node::settings::{self, Credentials, RawSettings, Subjects};
use testkit::{Lattice, DEFAULT_LINK_NAME};

/// Replicates a cache with the hosts of a lattice, over the server at `nats_url`. Returns after the first bootstrap.
pub async fn replicate(lattice: &Lattice, nats_url: &str, subjects: &Subjects, cache: Arc<Cache>) -> Service {
    let place = settings::Lattice {
        name: lattice.prefix().into(),
        link_name: DEFAULT_LINK_NAME.into(),
        host: "library".into(),
        url: nats_url.into(),
        credentials: Credentials::None,
        cluster_seed: Secret(lattice.cluster_seed().unwrap()),
        cluster_issuers: Vec::new(),
    };
    let raw = RawSettings::default();
    let config = settings::Config::new(&raw).unwrap();
    let mut replication = place.replication(cache.node(), &config, &raw).unwrap().unwrap();
    replication.subjects = subjects.clone();
    replication.sync_limit_ms = 30_000;
    let service = Service::start(cache, service::Config::with(Some(replication)))
        .await
        .unwrap();
    assert!(service.first_sync().await.is_some_and(SyncState::is_whole));
    service
}
