//! A node in the process of the test: the library without a provider around it.

use std::sync::Arc;

use kvcache_core::cache::Cache;
use kvcache_core::replica::{Keyring, Numbers};
use kvcache_node::nats::{Credentials, Replicator, Settings, Subjects, Tls};
use testkit::Lattice;

/// Replicates a cache with the hosts of a lattice, over the server at `nats_url`. Returns after the first replay.
pub async fn replicate(lattice: &Lattice, nats_url: &str, subjects: &Subjects, cache: Arc<Cache>) -> Replicator {
    let seed = lattice.cluster_seed().unwrap();
    let settings = Settings {
        servers: vec![nats_url.into()],
        credentials: Credentials::None,
        tls: Tls::default(),
        keyring: Arc::new(Keyring::new(&seed, &[], subjects.commands()).unwrap()),
        subjects: subjects.clone(),
        host: "library".into(),
        beat_interval_ms: 1_000,
        sync_limit_ms: 30_000,
        min_peers: 0,
        queue_bytes: 4 << 20,
        inbox_bytes: 4 << 20,
        ring_bytes: 4 << 20,
    };
    let replicator = Replicator::start(cache, settings, Numbers::default()).await.unwrap();
    assert!(replicator.first_sync().await.is_whole());
    replicator
}
