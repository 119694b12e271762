//! The store: records in buckets, changed by compare-and-set.

use std::collections::{BTreeMap, HashMap};
use std::future::ready;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures::{stream, StreamExt, TryStreamExt};
use kvcache_node::store::{Asked, Batch, Record, Section, Sink, Store, StoreError, Written};

use crate::bucket::{self, Bucket, Draft, Stored, Whole, MAX_BYTES, MAX_VALUE};
use crate::client::{fit, operation_bytes, Consul, Found, Operation, Outcome, BODY, OPERATIONS};
use crate::layout::{At, Keys};
use crate::parts;

/// Transactions at one time. Consul executes those that write one after the other.
const IN_FLIGHT: usize = 4;
/// Sections that are loaded in one transaction: with all their buckets at their largest, some 10 MiB.
const SECTIONS: usize = 16;
/// Of several that change a bucket at one time one is the first each time.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(2);
/// A value is read again so many times if its bucket says other parts by then.
const READINGS: usize = 4;

/// A cache in Consul.
pub(crate) struct ConsulStore {
    consul: Consul,
    keys: Keys,
    name: String,
    /// How many of the last buckets that were written were there before.
    there: AtomicUsize,
}

/// Of so many of the last buckets was seen whether they were there.
const SEEN: usize = 64;

/// What is done with records.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Write,
    Remove,
}

/// Records of one bucket.
struct Task<'a> {
    at: At,
    key: String,
    records: Vec<Record<'a>>,
    /// Names of parts that were written for attempts that others were faster than.
    lost: Vec<String>,
}

impl Task<'_> {
    /// What it takes of a transaction if the bucket holds nothing else.
    fn bytes(&self) -> usize {
        // Lengths, and that the value stands here; of one that is in parts the bucket has less.
        let bytes = |record: &Record<'_>| record.id.len() + record.value.len().min(MAX_VALUE) + 7;
        let records = self.records.iter().map(bytes);
        operation_bytes(&self.key, records.sum())
    }
}

/// A bucket that is to be written.
struct Changed<'a> {
    task: Task<'a>,
    draft: Draft,
    bytes: Vec<u8>,
    index: u64,
}

impl ConsulStore {
    /// The store of a cache.
    pub(crate) fn new(consul: Consul, keys: Keys, name: String) -> Self {
        ConsulStore {
            consul,
            keys,
            name,
            there: AtomicUsize::new(0),
        }
    }

    /// Whether it may be written, and read: what is missing is better said when it is opened. Then what writers that
    /// have ended have left behind is removed.
    pub(crate) async fn prepare(&self) -> Result<(), StoreError> {
        let none = self.keys.none();
        self.consul.execute_all("opening", &[Operation::Delete(&none)]).await?;
        parts::remove_left_behind(&self.consul, &self.keys).await
    }

    // --- changing

    async fn change(&self, batches: &[Batch], work: Work) -> Result<u64, StoreError> {
        let mut buckets: BTreeMap<At, Vec<Record<'_>>> = BTreeMap::new();
        for batch in batches {
            for record in batch.iter() {
                buckets
                    .entry(At::of(batch.section(), record.id))
                    .or_default()
                    .push(record);
            }
        }
        let tasks = buckets.into_iter().map(|(at, records)| Task {
            at,
            key: self.keys.bucket(at),
            records,
            lost: Vec::new(),
        });
        let mut changing = Vec::new();
        let (mut some, mut bytes) = (Vec::new(), 0);
        for task in tasks {
            let more = task.bytes();
            // What is too much for a transaction would take a second one for little.
            if some.len() == OPERATIONS || !some.is_empty() && bytes + more > BODY {
                changing.push(self.change_some(std::mem::take(&mut some), work));
                bytes = 0;
            }
            bytes += more;
            some.push(task);
        }
        if !some.is_empty() {
            changing.push(self.change_some(some, work));
        }
        let changing = stream::iter(changing).buffer_unordered(IN_FLIGHT);
        changing.try_fold(0, |all, conflicts| ready(Ok(all + conflicts))).await
    }

