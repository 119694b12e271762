//! Writing what has changed.

use std::sync::atomic::Ordering;

use kvcache_core::cache::{Millis, Partition, Time};
use kvcache_core::durable::Batch;
use kvcache_core::replica::Lineage;

use super::head::Head;
use super::shared::{NotStored, Waiting};
use super::status::StoreState;
use super::worker::{Worker, FIRST_PAUSE, LONGEST_PAUSE};
use super::{Store, StoreError, Written};
use crate::time;

/// Bytes of records that are written at once.
pub(super) const ROUND_BYTES: usize = 4 << 20;

/// What could not be written is kept for so long; then it is written anew from what the cache holds by then.
const KEPT_MS: Millis = 10_000;

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
                self.known = (self.shared.company)();
                self.keeper.choose(&self.known.synced, time::mono());
            }
            let written = self.flush(store, due).await;
            for Waiting { answer, .. } in self.round.drain(..) {
                let _ = answer.send(written.clone());
            }
            if due && written.is_ok() {
                self.renew(store, stopping).await;
            }
            if stopping {
                return;
            }
            if due && written.is_ok() {
                self.keeper.is_complete(time::mono());
                self.look_after(store).await;
            }
            if due {
                // One that was compared owes nothing, nor does this node where another one writes.
                self.count_owing();
            }
            // Those who came meanwhile have left a permit.
            let woken = self.shared.wake.notified();
            let _ = tokio::time::timeout_at(time::instant(next_flush), woken).await;
        }
    }

    /// Writes what has changed of the partitions that somebody waits for and, if it is `due`, of all that this node
    /// writes.
    async fn flush(&mut self, store: &dyn Store, due: bool) -> Result<(), NotStored> {
        let cache = self.shared.cache.clone();
        let mut partitions: Vec<Partition> = self.round.iter().map(|waiting| waiting.partition).collect();
        if due {
            partitions.extend(self.keeper.changed());
        }
        partitions.retain(|partition| cache.has_changes(*partition));
        partitions.sort_unstable();
        partitions.dedup();
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
            let present = self.present();
            let shared = &self.shared;
            let batches = self.keeper.gather(&mut partitions, present, began, ROUND_BYTES, || {
                shared.in_flight.fetch_add(1, Ordering::Release);
            });
            let written = self.write(store, batches).await;
            self.count_owing();
            // If it failed, all of it is noted as changed again.
            self.shared.in_flight.store(0, Ordering::Release);
            written?;
        }
        // What has changed meanwhile has waited since this round began, at most.
        let left = self.keeper.changed().next().is_some();
        self.shared
            .dirty_since
            .store(if left { began.max(1) } else { 0 }, Ordering::Relaxed);
        Ok(())
    }

    /// Writes batches. A store that is away is tried again for a while; then what it lacks is noted as changed, and
    /// nothing is kept.
    async fn write(&mut self, store: &dyn Store, mut batches: Vec<Batch>) -> Result<(), NotStored> {
        let began = time::mono();
        batches.sort_by_key(Batch::is_state);
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match write_in_order(store, &batches).await {
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
                self.keeper.not_written(&batches);
                return Err(self.shared.not_stored(&why));
            }
            let _ = tokio::time::timeout(pause, self.shared.wake.notified()).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn count_owing(&self) {
        self.shared.owing.store(self.keeper.owing(), Ordering::Release);
    }

    /// Sections say of themselves what they owe, and from time to time all of them how far they go.
    async fn renew(&mut self, store: &dyn Store, last: bool) {
        let present = self.present();
        let now = time::mono();
        let is_old = self.keeper.is_old(now);
        let mut batches = self.keeper.renew(present, now, last);
        // Until the bootstrap is done there is no state that began.
        let lineage = self
            .known
            .lineage
            .filter(|lineage| is_old && lineage.joined_at != Time(0));
        let number = self.number;
        let head = lineage.map(|Lineage { state_since, .. }| Head { state_since, number });
        let head = head.map(|head| head.write(self.stamp(), &self.shared.config.cache));
        batches.extend(head);
        if batches.is_empty() {
            return;
        }
        if self.write(store, batches).await.is_err() {
            self.keeper.not_renewed();
        } else if is_old {
            if let Err(error) = self.learn_number(store, number).await {
                self.shared.failed(&error);
            }
        }
    }
}

/// Writes batches, what sections say of themselves last. Engines write in any order, and a process may end in between: then
/// a section that lacked something would say that it has it. A file takes all of it in one step.
async fn write_in_order(store: &dyn Store, batches: &[Batch]) -> Result<Written, StoreError> {
    let (records, states) = batches.split_at(batches.partition_point(|batch| !batch.is_state()));
    if !store.is_shared() || records.is_empty() || states.is_empty() {
        return store.write(batches).await;
    }
    let written = store.write(records).await?;
    store.write(states).await?;
    Ok(written)
}
