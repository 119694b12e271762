//! Looking after what a store holds: making sections equal to the cache, and smaller.

use std::sync::atomic::Ordering;

use kvcache_core::cache::{Millis, Partition, Time};
use kvcache_core::durable::{reconcile, Batch, Record, Section, SectionState, Trust};

use super::flushing::ROUND_BYTES;
use super::records::records_of;
use super::worker::Worker;
use super::{Store, StoreError};
use crate::time;

/// Sections that are compared, or written anew, between two rounds when there is reason to.
const AUDITS_AT_ONCE: usize = 4;

/// The time between two audits without a reason: all 1,024 sections in a quarter of an hour.
const AUDIT_MS: Millis = 1_000;

impl Worker {
    pub async fn look_after(&mut self, store: &dyn Store) {
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
        partitions.extend(self.doubted());
        partitions.sort_unstable();
        partitions.dedup();
        let mut partitions = partitions.into_iter().peekable();
        while partitions.peek().is_some() {
            let (mut batches, mut bytes) = (Vec::new(), 0);
            for partition in partitions.by_ref() {
                let batch = self.whole(partition);
                bytes += batch.as_bytes().len();
                batches.push(batch);
                if bytes >= ROUND_BYTES {
                    break;
                }
            }
            if let Err(error) = store.replace(&batches).await {
                let sections = batches.iter().filter_map(|batch| batch.section().partition());
                sections.for_each(|partition| self.sections.was_out_of_reach(partition));
                return Err(error);
            }
            let mut status = self.shared.status();
            status.audits += batches.len() as u64;
            status.writes += batches.iter().map(|batch| batch.len() as u64).sum::<u64>();
        }
        Ok(())
    }

    /// Sections that have to be compared now: a few of those that cannot wait, and one of the others each second.
    fn doubted(&mut self) -> Vec<Partition> {
        let mut partitions: Vec<Partition> = (0..AUDITS_AT_ONCE).map_while(|_| self.sections.next_urgent()).collect();
        if time::mono() >= self.audit_due {
            self.audit_due = time::mono() + AUDIT_MS;
            partitions.extend(self.sections.next_doubted());
            // What one node alone writes is as it was written.
            if self.shared.is_shared.load(Ordering::Relaxed) {
                partitions.push(self.sections.next_in_turn());
            }
        }
        partitions
    }

    /// All that the cache holds of a partition, which is all that its section is to hold.
    fn whole(&mut self, partition: Partition) -> Batch {
        let mut batch = Batch::new(Section::of(partition));
        let digest = self.shared.cache.digest(partition);
        self.shared.cache.deltas(partition, |delta| batch.push_delta(&delta));
        self.sections.compared(partition);
        self.push_state(&mut batch, partition, digest);
        batch
    }

    /// Compares sections: those that others have written, those in which something has vanished, and all in turn.
    async fn audit_some(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let partitions = self.doubted();
        for partition in partitions {
            if !self.shared.owns(partition) {
                continue;
            }
            let audited = self.audit(store, partition, false).await;
            audited.inspect_err(|_| self.sections.was_out_of_reach(partition))?;
        }
        Ok(())
    }

    /// Makes a section and a partition equal. `trusted` says that there is nobody who would know better than the store.
    pub async fn audit(&mut self, store: &dyn Store, partition: Partition, trusted: bool) -> Result<(), StoreError> {
        let section = Section::of(partition);
        let mut held = records_of(store, &[section])
            .await?
            .remove(&section)
            .unwrap_or_default();
        let state = held.remove(&[][..]);
        let state = state.and_then(|value| SectionState::of(Record { id: &[], value: &value }));
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
            let written = store.write(&[outcome.write]).await?;
            self.shared.status().conflicts += written.conflicts;
        }
        // In this order: elements may have been covered by resets that are about to go.
        for batch in [outcome.elements, outcome.resets] {
            if !batch.is_empty() {
                store.remove(&batch).await?;
            }
        }
        // From now on it may say how far it goes.
        self.sections.compared(partition);
        let mut state = Batch::new(section);
        let digest = self.shared.cache.digest(partition);
        self.push_state(&mut state, partition, digest);
        store.write(&[state]).await?;
        Ok(())
    }
}