    /// Changes the buckets of up to [`OPERATIONS`] tasks. Gives the number of conflicts.
    async fn change_some(&self, mut tasks: Vec<Task<'_>>, work: Work) -> Result<u64, StoreError> {
        let mut conflicts = 0;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(PAUSE * attempt).await;
            }
            // Where those before were new these are most likely too. If not they are not written, and are read then.
            let takes_as_new = attempt == 0 && work == Work::Write && self.there.load(Relaxed) == 0;
            let held = match takes_as_new {
                true => Vec::new(),
                false => self.read(tasks.iter().map(|task| &task.key)).await?,
            };
            let (asked, found) = (tasks.len(), held.len());
            let mut held: HashMap<String, Found> = held.into_iter().map(|found| (found.key.clone(), found)).collect();
            let mut changed = Vec::new();
            for task in tasks {
                let found = held.remove(&task.key);
                let (draft, bucket, index) = self.draft(&task, found, work)?;
                if draft.has_changed {
                    let bytes = self.bytes(&task, &bucket)?;
                    changed.push(Changed {
                        task,
                        draft,
                        bytes,
                        index,
                    });
                } else {
                    conflicts += draft.conflicts;
                    self.drop_parts(task.at, draft.dropped).await?;
                }
            }
            tasks = self.write(changed, &mut conflicts).await?;
            let there = match takes_as_new {
                true if tasks.is_empty() => 0,
                true => SEEN,
                false => (self.there.load(Relaxed) + found)
                    .min(SEEN)
                    .saturating_sub(asked - found.min(asked)),
            };
            self.there.store(there, Relaxed);
            if tasks.is_empty() {
                return Ok(conflicts);
            }
        }
        let why = format!("others were faster {ATTEMPTS} times");
        Err(self.consul.place().away("writing", &why))
    }

    /// What a task makes of what its bucket holds.
    fn draft(&self, task: &Task<'_>, found: Option<Found>, work: Work) -> Result<(Draft, Bucket, u64), StoreError> {
        let (bytes, index) = found.map_or((Vec::new(), 0), |found| (found.value, found.index));
        let mut bucket = Bucket::read(&bytes).ok_or_else(|| {
            let why = format!(
                "the value of {:?} is not of nats-kvcache: delete it, and its records are written anew",
                task.key
            );
            self.consul.place().damaged("writing", &why)
        })?;
        let mut draft = Draft::default();
        // Nobody can come to need them: the bucket has changed since.
        let lost = task.lost.iter().filter(|name| !bucket.needs(name));
        draft.dropped.extend(lost.cloned());
        for record in &task.records {
            match work {
                Work::Write => bucket.put(*record, index, &mut draft),
                Work::Remove => bucket.take(*record, &mut draft),
            }
        }
        Ok((draft, bucket, index))
    }

    fn bytes(&self, task: &Task<'_>, bucket: &Bucket) -> Result<Vec<u8>, StoreError> {
        let bytes = bucket.bytes();
        match bytes.len() <= MAX_BYTES {
            true => Ok(bytes),
            false => {
                let why = format!(
                    "{:?} would have {} bytes, more than a value of Consul takes: the cache is too large for it",
                    task.key,
                    bytes.len()
                );
                Err(self.consul.place().unusable("writing", &why))
            }
        }
    }

    /// Writes buckets. Gives back the tasks of those that others have changed in between.
    async fn write<'a>(&self, changed: Vec<Changed<'a>>, conflicts: &mut u64) -> Result<Vec<Task<'a>>, StoreError> {
        for Changed { task, draft, .. } in &changed {
            for (name, whole) in &draft.added {
                parts::write(&self.consul, &self.keys, task.at, name, whole).await?;
            }
        }
        let sizes: Vec<usize> = {
            let operations: Vec<_> = changed.iter().map(Changed::operation).collect();
            fit(&operations).map(<[_]>::len).collect()
        };
        let mut changed = changed.into_iter();
        let mut again = Vec::new();
        for size in sizes {
            let some: Vec<Changed<'a>> = changed.by_ref().take(size).collect();
            let operations: Vec<_> = some.iter().map(Changed::operation).collect();
            match self.consul.execute("writing", &operations).await? {
                Outcome::Done(_) => {
                    for Changed { task, draft, .. } in some {
                        *conflicts += draft.conflicts;
                        self.drop_parts(task.at, draft.dropped).await?;
                    }
                }
                Outcome::Otherwise => again.extend(some.into_iter().map(Changed::lost)),
            }
        }
        Ok(again)
    }

    async fn drop_parts(&self, at: At, names: Vec<String>) -> Result<(), StoreError> {
        if names.is_empty() {
            return Ok(());
        }
        let values: Vec<_> = names.into_iter().map(|name| (at, name)).collect();
        parts::remove(&self.consul, &self.keys, &values).await
    }

    // --- reading

    /// All keys that begin with one of these.
    async fn read(&self, prefixes: impl Iterator<Item = &String>) -> Result<Vec<Found>, StoreError> {
        let operations: Vec<_> = prefixes.map(|prefix| Operation::GetTree(prefix)).collect();
        match self.consul.execute("reading", &operations).await? {
            Outcome::Done(found) => Ok(found),
            Outcome::Otherwise => Err(self
                .consul
                .place()
                .away("reading", &"nothing was to be there, and was missed")),
        }
    }

    /// Shows some sections. Gives the number of records that are not whole.
    async fn load_some(&self, sections: &[Section], sink: Sink<'_>) -> Result<usize, StoreError> {
        let prefixes: Vec<String> = sections.iter().map(|section| self.keys.section(*section)).collect();
        let mut torn = 0;
        for Found { key, value, .. } in self.read(prefixes.iter()).await? {
            let Some(at) = self.keys.at(&key) else {
                continue;
            };
            for stored in bucket::stored(&value) {
                match stored {
                    Some(Stored::Here(record)) => sink(at.section, record),
                    Some(Stored::InParts(whole)) => torn += self.load_large(at, whole, sink).await?,
                    None => {
                        tracing::warn!("{}: {key:?} is not of nats-kvcache; it is left out", self.name);
                        break;
                    }
                }
            }
        }
        Ok(torn)
    }

    /// Shows a record that is in parts; 1 if it is not whole. It may be written, or removed, while it is read.
    async fn load_large(&self, at: At, whole: Whole<'_>, sink: Sink<'_>) -> Result<usize, StoreError> {
        let id = whole.id();
        let mut newer: Option<Bucket> = None;
        for _ in 0..READINGS {
            let whole = match newer
                .as_ref()
                .map_or(Some(Stored::InParts(whole)), |bucket| bucket.get(id))
            {
                None => return Ok(0),
                Some(Stored::Here(record)) => {
                    sink(at.section, record);
                    return Ok(0);
                }
                Some(Stored::InParts(whole)) => whole,
            };
            let bytes = parts::read(&self.consul, &self.keys, at, &whole).await?;
            if let Some(record) = bytes.as_ref().and_then(|bytes| whole.record(bytes)) {
                sink(at.section, record);
                return Ok(0);
            }
            let name = whole.name();
            let key = self.keys.bucket(at);
            let found = self.read(std::iter::once(&key)).await?.pop();
            match Bucket::read(&found.map(|found| found.value).unwrap_or_default()) {
                Some(now) if !now.needs(&name) => newer = Some(now),
                _ => return Ok(1),
            }
        }
        Ok(1)
    }
}

