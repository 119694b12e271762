//! The provider as the host sees it: links, health, shutdown.

use std::sync::Arc;

use wasmbus_rpc::core::{HealthCheckResponse, HostData, LinkDefinition};
use wasmbus_rpc::error::{RpcError, RpcResult};

use super::config::{Acks, Config, ConfigError, LinkConfig, RawSettings};
use super::links::Links;
use super::log;
use super::reads::LargeReads;
use super::secret::{cleaned, Secret};
use kvcache_core::cache::{Cache, Command};
use kvcache_core::replica::{Ack, Keyring, Numbers, Status, SyncState, Unconfirmed};
use kvcache_node::nats::{Credentials, Replicated, Replicator, Settings};
use kvcache_node::time;

/// Address of the lattice when the host data names none.
const DEFAULT_NATS_URL: &str = "nats://127.0.0.1:4222";

/// The capability provider. Clones share one cache.
#[derive(Clone)]
pub struct KvCacheProvider {
    inner: Arc<Inner>,
}

struct Inner {
    cache: Arc<Cache>,
    /// `config_json`.
    base: RawSettings,
    /// What decides about the process: `config_json`, completed by a link of the host data. It does not change.
    in_force: RawSettings,
    config: Config,
    links: Links,
    large_reads: LargeReads,
    replicator: Option<Replicator>,
}

/// What of the host data connections and replication need.
pub(super) struct LatticeData {
    name: String,
    link_name: String,
    host: String,
    pub url: String,
    pub credentials: Credentials,
    cluster_seed: Secret,
    cluster_issuers: Vec<String>,
}

impl KvCacheProvider {
    /// A provider for this host data; replication runs when this returns, unless it is switched off or there is no
    /// lattice. Links of the host data that cannot be accepted are left out and named in the log.
    pub async fn start(host_data: &HostData) -> anyhow::Result<Self> {
        let base = RawSettings::from_json(host_data.config_json.as_deref())?;
        warn_unknown("config_json", &base);
        Config::new(&base)?;
        let in_force = settings_of_process(host_data, &base);
        let config = Config::new(&in_force)?;
        config.check_files(&in_force)?;
        let cache = Arc::new(Cache::with_secret(
            time::fresh_node_id(),
            config.limits,
            time::fresh_secret(),
        ));
        let replicator = match LatticeData::new(host_data).settings(&cache, &config, &in_force)? {
            Some(settings) => Some(Replicator::start(cache.clone(), settings, Numbers::default()).await?),
            None => None,
        };
        let provider = KvCacheProvider {
            inner: Arc::new(Inner {
                cache,
                base,
                in_force,
                config,
                links: Links::default(),
                large_reads: LargeReads::start(host_data.default_rpc_timeout_ms)?,
                replicator,
            }),
        };
        for link in &host_data.link_definitions {
            // Of a link only its actor is printed: values can be secrets.
            match provider.scope_of_host_data(link) {
                Ok(scope) => provider.inner.links.put_trusted(link, scope),
                Err(error) => tracing::error!(actor = ?link.actor_id, "link of the host data refused: {error}"),
            }
        }
        Ok(provider)
    }

    fn scope_of_host_data(&self, link: &LinkDefinition) -> Result<LinkConfig, ConfigError> {
        let values = RawSettings::from_link(&link.values);
        let scope = Config::link(&self.inner.base.overlaid_with(&values))?;
        match values.agree_with(&self.inner.in_force) {
            Ok(()) => Ok(scope),
            // Says more, where it would have been refused alone.
            Err(error) => Err(self.inner.base.completed_by(&values).err().unwrap_or(error)),
        }
    }

    /// Puts a link that came as a message. Nobody signs these, so it can name the scope of its own actor and nothing
    /// else. One that is there has to be deleted before it is put with other values.
    pub(super) fn put_link(&self, link: &LinkDefinition) -> RpcResult<()> {
        let refused = |error: &dyn std::fmt::Display| RpcError::InvalidParameter(error.to_string());
        let values = RawSettings::from_link(&link.values);
        warn_unknown("the link values", &values);
        values
            .agree_with(&self.inner.in_force)
            .map_err(|error| refused(&error))?;
        let scope = Config::put_link(&self.inner.base, &values).map_err(|error| refused(&error))?;
        match self.inner.links.of(&link.actor_id) {
            Some(known) if *known == scope => Ok(()),
            Some(_) => Err(refused(&"the actor is linked with other values; delete the link first")),
            None => self.inner.links.put(link, scope).map_err(|error| refused(&error)),
        }
    }

    /// Ends a link. The data stays, and so does replication: other links use them.
    pub(super) fn delete_link(&self, actor: &str) {
        self.inner.links.delete(actor);
    }

