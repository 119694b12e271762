//! Reading a store into an empty cache.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use kvcache_core::cache::{Cache, DeltaError, Millis, Partition, Time};
use kvcache_core::durable::{Loaded, LoadedSection, Record, Section};

use super::{Store, StoreError};

/// Sections asked for at a time: progress is told between them, and their records are merged meanwhile.
const SECTIONS_AT_ONCE: usize = 128;

/// Merges all that a store holds. `progress` is told about how many sections are done. Gives what the sections say, and
/// how many records cannot be read.
pub(super) async fn load(
    store: &dyn Store,
    cache: &Cache,
    now: Millis,
    progress: impl Fn(usize) + Sync,
) -> Result<(Loaded, u64), StoreError> {
    let (unreadable, ahead_ms) = (AtomicU64::new(0), AtomicU64::new(0));
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
            match record.delta().map(|delta| cache.apply(&delta, now)) {
                Ok(Ok(_)) => {}
                Ok(Err(DeltaError::FromTheFuture { ahead_ms: by })) => drop(ahead_ms.fetch_max(by, Ordering::Relaxed)),
                Ok(Err(DeltaError::Impossible(_))) | Err(_) => drop(unreadable.fetch_add(1, Ordering::Relaxed)),
            }
        };
        store.load(sections, &sink).await?;
        let ahead_ms = ahead_ms.load(Ordering::Relaxed);
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
    Ok((loaded, unreadable.into_inner()))
}

/// Forgets what was read of a store that could not be read to its end: it is nobody's state.
pub(super) fn forget(cache: &Cache, now: Millis) {
    for partition in Partition::all() {
        cache.forget(kvcache_core::cache::Span::of(partition), Time(u64::MAX), |_| true, now);
    }
}
