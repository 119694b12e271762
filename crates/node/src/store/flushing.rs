//! Writing what has changed.

use std::sync::atomic::Ordering;

use kvcache_core::cache::{Digest, Millis, Partition, Time};
use kvcache_core::durable::{Batch, Record, Section, SectionState};
use kvcache_core::replica::Lineage;

use super::head::Head;
use super::shared::{NotStored, Waiting};
use super::status::StoreState;
use super::worker::{Worker, FIRST_PAUSE, LONGEST_PAUSE};
use super::Store;
use crate::time;

/// Bytes of records that are written at once.
pub(super) const ROUND_BYTES: usize = 4 << 20;

/// What could not be written is kept for so long; then it is written anew from what the cache holds by then.
const KEPT_MS: Millis = 10_000;

/// What a section says of itself is renewed after this part of the time for which deletions are remembered.
const CONTACT_STEPS: Millis = 24;

impl Worker {
    pub async fn keep(&mut self, store: &dyn Store) {
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
                self.complete_at = time::mono();
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
        let loaded_alone = self.has_loaded && self.known.synced.len() == 1;
        let mut any = false;
        for partition in Partition::all() {
            let owned = self.shared.is_owner(&self.known, partition);
            let before = self.shared.owned[usize::from(partition.0)].swap(owned, Ordering::Relaxed);
            any |= owned;
            if owned && !before && store.is_shared() && !loaded_alone {
                self.sections.taken_over(partition);
            }
        }
        self.has_loaded &= !any;
        self.doubt_what_was_out_of_reach();
    }

    /// Deletions that were made after the last round in which all was written may be forgotten by now, without ever having
    /// been in the store.
    fn doubt_what_was_out_of_reach(&mut self) {
        let ttl = self.shared.cache.limits().tombstone_ttl_ms;
        if time::mono().saturating_sub(self.complete_at) > ttl / 2 {
            let owned = Partition::all().filter(|partition| self.shared.owns(*partition));
            owned.for_each(|partition| self.sections.was_out_of_reach(partition));
            self.complete_at = time::mono();
        }
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
            if taken.vanished {
                self.sections.doubt(partition);
            }
            // Without a digest the rest of it comes with the next batches.
            if let Some(digest) = taken.digest {
                partitions.next();
                self.push_state(&mut batch, partition, digest);
            }
            bytes += batch.as_bytes().len();
            batches.push(batch);
            if bytes >= ROUND_BYTES {
                break;
            }
        }
        batches
    }

    /// Adds what a section says of itself, as far as it may.
    pub fn push_state(&mut self, batch: &mut Batch, partition: Partition, digest: Digest) {
        let contact = self.contact();
        let Some(contact) = self.sections.says(partition, contact) else {
            return;
        };
        let state = SectionState {
            written: self.stamp(),
            contact,
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

    /// Whether sections have to say again how far they go.
    fn is_old(&self) -> bool {
        time::mono() >= self.contact_due
    }

    /// What sections say of themselves is renewed, though nothing has changed: deletions up to now are known here.
    async fn renew(&mut self, store: &dyn Store) {
        let ttl = self.shared.cache.limits().tombstone_ttl_ms;
        self.contact_due = time::mono() + ttl / CONTACT_STEPS;
        let cache = self.shared.cache.clone();
        let mut batches = Vec::new();
        for partition in Partition::all() {
            if self.shared.owns(partition) && !cache.has_changes(partition) {
                let mut batch = Batch::new(Section::of(partition));
                self.push_state(&mut batch, partition, cache.digest(partition));
                batches.push(batch);
            }
        }
        // Until the bootstrap is done there is no state that began.
        let lineage = self.known.lineage.filter(|lineage| lineage.joined_at != Time(0));
        let head = lineage.map(|Lineage { state_since, .. }| Head { state_since });
        let head = head.map(|head| head.write(self.stamp(), &self.shared.config.cache));
        batches.extend(head);
        batches.retain(|batch| !batch.is_empty());
        if self.write(store, batches).await.is_err() {
            self.contact_due = 0;
        }
    }
}