    /// The scope of an actor, if it is linked.
    pub(super) fn link(&self, actor: &str) -> Option<Arc<LinkConfig>> {
        self.inner.links.of(actor)
    }

    pub(super) fn cache(&self) -> &Arc<Cache> {
        &self.inner.cache
    }

    pub(super) fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(super) fn large_reads(&self) -> &LargeReads {
        &self.inner.large_reads
    }

    /// Hands a command over to replication. Waits while its queue is full, and for the confirmations that the actor's
    /// link asks for.
    pub(super) async fn replicate(&self, acks: Acks, command: Command) -> RpcResult<()> {
        let Some(replicator) = self.replicator() else {
            return Ok(());
        };
        let command = match acks.wanted {
            Ack::Local => match replicator.replicate_now(command) {
                Ok(()) => return Ok(()),
                Err(command) => command,
            },
            Ack::Peers(_) | Ack::All => command,
        };
        // Boxed, as the future of every write would be large for the few that wait.
        Box::pin(self.replicate_waiting(replicator, command, acks)).await
    }

    async fn replicate_waiting(
        &self,
        replicator: &Replicator,
        command: Command,
        Acks { wanted, timeout_ms }: Acks,
    ) -> RpcResult<()> {
        match replicator.replicate(command, wanted, timeout_ms).await {
            Replicated::Done => Ok(()),
            Replicated::Unconfirmed(unconfirmed) => {
                Err(RpcError::Other(not_confirmed(wanted, timeout_ms, &unconfirmed)))
            }
            Replicated::Stopped(_) => Err(RpcError::Other(
                "the provider is shutting down: the write was applied on this host only and not replicated".into(),
            )),
        }
    }

    /// Like [`Self::replicate`], where there may have been nothing to do. Returns whether there was.
    pub(super) async fn replicate_some(&self, acks: Acks, command: Option<Command>) -> RpcResult<bool> {
        match command {
            Some(command) => self.replicate(acks, command).await.map(|()| true),
            None => Ok(false),
        }
    }

    /// Where the actor's link asks all peers to confirm its writes, an answer must not miss one that was confirmed: a node
    /// that may have been out of contact catches up first. Also before writes whose answer depends on what is there.
    pub(super) async fn catch_up(&self, acks: Acks) -> RpcResult<()> {
        match acks.wanted {
            Ack::Local | Ack::Peers(_) => Ok(()),
            Ack::All => Box::pin(self.wait_until_current(acks.timeout_ms)).await,
        }
    }

    /// As [`Self::catch_up`], for writes whose answer depends on what is there.
    pub(super) async fn before_write(&self, acks: Acks) -> RpcResult<()> {
        self.may_be_confirmed(acks)?;
        self.catch_up(acks).await
    }

    /// Refuses a write that others have to confirm where it is known that they will not, before it is applied.
    pub(super) fn may_be_confirmed(&self, acks: Acks) -> RpcResult<()> {
        if acks.wanted == Ack::Local {
            return Ok(());
        }
        match self.replicator().filter(|replicator| replicator.is_refused()) {
            None => Ok(()),
            Some(replicator) => Err(RpcError::Other(cannot_be_confirmed(&replicator.status()))),
        }
    }

    async fn wait_until_current(&self, timeout_ms: u64) -> RpcResult<()> {
        let Some(replicator) = self.replicator() else {
            return Ok(());
        };
        if replicator.current(timeout_ms).await {
            return Ok(());
        }
        Err(RpcError::Other(format!(
            "this host is out of contact with the lattice ({}) and may have missed writes that all others have confirmed; \
             ACK=all does not allow to answer from what it has; nothing was changed",
            replicator.sync()
        )))
    }

    fn replicator(&self) -> Option<&Replicator> {
        self.inner.replicator.as_ref()
    }

    /// Waits until the first replay is done or its limit has passed, so that an actor does not find an empty cache.
    pub(super) async fn wait_for_first_sync(&self) {
        let Some(replicator) = self.replicator() else { return };
        if replicator.first_sync().await == SyncState::Unsynced {
            tracing::warn!("no replay within SYNC_TIMEOUT_SECS: serving what this host has; the replay goes on");
        }
    }

    /// Sends what is queued and ends replication.
    pub(super) async fn shutdown(&self) {
        if let Some(replicator) = self.replicator() {
            replicator.stop().await;
        }
    }

