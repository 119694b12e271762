//! Opens stores in Consul.

use std::path::Path;
use std::sync::Arc;

use kvcache_node::store::{Asked, CacheName, Opener, Store, StoreError, StoreUrl, UrlError};

use crate::client::Consul;
use crate::errors::Place;
use crate::layout::{all_caches, Keys};
use crate::options::{Options, Token};
use crate::store::ConsulStore;

/// Opening takes so many times as long as one question at most.
const OPENING: u32 = 3;

/// Opens `consul://host:8500/prefix`.
#[derive(Clone, Copy, Default, Debug)]
pub struct ConsulOpener;

impl ConsulOpener {
    /// The opener. It holds nothing.
    pub fn new() -> Self {
        ConsulOpener
    }
}

impl Opener for ConsulOpener {
    fn schemes(&self) -> &'static [&'static str] {
        &["consul"]
    }

    fn check(&self, url: &StoreUrl) -> Result<(), UrlError> {
        Options::read(url).map(drop)
    }

    fn open<'a>(&'a self, url: &'a StoreUrl, cache: &'a CacheName) -> Asked<'a, Arc<dyn Store>> {
        Box::pin(async move {
            let options =
                Options::read(url).map_err(|error| StoreError::Unusable(format!("the URL of the store: {error}")))?;
            let place = Place {
                server: format!("Consul at {}", options.hosts.join(",")),
                prefix: all_caches(&options.prefix),
            };
            let name = format!("{}, keys {}", place.server, place.prefix);
            let token = match &options.token {
                None => None,
                Some(Token::Given(token)) => Some(token.0.clone()),
                Some(Token::InFile(path)) => Some(token_in(path).map_err(|why| place.unusable("opening", &why))?),
            };
            let consul = Consul::new(&options, token.as_deref(), place.clone())?;
            let store = ConsulStore::new(consul, Keys::of(&options.prefix, cache), name);
            let limit = options.timeout * OPENING;
            match tokio::time::timeout(limit, store.prepare()).await {
                Ok(prepared) => prepared?,
                Err(_) => return Err(place.away("opening", &format!("no answer within {limit:?}"))),
            }
            Ok(Arc::new(store) as Arc<dyn Store>)
        })
    }
}

fn token_in(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| format!("token_file={}: it cannot be read: {error}", path.display()))?;
    match text.trim() {
        "" => Err(format!("token_file={}: there is no token in it", path.display())),
        token => Ok(token.to_owned()),
    }
}
