//! Writing behind: one thread that loads the store, writes to it what has changed, and sees to it that both stay equal.
//!
//! It runs on a thread of its own, since engines may block. What has changed is noted by the cache ([`Cache::changes`]),
//! bounded, so a store that is away for long costs no memory but that. Nobody waits for it who did not ask to
//! (`ACK=stored`).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use kvcache_core::cache::{Cache, Millis, NodeId, Partition, Stamp, Time};
use kvcache_core::durable::{reconcile, Batch, Held, Record, Section, SectionState, Trust};
use kvcache_core::replica::Lineage;
use tokio::sync::{oneshot, watch, Notify};

use super::head::{Head, HeadRecords};
use super::loading::{self, Loaded};
use super::owners::owns;
use super::status::{StoreState, StoreStatus};
use super::{CacheName, Opener, Store, StoreError, StoreUrl};
use crate::time;

/// Changes of a partition that are noted one by one. Of all partitions they take 20 MB at most.
const NOTED_CHANGES: usize = 512;

/// Bytes of records that are written at once.
const ROUND_BYTES: usize = 4 << 20;

/// Pauses between attempts at a store that is away.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What could not be written is kept for so long; then it is written anew from what the cache holds by then.
const KEPT_MS: Millis = 10_000;

/// Sections that are compared between two rounds when there is reason to.
const AUDITS_AT_ONCE: usize = 4;

/// The time between two audits without a reason: all 1,024 sections in a quarter of an hour.
const AUDIT_MS: Millis = 1_000;

/// What a section says of itself is renewed after this part of the time for which deletions are remembered.
const CONTACT_STEPS: Millis = 24;

/// How long the last changes may take to be written at a stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);

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
    /// This node and its peers that are synced, if this one is.
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

/// The handle of the thread. Clones are not made; it is shared in an `Arc`.
pub struct WriteBehind {
    shared: Arc<Shared>,
    /// What the cache begins with once the store was read, or could not be.
    begins: watch::Receiver<Option<Begins>>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

/// What a cache begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begins {
    /// With nothing: the store is new, or could not be read.
    Empty,
    /// With what the store held.
    With(Lineage),
}

struct Shared {
    cache: Arc<Cache>,
    config: StoreConfig,
    status: Mutex<StoreStatus>,
    /// Whether callers are answered: for each call, and for those who wait for it.
    open: AtomicBool,
    opened: watch::Sender<bool>,
    waiting: Mutex<Vec<Waiting>>,
    wake: Notify,
    stopping: AtomicBool,
    /// When the first change was seen that is not written, 0 for none.
    dirty_since: AtomicU64,
    /// Records that are being written: noted as changed no more, and not in the store yet.
    in_flight: AtomicUsize,
    /// Partitions that this node writes to the store, as of the last round.
    owned: Vec<AtomicBool>,
    /// Whether the store is one of all nodes.
    is_shared: AtomicBool,
    company: Box<dyn Fn() -> Company + Send + Sync>,
}

/// Somebody waits until what has changed of a partition so far is in the store.
struct Waiting {
    partition: Partition,
    answer: oneshot::Sender<Result<(), NotStored>>,
}

