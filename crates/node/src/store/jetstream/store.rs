//! The store: a bucket, and the subjects of one cache in it.

use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use serde_json::json;

use super::bucket::Bucket;
use super::known::Known;
use super::link::Link;
use super::subject::Subjects;
use super::target::Target;
use crate::store::{Asked, Batch, CacheName, Section, Sink, Store, StoreError, Written};

pub(super) struct JetStreamStore {
    pub link: Link,
    pub bucket: Bucket,
    pub subjects: Subjects,
    /// How many of the last records that were written had been there before.
    pub there: AtomicUsize,
    /// What was written last.
    pub known: Known,
}

impl JetStreamStore {
    pub async fn open(link: Link, target: &Target, cache: &CacheName) -> Result<Self, StoreError> {
        let max_payload = link.ready().await?;
        let bucket = Bucket::open(&link, target, max_payload).await?;
        let subjects = Subjects::of(&target.bucket, cache);
        let name = json!({ "lattice": cache.lattice, "link": cache.link }).to_string();
        // Where it is there already that is fine.
        link.publish(subjects.name(), Some(0), Bytes::from(name)).await?;
        Ok(JetStreamStore {
            link,
            bucket,
            subjects,
            there: AtomicUsize::new(0),
            known: Known::default(),
        })
    }
}

impl Store for JetStreamStore {
    fn name(&self) -> &str {
        &self.link.name
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn is_read_at_once(&self) -> bool {
        true
    }

    fn load<'a>(&'a self, sections: &'a [Section], sink: Sink<'a>) -> Asked<'a, ()> {
        Box::pin(self.load_all(sections, sink))
    }

    fn write<'a>(&'a self, batches: &'a [Batch]) -> Asked<'a, Written> {
        Box::pin(self.write_all(batches))
    }

    fn remove<'a>(&'a self, batch: &'a Batch) -> Asked<'a, ()> {
        Box::pin(self.remove_all(batch))
    }

    /// What was acknowledged is there. The connection ends with the store.
    fn close(&self) -> Asked<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}
