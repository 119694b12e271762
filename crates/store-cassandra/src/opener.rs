//! Opens stores in Cassandra.

use std::sync::Arc;

use kvcache_node::store::{Asked, CacheName, Opener, Store, StoreUrl, UrlError};

use crate::connection;
use crate::errors::Place;
use crate::layout;
use crate::options::Options;
use crate::schema;
use crate::statements::Statements;
use crate::store::CassandraStore;

/// Opening takes so many times as long as one question at most.
const OPENING: u32 = 3;

/// Opens `cassandra://user:password@host,host:9042/keyspace`.
#[derive(Clone, Copy, Default, Debug)]
pub struct CassandraOpener;

impl CassandraOpener {
    /// The opener. It holds nothing.
    pub fn new() -> Self {
        CassandraOpener
    }
}

impl Opener for CassandraOpener {
    fn schemes(&self) -> &'static [&'static str] {
        &["cassandra"]
    }

    fn check(&self, url: &StoreUrl) -> Result<(), UrlError> {
        Options::read(url).map(drop)
    }

    fn open<'a>(&'a self, url: &'a StoreUrl, cache: &'a CacheName) -> Asked<'a, Arc<dyn Store>> {
        Box::pin(async move {
            let options = Options::read(url)
                .map_err(|error| kvcache_node::store::StoreError::Unusable(format!("the URL of the store: {error}")))?;
            let place = Place {
                server: format!("Cassandra at {}", options.hosts.join(",")),
                user: options.login.as_ref().map(|(user, _)| user.clone()),
                keyspace: options.keyspace.clone(),
                datacenter: options.datacenter.clone(),
            };
            let opening = async {
                let session = connection::connect(&options, &place).await?;
                schema::prepare(&session, &options, &place).await?;
                let statements = Statements::prepare(session, &options.keyspace, place.clone()).await?;
                let store = CassandraStore::new(statements, layout::cache(cache), &options.keyspace);
                store.try_rights().await?;
                Ok(Arc::new(store) as Arc<dyn Store>)
            };
            let limit = options.timeout * OPENING;
            match tokio::time::timeout(limit, opening).await {
                Ok(opened) => opened,
                Err(_) => Err(place.too_slow("opening", limit)),
            }
        })
    }
}
