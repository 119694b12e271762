//! What the thread that keeps a store shares with those who wait for it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvcache_core::cache::{Cache, Millis, NodeId, Partition};
use kvcache_core::durable::owns;
use kvcache_core::replica::Lineage;
use tokio::sync::{oneshot, watch, Notify};

use super::status::{StoreState, StoreStatus};
use super::{CacheName, Opener, StoreError, StoreUrl};

/// How to keep a store.
#[derive(Clone)]
pub struct StoreConfig {
    /// What opens it.
    pub opener: Arc<dyn Opener>,
    /// Where it is.
    pub url: StoreUrl,
    /// Whose it is.
    pub cache: CacheName,
    /// How long changes are gathered before they are written, in milliseconds.
    pub flush_ms: Millis,
    /// Whether a node that cannot read it, and knows no peer that is synced, answers all the same.
    pub required: bool,
}

/// Who else is there, as the writer of a store has to know it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Company {
    /// This node and its peers that are synced and write to the same store, if this one is synced.
    pub synced: Vec<NodeId>,
    /// Whether this node has the state of a peer.
    pub has_a_peers_state: bool,
    /// How far back its state goes, where there is replication.
    pub lineage: Option<Lineage>,
}

/// Why a write is not in the store.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{store}: {why}")]
pub struct NotStored {
    /// The store.
    pub store: String,
    /// What is wrong with it.
    pub why: String,
}

/// What a cache begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begins {
    /// With nothing: the store is new, or could not be read.
    Empty,
    /// With what the store held.
    With(Lineage),
}

/// What both sides know.
pub(super) struct Shared {
    pub cache: Arc<Cache>,
    pub config: StoreConfig,
    status: Mutex<StoreStatus>,
    /// Whether callers are answered: for each call, and for those who wait for it.
    pub open: AtomicBool,
    pub opened: watch::Sender<bool>,
    waiting: Mutex<Vec<Waiting>>,
    pub wake: Notify,
    pub stopping: AtomicBool,
    /// When the first change was seen that is not written, 0 for none.
    pub dirty_since: AtomicU64,
    /// Records that are being written: noted as changed no more, and not in the store yet.
    pub in_flight: AtomicUsize,
    /// Sections that have not said yet what they hold.
    pub owing: AtomicUsize,
    /// Whether the store is one of all nodes.
    pub is_shared: AtomicBool,
    pub company: Box<dyn Fn() -> Company + Send + Sync>,
}

/// Somebody waits until what has changed of a partition so far is in the store.
pub(super) struct Waiting {
    pub partition: Partition,
    pub answer: oneshot::Sender<Result<(), NotStored>>,
}

impl Shared {
    pub fn new(cache: Arc<Cache>, config: StoreConfig, company: Box<dyn Fn() -> Company + Send + Sync>) -> Self {
        let name = config.url.to_string();
        Shared {
            cache,
            config,
            status: Mutex::new(StoreStatus {
                name,
                state: StoreState::Opening,
                hosts: 0,
                dirty: 0,
                lag_ms: 0,
                writes: 0,
                conflicts: 0,
                errors: 0,
                audits: 0,
                repairs: 0,
                unreadable: 0,
            }),
            open: AtomicBool::new(false),
            opened: watch::Sender::new(false),
            waiting: Mutex::default(),
            wake: Notify::new(),
            stopping: AtomicBool::new(false),
            dirty_since: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            owing: AtomicUsize::new(0),
            is_shared: AtomicBool::new(false),
            company,
        }
    }

    pub fn status(&self) -> MutexGuard<'_, StoreStatus> {
        // Each change of it is one of one field.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this node is to write a partition, given who is there.
    pub fn is_owner(&self, company: &Company, partition: Partition) -> bool {
        let (node, synced) = (self.cache.node(), &company.synced);
        !self.is_shared.load(Ordering::Relaxed) || synced.contains(&node) && owns(node, synced, partition)
    }

    pub fn open(&self, open: bool) {
        self.open.store(open, Ordering::Release);
        self.opened
            .send_if_modified(|known| std::mem::replace(known, open) != open);
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub fn not_stored(&self, why: &str) -> NotStored {
        NotStored {
            store: self.status().name.clone(),
            why: why.into(),
        }
    }

    pub fn failed(&self, error: &StoreError) -> String {
        self.status().errors += 1;
        error.to_string()
    }
}
