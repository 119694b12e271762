//! The replicated cache as a service: all that a front end sees.
//!
//! A front end has calls of somebody in a [`Scope`], and words for [`Error`] and [`Status`]. Each call takes one path:
//! the key in its namespace, catch up, apply, replicate, wait for confirmations.

mod edge;
mod error;
mod operations;
mod reads;
mod room;

use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use kvcache_core::cache::{Cache, Delta, KeyHash, Partition};
use kvcache_core::replica::{self, Start};

use crate::nats::{NatsError, Prepared, Replicated, Replicator};
use crate::store::{Begins, Company, StoreConfig, StoreState, StoreStatus, WriteBehind};
use crate::time;
use edge::Edge;
use reads::LargeReads;

pub use crate::nats::{connect, ReplicatorConfig};
pub use edge::{Caps, EdgeConfig, Full, MemoryStatus, Policy};
pub use error::Error;
pub use kvcache_core::cache::{CacheError, Digest, Limits, Millis, NodeId};
pub use kvcache_core::replica::{AckLevel, SyncState, Unconfirmed};
pub use operations::Answer;
pub use reads::{ReadError, Turn};

pub use crate::words;

/// Partitions swept per step: all 1,024 in about 13 s.
pub const SWEEP_PARTITIONS: usize = 8;
/// The time between two steps of the sweep.
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// How long the store of a node without replication is waited for, in milliseconds.
const SYNC_LIMIT_MS: Millis = 10_000;

/// How to serve.
pub struct ServiceConfig {
    /// Where and how to replicate; `None` for a map on this node alone.
    pub replication: Option<ReplicatorConfig>,
    /// What the cache is written behind to; `None` for one that ends with its last process.
    pub store: Option<StoreConfig>,
    /// How much the cache may take, and what happens then.
    pub edge: EdgeConfig,
    /// How long callers wait for an answer, in milliseconds.
    pub patience_ms: Millis,
    /// Called several times a second, with the number of keys.
    pub each_sweep: Box<dyn FnMut(u64) + Send>,
    /// Called when a thread has made large answers and has nothing to do.
    pub idle: fn(),
}

impl ServiceConfig {
    /// Serves with this replication.
    pub fn with(replication: Option<ReplicatorConfig>) -> Self {
        ServiceConfig {
            replication,
            store: None,
            edge: EdgeConfig::default(),
            patience_ms: 2_000,
            each_sweep: Box::new(|_| {}),
            idle: || {},
        }
    }
}

/// An empty cache of a new process.
pub fn empty_cache(limits: Limits) -> Arc<Cache> {
    Arc::new(Cache::with_secret(time::fresh_node_id(), limits, time::fresh_secret()))
}

/// Why a service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Replication.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// The system has no thread left.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Who calls, and what for.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// Whoever is to share its turns with nobody else.
    pub caller: &'a str,
    /// Keyspace; empty for the shared one.
    pub namespace: &'a str,
    /// What its calls wait for.
    pub acks: AckPolicy,
    /// Bytes of the largest answer that reaches it.
    pub max_answer_bytes: usize,
    /// How much it may put there.
    pub caps: Caps,
}

impl<'a> Scope<'a> {
    /// The shared keyspace, without confirmations, and with answers of any size.
    pub const fn shared(caller: &'a str) -> Self {
        Scope {
            caller,
            namespace: "",
            acks: AckPolicy {
                wanted: AckLevel::Local,
                stored: false,
                timeout_ms: 0,
            },
            max_answer_bytes: usize::MAX,
            caps: Caps::NONE,
        }
    }
}

/// What calls wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AckPolicy {
    /// Who has to confirm a write before it is answered.
    pub wanted: AckLevel,
    /// Whether it has to be in the store as well.
    pub stored: bool,
    /// How long that may take, in milliseconds.
    pub timeout_ms: u64,
}

/// How the service is.
#[derive(Clone, Debug)]
pub struct Status {
    /// The node.
    pub node: NodeId,
    /// Keys it holds.
    pub keys: u64,
    /// Digest of all that it holds.
    pub digest: Digest,
    /// Whether replication runs, where it should.
    pub running: bool,
    /// What replication says; `None` on a node alone.
    pub replication: Option<replica::Status>,
    /// The store, if there is one.
    pub store: Option<StoreStatus>,
    /// What memory is used for.
    pub memory: MemoryStatus,
}

