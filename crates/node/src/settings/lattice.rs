//! Where a host belongs, and how it replicates there.

use std::sync::Arc;

use kvcache_core::cache::NodeId;
use kvcache_core::replica::{ClusterKeys, Keyring, KeyringError};

use super::table::STORE;
use super::{millis, RawSettings, SettingError, Settings};
use crate::nats::{Credentials, ReplicatorConfig, ServerAddress};
use crate::store::{CacheName, Opener, StoreConfig};

/// What a host says of its lattice.
pub struct Lattice {
    /// Name of the lattice; empty where there is none.
    pub name: String,
    /// Hosts of a lattice that use one link name share one cache.
    pub link_name: String,
    /// Name of the host, for peers to show.
    pub host: String,
    /// The server of the lattice, where the host says it.
    pub server: Option<LatticeServer>,
    /// What messages are authenticated with; `None` on a host for tests. That it cannot be read counts only where it is
    /// needed.
    pub cluster: Result<Option<ClusterKeys>, KeyringError>,
}

/// The NATS server of a lattice.
pub struct LatticeServer {
    /// Its address.
    pub address: ServerAddress,
    /// Credentials for that server, and for no other.
    pub credentials: Credentials,
}

/// Why a host cannot replicate as it is told to.
#[derive(Debug, thiserror::Error)]
pub enum LatticeError {
    /// A setting, given the names of lattice and link.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The seed or an issuer.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
}

impl Lattice {
    /// Where and how `node` replicates; `None` for a plain map. `raw` is what `config` was made of.
    pub fn replication(
        &self,
        node: NodeId,
        config: &Settings,
        raw: &RawSettings,
    ) -> Result<Option<ReplicatorConfig>, LatticeError> {
        if !config.replication {
            tracing::info!("replication is switched off: a plain map on this host");
            return Ok(None);
        }
        if self.name.is_empty() && config.commands_subject.is_none() {
            tracing::info!("the host names no lattice: a plain map on this host");
            return Ok(None);
        }
        let subjects = config.subjects(raw, &self.name, &self.link_name)?;
        let Some((servers, credentials)) = self.servers(config) else {
            tracing::info!("no server is set (NATS_URL): a plain map on this host");
            return Ok(None);
        };
        let keyring = self.keyring(config, subjects.commands())?;
        tracing::info!(%node, subject = subjects.commands(), "replicating");
        Ok(Some(ReplicatorConfig {
            servers,
            credentials,
            tls: config.tls.clone(),
            subjects,
            host: self.host.clone(),
            heartbeat_interval_ms: millis(config.heartbeat_interval),
            sync_limit_ms: millis(config.sync_timeout),
            min_peers: config.sync_min_peers,
            keyring: Arc::new(keyring),
            queue_bytes: config.queue_bytes,
            inbox_bytes: config.inbox_bytes,
            ring_bytes: config.ring_bytes,
        }))
    }

    /// The store of the cache, opened by one of `openers`. `raw` is what `config` was made of.
    pub fn store(
        &self,
        config: &Settings,
        raw: &RawSettings,
        openers: &[Arc<dyn Opener>],
    ) -> Result<Option<StoreConfig>, SettingError> {
        let Some(store) = &config.store else { return Ok(None) };
        let url = &store.url;
        let schemes = || openers.iter().flat_map(|opener| opener.schemes());
        let opens = |opener: &&Arc<dyn Opener>| opener.schemes().contains(&url.scheme.as_str());
        let Some(opener) = openers.iter().find(opens) else {
            let known: Vec<&str> = schemes().copied().collect();
            let expected = format!("the URL of a store, which begins with {}:", known.join(":, "));
            return Err(raw.error(&STORE, expected));
        };
        if let Err(error) = opener.check(url) {
            return Err(raw.error(&STORE, format!("the URL of a store ({error})")));
        }
        Ok(Some(StoreConfig {
            opener: opener.clone(),
            url: url.clone(),
            cache: CacheName {
                lattice: self.name.clone(),
                link: self.link_name.clone(),
            },
            flush_ms: millis(store.flush_interval),
            required: store.required,
        }))
    }

    /// The servers of replication, and who this host is there; `None` where none is set. The lattice's credentials go to
    /// no other server than the lattice's.
    pub fn servers(&self, config: &Settings) -> Option<(Vec<ServerAddress>, Credentials)> {
        let own = config.credentials.clone();
        match (&config.nats_url, &self.server) {
            (Some(servers), _) => Some((servers.clone(), own.unwrap_or(Credentials::None))),
            (None, Some(lattice)) => {
                let credentials = own.unwrap_or_else(|| lattice.credentials.clone());
                Some((vec![lattice.address.clone()], credentials))
            }
            (None, None) => None,
        }
    }

    fn keyring(&self, config: &Settings, root: &str) -> Result<Keyring, KeyringError> {
        if !config.frame_auth {
            tracing::warn!("FRAME_AUTH=off: whoever may publish on the subjects of this cache can change it");
            return Ok(Keyring::disabled());
        }
        let Some(keys) = self.cluster.as_ref().map_err(Clone::clone)? else {
            // Where a host has one, only a host for tests may do without; its front end refuses others.
            tracing::warn!(
                "no cluster seed is given: messages are not authenticated, and whoever may publish on the subjects of this \
                 cache can change it; a host of the 0.18 line is given one by KVCACHE_CLUSTER_SEED=SC..., alike on all hosts"
            );
            return Ok(Keyring::disabled());
        };
        Ok(Keyring::of(keys, root))
    }
}
