//! The engines that a cache can be written behind to.

use std::sync::Arc;

use kvcache_node::settings::{Credentials, ServerAddress, Tls};
use kvcache_node::store::file::FileOpener;
use kvcache_node::store::jetstream::JetStreamOpener;
use kvcache_node::store::Opener;
use kvcache_store_cassandra::CassandraOpener;
use kvcache_store_consul::ConsulOpener;
use kvcache_store_redis::RedisOpener;

/// The NATS system whose JetStream is meant.
pub struct Nats {
    /// Servers; any of them will do.
    pub servers: Vec<ServerAddress>,
    /// Who this is there.
    pub credentials: Credentials,
    /// Certificates.
    pub tls: Tls,
}

/// What opens the stores that `STORE` can name.
pub fn openers(nats: Nats) -> Vec<Arc<dyn Opener>> {
    let Nats {
        servers,
        credentials,
        tls,
    } = nats;
    vec![
        Arc::new(FileOpener),
        Arc::new(JetStreamOpener::new(servers, credentials, tls)),
        Arc::new(RedisOpener),
        Arc::new(CassandraOpener::new()),
        Arc::new(ConsulOpener::new()),
    ]
}
