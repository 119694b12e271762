//! Reading a store into an empty cache.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use kvcache_core::cache::{Cache, Delta, Millis, Partition, Time};
use kvcache_core::durable::{Record, Section, SectionState};

use super::{Store, StoreError};

/// Sections asked for at a time: progress is told between them, and their records are merged meanwhile.
const SECTIONS_AT_ONCE: usize = 128;

/// What loading has come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Loaded {
    /// What was known of deletions when the sections were written, as far as all of them go; `None` where nothing is.
    pub contact: Option<Time>,
    /// Up to when deletions were forgotten then.
    pub floor: Time,
    /// Records that cannot be read. They are left alone.
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
    let (unreadable, contact) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let (mut differ, mut floor) = (Vec::new(), Time(0));
    let all: Vec<Section> = Partition::all().map(Section::of).collect();
    let at_once = match store.is_read_at_once() {
        true => all.len(),
        false => SECTIONS_AT_ONCE,
    };
    let furthest = AtomicUsize::new(0);
    for sections in all.chunks(at_once) {
        let states: Mutex<Vec<Option<SectionState>>> = Mutex::new(vec![None; sections.len()]);
        let seen: Vec<AtomicUsize> = sections.iter().map(|_| AtomicUsize::new(0)).collect();
        let first = usize::from(sections[0].number());
        let sink = |section: Section, record: Record<'_>| {
            let number = usize::from(section.number());
            if number > furthest.load(Ordering::Relaxed) && furthest.fetch_max(number, Ordering::Relaxed) < number {
                progress(number);
            }
            let place = number - first;
            if let Some(state) = SectionState::of(record) {
                let mut states = states.lock().unwrap_or_else(PoisonError::into_inner);
                let known = &mut states[place];
                if known.is_none_or(|known| known.written < state.written) {
                    *known = Some(state);
                }
                return;
            }
            seen[place].fetch_add(1, Ordering::Relaxed);
            let merged = record
                .delta()
                .is_ok_and(|delta: Delta<&[u8]>| cache.apply(&delta, now).is_ok());
            if !merged {
                unreadable.fetch_add(1, Ordering::Relaxed);
            }
        };
        store.load(sections, &sink).await?;
        let states = states.into_inner().unwrap_or_else(PoisonError::into_inner);
        for ((section, state), seen) in sections.iter().zip(states).zip(seen) {
            let Some(partition) = section.partition() else { continue };
            match state {
                // Nobody has said how far it goes.
                None if seen.into_inner() > 0 => contact.store(0, Ordering::Relaxed),
                None => {}
                Some(state) => {
                    contact.fetch_min(state.contact.0, Ordering::Relaxed);
                    floor = floor.max(state.floor);
                    if state.digest != cache.digest(partition) {
                        differ.push(partition);
                    }
                }
            }
        }
    }
    let contact = contact.into_inner();
    Ok(Loaded {
        contact: (contact != u64::MAX).then_some(Time(contact)),
        floor,
        unreadable: unreadable.into_inner(),
        differ,
    })
}

/// Forgets what was read of a store that could not be read to its end: it is nobody's state.
pub(super) fn forget(cache: &Cache, now: Millis) {
    for partition in Partition::all() {
        cache.forget(kvcache_core::cache::Span::of(partition), Time(u64::MAX), |_| true, now);
    }
}