impl WriteBehind {
    /// Begins to read the store into `cache`, which holds nothing yet. To be called on a runtime.
    pub fn start(
        cache: Arc<Cache>,
        config: StoreConfig,
        company: impl Fn() -> Company + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let name = config.url.to_string();
        let shared = Arc::new(Shared {
            cache,
            config,
            status: Mutex::new(StoreStatus {
                name,
                state: StoreState::Opening,
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
            owned: Partition::all().map(|_| AtomicBool::new(false)).collect(),
            is_shared: AtomicBool::new(false),
            company: Box::new(company),
        });
        let (begin, begins) = watch::channel(None);
        let worker = Worker {
            shared: shared.clone(),
            begin,
            audits: VecDeque::new(),
            stale: VecDeque::new(),
            next_audit: 0,
            audit_due: 0,
            contact_due: 0,
            known: Company::default(),
            has_loaded: false,
            round: Vec::new(),
        };
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
        let owned = Partition::all().filter(|partition| self.shared.is_owner(&company, *partition));
        let noted: usize = owned.map(|partition| self.shared.cache.changes_in(partition)).sum();
        status.dirty = noted + in_flight.max(self.shared.in_flight.load(Ordering::Acquire));
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

impl Shared {
    fn status(&self) -> MutexGuard<'_, StoreStatus> {
        // Each change of it is one of one field.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this node is to write a partition, given who is there.
    fn is_owner(&self, company: &Company, partition: Partition) -> bool {
        let (node, synced) = (self.cache.node(), &company.synced);
        !self.is_shared.load(Ordering::Relaxed) || synced.contains(&node) && owns(node, synced, partition)
    }

    fn owns(&self, partition: Partition) -> bool {
        self.owned[usize::from(partition.0)].load(Ordering::Relaxed)
    }

    fn open(&self, open: bool) {
        self.open.store(open, Ordering::Release);
        self.opened
            .send_if_modified(|known| std::mem::replace(known, open) != open);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn not_stored(&self, why: &str) -> NotStored {
        NotStored {
            store: self.status().name.clone(),
            why: why.into(),
        }
    }

    fn failed(&self, error: &StoreError) -> String {
        self.status().errors += 1;
        error.to_string()
    }
}

struct Worker {
    shared: Arc<Shared>,
    begin: watch::Sender<Option<Begins>>,
    /// Sections that have to be compared, since somebody else has written them.
    audits: VecDeque<Partition>,
    /// Sections that hold what means nothing any more.
    stale: VecDeque<Partition>,
    /// The next of those that are compared in turn, and when.
    next_audit: u16,
    audit_due: Millis,
    /// When sections say again how far they go.
    contact_due: Millis,
    /// Who is there, as of the last round.
    known: Company,
    /// Whether the cache holds what the store held when it was opened: then nothing has to be compared at once.
    has_loaded: bool,
    /// Who waits for the round that is under way.
    round: Vec<Waiting>,
}

impl Worker {
    async fn run(mut self) {
        if let Some(store) = self.open().await {
            self.keep(&*store).await;
            if let Err(error) = store.close().await {
                tracing::warn!(%error, "the store did not close in order");
            }
        }
        self.refuse("the node is stopping");
    }

    /// Tells all who wait that it is in vain.
    fn refuse(&mut self, why: &str) {
        let waiting = std::mem::take(&mut *self.shared.waiting());
        for waiting in waiting.into_iter().chain(self.round.drain(..)) {
            let _ = waiting.answer.send(Err(self.shared.not_stored(why)));
        }
    }

    // --- opening

    /// Opens the store and makes it and the cache one. Goes on trying; `None` when the node stops.
    async fn open(&mut self) -> Option<Arc<dyn Store>> {
        let mut pause = FIRST_PAUSE;
        let mut said = String::new();
        while !self.shared.is_stopping() {
            let why = match self.try_to_open().await {
                Ok(store) => return Some(store),
                Err(error) => self.shared.failed(&error),
            };
            if why != said {
                let name = self.shared.status().name.clone();
                tracing::error!(store = name, "the store cannot be used: {why}");
                said.clone_from(&why);
            }
            self.shared.status().state = StoreState::Missing { why };
            // From here on the cache may be filled by peers and callers.
            self.shared.cache.track_changes(NOTED_CHANGES);
            self.begin
                .send_if_modified(|begins| begins.is_none() && begins.replace(Begins::Empty).is_none());
            let until = time::mono() + pause.as_millis() as Millis;
            while time::mono() < until && !self.shared.is_stopping() {
                self.open_without_store();
                self.refuse(&said);
                tokio::time::sleep(FIRST_PAUSE.min(pause)).await;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        None
    }

    /// Callers are answered if they may be although the store is missing.
    fn open_without_store(&self) {
        let open = !self.shared.config.required || (self.shared.company)().has_a_peers_state;
        self.shared.open(open);
    }

    async fn try_to_open(&mut self) -> Result<Arc<dyn Store>, StoreError> {
        let config = self.shared.config.clone();
        let name = &config.cache;
        let store = config.opener.open(&config.url, name).await?;
        self.shared.status().name = store.name().into();
        self.shared.is_shared.store(store.is_shared(), Ordering::Relaxed);
        let head = read_head(&*store, name).await?;
        let began = time::mono();
        let first = self.begin.borrow().is_none();
        let lineage = match first {
            true => self.load(&*store, head).await?,
            false => {
                self.take_over(&*store).await?;
                None
            }
        };
        let ready = Head {
            state_since: self.now(),
        };
        store.write(&[head.unwrap_or(ready).write(self.stamp(), name)]).await?;
        let (cache, took_ms) = (&self.shared.cache, time::mono() - began);
        tracing::info!(store = store.name(), keys = cache.keys(), took_ms, "the store is read");
        self.shared.status().state = StoreState::Ready;
        if first {
            cache.track_changes(NOTED_CHANGES);
            self.has_loaded = true;
            let begins = lineage.map_or(Begins::Empty, Begins::With);
            self.begin.send_replace(Some(begins));
        }
        self.shared.open(true);
        Ok(store)
    }

    /// Reads the store into a cache that holds nothing.
    async fn load(&mut self, store: &dyn Store, head: Option<Head>) -> Result<Option<Lineage>, StoreError> {
        let Some(head) = head else { return Ok(None) };
        let (shared, all) = (self.shared.clone(), self.shared.owned.len());
        let told = std::sync::atomic::AtomicUsize::new(0);
        let progress = |done: usize| {
            let percent = done * 100 / all;
            shared.status().state = StoreState::Loading { percent: percent as u8 };
            if percent / 25 > told.fetch_max(percent / 25, Ordering::Relaxed) {
                tracing::info!("loading {percent} %");
            }
        };
        let now = time::wall();
        let loaded = loading::load(store, &self.shared.cache, now, progress).await;
        let Loaded {
            contact,
            floor,
            unreadable,
            differ,
        } = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                loading::forget(&self.shared.cache, now);
                return Err(error);
            }
        };
        self.shared.cache.loaded(floor, now);
        self.shared.status().unreadable = unreadable;
        if unreadable > 0 {
            tracing::warn!(unreadable, "records that cannot be read are left alone");
        }
        self.stale.extend(differ);
        Ok(contact.map(|contact| head.lineage(contact)))
    }

    /// Makes a store and a cache equal that is in service already.
    async fn take_over(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let trusted = !(self.shared.company)().has_a_peers_state;
        for partition in Partition::all() {
            let percent = (usize::from(partition.0) * 100 / self.shared.owned.len()) as u8;
            self.shared.status().state = StoreState::Loading { percent };
            self.audit(store, partition, trusted).await?;
        }
        Ok(())
    }

    // --- keeping

    async fn keep(&mut self, store: &dyn Store) {
        let flush_ms = self.shared.config.flush_ms;
        let mut next_flush = time::mono();
        loop {
            let stopping = self.shared.is_stopping();
            self.round = std::mem::take(&mut *self.shared.waiting());
            let due = stopping || time::mono() >= next_flush;
            if due {
                next_flush = time::mono() + flush_ms;
                self.choose(store);
            }
            let written = self.flush(store, due).await;
            for Waiting { answer, .. } in self.round.drain(..) {
                let _ = answer.send(written.clone());
            }
            if stopping {
                return;
            }
            if due && written.is_ok() {
                self.look_after(store).await;
            }
            // Those who came meanwhile have left a permit.
            let woken = self.shared.wake.notified();
            let _ = tokio::time::timeout_at(time::instant(next_flush), woken).await;
        }
    }

    /// Which partitions this node writes.
    fn choose(&mut self, store: &dyn Store) {
        self.known = (self.shared.company)();
        let mut any = false;
        for partition in Partition::all() {
            let owned = self.shared.is_owner(&self.known, partition);
            let before = self.shared.owned[usize::from(partition.0)].swap(owned, Ordering::Relaxed);
            any |= owned;
            if owned && !before && store.is_shared() && !self.has_loaded {
                self.audits.push_back(partition);
            }
        }
        self.has_loaded &= !any;
    }

    /// Writes what has changed of the partitions that somebody waits for and, if it is `due`, of all that this node
    /// writes.
    async fn flush(&mut self, store: &dyn Store, due: bool) -> Result<(), NotStored> {
        let cache = self.shared.cache.clone();
        let mut partitions: Vec<Partition> = self.round.iter().map(|waiting| waiting.partition).collect();
        if due {
            partitions.extend(Partition::all().filter(|partition| self.shared.owns(*partition)));
        }
        partitions.retain(|partition| cache.has_changes(*partition));
        partitions.sort_unstable();
        partitions.dedup();
        if due && self.is_old() {
            self.renew(store).await;
        }
        if partitions.is_empty() {
            self.shared.dirty_since.store(0, Ordering::Relaxed);
            return Ok(());
        }
        let began = time::mono();
        let since = self.shared.dirty_since.load(Ordering::Relaxed);
        if since == 0 {
            self.shared.dirty_since.store(began.max(1), Ordering::Relaxed);
        }
        let mut partitions = partitions.into_iter().peekable();
        while partitions.peek().is_some() {
            let batches = self.gather(&mut partitions);
            let written = self.write(store, batches).await;
            // If it failed, all of it is noted as changed again.
            self.shared.in_flight.store(0, Ordering::Release);
            written?;
        }
        // What has changed meanwhile has waited since this round began, at most.
        let left = Partition::all().any(|partition| self.shared.owns(partition) && cache.has_changes(partition));
        self.shared
            .dirty_since
            .store(if left { began.max(1) } else { 0 }, Ordering::Relaxed);
        Ok(())
    }

    /// What has changed of the next partitions, about as much as is written at once.
    fn gather(&mut self, partitions: &mut std::iter::Peekable<impl Iterator<Item = Partition>>) -> Vec<Batch> {
        let mut batches = Vec::new();
        let mut bytes = 0;
        while let Some(&partition) = partitions.peek() {
            let mut batch = Batch::new(Section::of(partition));
            let taken = self.shared.cache.take_changes(partition, |delta| {
                self.shared.in_flight.fetch_add(1, Ordering::Release);
                batch.push_delta(&delta);
                bytes + batch.as_bytes().len() >= ROUND_BYTES
            });
            if taken.vanished && !self.stale.contains(&partition) {
                self.stale.push_back(partition);
            }
            // Without a digest the rest of it comes with the next batches.
            if let Some(digest) = taken.digest {
                partitions.next();
                self.push_state(&mut batch, digest);
            }
            bytes += batch.as_bytes().len();
            batches.push(batch);
            if bytes >= ROUND_BYTES {
                break;
            }
        }
        batches
    }

    fn push_state(&self, batch: &mut Batch, digest: kvcache_core::cache::Digest) {
        let state = SectionState {
            written: self.stamp(),
            contact: self.contact(),
            floor: self.shared.cache.floor(),
            digest,
        };
        let value = state.to_bytes();
        batch.push(Record { id: b"", value: &value });
    }

    /// Writes batches. A store that is away is tried again for a while; then what it lacks is noted as changed, and
    /// nothing is kept.
    async fn write(&mut self, store: &dyn Store, batches: Vec<Batch>) -> Result<(), NotStored> {
        let began = time::mono();
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match store.write(&batches).await {
                Ok(written) => {
                    let mut status = self.shared.status();
                    status.writes += batches.iter().map(|batch| batch.len() as u64).sum::<u64>();
                    status.conflicts += written.conflicts;
                    if status.state != StoreState::Ready {
                        status.state = StoreState::Ready;
                        tracing::info!(store = status.name, "the store is written to again");
                    }
                    return Ok(());
                }
                Err(error) => error,
            };
            let why = self.shared.failed(&error);
            let failing = StoreState::Failing { why: why.clone() };
            let before = std::mem::replace(&mut self.shared.status().state, failing);
            if before == StoreState::Ready {
                tracing::error!(store = store.name(), "the store cannot be written to: {why}");
            }
            self.refuse(&why);
            if time::mono().saturating_sub(began) >= KEPT_MS || self.shared.is_stopping() {
                for batch in &batches {
                    batch.section().partition().into_iter().for_each(|partition| {
                        self.shared.cache.note_all_as_changed(partition);
                    });
                }
                return Err(self.shared.not_stored(&why));
            }
            let _ = tokio::time::timeout(pause, self.shared.wake.notified()).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    // --- looking after what is there

    async fn look_after(&mut self, store: &dyn Store) {
        let outcome = match store.is_shared() {
            true => self.audit_some(store).await,
            false => self.replace_some(store).await,
        };
        if let Err(error) = outcome {
            let why = self.shared.failed(&error);
            tracing::warn!(store = store.name(), "the store could not be looked after: {why}");
        }
    }

    /// Writes sections anew that take more room than they need.
    async fn replace_some(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let mut partitions: Vec<Partition> = store.overgrown().into_iter().filter_map(Section::partition).collect();
        if time::mono() >= self.audit_due {
            self.audit_due = time::mono() + AUDIT_MS;
            partitions.extend(self.stale.pop_front());
        }
        partitions.sort_unstable();
        partitions.dedup();
        let mut partitions = partitions.into_iter().peekable();
        while partitions.peek().is_some() {
            let (mut batches, mut bytes) = (Vec::new(), 0);
            for partition in partitions.by_ref() {
                let batch = self.whole(partition);
                self.stale.retain(|stale| *stale != partition);
                bytes += batch.as_bytes().len();
                batches.push(batch);
                if bytes >= ROUND_BYTES {
                    break;
                }
            }
            store.replace(&batches).await?;
            let mut status = self.shared.status();
            status.audits += batches.len() as u64;
            status.writes += batches.iter().map(|batch| batch.len() as u64).sum::<u64>();
        }
        Ok(())
    }

    /// All that the cache holds of a partition.
    fn whole(&self, partition: Partition) -> Batch {
        let mut batch = Batch::new(Section::of(partition));
        let digest = self.shared.cache.digest(partition);
        self.shared.cache.deltas(partition, |delta| batch.push_delta(&delta));
        self.push_state(&mut batch, digest);
        batch
    }

    /// Compares sections: those that others have written, those in which something has vanished, and all in turn.
    async fn audit_some(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let mut partitions: Vec<Partition> = Vec::new();
        for _ in 0..AUDITS_AT_ONCE {
            partitions.extend(self.audits.pop_front());
        }
        if time::mono() >= self.audit_due {
            self.audit_due = time::mono() + AUDIT_MS;
            partitions.extend(self.stale.pop_front());
            partitions.push(Partition(self.next_audit));
            self.next_audit = (self.next_audit + 1) % self.shared.owned.len() as u16;
        }
        for partition in partitions {
            if !self.shared.owns(partition) {
                continue;
            }
            self.audit(store, partition, false)
                .await
                .inspect_err(|_| self.audits.push_back(partition))?;
        }
        Ok(())
    }

    /// Makes a section and a partition equal. `trusted` says that there is nobody who would know better than the store.
    async fn audit(&mut self, store: &dyn Store, partition: Partition, trusted: bool) -> Result<(), StoreError> {
        let section = Section::of(partition);
        let held: Mutex<(Held, Option<SectionState>)> = Mutex::default();
        let sink = |_: Section, record: Record<'_>| {
            let (held, state) = &mut *held.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(said) = SectionState::of(record) {
                if state.is_none_or(|state| state.written < said.written) {
                    *state = Some(said);
                }
                return;
            }
            let value = held.entry(record.id.into()).or_default();
            if **value < *record.value {
                *value = record.value.into();
            }
        };
        store.load(&[section], &sink).await?;
        let (held, state) = held.into_inner().unwrap_or_else(PoisonError::into_inner);
        let contact = state.map_or(Time(0), |state| state.contact);
        let cache = &self.shared.cache;
        let trust = match trusted {
            true => Trust::All,
            false => Trust::in_store_of(contact, cache.floor()),
        };
        let outcome = reconcile(cache, partition, held, trust, time::wall());
        let repairs = outcome.write.len() + outcome.elements.len() + outcome.resets.len() + outcome.merged;
        {
            let mut status = self.shared.status();
            status.audits += 1;
            status.repairs += repairs as u64;
            status.unreadable = status.unreadable.max(outcome.unreadable as u64);
        }
        if !outcome.write.is_empty() {
            let mut write = outcome.write;
            self.push_state(&mut write, cache.digest(partition));
            let written = store.write(&[write]).await?;
            self.shared.status().conflicts += written.conflicts;
        }
        // In this order: elements may have been covered by resets that are about to go.
        for batch in [outcome.elements, outcome.resets] {
            if !batch.is_empty() {
                store.remove(&batch).await?;
            }
        }
        Ok(())
    }

    /// Whether sections have to say again how far they go.
    fn is_old(&self) -> bool {
        time::mono() >= self.contact_due
    }

    /// What sections say of themselves is renewed, though nothing has changed: deletions up to now are known here.
    async fn renew(&mut self, store: &dyn Store) {
        let ttl = self.shared.cache.limits().tombstone_ttl_ms;
        self.contact_due = time::mono() + ttl / CONTACT_STEPS;
        let cache = &self.shared.cache;
        let owned = |partition: &Partition| self.shared.owns(*partition) && !cache.has_changes(*partition);
        let batches: Vec<Batch> = Partition::all()
            .filter(owned)
            .map(|partition| {
                let mut batch = Batch::new(Section::of(partition));
                self.push_state(&mut batch, cache.digest(partition));
                batch
            })
            .collect();
        // Until the bootstrap is done there is no state that began.
        let lineage = self.known.lineage.filter(|lineage| lineage.joined_at != Time(0));
        let head = lineage.map(|Lineage { state_since, .. }| Head { state_since });
        let head = head.map(|head| head.write(self.stamp(), &self.shared.config.cache));
        let batches: Vec<Batch> = batches.into_iter().chain(head).collect();
        if self.write(store, batches).await.is_err() {
            self.contact_due = 0;
        }
    }

    // --- time

    fn now(&self) -> Time {
        Time::from_millis(self.shared.cache.clock().now(time::wall()))
    }

    fn stamp(&self) -> Stamp {
        Stamp {
            time: self.now(),
            node: self.shared.cache.node(),
        }
    }

    /// Up to when deletions are known here.
    fn contact(&self) -> Time {
        self.known
            .lineage
            .map_or_else(|| self.now(), |lineage| lineage.last_contact)
    }
}

async fn read_head(store: &dyn Store, cache: &CacheName) -> Result<Option<Head>, StoreError> {
    let records: Mutex<HeadRecords> = Mutex::default();
    let sink = |_: Section, record: Record<'_>| {
        let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
        let value = records.entry(record.id.into()).or_default();
        if value[..] < *record.value {
            *value = record.value.into();
        }
    };
    store.load(&[Section::HEAD], &sink).await?;
    Head::read(
        &records.into_inner().unwrap_or_else(PoisonError::into_inner),
        store.name(),
        cache,
    )
}
