//! Where a host belongs, and how it replicates there.

use std::sync::Arc;

use kvcache_core::cache::NodeId;
use kvcache_core::replica::{ClusterKeys, Keyring, KeyringError};

use super::{millis, RawSettings, SettingError, Settings};
use crate::nats::{Credentials, ReplicatorConfig, ServerAddress};

/// What a host says of its lattice.
pub struct Lattice {
    /// Name of the lattice; empty where there is none.
    pub name: String,
    /// Hosts of a lattice that use one link name share one cache.
    pub link_name: String,
    /// Name of the host, for peers to show.
    pub host: String,
    /// The NATS server of the lattice.
    pub server: ServerAddress,
    /// Credentials for that server, and for no other.
    pub credentials: Credentials,
    /// What messages are authenticated with; `None` on a host for tests. That it cannot be read counts only where it is
    /// needed.
    pub cluster: Result<Option<ClusterKeys>, KeyringError>,
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
        let credentials = match &config.credentials {
            Some(own) => own.clone(),
            // The lattice's credentials go to no other server than the lattice's.
            None if config.nats_url.is_none() => self.credentials.clone(),
            None => Credentials::None,
        };
        let keyring = self.keyring(config, subjects.commands())?;
        tracing::info!(%node, subject = subjects.commands(), "replicating");
        Ok(Some(ReplicatorConfig {
            servers: config.nats_url.clone().unwrap_or_else(|| vec![self.server.clone()]),
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

    fn keyring(&self, config: &Settings, root: &str) -> Result<Keyring, KeyringError> {
        if !config.frame_auth {
            tracing::warn!("FRAME_AUTH=off: whoever may publish on the subjects of this cache can change it");
            return Ok(Keyring::disabled());
        }
        let Some(keys) = self.cluster.as_ref().map_err(Clone::clone)? else {
            // Only a host for tests may do without; its front end refuses others.
            tracing::warn!("the host has no cluster seed: messages are not authenticated, as with FRAME_AUTH=off");
            return Ok(Keyring::disabled());
        };
        Ok(Keyring::of(keys, root))
    }
}
