//! The provider as the host sees it: links, health, shutdown.

use std::sync::Arc;

use kvcache_log as log;
use kvcache_node::secret::cleaned;
use kvcache_node::service::{self, words, Service, Status, SyncState};
use kvcache_node::settings::{did_you_mean, Lattice, LinkSettings, RawSettings, Settings, SettingsError};
use wasmbus_rpc::core::{HealthCheckResponse, HostData, LinkDefinition};

use super::links::{LinkError, Links};

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
        warn_unknown("config_json", &base);
        Settings::new(&base)?;
        let in_force = settings_of_process(host_data, &base);
        let config = Settings::new(&in_force)?;
        config.check_files(&in_force)?;
        let cache = service::empty_cache(config.limits);
        let replication = lattice.replication(cache.node(), &config, &in_force)?;
        let patience_ms = host_data.default_rpc_timeout_ms.filter(|patience| *patience > 0);
        let mut growth = kvcache_allocator::Growth::default();
        let how = service::ServiceConfig {
            replication,
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
        warn_unknown("the link values", &values);
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
        let Status {
            node,
            keys,
            digest,
            running,
            replication: status,
        } = self.service().status();
        let (sync, peers) = match &status {
            Some(status) => (status.sync.to_string(), status.peers.len()),
            None => ("standalone".into(), 0),
        };
        let mut message = format!("node={node} keys={keys} peers={peers} sync={sync} digest={digest}");
        let mut bad = !running;
        if let Some(status) = status {
            if let SyncState::Syncing { percent } = status.sync {
                message += &format!(" percent={percent}");
            }
            message += &format!(" {}", status.counters);
            if !status.foreign.is_empty() {
                message += &format!(" foreign={}", status.foreign.join(","));
            }
            if let Some(fault) = status.clock {
                message += &format!(" clock={:+}", fault.ahead_secs());
                bad = true;
            }
            if let Some(reason) = status.reason {
                message += &format!(" reason={}", quoted(&words::reason(&reason)));
            }
            bad |= status.sync.is_bad();
        }
        if log::dropped() > 0 {
            message += &format!(" log_dropped={}", log::dropped());
        }
        if !running {
            message += " error=replication-stopped";
        }
        HealthCheckResponse {
            healthy: !bad,
            message: Some(cleaned(&message).into_owned()),
        }
    }
}

/// A value that may hold spaces, and what peers and servers said: in quotes, backslashes before what would end it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.escape_debug())
}

fn warn_unknown(place: &str, settings: &RawSettings) {
    const SHOWN: usize = 5;
    let unknown = settings.unknown();
    for name in unknown.iter().take(SHOWN) {
        let shown: String = name.chars().take(64).collect();
        let hint = match did_you_mean(name) {
            Some(meant) => format!("; did you mean {meant}?"),
            None => String::new(),
        };
        tracing::warn!("setting {shown:?} in {place} is not known to this provider and has no effect{hint}");
    }
    if unknown.len() > SHOWN {
        tracing::warn!("{} more settings in {place} have no effect", unknown.len() - SHOWN);
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