    pub(super) fn health(&self) -> HealthCheckResponse {
        let cache = self.cache();
        let replicator = self.replicator();
        let running = replicator.as_ref().is_none_or(|replicator| replicator.is_running());
        let status = replicator.map(|replicator| replicator.status());
        let (sync, peers) = match &status {
            Some(status) => (status.sync.to_string(), status.peers.len()),
            None => ("standalone".into(), 0),
        };
        let mut message = format!(
            "node={} keys={} peers={peers} sync={sync} digest={}",
            cache.node(),
            cache.keys(),
            cache.root_digest()
        );
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
                message += &format!(" reason={}", quoted(&reason));
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

fn cannot_be_confirmed(status: &Status) -> String {
    let reason = status.reason.as_deref().unwrap_or("no reason is known");
    format!(
        "no other host can confirm a write of this one ({}: {reason}), and ACK asks for that; nothing was changed",
        status.sync
    )
}

/// Says what was done and what was not.
fn not_confirmed(ack: Ack, timeout_ms: u64, unconfirmed: &Unconfirmed) -> String {
    let wanted = match ack {
        Ack::Local => "none".into(),
        Ack::Peers(number) => number.to_string(),
        Ack::All => "all".into(),
    };
    let missing = if unconfirmed.disconnected {
        "NATS is away".into()
    } else if unconfirmed.missing.is_empty() {
        "no other peer is there".into()
    } else {
        format!("no confirmation of {}", unconfirmed.missing.join(", "))
    };
    format!(
        "the write is applied on this host and goes on replicating, but within {timeout_ms} ms (ACK_TIMEOUT_MS) only {} \
         peers have confirmed it where ACK={wanted} asks for more: {missing}; nothing was undone, so do not repeat what \
         must not happen twice",
        unconfirmed.confirmed
    )
}

impl LatticeData {
    /// Where and how to replicate; `None` for a plain map.
    fn settings(&self, cache: &Cache, config: &Config, raw: &RawSettings) -> anyhow::Result<Option<Settings>> {
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
        tracing::info!(node = %cache.node(), subject = subjects.commands(), "replicating");
        Ok(Some(Settings {
            servers: config.nats_url.clone().unwrap_or_else(|| vec![self.url.clone()]),
            credentials,
            tls: config.tls.clone(),
            subjects,
            host: self.host.clone(),
            beat_interval_ms: config.beat_secs * 1_000,
            sync_limit_ms: config.sync_timeout_secs * 1_000,
            min_peers: config.sync_min_peers,
            keyring: Arc::new(keyring),
            queue_bytes: config.queue_bytes,
            inbox_bytes: config.inbox_bytes,
            ring_bytes: config.ring_bytes,
        }))
    }

    fn keyring(&self, config: &Config, root: &str) -> anyhow::Result<Keyring> {
        if !config.frame_auth {
            tracing::warn!("FRAME_AUTH=off: whoever may publish on the subjects of this cache can change it");
            return Ok(Keyring::open());
        }
        if self.cluster_seed.0.is_empty() {
            // Only a host for tests may do without; host_data.rs refuses others.
            tracing::warn!("the host has no cluster seed: messages are not authenticated, as with FRAME_AUTH=off");
            return Ok(Keyring::open());
        }
        Ok(Keyring::new(&self.cluster_seed.0, &self.cluster_issuers, root)?)
    }

    pub fn new(host_data: &HostData) -> Self {
        let (jwt, seed) = (
            host_data.lattice_rpc_user_jwt.trim(),
            host_data.lattice_rpc_user_seed.trim(),
        );
        LatticeData {
            name: host_data.lattice_rpc_prefix.clone(),
            link_name: host_data.link_name.clone(),
            host: host_data.host_id.clone(),
            url: match host_data.lattice_rpc_url.as_str() {
                "" => DEFAULT_NATS_URL.into(),
                url => url.into(),
            },
            cluster_seed: Secret(host_data.invocation_seed.trim().into()),
            cluster_issuers: host_data.cluster_issuers.clone(),
            credentials: match (jwt, seed) {
                ("", "") => Credentials::None,
                (jwt, seed) => Credentials::Jwt {
                    jwt: jwt.into(),
                    seed: seed.into(),
                },
            },
        }
    }
}

fn warn_unknown(place: &str, settings: &RawSettings) {
    const SHOWN: usize = 5;
    let unknown = settings.unknown();
    for name in unknown.iter().take(SHOWN) {
        let shown: String = name.chars().take(64).collect();
        tracing::warn!("setting {shown:?} in {place} is not known to this provider and has no effect");
    }
    if unknown.len() > SHOWN {
        tracing::warn!("{} more settings in {place} have no effect", unknown.len() - SHOWN);
    }
}

/// What decides about the process: `config_json`, completed by the first link of the host data that says something about
/// the process and may. A link that may not is refused when it is put.
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
