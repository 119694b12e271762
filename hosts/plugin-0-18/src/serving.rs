//! A cache that serves: the service on threads of its own, and who may call it.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures::FutureExt as _;
use kvcache_log as log;
use kvcache_node::answers;
use kvcache_node::service::{self, words, Service, ServiceConfig, SyncState};
use kvcache_node::settings::{
    ClusterKeys, Lattice, LatticeError, LatticeSettings, LinkSettings, RawSettings, Settings, SettingsError,
};
use kvcache_node::store::file::FileOpener;
use kvcache_node::store::jetstream::JetStreamOpener;
use kvcache_node::store::Opener;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::plugin::Failure;

/// Names where the host gives none.
const DEFAULT_NAME: &str = "default";
/// Replication is one task; the other thread has what is beside it.
const WORKERS: usize = 2;
/// How long tasks may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// Why a cache cannot serve.
#[derive(Debug)]
pub enum StartError {
    Settings(SettingsError),
    Lattice(LatticeError),
    Service(service::StartError),
    Threads(std::io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartError::Settings(error) => error.fmt(f),
            StartError::Lattice(error) => error.fmt(f),
            StartError::Service(error) => error.fmt(f),
            StartError::Threads(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl From<SettingsError> for StartError {
    fn from(error: SettingsError) -> Self {
        StartError::Settings(error)
    }
}

/// A cache, its threads and its links.
pub struct Serving {
    service: Service,
    /// What decides about the cache: the values of the first link.
    in_force: RawSettings,
    pub(crate) settings: Settings,
    links: RwLock<HashMap<String, Arc<LinkSettings>>>,
    /// The bootstrap has been done once. Until then, what is not here may be elsewhere.
    is_whole: AtomicBool,
    on: Handle,
    runtime: Mutex<Option<Runtime>>,
}

impl Serving {
    /// Starts with these settings, and with the module that they are of linked. Replication runs when this returns; a
    /// server that is away is waited for.
    pub fn start(module: &str, in_force: RawSettings) -> Result<Self, StartError> {
        let link = Settings::link(&in_force);
        let (settings, link) = SettingsError::both(Settings::new(&in_force), link)?;
        settings.check_files(&in_force)?;
        let cache = service::empty_cache(settings.limits);
        let lattice = lattice_of(&settings);
        let store = lattice.store(&settings, &in_force, &openers(&lattice, &settings));
        let store = store.map_err(SettingsError::from)?;
        let replication = lattice.replication(cache.node(), &settings, &in_force);
        let replication = replication.map_err(StartError::Lattice)?;
        let runtime = runtime().map_err(StartError::Threads)?;
        let how = ServiceConfig {
            store,
            edge: settings.edge,
            ..ServiceConfig::with(replication)
        };
        let service = runtime.block_on(Service::start(cache, how));
        Ok(Serving {
            service: service.map_err(StartError::Service)?,
            in_force,
            settings,
            links: RwLock::new(HashMap::from([(module.to_owned(), Arc::new(link))])),
            is_whole: AtomicBool::new(false),
            on: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
        })
    }

    /// Waits until the bootstrap is done or its limit has passed, so that the host does not find an empty cache.
    pub fn wait_for_first_sync(&self) {
        if self
            .run(self.service.first_sync())
            .is_some_and(|state| !state.is_whole())
        {
            tracing::warn!(
                "no bootstrap within SYNC_TIMEOUT_SECS ({}): what is not here may be elsewhere, and is answered with an error; \
                 the bootstrap goes on",
                self.missing()
            );
        }
    }

    /// Links an actor, or the host once more. It says nothing about the cache but what is in force.
    pub fn link(&self, module: &str, values: &RawSettings) -> Result<(), SettingsError> {
        let link = Settings::link(&self.in_force.overlaid_with(values));
        let (link, ()) = SettingsError::both(link, values.agree_with(&self.in_force))?;
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        links.insert(module.to_owned(), Arc::new(link));
        Ok(())
    }

    /// Ends the link of an actor.
    pub fn unlink(&self, module: &str) {
        self.links
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(module);
    }

    pub(crate) fn link_of(&self, actor: &str) -> Result<Arc<LinkSettings>, Failure> {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        let link = links.get(actor).cloned();
        link.ok_or_else(|| Failure::Unlinked(actor.chars().take(64).collect()))
    }

    pub(crate) fn service(&self) -> &Service {
        &self.service
    }

    /// Refuses what could be answered only by a node that knows all.
    pub(crate) fn has_all(&self) -> Result<(), Failure> {
        if self.is_whole.load(Ordering::Relaxed) {
            return Ok(());
        }
        let replication = self.service.status().replication;
        if !replication.is_none_or(|status| status.sync.is_whole()) {
            return Err(Failure::Failed(format!(
                "the lattice cache has not got the state of the other hosts yet ({}), so that this answer could miss what they \
                 have set; it goes on trying",
                self.missing()
            )));
        }
        self.is_whole.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// How the bootstrap is, and why.
    fn missing(&self) -> String {
        match self.service.status().replication {
            None => "standalone".into(),
            Some(status) => match (&status.reason, status.sync) {
                (Some(reason), state) => format!("{state}: {}", words::reason(reason)),
                (None, state @ (SyncState::Starting | SyncState::Unsynced)) if status.peers.is_empty() => {
                    format!("{state}: no other host is heard; is the server of NATS_URL there?")
                }
                (None, state) => state.to_string(),
            },
        }
    }

    /// Whether it is healthy, and what it says of itself.
    pub fn health(&self) -> (bool, String) {
        let (healthy, mut message) = answers::health(&self.service.status());
        if log::dropped() > 0 {
            message += &format!(" log_dropped={}", log::dropped());
        }
        match self.has_all() {
            Ok(()) => (healthy, message),
            Err(failure) => (false, format!("{message} error=\"{failure}\"")),
        }
    }

    /// Sends what is queued and ends all threads.
    pub fn stop(&self) {
        self.run(self.service.stop());
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            runtime.shutdown_timeout(STOP_LIMIT);
        }
    }

    /// Waits for what the service does, on the thread of the caller. Most of it is done when it is looked at first:
    /// then no thread sleeps and none is woken.
    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        let _runtime = self.on.enter();
        let mut work = pin!(work);
        match (&mut work).now_or_never() {
            Some(done) => done,
            None => self.on.block_on(work),
        }
    }
}

impl Drop for Serving {
    /// Where the host forgot to stop it. To wait for threads here could block it for ever.
    fn drop(&mut self) {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
    }
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("kvcache")
        .enable_all()
        .build()
}

/// What the settings say of the lattice; the host says nothing.
/// Engines that need no client beside that of NATS.
fn openers(lattice: &Lattice, settings: &Settings) -> [Arc<dyn Opener>; 2] {
    let (servers, credentials) = lattice.servers(settings).unwrap_or_default();
    let jetstream = JetStreamOpener::new(servers, credentials, settings.tls.clone());
    [Arc::new(FileOpener), Arc::new(jetstream)]
}

fn lattice_of(settings: &Settings) -> Lattice {
    let LatticeSettings {
        name,
        link_name,
        seed,
        issuers,
    } = settings.lattice.clone();
    let keys = |seed: kvcache_node::secret::Secret| ClusterKeys::new(&seed.0, &issuers);
    Lattice {
        name: name.unwrap_or_else(|| DEFAULT_NAME.into()),
        link_name: link_name.unwrap_or_else(|| DEFAULT_NAME.into()),
        host: host_name(),
        server: None,
        cluster: seed.map(keys).transpose(),
    }
}

/// For peers to show. The host does not say what it is called.
fn host_name() -> String {
    let machine = rustix::system::uname();
    format!("{} {}", machine.nodename().to_string_lossy(), std::process::id())
}
