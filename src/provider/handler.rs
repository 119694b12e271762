//! The provider as the host sees it: links, health, shutdown.

use std::convert::Infallible;
use std::sync::{Arc, PoisonError, RwLock};

use hashbrown::HashMap;
use tokio::sync::Mutex;
use wasmbus_rpc::core::{HealthCheckRequest, HealthCheckResponse, HostData};
use wasmbus_rpc::provider::prelude::*;
use wasmcloud_interface_keyvalue::KeyValueReceiver;

use super::config::{Acks, Config, LinkConfig, RawSettings};
use super::log;
use super::secret::{cleaned, Secret};
use crate::cache::{Cache, Command, Key};
use crate::nats::{Credentials, Replicated, Replicator, Settings};
use crate::replica::{Ack, Keyring, Numbers, SyncState, Unconfirmed};
use crate::time;

/// Address the SDK uses when the host data names none.
const DEFAULT_NATS_URL: &str = "nats://127.0.0.1:4222";

/// The capability provider. Clones share one cache.
#[derive(Clone, Provider)]
#[services(KeyValue)]
pub struct KvCacheProvider {
    inner: Arc<Inner>,
}

struct Inner {
    cache: Arc<Cache>,
    lattice: LatticeData,
    /// Settings of the provider itself, from `config_json`.
    base: RawSettings,
    /// Settings of actors without a link that has some.
    defaults: LinkConfig,
    /// Settings of linked actors that have others. Read on every call, changed hardly ever.
    links: RwLock<HashMap<String, LinkConfig>>,
    /// Read on every write, changed hardly ever.
    replicator: RwLock<Option<Arc<Replicator>>>,
    /// Held while links change settings of the process.
    process: Mutex<Process>,
}

/// What of the host data replication needs.
struct LatticeData {
    name: String,
    link_name: String,
    host: String,
    url: String,
    credentials: Credentials,
    cluster_seed: Secret,
    cluster_issuers: Vec<String>,
}

/// Settings of the process in force, and who set them.
struct Process {
    config: Config,
    imposed_by: Option<(String, RawSettings)>,
}

impl ProviderDispatch for KvCacheProvider {}

impl KvCacheProvider {
    /// A provider for this host data; replication runs when this returns, unless it is switched off or there is no
    /// lattice.
    pub async fn start(host_data: &HostData) -> anyhow::Result<Self> {
        let base = RawSettings::from_json(host_data.config_json.as_deref())?;
        warn_unknown("config_json", &base);
        Config::new(&base)?;
        let imposed = first_imposing_link(host_data, &base);
        let (settings, imposed_by) = match imposed {
            Some((actor, settings)) => (base.overlaid_with(&settings), Some((actor, settings))),
            None => (base.clone(), None),
        };
        let config = Config::new(&settings)?;
        let provider = KvCacheProvider {
            inner: Arc::new(Inner {
                cache: Arc::new(Cache::new(time::fresh_node_id(), config.limits)),
                lattice: LatticeData::new(host_data),
                base: base.clone(),
                defaults: Config::link(&base)?,
                links: RwLock::default(),
                replicator: RwLock::new(None),
                process: Mutex::new(Process {
                    config: config.clone(),
                    imposed_by,
                }),
            }),
        };
        provider.start_replication(&config, &settings).await?;
        Ok(provider)
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.inner.cache
    }

    /// The key an actor means by `name`: in its link's namespace. And what its calls wait for.
    pub(super) fn key(&self, ctx: &Context, name: &str) -> RpcResult<(Key, Acks)> {
        self.link(ctx, |link| Ok((key_of(link, name)?, link.acks)))
    }

    /// As [`Self::key`], for several names.
    pub(super) fn keys(&self, ctx: &Context, names: &[String]) -> RpcResult<(Vec<Key>, Acks)> {
        self.link(ctx, |link| {
            let keys: RpcResult<_> = names.iter().map(|name| key_of(link, name)).collect();
            Ok((keys?, link.acks))
        })
    }

    fn link<T>(&self, ctx: &Context, look: impl FnOnce(&LinkConfig) -> T) -> T {
        let links = self.inner.links.read().unwrap_or_else(PoisonError::into_inner);
        look(
            links
                .get(ctx.actor.as_deref().unwrap_or_default())
                .unwrap_or(&self.inner.defaults),
        )
    }