/// The replicated cache. Clones share it.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    cache: Arc<Cache>,
    replicator: RwLock<Option<Arc<Replicator>>>,
    /// Set when replication runs, if it is to run at all: not before it is known what the cache begins with.
    begun: tokio::sync::watch::Sender<bool>,
    /// Whether it was to run at the start.
    will_replicate: bool,
    store: Option<WriteBehind>,
    /// How long the first caller waits for store and bootstrap.
    sync_limit_ms: Millis,
    /// One reconfiguration at a time. What the next replicator begins with while there is none: the numbers of the last
    /// one are not used again, and what peers delete meanwhile is not brought back.
    reconfiguring: tokio::sync::Mutex<Start>,
    large_reads: LargeReads,
    edge: Edge,
}

impl Service {
    /// Serves `cache`. With a store, it holds nothing yet, and callers are answered when it was read
    /// ([`Service::first_sync`]). Replication runs when this returns, or with a store when that was read; a server that
    /// is away is waited for. To be called on a runtime.
    pub async fn start(cache: Arc<Cache>, config: ServiceConfig) -> Result<Self, StartError> {
        let large_reads = LargeReads::start(config.patience_ms, config.idle)?;
        let limit_of = |replication: &ReplicatorConfig| replication.sync_limit_ms;
        let sync_limit_ms = config.replication.as_ref().map_or(SYNC_LIMIT_MS, limit_of);
        let prepared = match config.replication {
            Some(replication) => Some(Prepared::new(&cache, replication).await?),
            None => None,
        };
        let mut failed = None;
        let inner = Arc::new_cyclic(|inner: &Weak<Inner>| {
            let company = {
                let inner = inner.clone();
                move || inner.upgrade().map_or_else(Company::default, |inner| inner.company())
            };
            let store = config
                .store
                .map(|store| WriteBehind::start(cache.clone(), store, company));
            let store = store.transpose().unwrap_or_else(|error| {
                failed = Some(error);
                None
            });
            Inner {
                edge: Edge::new(&cache, config.edge),
                cache,
                replicator: RwLock::default(),
                begun: tokio::sync::watch::Sender::new(false),
                will_replicate: prepared.is_some(),
                store,
                sync_limit_ms,
                reconfiguring: tokio::sync::Mutex::default(),
                large_reads,
            }
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        match inner.store {
            None => inner.begin(prepared, Start::Empty),
            // Holds the connection until then, and gives it up with the service.
            Some(_) => drop(tokio::spawn(begin_after_store(Arc::downgrade(&inner), prepared))),
        }
        tokio::spawn(sweep(Arc::downgrade(&inner), config.each_sweep));
        tokio::spawn(Service::keep_room(Arc::downgrade(&inner)));
        Ok(Service { inner })
    }

    /// Replicates otherwise from now on, or no more. If that cannot start, all goes on as it was. Writes wait
    /// meanwhile.
    pub async fn reconfigure(&self, replication: Option<ReplicatorConfig>) -> Result<(), NatsError> {
        self.begun().await;
        let mut from = self.inner.reconfiguring.lock().await;
        let before = self.replicator();
        let stop = async {
            if let Some(before) = &before {
                *from = Start::Handover(before.stop().await);
            }
            *from
        };
        let next = match replication {
            // The connection is there before the earlier one ends.
            Some(replication) => Some(Replicator::start(self.inner.cache.clone(), replication, stop).await?),
            None => {
                stop.await;
                None
            }
        };
        *self.inner.replicator.write().unwrap_or_else(PoisonError::into_inner) = next.map(Arc::new);
        Ok(())
    }

    /// Waits until the store was read, if there is one, and the bootstrap is done, or until the limit of the bootstrap has
    /// passed. Returns the state of replication then; `None` on a node alone.
    pub async fn first_sync(&self) -> Option<SyncState> {
        let Some(store) = &self.inner.store else {
            return self.sync_of_replication().await;
        };
        // That the limit has passed is an answer as well: callers are told what is wrong from then on.
        let limit = Duration::from_millis(self.inner.sync_limit_ms);
        let read = async {
            self.begun().await;
            let sync = self.sync_of_replication().await;
            store.opened().await;
            sync
        };
        match tokio::time::timeout(limit, read).await {
            Ok(sync) => sync,
            Err(_) => self.replicator().map(|replicator| replicator.sync()),
        }
    }

    async fn sync_of_replication(&self) -> Option<SyncState> {
        match self.replicator() {
            Some(replicator) => Some(replicator.first_sync().await),
            None => None,
        }
    }

    /// Waits until it is known what the cache begins with, and replication runs if it is to run.
    async fn begun(&self) {
        // The service is there, so the sender is.
        let _ = self.inner.begun.subscribe().wait_for(|begun| *begun).await;
    }

    /// How the service is.
    pub fn status(&self) -> Status {
        let (cache, replicator) = (&self.inner.cache, self.replicator());
        Status {
            node: cache.node(),
            keys: cache.keys(),
            digest: cache.root_digest(),
            running: replicator.as_ref().is_none_or(|replicator| replicator.is_running()),
            replication: match replicator {
                Some(replicator) => Some(replicator.status()),
                // It is to run, and the store is still read.
                None if self.inner.will_replicate && !*self.inner.begun.borrow() => Some(replica::Status::default()),
                None => None,
            },
            store: self.inner.store.as_ref().map(WriteBehind::status),
            memory: self.inner.edge.status(cache),
        }
    }

    /// Sends what is queued and ends replication, and writes to the store what has changed.
    pub async fn stop(&self) {
        let store = async {
            if let Some(store) = &self.inner.store {
                store.stop().await;
            }
        };
        tokio::join!(self.stop_replication(), store);
    }

    async fn stop_replication(&self) {
        // Not the one that is about to be replaced.
        let last = {
            let _one = self.inner.reconfiguring.lock().await;
            self.replicator()
        };
        if let Some(replicator) = last {
            replicator.stop().await;
        }
    }

    /// Bounds of keys and values.
    pub fn limits(&self) -> Limits {
        self.inner.cache.limits()
    }

    fn replicator(&self) -> Option<Arc<Replicator>> {
        let replicator = self.inner.replicator.read().unwrap_or_else(PoisonError::into_inner);
        replicator.clone()
    }

    // --- the path of a call

    /// Refuses a call while the store is read that has what it is about.
    #[inline]
    fn is_open(&self) -> Result<(), Error> {
        match &self.inner.store {
            Some(store) if !store.is_open() => Err(self.not_open(store)),
            _ => Ok(()),
        }
    }

    #[cold]
    fn not_open(&self, store: &WriteBehind) -> Error {
        let StoreStatus { name, state, .. } = store.status();
        match state {
            StoreState::Missing { why } | StoreState::Failing { why } => Error::StoreMissing { store: name, why },
            StoreState::Opening | StoreState::Ready => Error::Loading {
                store: name,
                percent: 0,
            },
            StoreState::Loading { percent } => Error::Loading { store: name, percent },
        }
    }

    /// Refuses a write that others have to confirm, or that has to be stored, where it is known that it will not be,
    /// before it is applied.
    fn may_be_confirmed(&self, acks: AckPolicy) -> Result<(), Error> {
        if acks.stored {
            match &self.inner.store {
                None => return Err(Error::NoStore),
                Some(store) => store
                    .refusal()
                    .map_or(Ok(()), |refusal| Err(Error::CannotBeStored(refusal)))?,
            }
        }
        if acks.wanted == AckLevel::Local {
            return Ok(());
        }
        match self.replicator().filter(|replicator| replicator.is_refused()) {
            None => Ok(()),
            Some(replicator) => {
                let status = replicator.status();
                Err(Error::CannotBeConfirmed {
                    state: status.sync,
                    reason: status.reason,
                })
            }
        }
    }

    /// Where the scope asks all peers to confirm its writes, an answer must not miss one that was confirmed: a node
    /// that may have been out of contact catches up first.
    async fn catch_up(&self, acks: AckPolicy) -> Result<(), Error> {
        match acks.wanted {
            AckLevel::Local | AckLevel::Peers(_) => Ok(()),
            // Boxed, as the future of every call would be large for the few that wait.
            AckLevel::All => Box::pin(self.wait_until_current(acks.timeout_ms)).await,
        }
    }

    async fn wait_until_current(&self, timeout_ms: u64) -> Result<(), Error> {
        let Some(replicator) = self.replicator() else {
            return Ok(());
        };
        match replicator.current(timeout_ms).await {
            true => Ok(()),
            false => Err(Error::OutOfContact(replicator.sync())),
        }
    }

    /// Hands a delta over to replication, and waits for all that the scope asks for.
    async fn confirm(&self, acks: AckPolicy, delta: Delta) -> Result<(), Error> {
        if !acks.stored {
            return self.replicate(acks, delta).await;
        }
        Box::pin(self.confirm_stored(acks, delta)).await
    }

    /// As [`Service::confirm`], with a store beside replication.
    async fn confirm_stored(&self, acks: AckPolicy, delta: Delta) -> Result<(), Error> {
        let partition = Partition::of(KeyHash::of(&delta.key));
        let stored = async {
            let Some(store) = &self.inner.store else {
                return Err(Error::NoStore);
            };
            let limit = Duration::from_millis(acks.timeout_ms);
            match tokio::time::timeout(limit, store.stored(partition)).await {
                Ok(stored) => stored.map_err(Error::NotStored),
                Err(_) => Err(Error::NotStoredInTime {
                    store: store.status().name,
                    timeout_ms: acks.timeout_ms,
                }),
            }
        };
        let (replicated, stored) = tokio::join!(self.replicate(acks, delta), stored);
        replicated.and(stored)
    }

    /// Hands a delta over to replication. Waits while its queue is full, and for the confirmations that the scope asks
    /// for.
    async fn replicate(&self, acks: AckPolicy, delta: Delta) -> Result<(), Error> {
        let delta = {
            let replicator = self.inner.replicator.read().unwrap_or_else(PoisonError::into_inner);
            match (replicator.as_ref(), acks.wanted) {
                (None, _) => return Ok(()),
                (Some(replicator), AckLevel::Local) => match replicator.replicate_now(delta) {
                    Ok(()) => return Ok(()),
                    Err(delta) => delta,
                },
                (Some(_), AckLevel::Peers(_) | AckLevel::All) => delta,
            }
        };
        Box::pin(self.replicate_waiting(delta, acks)).await
    }

    async fn replicate_waiting(&self, mut delta: Delta, acks: AckPolicy) -> Result<(), Error> {
        let AckPolicy { wanted, timeout_ms, .. } = acks;
        loop {
            let Some(replicator) = self.replicator() else {
                return Ok(());
            };
            match replicator.replicate(delta, wanted, timeout_ms).await {
                Replicated::Done => return Ok(()),
                Replicated::Unconfirmed(unconfirmed) => {
                    return Err(Error::Unconfirmed {
                        wanted,
                        timeout_ms,
                        unconfirmed,
                    })
                }
                Replicated::Stopped(left) => delta = left,
            }
            // Somebody may be about to take over.
            drop(self.inner.reconfiguring.lock().await);
            let same = |now: Arc<Replicator>| Arc::ptr_eq(&now, &replicator);
            if self.replicator().is_some_and(same) {
                return Err(Error::Stopping);
            }
        }
    }
}

impl Inner {
    /// Replicates from here on, if there is to be any replication.
    fn begin(&self, prepared: Option<Prepared>, from: Start) {
        let replicator = prepared.map(|prepared| Arc::new(prepared.run(self.cache.clone(), from)));
        *self.replicator.write().unwrap_or_else(PoisonError::into_inner) = replicator;
        self.begun.send_replace(true);
    }

    /// Who is there, for the writer of the store.
    fn company(&self) -> Company {
        let replicator = self.replicator.read().unwrap_or_else(PoisonError::into_inner).clone();
        let node = self.cache.node();
        let Some(replicator) = replicator else {
            let synced = if *self.begun.borrow() { vec![node] } else { Vec::new() };
            return Company {
                synced,
                ..Company::default()
            };
        };
        let status = replicator.status();
        // Those who do not write to this store leave nobody a part of it.
        let store = self.cache.shared_store();
        let sharing = status.peers.iter().filter(|peer| peer.synced && peer.store == store);
        let peers = sharing.map(|peer| peer.node);
        let synced = match status.sync {
            SyncState::Synced | SyncState::Alone | SyncState::Disconnected => {
                std::iter::once(node).chain(peers).collect()
            }
            _ => Vec::new(),
        };
        Company {
            synced,
            has_a_peers_state: status.sync == SyncState::Synced,
            lineage: Some(replicator.lineage()),
        }
    }
}

/// Begins to replicate when it is known what the cache begins with.
async fn begin_after_store(service: Weak<Inner>, prepared: Option<Prepared>) {
    let begins = loop {
        let Some(inner) = service.upgrade() else { return };
        let Some(store) = &inner.store else { return };
        let patience = Duration::from_secs(1);
        if let Ok(begins) = tokio::time::timeout(patience, store.begins()).await {
            break begins;
        }
    };
    let Some(inner) = service.upgrade() else { return };
    inner.begin(
        prepared,
        match begins {
            Begins::Empty => Start::Empty,
            Begins::With(lineage) => Start::Loaded(lineage),
        },
    );
}

/// Sweeps the cache until the service is gone.
async fn sweep(service: Weak<Inner>, mut each_sweep: Box<dyn FnMut(u64) + Send>) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let Some(inner) = service.upgrade() else { return };
        each_sweep(inner.cache.keys());
        // While a store is read, what was deleted may be read before what it covers: none of it must be forgotten.
        if *inner.begun.borrow() {
            inner.cache.sweep(SWEEP_PARTITIONS, time::wall());
        }
    }
}
