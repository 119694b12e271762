//! Reading a store into an empty cache.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use kvcache_core::cache::{Cache, DeltaError, Millis, Partition, Time};
use kvcache_core::durable::{Batch, Record, Section, SectionState};

use super::{Store, StoreError};

/// Sections asked for at a time: progress is told between them, and their records are merged meanwhile.
const SECTIONS_AT_ONCE: usize = 128;

/// Bytes of the records of a section that are merged together: deltas of one partition in a row share what each would
/// cost alone. Those of all sections that wait take 8 MiB, with records of at most that size.
const MERGED_BYTES: usize = 8 << 10;

/// What loading has come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Loaded {
    /// What the sections that hold anything say of themselves, if they do.
    pub states: Vec<(Partition, Option<SectionState>)>,
    /// Records that cannot be read.
    pub unreadable: u64,
    /// Partitions of which the store holds other than it says: somebody was interrupted, or something lies there that
    /// means nothing any more.
    pub differ: Vec<Partition>,
}

/// Merges all that a store holds. `progress` is told about how many sections are done.
pub(super) async fn load(
    store: &dyn Store,
    cache: &Cache,
    now: Millis,
    progress: impl Fn(usize) + Sync,
) -> Result<Loaded, StoreError> {
    let mut unreadable = 0;
    let (mut states, mut differ) = (Vec::new(), Vec::new());
    let all: Vec<Section> = Partition::all().map(Section::of).collect();
    let at_once = match store.is_read_at_once() {
        true => all.len(),
        false => SECTIONS_AT_ONCE,
    };
    let furthest = AtomicUsize::new(0);
    for sections in all.chunks(at_once) {
        let said: Mutex<Vec<Option<SectionState>>> = Mutex::new(vec![None; sections.len()]);
        let seen: Vec<AtomicUsize> = sections.iter().map(|_| AtomicUsize::new(0)).collect();
        let first = usize::from(sections[0].number());
        let merging = Merging::new(cache, now, sections);
        let sink = |section: Section, record: Record<'_>| {
            let number = usize::from(section.number());
            if number > furthest.load(Ordering::Relaxed) && furthest.fetch_max(number, Ordering::Relaxed) < number {
                progress(number);
            }
            let place = number - first;
            if let Some(state) = SectionState::of(record) {
                let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                let known = &mut said[place];
                if known.is_none_or(|known| known.written < state.written) {
                    *known = Some(state);
                }
                return;
            }
            seen[place].fetch_add(1, Ordering::Relaxed);
            merging.add(place, record);
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
        let said = said.into_inner().unwrap_or_else(PoisonError::into_inner);
        for ((section, state), seen) in sections.iter().zip(said).zip(seen) {
            let Some(partition) = section.partition() else { continue };
            if state.is_some() || seen.into_inner() > 0 {
                states.push((partition, state));
            }
            if state.is_some_and(|state| state.digest != cache.digest(partition)) {
                differ.push(partition);
            }
        }
    }
    Ok(Loaded {
        states,
        unreadable,
        differ,
    })
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