    /// Hands a command over to replication. Waits while its queue is full, while a link changes how this provider
    /// replicates, and for the confirmations that the actor's link asks for.
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
        replicator: Arc<Replicator>,
        command: Command,
        Acks { wanted, timeout_ms }: Acks,
    ) -> RpcResult<()> {
        let mut replicated = replicator.replicate(command, wanted, timeout_ms).await;
        if let Replicated::Stopped(command) = replicated {
            // Either another one takes over once its settings are in force, or this is the end.
            let _settled = self.inner.process.lock().await;
            replicated = match self.replicator() {
                None => return Ok(()),
                Some(replicator) => replicator.replicate(command, wanted, timeout_ms).await,
            };
        }
        match replicated {
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
            replicator.status().sync
        )))
    }

    fn replicator(&self) -> Option<Arc<Replicator>> {
        self.inner
            .replicator
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Ends replication under the old settings, if any, then starts it under these.
    async fn start_replication(&self, config: &Config, raw: &RawSettings) -> anyhow::Result<()> {
        let settings = self.settings(config, raw)?;
        let numbers = match self.replicator() {
            Some(old) => old.stop().await,
            None => Numbers::default(),
        };
        let replicator = match settings {
            Some(settings) => Some(Arc::new(
                Replicator::start(self.inner.cache.clone(), settings, numbers).await?,
            )),
            None => None,
        };
        *self.inner.replicator.write().unwrap_or_else(PoisonError::into_inner) = replicator;
        Ok(())
    }

    /// Where and how to replicate; `None` for a plain map.
    fn settings(&self, config: &Config, raw: &RawSettings) -> anyhow::Result<Option<Settings>> {
        let lattice = &self.inner.lattice;
        if !config.replication {
            tracing::info!("replication is switched off: a plain map on this host");
            return Ok(None);
        }
        if lattice.name.is_empty() && config.commands_subject.is_none() {
            tracing::info!("the host names no lattice: a plain map on this host");
            return Ok(None);
        }
        let subjects = config.subjects(raw, &lattice.name, &lattice.link_name)?;
        let credentials = match &config.credentials {
            Some(own) => own.clone(),
            // The lattice's credentials go to no other server than the lattice's.
            None if config.nats_url.is_none() => lattice.credentials.clone(),
            None => Credentials::None,
        };
        let keyring = self.keyring(config, subjects.commands())?;
        tracing::info!(node = %self.inner.cache.node(), subject = subjects.commands(), "replicating");
        Ok(Some(Settings {
            servers: config.nats_url.clone().unwrap_or_else(|| vec![lattice.url.clone()]),
            credentials,
            tls: config.tls.clone(),
            subjects,
            host: lattice.host.clone(),
            beat_interval_ms: config.beat_secs * 1_000,
            sync_limit_ms: config.sync_timeout_secs * 1_000,
            keyring: Arc::new(keyring),
            queue_bytes: config.queue_bytes,
            inbox_bytes: config.inbox_bytes,
            ring_bytes: config.ring_bytes,
        }))
    }

    fn keyring(&self, config: &Config, root: &str) -> anyhow::Result<Keyring> {
        let lattice = &self.inner.lattice;
        if !config.frame_auth {
            tracing::warn!("FRAME_AUTH=off: whoever may publish on the subjects of this cache can change it");
            return Ok(Keyring::open());
        }
        if lattice.cluster_seed.0.is_empty() {
            // Only a host for tests may do without; host_data.rs refuses others.
            tracing::warn!("the host has no cluster seed: messages are not authenticated, as with FRAME_AUTH=off");
            return Ok(Keyring::open());
        }
        Ok(Keyring::new(&lattice.cluster_seed.0, &lattice.cluster_issuers, root)?)
    }

    /// Settings of the process may stand in the values of a link, as in the classic provider. The first link that has
    /// some decides; they are refused where another link has decided otherwise.
    async fn impose(&self, actor: &str, settings: RawSettings) -> RpcResult<()> {
        let mut process = self.inner.process.lock().await;
        if let Some((owner, theirs)) = &process.imposed_by {
            if owner != actor && *theirs != settings {
                return Err(RpcError::InvalidParameter(format!(
                    "the link of actor {actor} sets {settings:?} of the whole provider, but the link of actor {owner} \
                     already sets {theirs:?} otherwise; set them in config_json, or alike in all links"
                )));
            }
        }
        let merged = self.inner.base.overlaid_with(&settings);
        let config = Config::new(&merged).map_err(|error| RpcError::InvalidParameter(error.to_string()))?;
        if config.limits != process.config.limits {
            return Err(RpcError::InvalidParameter(
                "TOMBSTONE_TTL_SECS, MAX_CLOCK_SKEW_SECS and MAX_VALUE_BYTES cannot change while the provider runs; \
                 set them in config_json"
                    .into(),
            ));
        }
        if config != process.config {
            tracing::info!(%actor, settings = ?settings, "the values of a link change how this provider replicates");
            let started = self.start_replication(&config, &merged).await;
            started.map_err(|error| RpcError::ProviderInit(format!("{error:#}")))?;
            process.config = config;
        }
        process.imposed_by = Some((actor.into(), settings));
        Ok(())
    }

    /// Takes links that cannot be accepted out of the host data. The SDK would print such a link with all its values,
    /// secrets included.
    pub(super) async fn refuse_unusable_links(&self, host_data: &mut HostData) {
        let mut usable = Vec::new();
        for link in std::mem::take(&mut host_data.link_definitions) {
            match self.accept(&link.actor_id, &RawSettings::from_link(&link.values)).await {
                Ok(_) => usable.push(link),
                Err(error) => tracing::error!(actor = %link.actor_id, "link of the host data refused: {error}"),
            }
        }
        host_data.link_definitions = usable;
    }

    /// Puts the settings of the process that a link has in force. Returns its own.
    async fn accept(&self, actor: &str, values: &RawSettings) -> RpcResult<LinkConfig> {
        let link = Config::link(&self.inner.base.overlaid_with(values))
            .map_err(|error| RpcError::InvalidParameter(error.to_string()))?;
        let settings = values.of_process();
        if !settings.is_empty() {
            self.impose(actor, settings).await?;
        }
        Ok(link)
    }

    async fn wait_for_first_sync(&self) {
        let Some(replicator) = self.replicator() else { return };
        if replicator.first_sync().await == SyncState::Unsynced {
            tracing::warn!("no replay within SYNC_TIMEOUT_SECS: serving what this host has; the replay goes on");
        }
    }

    fn health(&self) -> HealthCheckResponse {
        let cache = self.cache();
        let replicator = self.replicator();
        let running = replicator.as_ref().is_none_or(|replicator| replicator.is_running());
        let (sync, peers, foreign, counters) = match replicator.map(|replicator| replicator.status()) {
            Some(status) => (
                status.sync.to_string(),
                status.peers.len(),
                status.foreign,
                Some(status.counters),
            ),
            None => ("standalone".into(), 0, Vec::new(), None),
        };
        let mut message = format!(
            "node={} keys={} peers={peers} sync={sync} digest={}",
            cache.node(),
            cache.keys(),
            cache.root_digest()
        );
        if let Some(counters) = counters {
            message += &format!(" {counters}");
        }
        if !foreign.is_empty() {
            message += &format!(" foreign={}", foreign.join(","));
        }
        if log::dropped() > 0 {
            message += &format!(" log_dropped={}", log::dropped());
        }
        if !running {
            message += " error=replication-stopped";
        }
        HealthCheckResponse {
            healthy: running,
            message: Some(cleaned(&message).into_owned()),
        }
    }
}