impl<'a> Changed<'a> {
    fn operation(&self) -> Operation<'_> {
        Operation::Cas(&self.task.key, &self.bytes, self.index)
    }

    /// Its task, which is to be tried again.
    fn lost(mut self) -> Task<'a> {
        let written = self.draft.added.into_iter().map(|(name, _)| name);
        self.task.lost.extend(written);
        self.task
    }
}

impl Store for ConsulStore {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn load<'a>(&'a self, sections: &'a [Section], sink: Sink<'a>) -> Asked<'a, ()> {
        Box::pin(async move {
            let loading: Vec<_> = sections
                .chunks(SECTIONS)
                .map(|some| self.load_some(some, sink))
                .collect();
            let loading = stream::iter(loading).buffer_unordered(IN_FLIGHT);
            match loading.try_fold(0, |torn, of_some| ready(Ok(torn + of_some))).await? {
                0 => {}
                torn => tracing::warn!("{}: {torn} records are not whole; they are left out", self.name),
            }
            Ok(())
        })
    }

    fn write<'a>(&'a self, batches: &'a [Batch]) -> Asked<'a, Written> {
        Box::pin(async move {
            let conflicts = self.change(batches, Work::Write).await?;
            Ok(Written { conflicts })
        })
    }

    fn remove<'a>(&'a self, batch: &'a Batch) -> Asked<'a, ()> {
        Box::pin(async move {
            let removed = self.change(std::slice::from_ref(batch), Work::Remove).await;
            removed.map(drop)
        })
    }

    /// There is nothing to end: connections close when they are idle.
    fn close(&self) -> Asked<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}
