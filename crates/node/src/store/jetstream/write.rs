//! Writing: of two values of a record the larger one stays.

use std::cmp::Ordering;
use std::sync::atomic;
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use futures::stream::{FuturesUnordered, TryStreamExt};

use super::form::{record_bytes, whole, whole_bytes, Form, Manifest};
use super::held::{Held, PARTS_AT_ONCE};
use super::known::RecordName;
use super::link::Published;
use super::store::JetStreamStore;
use super::subject::hash_of;
use crate::store::{Batch, Record, Section, StoreError, Written};
use crate::time;

/// Records under way at a time, and their bytes.
pub(super) const RECORDS_UNDER_WAY: usize = 256;
pub(super) const BYTES_UNDER_WAY: usize = 4 << 20;

/// So often another writer may come first.
const ATTEMPTS: u32 = 12;
/// Waited before an attempt, each time longer, once two have failed.
const PAUSE: Duration = Duration::from_millis(5);

/// Of so many of the last records was seen whether the bucket had them.
const SEEN: usize = 64;

/// What a write of one record has come to.
struct Outcome {
    /// The bucket has a larger value.
    is_conflict: bool,
    /// The bucket had one.
    was_there: bool,
    bytes: usize,
}

/// A record as it is to be published: its parts, if it has any, are there already.
struct Draft {
    message: Bytes,
    manifest: Option<Manifest>,
}

impl JetStreamStore {
    pub(super) async fn write_all(&self, batches: &[Batch]) -> Result<Written, StoreError> {
        self.link.ready().await?;
        let mut written = Written::default();
        let mut bytes_under_way = 0;
        let mut under_way = FuturesUnordered::new();
        for batch in batches {
            for record in batch.iter() {
                let bytes = record.id.len() + record.value.len();
                let is_full = |bytes_under_way: usize| bytes_under_way > 0 && bytes_under_way + bytes > BYTES_UNDER_WAY;
                while under_way.len() == RECORDS_UNDER_WAY || is_full(bytes_under_way) {
                    let Some(outcome) = under_way.try_next().await? else {
                        break;
                    };
                    bytes_under_way -= self.note(&outcome, &mut written);
                }
                bytes_under_way += bytes;
                under_way.push(self.link.in_time(self.write_one(batch.section(), record)));
            }
        }
        while let Some(outcome) = under_way.try_next().await? {
            self.note(&outcome, &mut written);
        }
        Ok(written)
    }

    fn note(&self, outcome: &Outcome, written: &mut Written) -> usize {
        written.conflicts += u64::from(outcome.is_conflict);
        let there = self.there.load(atomic::Ordering::Relaxed);
        let now = match outcome.was_there {
            true => (there + 1).min(SEEN),
            false => there.saturating_sub(1),
        };
        self.there.store(now, atomic::Ordering::Relaxed);
        outcome.bytes
    }

    async fn write_one(&self, section: Section, record: Record<'_>) -> Result<Outcome, StoreError> {
        let name = (section.number(), hash_of(record.id));
        let subject = self.subjects.of_hash(section, &name.1);
        if let Some(outcome) = self.replace_known(&name, &subject, record).await? {
            return Ok(outcome);
        }
        // Publishing without looking first is right where most records are new.
        let looks_first = self.there.load(atomic::Ordering::Relaxed) > SEEN / 2;
        let mut held = match looks_first {
            true => self.held(&subject).await?,
            false => None,
        };
        let mut draft: Option<Draft> = None;
        for attempt in 1..=ATTEMPTS {
            if let Some(held) = &held {
                let order = self.compare(section, record, held).await?;
                if order != Ordering::Greater {
                    if let Some(manifest) = draft.and_then(|draft| draft.manifest) {
                        self.delete_parts(section, &manifest).await?;
                    }
                    return Ok(outcome(record, order == Ordering::Less, true));
                }
            }
            let draft = match &mut draft {
                Some(draft) => draft,
                none => none.insert(self.draft(section, record).await?),
            };
            let expected = held.as_ref().map_or(0, |held| held.sequence);
            let published = self
                .link
                .publish(subject.clone(), Some(expected), draft.message.clone());
            if let Published::Stored { sequence } = published.await? {
                match draft.manifest {
                    None => self.known.wrote(name, record.value, sequence),
                    Some(_) => self.known.forget(&name),
                }
                if let Some(manifest) = held.as_ref().and_then(Held::manifest) {
                    self.delete_parts(section, manifest).await?;
                }
                return Ok(outcome(record, false, held.is_some()));
            }
            if attempt > 2 {
                tokio::time::sleep(PAUSE * attempt).await;
            }
            held = self.held(&subject).await?;
        }
        Err(self.link.away("others write the same record all the time"))
    }

