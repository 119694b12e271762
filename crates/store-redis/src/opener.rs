//! Opens the store of a cache by its URL.

use std::sync::Arc;

use kvcache_node::store::{Asked, CacheName, Opener, Store, StoreError, StoreUrl, UrlError};

use crate::connection::Connection;
use crate::server::{Server, SCHEMES};
use crate::store::RedisStore;

/// Opens stores in Redis and Valkey: URLs of `redis` and `rediss`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RedisOpener;

impl Opener for RedisOpener {
    fn schemes(&self) -> &'static [&'static str] {
        &SCHEMES
    }

    fn check(&self, url: &StoreUrl) -> Result<(), UrlError> {
        Server::of(url).map(drop)
    }

    fn open<'a>(&'a self, url: &'a StoreUrl, cache: &'a CacheName) -> Asked<'a, Arc<dyn Store>> {
        Box::pin(async move {
            let server = Server::of(url).map_err(|error| StoreError::Unusable(format!("{url}: {error}")))?;
            let store = RedisStore::open(Connection::to(server)?, cache).await?;
            Ok(Arc::new(store) as Arc<dyn Store>)
        })
    }
}
