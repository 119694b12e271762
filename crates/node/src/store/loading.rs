//! Reading a store into an empty cache.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use kvcache_core::cache::{Cache, DeltaError, Millis, Partition, Time};
use kvcache_core::durable::{Batch, Loaded, LoadedSection, Record, Section};

use super::{Store, StoreError};

/// Sections asked for at a time: progress is told between them, and their records are merged meanwhile.
const SECTIONS_AT_ONCE: usize = 128;

/// Bytes of the records of a section that are merged together: deltas of one partition in a row share what each would
/// cost alone. Those of all sections that wait take 8 MiB, with records of at most that size.
const MERGED_BYTES: usize = 8 << 10;

/// Merges all that a store holds. `progress` is told about how many sections are done. Gives what the sections say, and
/// how many records cannot be read.
pub(super) async fn load(
    store: &dyn Store,
    cache: &Cache,
    now: Millis,
    progress: impl Fn(usize) + Sync,
) -> Result<(Loaded, u64), StoreError> {
    let mut unreadable = 0;
    let mut loaded = Loaded::default();
    let all: Vec<Section> = Partition::all().map(Section::of).collect();
    let at_once = match store.is_read_at_once() {
        true => all.len(),
        false => SECTIONS_AT_ONCE,
    };
    let furthest = AtomicUsize::new(0);
    for sections in all.chunks(at_once) {
        let seen: Vec<Mutex<LoadedSection>> = sections.iter().map(|_| Mutex::default()).collect();
        let first = usize::from(sections[0].number());
        let merging = Merging::new(cache, now, sections);
        let sink = |section: Section, record: Record<'_>| {
            let number = usize::from(section.number());
            if number > furthest.load(Ordering::Relaxed) && furthest.fetch_max(number, Ordering::Relaxed) < number {
                progress(number);
            }
            let mut seen = seen[number - first].lock().unwrap_or_else(PoisonError::into_inner);
            let is_to_be_merged = seen.shows(record);
            drop(seen);
            if !is_to_be_merged {
                return;
            }
            merging.add(number - first, record);
        };
        store.load(sections, &sink).await?;
        let (unread, ahead_ms) = merging.end();
        unreadable += unread;
        if ahead_ms > 0 {
            // What is left out would be taken for forgotten, and go.
            return Err(StoreError::Away(format!(
                "{} holds writes that are stamped {} s ahead of the clock of this host, more than MAX_CLOCK_SKEW_SECS: is \
                 the clock right?",
                store.name(),
                ahead_ms.div_ceil(1_000)
            )));
        }
        for (section, seen) in sections.iter().zip(seen) {
            let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
            if let Some(partition) = section.partition() {
                loaded.has(cache, partition, seen);
            }
        }
    }
    Ok((loaded, unreadable))
}

/// Merges the records of some sections, those of each some hundred at a time.
struct Merging<'a> {
    cache: &'a Cache,
    now: Millis,
    /// Those of each section that wait for others.
    waiting: Vec<Mutex<Batch>>,
    unreadable: AtomicU64,
    ahead_ms: AtomicU64,
}

impl<'a> Merging<'a> {
    fn new(cache: &'a Cache, now: Millis, sections: &[Section]) -> Self {
        Merging {
            cache,
            now,
            waiting: sections
                .iter()
                .map(|section| Mutex::new(Batch::new(*section)))
                .collect(),
            unreadable: AtomicU64::new(0),
            ahead_ms: AtomicU64::new(0),
        }
    }

    /// Takes a record of the section at this place among them.
    fn add(&self, place: usize, record: Record<'_>) {
        let mut waiting = self.waiting[place].lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(record);
        if waiting.as_bytes().len() >= MERGED_BYTES {
            let next = Batch::new(waiting.section());
            let batch = std::mem::replace(&mut *waiting, next);
            drop(waiting);
            self.merge(&batch);
        }
    }

    fn merge(&self, batch: &Batch) {
        let mut deltas = Vec::with_capacity(batch.len());
        let unreadable = || {
            self.unreadable.fetch_add(1, Ordering::Relaxed);
        };
        for record in batch.iter() {
            match record.delta() {
                Ok(delta) => deltas.push(delta),
                Err(_) => unreadable(),
            }
        }
        self.cache.apply_all(&deltas, self.now, |merged| match merged {
            Ok(_) => {}
            Err(DeltaError::FromTheFuture { ahead_ms }) => {
                self.ahead_ms.fetch_max(ahead_ms, Ordering::Relaxed);
            }
            Err(DeltaError::Impossible(_)) => unreadable(),
        });
    }

    /// Merges what waits. Returns how many records cannot be read, and how far the furthest of those that are ahead of
    /// the clock is, in milliseconds.
    fn end(self) -> (u64, u64) {
        for waiting in &self.waiting {
            self.merge(&waiting.lock().unwrap_or_else(PoisonError::into_inner));
        }
        (self.unreadable.into_inner(), self.ahead_ms.into_inner())
    }
}

/// Forgets what was read of a store that could not be read to its end: it is nobody's state.
pub(super) fn forget(cache: &Cache, now: Millis) {
    for partition in Partition::all() {
        cache.forget(kvcache_core::cache::Span::of(partition), Time(u64::MAX), |_| true, now);
    }
}