    /// Replaces what was written last without reading it, if that is smaller and still there.
    async fn replace_known(
        &self,
        name: &RecordName,
        subject: &str,
        record: Record<'_>,
    ) -> Result<Option<Outcome>, StoreError> {
        if whole_bytes(record) > self.bucket.payload {
            return Ok(None);
        }
        let Some(sequence) = self.known.replaced_by(name, record.value) else {
            return Ok(None);
        };
        let message = Bytes::from(whole(record));
        match self.link.publish(subject.into(), Some(sequence), message).await? {
            Published::Stored { sequence } => {
                self.known.wrote(*name, record.value, sequence);
                Ok(Some(outcome(record, false, true)))
            }
            Published::WrongSequence => {
                self.known.forget(name);
                Ok(None)
            }
        }
    }

    /// How a record compares with the one that is there. One that is not whole is less than all others.
    async fn compare(&self, section: Section, record: Record<'_>, held: &Held) -> Result<Ordering, StoreError> {
        let assembled;
        let bytes = match &held.form {
            None => return Ok(Ordering::Greater),
            Some(Form::Whole(bytes)) => bytes,
            Some(Form::InParts(manifest)) => {
                let compared = record.value.len().min(manifest.beginning.len());
                if record.value[..compared] > manifest.beginning[..] {
                    return Ok(Ordering::Greater);
                }
                match self.assembled(section, manifest).await? {
                    None => return Ok(Ordering::Greater),
                    Some(bytes) => {
                        assembled = bytes;
                        &assembled
                    }
                }
            }
        };
        let other = self.record_in(bytes, record.id)?;
        Ok(other.map_or(Ordering::Greater, |other| record.value.cmp(other.value)))
    }

    async fn draft(&self, section: Section, record: Record<'_>) -> Result<Draft, StoreError> {
        if whole_bytes(record) <= self.bucket.payload {
            return Ok(Draft {
                message: whole(record).into(),
                manifest: None,
            });
        }
        let bytes = Bytes::from(record_bytes(record));
        let [high, low, ..] = time::fresh_secret();
        let nonce = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
        let number = bytes.len().div_ceil(self.bucket.payload) as u32;
        let manifest = Manifest::of(nonce, number, &bytes, record.value);
        let numbers: Vec<u32> = (0..number).collect();
        for numbers in numbers.chunks(PARTS_AT_ONCE) {
            let mut published = Vec::new();
            for number in numbers {
                let from = *number as usize * self.bucket.payload;
                let part = bytes.slice(from..bytes.len().min(from + self.bucket.payload));
                let subject = self.subjects.part(section, &nonce, *number);
                published.push(self.link.publish(subject, None, part));
            }
            try_join_all(published).await?;
        }
        Ok(Draft {
            message: manifest.write().into(),
            manifest: Some(manifest),
        })
    }
}

fn outcome(record: Record<'_>, is_conflict: bool, was_there: bool) -> Outcome {
    Outcome {
        is_conflict,
        was_there,
        bytes: record.id.len() + record.value.len(),
    }
}
