//! The replicated cache as a service: all that a front end sees.
//!
//! A front end has calls of somebody in a [`Scope`], and words for [`Error`] and [`Status`]. Each call takes one path:
//! the key in its namespace, catch up, apply, replicate, wait for confirmations.

mod error;
mod operations;
mod reads;

use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use kvcache_core::cache::{Cache, Delta};
use kvcache_core::replica::{self, Start};

use crate::nats::{NatsError, Replicated, Replicator};
use crate::time;
use reads::LargeReads;

pub use crate::nats::{connect, ReplicatorConfig};
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

/// How to serve.
pub struct ServiceConfig {
    /// Where and how to replicate; `None` for a map on this node alone.
    pub replication: Option<ReplicatorConfig>,
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
}

impl<'a> Scope<'a> {
    /// The shared keyspace, without confirmations, and with answers of any size.
    pub const fn shared(caller: &'a str) -> Self {
        Scope {
            caller,
            namespace: "",
            acks: AckPolicy {
                wanted: AckLevel::Local,
                timeout_ms: 0,
            },
            max_answer_bytes: usize::MAX,
        }
    }
}

/// What calls wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AckPolicy {
    /// Who has to confirm a write before it is answered.
    pub wanted: AckLevel,
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
}

/// The replicated cache. Clones share it.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    cache: Arc<Cache>,
    replicator: RwLock<Option<Arc<Replicator>>>,
    /// One reconfiguration at a time. What the next replicator begins with while there is none: the numbers of the last
    /// one are not used again, and what peers delete meanwhile is not brought back.
    reconfiguring: tokio::sync::Mutex<Start>,
    large_reads: LargeReads,
}

impl Service {
    /// Serves `cache`, which may hold something already. Replication runs when this returns, if there is to be any; a
    /// server that is away is waited for. To be called on a runtime.
    pub async fn start(cache: Arc<Cache>, config: ServiceConfig) -> Result<Self, StartError> {
        let large_reads = LargeReads::start(config.patience_ms, config.idle)?;
        let replicator = match config.replication {
            Some(replication) => Some(Replicator::start(cache.clone(), replication, async { Start::Empty }).await?),
            None => None,
        };
        let inner = Arc::new(Inner {
            cache,
            replicator: RwLock::new(replicator.map(Arc::new)),
            reconfiguring: tokio::sync::Mutex::default(),
            large_reads,
        });
        tokio::spawn(sweep(Arc::downgrade(&inner), config.each_sweep));
        Ok(Service { inner })
    }

    /// Replicates otherwise from now on, or no more. If that cannot start, all goes on as it was. Writes wait
    /// meanwhile.
    pub async fn reconfigure(&self, replication: Option<ReplicatorConfig>) -> Result<(), NatsError> {
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

    /// Waits until the bootstrap is done or its limit has passed. Returns the state then; `None` on a node alone.
    pub async fn first_sync(&self) -> Option<SyncState> {
        match self.replicator() {
            Some(replicator) => Some(replicator.first_sync().await),
            None => None,
        }
    }

    /// How the service is.
    pub fn status(&self) -> Status {
        let (cache, replicator) = (&self.inner.cache, self.replicator());
        Status {
            node: cache.node(),
            keys: cache.keys(),
            digest: cache.root_digest(),
            running: replicator.as_ref().is_none_or(|replicator| replicator.is_running()),
            replication: replicator.map(|replicator| replicator.status()),
        }
    }

    /// Sends what is queued and ends replication.
    pub async fn stop(&self) {
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

    /// Refuses a write that others have to confirm where it is known that they will not, before it is applied.
    fn may_be_confirmed(&self, acks: AckPolicy) -> Result<(), Error> {
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
        let AckPolicy { wanted, timeout_ms } = acks;
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

/// Sweeps the cache until the service is gone.
async fn sweep(service: Weak<Inner>, mut each_sweep: Box<dyn FnMut(u64) + Send>) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let Some(inner) = service.upgrade() else { return };
        each_sweep(inner.cache.keys());
        inner.cache.sweep(SWEEP_PARTITIONS, time::wall());
    }
}
