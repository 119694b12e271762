//! Writing behind: the handle of what keeps a store, and what its front sees of it.
//!
//! It runs on a thread of its own, since engines may block. What has changed is noted by the cache ([`Cache::changes`]),
//! bounded, so a store that is away for long costs no memory but that. Nobody waits for it who did not ask to
//! (`ACK=stored`).

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use kvcache_core::cache::{Cache, Partition};
use tokio::sync::{oneshot, watch};

use super::shared::{Begins, Company, NotStored, Shared, StoreConfig, Waiting};
use super::status::{StoreState, StoreStatus};
use super::worker::Worker;
use crate::time;

/// How long the last changes may take to be written at a stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// The handle of the thread. Clones are not made; it is shared in an `Arc`.
pub struct WriteBehind {
    shared: Arc<Shared>,
    /// What the cache begins with once the store was read, or could not be.
    begins: watch::Receiver<Option<Begins>>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

impl WriteBehind {
    /// Begins to read the store into `cache`, which holds nothing yet. To be called on a runtime.
    pub fn start(
        cache: Arc<Cache>,
        config: StoreConfig,
        company: impl Fn() -> Company + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::new(cache, config, Box::new(company)));
        let (begin, begins) = watch::channel(None);
        let worker = Worker::new(shared.clone(), begin);
        let runtime = tokio::runtime::Handle::current();
        let thread = thread::Builder::new()
            .name("store".into())
            .spawn(move || runtime.block_on(worker.run()))?;
        Ok(WriteBehind {
            shared,
            begins,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Waits until it is known what the cache begins with.
    pub async fn begins(&self) -> Begins {
        let mut begins = self.begins.clone();
        let known = begins.wait_for(Option::is_some).await;
        known.ok().and_then(|begins| *begins).unwrap_or(Begins::Empty)
    }

    /// Whether callers are answered: what the store holds is there, or a peer's state is, or the store is not required.
    pub fn is_open(&self) -> bool {
        self.shared.open.load(Ordering::Acquire)
    }

    /// Waits until callers are answered.
    pub async fn opened(&self) {
        // The sender is there for as long as this is.
        let _ = self.shared.opened.subscribe().wait_for(|open| *open).await;
    }

    /// How the store is.
    pub fn status(&self) -> StoreStatus {
        let mut status = self.shared.status().clone();
        // What others write to the store stays noted here, in case that they are gone one day.
        let in_flight = self.shared.in_flight.load(Ordering::Acquire);
        let company = (self.shared.company)();
        status.hosts = match status.state {
            StoreState::Opening | StoreState::Loading { .. } | StoreState::Missing { .. } => 0,
            _ if self.shared.is_shared.load(Ordering::Relaxed) => company.synced.len(),
            _ => 1,
        };
        let owned = Partition::all().filter(|partition| self.shared.is_owner(&company, *partition));
        let noted: usize = owned.map(|partition| self.shared.cache.changes_in(partition)).sum();
        status.dirty = noted + in_flight.max(self.shared.in_flight.load(Ordering::Acquire));
        status.dirty += self.shared.owing.load(Ordering::Acquire);
        let since = self.shared.dirty_since.load(Ordering::Relaxed);
        status.lag_ms = if since == 0 {
            0
        } else {
            time::mono().saturating_sub(since)
        };
        status
    }

    /// What is known to be wrong, for those who must not change anything that will not be stored.
    pub fn refusal(&self) -> Option<NotStored> {
        let status = self.shared.status();
        let why = match &status.state {
            StoreState::Ready => return None,
            StoreState::Opening | StoreState::Loading { .. } => status.state.to_string(),
            StoreState::Missing { why } | StoreState::Failing { why } => why.clone(),
        };
        let store = status.name.clone();
        Some(NotStored { store, why })
    }

    /// Waits until all that has changed of a partition so far is in the store.
    pub async fn stored(&self, partition: Partition) -> Result<(), NotStored> {
        let (answer, stored) = oneshot::channel();
        self.shared.waiting().push(Waiting { partition, answer });
        self.shared.wake.notify_one();
        stored
            .await
            .unwrap_or_else(|_| Err(self.shared.not_stored("the node is stopping")))
    }

    /// Writes what has changed and ends.
    pub async fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.wake.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        let joined = tokio::task::spawn_blocking(move || drop(thread.join()));
        if tokio::time::timeout(STOP_LIMIT, joined).await.is_err() {
            tracing::warn!(
                store = self.shared.status().name,
                "the last changes were not written within {STOP_LIMIT:?}"
            );
        }
    }
}

/// Nobody holds the service any more.
impl Drop for WriteBehind {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.wake.notify_one();
    }
}
