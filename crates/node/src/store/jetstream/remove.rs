//! Removing what has not changed.

use futures::stream::{FuturesUnordered, TryStreamExt};

use super::form::{record_bytes, Form};
use super::held::Held;
use super::store::JetStreamStore;
use super::write::RECORDS_UNDER_WAY;
use crate::store::{Batch, Record, Section, StoreError};

impl JetStreamStore {
    pub(super) async fn remove_all(&self, batch: &Batch) -> Result<(), StoreError> {
        self.link.ready().await?;
        let mut under_way = FuturesUnordered::new();
        for record in batch.iter() {
            if under_way.len() == RECORDS_UNDER_WAY {
                under_way.try_next().await?;
            }
            under_way.push(self.link.in_time(self.remove_one(batch.section(), record)));
        }
        under_way.try_collect().await
    }

    async fn remove_one(&self, section: Section, record: Record<'_>) -> Result<(), StoreError> {
        let subject = self.subjects.record(section, record.id);
        let Some(held) = self.held(&subject).await? else {
            return Ok(());
        };
        if !self.is_of(&held, record)? {
            return Ok(());
        }
        // One that is newer has another sequence, and this one is gone with it.
        self.delete(&subject, held.sequence).await?;
        match held.manifest() {
            Some(manifest) => self.delete_parts(section, manifest).await,
            None => Ok(()),
        }
    }

    fn is_of(&self, held: &Held, record: Record<'_>) -> Result<bool, StoreError> {
        Ok(match &held.form {
            None => false,
            Some(Form::Whole(bytes)) => self.record_in(bytes, record.id)? == Some(record),
            Some(Form::InParts(manifest)) => manifest.fits(&record_bytes(record)),
        })
    }
}