fn key_of(link: &LinkConfig, name: &str) -> RpcResult<Key> {
    Key::new(&link.namespace, name.as_bytes()).map_err(|error| RpcError::InvalidParameter(error.to_string()))
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
    fn new(host_data: &HostData) -> Self {
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
    for name in settings.unknown() {
        tracing::warn!("setting {name} in {place} is not known to this provider and has no effect");
    }
}

/// The first link of the host data that has usable settings of the process, so that replication starts with them.
/// A link with unusable ones is reported when it is put.
fn first_imposing_link(host_data: &HostData, base: &RawSettings) -> Option<(String, RawSettings)> {
    host_data.link_definitions.iter().find_map(|link| {
        let settings = RawSettings::from_link(&link.values).of_process();
        let usable = !settings.is_empty() && Config::new(&base.overlaid_with(&settings)).is_ok();
        usable.then(|| (link.actor_id.clone(), settings))
    })
}

#[async_trait]
impl ProviderHandler for KvCacheProvider {
    /// May be called again for the same actor; the last values hold. Returns when the first replay is done, so that
    /// an actor does not find an empty cache.
    async fn put_link(&self, link: &LinkDefinition) -> RpcResult<bool> {
        let values = RawSettings::from_link(&link.values);
        warn_unknown("the link values", &values);
        let settings = self.accept(&link.actor_id, &values).await.inspect_err(|error| {
            tracing::error!(actor = %link.actor_id, "link refused: {error}");
        })?;
        let links = || self.inner.links.write().unwrap_or_else(PoisonError::into_inner);
        if settings == self.inner.defaults {
            links().remove(&link.actor_id);
        } else {
            links().insert(link.actor_id.clone(), settings);
        }
        self.wait_for_first_sync().await;
        Ok(true)
    }

    /// The data stays, and so does replication: other links use them. The link's settings stay as well until a new link
    /// says otherwise, so that a call under way does not end in another keyspace.
    async fn delete_link(&self, actor_id: &str) {
        let mut process = self.inner.process.lock().await;
        process.imposed_by.take_if(|(owner, _)| owner == actor_id);
    }

    async fn health_request(&self, _: &HealthCheckRequest) -> RpcResult<HealthCheckResponse> {
        Ok(self.health())
    }

    async fn shutdown(&self) -> Result<(), Infallible> {
        if let Some(replicator) = self.replicator() {
            replicator.stop().await;
        }
        Ok(())
    }
}
