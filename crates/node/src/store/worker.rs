//! The thread that keeps a store: it loads it, and then writes and looks after it until the node stops.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use kvcache_core::cache::{Millis, Partition, Stamp, Time, PARTITIONS};
use kvcache_core::durable::{Keeper, Present, Section};
use kvcache_core::replica::Lineage;
use tokio::sync::watch;

use super::head::Head;
use super::loading;
use super::records::records_of;
use super::shared::{Begins, Company, Shared, Waiting};
use super::status::StoreState;
use super::{Store, StoreError};
use crate::time;

/// Changes of a partition that are noted one by one. Of all partitions they take 60 MB at most.
const NOTED_CHANGES: usize = 512;

/// Pauses between attempts at a store that is away.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What the thread knows.
pub(super) struct Worker {
    pub shared: Arc<Shared>,
    begin: watch::Sender<Option<Begins>>,
    pub keeper: Keeper,
    /// Who is there, as of the last round.
    pub known: Company,
    /// Who waits for the round that is under way.
    pub round: Vec<Waiting>,
    /// The number of the store.
    pub number: u64,
}

impl Worker {
    pub fn new(shared: Arc<Shared>, begin: watch::Sender<Option<Begins>>) -> Self {
        Worker {
            keeper: Keeper::new(shared.cache.clone()),
            shared,
            begin,
            known: Company::default(),
            round: Vec::new(),
            number: 0,
        }
    }

    pub async fn run(mut self) {
        if let Some(store) = self.open().await {
            self.keep(&*store).await;
            if let Err(error) = store.close().await {
                tracing::warn!(%error, "the store did not close in order");
            }
        }
        self.refuse("the node is stopping");
    }

    /// Tells all who wait that it is in vain.
    pub fn refuse(&mut self, why: &str) {
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
        self.keeper.opened(store.is_shared());
        let head = records_of(&*store, &[Section::HEAD]).await?.remove(&Section::HEAD);
        let head = Head::read(&head.unwrap_or_default(), store.name(), name)?;
        let began = time::mono();
        let first = self.begin.borrow().is_none();
        let number = head.map(|head| head.number).filter(|number| *number != 0);
        let ready = Head {
            state_since: head.map_or_else(|| self.now(), |head| head.state_since),
            number: number.unwrap_or_else(time::fresh_number),
        };
        let lineage = match first {
            true => self.load(&*store, head).await?,
            false => {
                if head.is_none() {
                    // Before anything else: what has no head is not read, and this process may end on the way.
                    store.write(&[ready.write(self.stamp(), name)]).await?;
                }
                self.take_over(&*store).await?;
                None
            }
        };
        store.write(&[ready.write(self.stamp(), name)]).await?;
        self.learn_number(store.as_ref(), ready.number).await?;
        let (cache, took_ms) = (&self.shared.cache, time::mono() - began);
        tracing::info!(store = store.name(), keys = cache.keys(), took_ms, "the store is read");
        self.shared.status().state = StoreState::Ready;
        if first {
            cache.track_changes(NOTED_CHANGES);
            self.keeper.begins(time::mono());
            let begins = lineage.map_or(Begins::Empty, Begins::With);
            self.begin.send_replace(Some(begins));
        }
        self.shared.open(true);
        Ok(store)
    }

    /// Others are told which store this node writes to. Two that began it at one time have given it two numbers, of which
    /// one is left.
    pub async fn learn_number(&mut self, store: &dyn Store, ours: u64) -> Result<(), StoreError> {
        self.number = ours;
        if store.is_shared() {
            let head = records_of(store, &[Section::HEAD]).await?.remove(&Section::HEAD);
            let head = Head::read(&head.unwrap_or_default(), store.name(), &self.shared.config.cache)?;
            self.number = head.map_or(ours, |head| head.number);
            self.shared.cache.set_shared_store(self.number);
        }
        Ok(())
    }

    /// Reads the store into a cache that holds nothing.
    async fn load(&mut self, store: &dyn Store, head: Option<Head>) -> Result<Option<Lineage>, StoreError> {
        let Some(head) = head else { return Ok(None) };
        let shared = self.shared.clone();
        let told = AtomicUsize::new(0);
        let progress = |done: usize| {
            let percent = done * 100 / PARTITIONS;
            shared.status().state = StoreState::Loading { percent: percent as u8 };
            if percent / 25 > told.fetch_max(percent / 25, Ordering::Relaxed) {
                tracing::info!("loading {percent} %");
            }
        };
        let now = time::wall();
        let loaded = loading::load(store, &self.shared.cache, now, progress).await;
        let (loaded, unreadable) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                loading::forget(&self.shared.cache, now);
                return Err(error);
            }
        };
        self.keeper.loaded(&loaded, now);
        self.shared.status().unreadable = unreadable;
        if unreadable > 0 {
            tracing::warn!(unreadable, "records that cannot be read are left out");
        }
        Ok(loaded.contact().map(|contact| head.lineage(contact)))
    }

    /// Makes a store and a cache equal that is in service already.
    async fn take_over(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        // What sections say of themselves here must not go further than this node does.
        self.known = (self.shared.company)();
        // Without replication nobody says since when the cache exists: since this process began, with nothing. Otherwise
        // that decides, also where nobody else is there: what was deleted here and forgotten is not to come back.
        let trusted = self.known.lineage.is_none();
        for partition in Partition::all() {
            let percent = (usize::from(partition.0) * 100 / PARTITIONS) as u8;
            self.shared.status().state = StoreState::Loading { percent };
            self.audit(store, partition, trusted).await?;
        }
        self.keeper.is_complete(time::mono());
        Ok(())
    }

    // --- time

    pub fn now(&self) -> Time {
        Time::from_millis(self.shared.cache.clock().now(time::wall()))
    }

    pub fn stamp(&self) -> Stamp {
        Stamp {
            time: self.now(),
            node: self.shared.cache.node(),
        }
    }

    /// What a section that is written now may say of itself. Deletions are known here up to the last contact, as of the
    /// beginning of the round.
    pub fn present(&self) -> Present {
        let lineage = self.known.lineage;
        Present {
            written: self.stamp(),
            contact: lineage.map_or_else(|| self.now(), |lineage| lineage.last_contact),
            state_since: lineage.map_or(Time(0), |lineage| lineage.state_since),
        }
    }
}
