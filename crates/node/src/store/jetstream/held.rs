//! What the bucket holds of a record.

use bytes::Bytes;
use futures::future::try_join_all;
use serde_json::json;

use super::answer::{code, Kept};
use super::fault::fault;
use super::form::{one_record, Form, Manifest};
use super::store::JetStreamStore;
use crate::store::{Record, Section, StoreError};

/// Parts of one record that are read or written at a time.
pub(super) const PARTS_AT_ONCE: usize = 4;

/// The newest message of a subject.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Held {
    pub sequence: u64,
    /// `None` for the marker of one that was deleted, or for what is none of ours.
    pub form: Option<Form>,
}

impl Held {
    /// The manifest of its parts, if it is in parts.
    pub fn manifest(&self) -> Option<&Manifest> {
        match &self.form {
            Some(Form::InParts(manifest)) => Some(manifest),
            _ => None,
        }
    }
}

impl JetStreamStore {
    pub(super) async fn held(&self, subject: &str) -> Result<Option<Held>, StoreError> {
        let kept = self.last(subject).await?;
        Ok(kept.map(|kept| Held {
            sequence: kept.sequence,
            form: match kept.is_marker {
                true => None,
                false => Form::read(&kept.payload),
            },
        }))
    }

    /// The newest message with a subject. Of several servers only the one that leads has all that was acknowledged.
    pub(super) async fn last(&self, subject: &str) -> Result<Option<Kept>, StoreError> {
        match self.bucket.is_replicated {
            true => self.link.last_of_leader(&self.bucket.stream, subject).await,
            false => self.link.last(&self.bucket.stream, subject).await,
        }
    }

    /// The bytes of a record that is in parts; `None` if some are missing.
    pub(super) async fn assembled(&self, section: Section, manifest: &Manifest) -> Result<Option<Bytes>, StoreError> {
        // Whoever wrote that: no record is so large.
        const MOST: u64 = 1 << 32;
        if manifest.bytes > MOST {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let numbers: Vec<u32> = (0..manifest.parts).collect();
        for numbers in numbers.chunks(PARTS_AT_ONCE) {
            let mut parts = Vec::new();
            for number in numbers {
                parts.push(self.part(self.subjects.part(section, &manifest.nonce, *number)));
            }
            for part in try_join_all(parts).await? {
                match part {
                    Some(part) if (bytes.len() + part.len()) as u64 <= manifest.bytes => bytes.extend_from_slice(&part),
                    _ => return Ok(None),
                }
            }
        }
        Ok(manifest.fits(&bytes).then(|| bytes.into()))
    }

    async fn part(&self, subject: String) -> Result<Option<Bytes>, StoreError> {
        Ok(self.last(&subject).await?.map(|kept| kept.payload))
    }

    /// The record that bytes hold; an error if it is another one than that which is looked for.
    pub(super) fn record_in<'a>(&self, bytes: &'a [u8], id: &[u8]) -> Result<Option<Record<'a>>, StoreError> {
        match one_record(bytes) {
            Some(record) if record.id != id => Err(StoreError::Damaged(format!(
                "{}: a record under the key of another one",
                self.link.name
            ))),
            record => Ok(record),
        }
    }

    /// Removes one message, if it is still there.
    pub(super) async fn delete(&self, subject: &str, sequence: u64) -> Result<(), StoreError> {
        let stream = &self.bucket.stream;
        let answer = match self.bucket.deletes {
            true => {
                let body = json!({ "seq": sequence, "no_erase": true });
                self.link.api(&format!("STREAM.MSG.DELETE.{stream}"), &body).await?
            }
            false => {
                // All that has the subject, up to this sequence.
                let body = json!({ "filter": subject, "seq": sequence + 1 });
                self.link.api(&format!("STREAM.PURGE.{stream}"), &body).await?
            }
        };
        match answer {
            Ok(_) => Ok(()),
            Err(refused) if [code::SEQUENCE_NOT_FOUND, code::NO_MESSAGE_FOUND].contains(&refused.code) => Ok(()),
            Err(refused) => Err(fault(&self.link.name, &refused)),
        }
    }

    /// Removes the parts of a record that is gone, or was never there.
    pub(super) async fn delete_parts(&self, section: Section, manifest: &Manifest) -> Result<(), StoreError> {
        let body = json!({ "filter": self.subjects.parts(section, &manifest.nonce) });
        let question = format!("STREAM.PURGE.{}", self.bucket.stream);
        self.link.api_or_fault(&question, &body).await.map(drop)
    }
}
