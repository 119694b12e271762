//! The provider as the host sees it: links, health, shutdown.

use std::sync::Arc;

use kvcache_log as log;
use kvcache_node::answers;
use kvcache_node::secret::cleaned;
use kvcache_node::service::{self, Service, SyncState};
use kvcache_node::settings::{Lattice, LinkSettings, RawSettings, Settings, SettingsError};
use wasmbus_rpc::core::{HealthCheckResponse, HostData, LinkDefinition};

use super::links::{LinkError, Links};
use crate::stores;

/// How long a host waits for an answer, unless the host data says otherwise.
const HOST_PATIENCE_MS: u64 = 2_000;

/// The capability provider. Clones share one cache.
#[derive(Clone)]
pub struct KvCacheProvider {
    inner: Arc<Inner>,
}

struct Inner {
    service: Service,
    /// `config_json`.
    base: RawSettings,
    /// What decides about the process: `config_json`, completed by a link of the host data. It does not change.
    in_force: RawSettings,
    config: Settings,
    links: Links,
}

impl KvCacheProvider {
    /// A provider for this host data; replication runs when this returns, unless it is switched off or there is no
    /// lattice. Links of the host data that cannot be accepted are left out and named in the log.
    pub async fn start(host_data: &HostData, lattice: &Lattice) -> anyhow::Result<Self> {
        let base = RawSettings::from_json(host_data.config_json.as_deref())?;
        base.warn_unknown("config_json");
        Settings::new(&base)?;
        let in_force = settings_of_process(host_data, &base);
        let config = Settings::new(&in_force)?;
        config.check_files(&in_force)?;
        let cache = service::empty_cache(config.limits);
        let (servers, credentials) = lattice.servers(&config).unwrap_or_default();
        let nats = stores::Nats {
            servers,
            credentials,
            tls: config.tls.clone(),
        };
        let store = lattice.store(&config, &in_force, &stores::openers(nats))?;
        let replication = lattice.replication(cache.node(), &config, &in_force)?;
        let patience_ms = host_data.default_rpc_timeout_ms.filter(|patience| *patience > 0);
        let mut growth = kvcache_allocator::Growth::default();
        let how = service::ServiceConfig {
            replication,
            store,
            edge: config.edge,
            patience_ms: patience_ms.unwrap_or(HOST_PATIENCE_MS),
            each_sweep: Box::new(move |keys| {
                growth.look(keys);
                kvcache_allocator::wake_sleepers();
            }),
            idle: kvcache_allocator::give_back_now,
        };
        let provider = KvCacheProvider {
            inner: Arc::new(Inner {
                service: Service::start(cache, how).await?,
                base,
                in_force,
                config,
                links: Links::default(),
            }),
        };
        for link in &host_data.link_definitions {
            // Of a link only its actor is printed: values can be secrets.
            match provider.scope_of_host_data(link) {
                Ok(scope) => provider.inner.links.put_trusted(link, scope),
                Err(refused) => tracing::error!(actor = ?link.actor_id, "link of the host data refused: {refused}"),
            }
        }
        Ok(provider)
    }

    fn scope_of_host_data(&self, link: &LinkDefinition) -> Result<LinkSettings, SettingsError> {
        let values = RawSettings::from_link(&link.values);
        let scope = Settings::link(&self.inner.base.overlaid_with(&values));
        let agreed = values.agree_with(&self.inner.in_force);
        // Says more, where it would have been refused alone.
        let agreed = agreed.map_err(|error| self.inner.base.completed_by(&values).err().unwrap_or(error));
        SettingsError::both(scope, agreed).map(|(scope, ())| scope)
    }

    /// Puts a link that came as a message. Nobody signs these, so it can name the scope of its own actor and nothing
    /// else. One that is there has to be deleted before it is put with other values.
    pub(super) fn put_link(&self, link: &LinkDefinition) -> Result<(), LinkError> {
        let values = RawSettings::from_link(&link.values);
        values.warn_unknown("the link values");
        let scope = Settings::put_link(&self.inner.base, &values);
        let (scope, ()) = SettingsError::both(scope, values.agree_with(&self.inner.in_force))?;
        match self.inner.links.of(&link.actor_id) {
            Some(known) if *known == scope => Ok(()),
            Some(_) => Err(LinkError::Linked),
            None => self.inner.links.put(link, scope),
        }
    }

    /// Ends a link. The data stays, and so does replication: other links use them.
    pub(super) fn delete_link(&self, actor: &str) {
        self.inner.links.delete(actor);
    }

    /// The scope of an actor, if it is linked.
    pub(super) fn link(&self, actor: &str) -> Option<Arc<LinkSettings>> {
        self.inner.links.of(actor)
    }

    pub(super) fn config(&self) -> &Settings {
        &self.inner.config
    }

    pub(super) fn service(&self) -> &Service {
        &self.inner.service
    }

    /// Waits until the bootstrap is done or its limit has passed, so that an actor does not find an empty cache.
    pub(super) async fn wait_for_first_sync(&self) {
        if self.service().first_sync().await == Some(SyncState::Unsynced) {
            tracing::warn!("no bootstrap within SYNC_TIMEOUT_SECS: serving what this host has; the bootstrap goes on");
        }
    }

    /// Sends what is queued and ends replication.
    pub(super) async fn shutdown(&self) {
        self.service().stop().await;
    }

    pub(super) fn health(&self) -> HealthCheckResponse {
        let (healthy, mut message) = answers::health(&self.service().status());
        if log::dropped() > 0 {
            message += &format!(" log_dropped={}", log::dropped());
        }
        HealthCheckResponse {
            healthy,
            message: Some(cleaned(&message).into_owned()),
        }
    }
}

/// What decides about the process: `config_json`, completed by the first link of the host data that says something
/// about the process and may. A link that may not is refused when it is put.
fn settings_of_process(host_data: &HostData, base: &RawSettings) -> RawSettings {
    let completed = |link: &LinkDefinition| {
        let values = RawSettings::from_link(&link.values).of_process();
        (!values.is_empty()).then(|| base.completed_by(&values).ok()).flatten()
    };
    host_data
        .link_definitions
        .iter()
        .find_map(completed)
        .unwrap_or_else(|| base.clone())
}
