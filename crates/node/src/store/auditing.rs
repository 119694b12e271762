//! Looking after what a store holds: making sections equal to the cache, and smaller.

use kvcache_core::cache::Partition;
use kvcache_core::durable::Section;

use super::flushing::ROUND_BYTES;
use super::records::records_of;
use super::worker::Worker;
use super::{Store, StoreError};
use crate::time;

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
        partitions.extend(self.keeper.doubted(time::mono()));
        partitions.sort_unstable();
        partitions.dedup();
        let mut partitions = partitions.into_iter().peekable();
        while partitions.peek().is_some() {
            let (mut batches, mut bytes) = (Vec::new(), 0);
            for partition in partitions.by_ref() {
                let batch = self.keeper.whole(partition, self.present());
                bytes += batch.as_bytes().len();
                batches.push(batch);
                if bytes >= ROUND_BYTES {
                    break;
                }
            }
            if let Err(error) = store.replace(&batches).await {
                let sections = batches.iter().filter_map(|batch| batch.section().partition());
                // Nor are those compared that were to follow.
                sections
                    .chain(partitions)
                    .for_each(|partition| self.keeper.not_compared(partition));
                return Err(error);
            }
            let mut status = self.shared.status();
            status.audits += batches.len() as u64;
            status.writes += batches.iter().map(|batch| batch.len() as u64).sum::<u64>();
        }
        Ok(())
    }

    /// Compares sections: those that others have written, those in which something has vanished, and all in turn.
    async fn audit_some(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let mut partitions = self.keeper.doubted(time::mono()).into_iter();
        while let Some(partition) = partitions.next() {
            match self.audit(store, partition, false).await {
                Ok(taken) if !store.tells_conflicts() => self.shared.status().conflicts += taken,
                Ok(_) => {}
                Err(error) => {
                    // Nor are those compared that were to follow.
                    let left = std::iter::once(partition).chain(partitions);
                    left.for_each(|partition| self.keeper.not_compared(partition));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Makes a section and a partition equal. `trusted` says that there is nobody who would know better than the store.
    /// Returns how many records the cache has taken, for they were not known here.
    pub async fn audit(&mut self, store: &dyn Store, partition: Partition, trusted: bool) -> Result<u64, StoreError> {
        let section = Section::of(partition);
        let present = self.present();
        let held = records_of(store, &[section])
            .await?
            .remove(&section)
            .unwrap_or_default();
        let outcome = self.keeper.compare(partition, held, present, trusted, time::wall());
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
        if let Some(state) = self.keeper.compared(partition, present) {
            store.write(&[state]).await?;
        }
        Ok(outcome.merged as u64)
    }
}
