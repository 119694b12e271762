//! Making a section of a store and a partition of the cache equal.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use super::batch::Batch;
use super::record::Record;
use super::section::Section;
use crate::cache::{Cache, Millis, Partition, Span, Time};

/// The records of a section, by id.
pub type Held = HashMap<Box<[u8]>, Box<[u8]>>;

/// What may be taken from a store into a cache that is in service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// Everything: nothing that it lacks can have been forgotten here, or there is nobody who knows better.
    All,
    /// What is stamped before the floor may have been deleted and forgotten since the store was written last. If the
    /// cache lacks it, it goes.
    SinceFloor,
}

impl Trust {
    /// In a store that held all there was at the time of `contact`. A deletion after that which is forgotten was
    /// stamped before the floor.
    pub fn in_store_of(contact: Time, floor: Time) -> Self {
        match contact >= floor {
            true => Trust::All,
            false => Trust::SinceFloor,
        }
    }
}

/// What is left to be done in the store. The cache has taken what it lacked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reconciliation {
    /// Records that the store lacks, or holds an older value of.
    pub write: Batch,
    /// Records that mean nothing any more: elements and counter entries.
    pub elements: Batch,
    /// The same, resets. To be removed when the elements are gone, some of which may have been covered by them.
    pub resets: Batch,
    /// How many deltas the cache has taken from the store.
    pub merged: usize,
    /// How many records cannot be read. They are left alone.
    pub unreadable: usize,
}

impl Reconciliation {
    /// Whether cache and store were equal.
    pub fn is_nothing(&self) -> bool {
        self.write.is_empty() && self.elements.is_empty() && self.resets.is_empty() && self.merged == 0
    }
}

/// Merges what the store holds of a partition into the cache, as far as it is to be trusted, and tells what is left to
/// be written and to be removed, in this order. `held` are all records of the section.
///
/// What a store holds is the merge of all its records, some of which may be covered by others. So they are merged with
/// each other first: a record that is covered there must never reach the cache, which may have forgotten what covers it.
pub fn reconcile(cache: &Cache, partition: Partition, mut held: Held, trust: Trust, now: Millis) -> Reconciliation {
    let section = Section::of(partition);
    let mut outcome = Reconciliation {
        write: Batch::new(section),
        elements: Batch::new(section),
        resets: Batch::new(section),
        merged: 0,
        unreadable: 0,
    };
    held.remove(&[][..]);
    let all = Span::of(partition);
    let mut scratch = Batch::new(section);
    // What both hold needs nothing. In most cases that is all.
    let mut known = HashSet::new();
    let mut newer = 0;
    cache.select(
        all,
        |_| true,
        |delta| {
            let ours = scratch.only(&delta);
            match held.get_key_value(ours.id) {
                Some((id, theirs)) => {
                    known.insert(id);
                    match (**theirs).cmp(ours.value) {
                        Ordering::Less => outcome.write.push(ours),
                        Ordering::Equal => {}
                        Ordering::Greater => newer += 1,
                    }
                }
                None => outcome.write.push(ours),
            }
        },
    );
    if known.len() == held.len() && newer == 0 {
        return outcome;
    }
    let in_store = Cache::new(cache.node(), cache.limits());
    in_store.raise_floor(cache.floor());
    let mut unreadable = HashSet::new();
    for (id, value) in &held {
        let record = Record { id, value };
        let is_read = record.delta().is_ok_and(|delta| in_store.apply(&delta, now).is_ok());
        if !is_read {
            unreadable.insert(id);
        }
    }
    let mut taken = HashSet::new();
    in_store.select(
        all,
        |_| true,
        |delta| {
            let is_known = trust == Trust::All || delta.newest().time >= cache.floor();
            if is_known && cache.apply(&delta, now) == Ok(true) {
                outcome.merged += 1;
                taken.extend(held.get_key_value(scratch.only(&delta).id).map(|(id, _)| id));
            }
        },
    );
    for (id, value) in &held {
        let stays = known.contains(id) || taken.contains(id) || unreadable.contains(id);
        let record = Record { id, value };
        match record.is_reset() {
            _ if stays => {}
            true => outcome.resets.push(record),
            false => outcome.elements.push(record),
        }
    }
    outcome.unreadable = unreadable.len();
    outcome
}
