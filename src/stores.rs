//! The engines that a cache can be written behind to.

use std::sync::Arc;

use kvcache_node::store::file::FileOpener;
use kvcache_node::store::Opener;
use kvcache_store_cassandra::CassandraOpener;
use kvcache_store_consul::ConsulOpener;

/// What opens the stores that `STORE` can name.
pub fn openers() -> Vec<Arc<dyn Opener>> {
    vec![
        Arc::new(FileOpener),
        Arc::new(CassandraOpener::new()),
        Arc::new(ConsulOpener::new()),
    ]
}
