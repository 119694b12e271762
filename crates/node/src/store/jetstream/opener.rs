//! Opens the store of a cache by its URL.

use std::sync::Arc;

use super::link::Link;
use super::store::JetStreamStore;
use super::target::{Target, SCHEMES};
use crate::nats::{open_for_store, Credentials, ReplicatorConfig, ServerAddress, Tls};
use crate::store::{Asked, CacheName, Opener, Store, StoreError, StoreUrl, UrlError};

/// Opens stores in buckets of JetStream: URLs `jetstream:bucket`. Each has a connection of its own, as whom and to where
/// replication connects.
#[derive(Clone, Debug)]
pub struct JetStreamOpener {
    servers: Vec<ServerAddress>,
    credentials: Credentials,
    tls: Tls,
}

impl JetStreamOpener {
    /// For these servers; any of them will do.
    pub fn new(servers: Vec<ServerAddress>, credentials: Credentials, tls: Tls) -> Self {
        JetStreamOpener {
            servers,
            credentials,
            tls,
        }
    }

    /// For the servers of replication.
    pub fn beside(replication: &ReplicatorConfig) -> Self {
        let ReplicatorConfig {
            servers,
            credentials,
            tls,
            ..
        } = replication.clone();
        Self::new(servers, credentials, tls)
    }
}

impl Opener for JetStreamOpener {
    fn schemes(&self) -> &'static [&'static str] {
        &SCHEMES
    }

    fn check(&self, url: &StoreUrl) -> Result<(), UrlError> {
        Target::of(url).map(drop)
    }

    fn open<'a>(&'a self, url: &'a StoreUrl, cache: &'a CacheName) -> Asked<'a, Arc<dyn Store>> {
        Box::pin(async move {
            let target = Target::of(url).map_err(|error| StoreError::Unusable(format!("{url}: {error}")))?;
            let name = format!("JetStream bucket {}", target.bucket);
            let connection = open_for_store(&self.servers, &self.credentials, &self.tls).await;
            let connection = connection.map_err(|error| StoreError::Unusable(format!("{name}: {error}")))?;
            let link = Link::new(name, target.timeout, connection);
            let store = JetStreamStore::open(link, &target, cache).await?;
            Ok(Arc::new(store) as Arc<dyn Store>)
        })
    }
}
