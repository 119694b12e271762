//! Lists: items ordered by the stamp that is their id; removed items leave a marker.

use std::collections::{BTreeMap, VecDeque};

use super::blob::Blob;
use super::component::Part;
use super::hash::{self, KeyHash};
use super::memory::{allocated_or_none, of_tree};
use super::stamp::{Stamp, Time};

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Item {
    pub id: Stamp,
    pub value: Blob,
}

impl Item {
    /// The component hash.
    pub fn hash(&self, key: KeyHash) -> u64 {
        hash::of_item(key, self.id, &self.value)
    }

    /// The component.
    pub fn part(&self) -> Part<'_> {
        Part::Item {
            id: self.id,
            value: &self.value,
        }
    }

    /// Takes the value of another item with the same id, if that is the larger one. Returns the change of the digest.
    fn settle(&mut self, key: KeyHash, value: &[u8], value_bytes: &mut usize) -> u64 {
        if hash::of_value(value) <= hash::of_value(&self.value) {
            return 0;
        }
        let old = self.hash(key);
        *value_bytes -= self.value.heap_bytes();
        self.value = Blob::new(value);
        *value_bytes += self.value.heap_bytes();
        self.hash(key).wrapping_sub(old)
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct List {
    /// Items that are there, in order. All are above the key's horizon.
    pub items: VecDeque<Item>,
    /// Removed items: id and stamp of the removal.
    pub removed: BTreeMap<Stamp, Stamp>,
    /// Newest stamp among ids and removals.
    pub newest: Stamp,
    /// Bytes that the values take beside the items.
    value_bytes: usize,
}

impl List {
    /// What is known of the item with this id.
    pub fn part(&self, id: Stamp) -> Option<Part<'_>> {
        if let Some(&at) = self.removed.get(&id) {
            return Some(Part::Removed { id, at });
        }
        let place = self.items.binary_search_by_key(&id, |item| item.id).ok()?;
        Some(self.items[place].part())
    }

    /// Puts an item in its place, unless it is there or was removed; of two with one id the larger content stays.
    /// Returns the change of the digest.
    pub fn push(&mut self, key: KeyHash, id: Stamp, value: &[u8]) -> u64 {
        if self.removed.contains_key(&id) {
            return 0;
        }
        let place = match self.items.back() {
            Some(last) if last.id >= id => match self.items.binary_search_by_key(&id, |item| item.id) {
                Ok(place) => return self.items[place].settle(key, value, &mut self.value_bytes),
                Err(place) => place,
            },
            _ => self.items.len(),
        };
        let value = Blob::new(value);
        let item = Item { id, value };
        let delta = item.hash(key);
        self.value_bytes += item.value.heap_bytes();
        self.items.insert(place, item);
        self.newest = self.newest.max(id);
        delta
    }

    /// Marks an item as removed. Returns the change of the digest.
    pub fn remove(&mut self, key: KeyHash, id: Stamp, at: Stamp) -> u64 {
        let marker = hash::of_removed(key, id, at);
        self.newest = self.newest.max(at);
        if let Some(known) = self.removed.get_mut(&id) {
            if *known >= at {
                return 0;
            }
            let old = hash::of_removed(key, id, *known);
            *known = at;
            return marker.wrapping_sub(old);
        }
        self.removed.insert(id, at);
        match self.items.binary_search_by_key(&id, |item| item.id) {
            Ok(place) => {
                let gone = self.take_item(key, place);
                marker.wrapping_sub(gone)
            }
            Err(_) => marker,
        }
    }

    /// Drops an item without a mark that it was there. Returns the change of the digest.
    pub fn drop_item(&mut self, key: KeyHash, id: Stamp) -> u64 {
        let Ok(place) = self.items.binary_search_by_key(&id, |item| item.id) else {
            return 0;
        };
        self.take_item(key, place).wrapping_neg()
    }

    /// Takes an item out. Returns its component hash.
    fn take_item(&mut self, key: KeyHash, place: usize) -> u64 {
        let Some(item) = self.items.remove(place) else {
            return 0;
        };
        self.value_bytes -= item.value.heap_bytes();
        // A queue that was long once is not for ever.
        if self.items.len() * 4 < self.items.capacity() {
            self.items.shrink_to(self.items.len() * 2);
        }
        item.hash(key)
    }

    /// Drops what a reset at `horizon` covers. Returns the change of the digest.
    pub fn drop_covered(&mut self, key: KeyHash, horizon: Stamp) -> u64 {
        let mut delta = 0u64;
        let covered = self.items.partition_point(|item| item.id <= horizon);
        for item in self.items.drain(..covered) {
            self.value_bytes -= item.value.heap_bytes();
            delta = delta.wrapping_sub(item.hash(key));
        }
        self.removed.retain(|id, at| {
            let keep = (*at).max(*id) > horizon;
            if !keep {
                delta = delta.wrapping_sub(hash::of_removed(key, *id, *at));
            }
            keep
        });
        delta
    }

    /// Forgets removals before `floor`. Returns the change of the digest.
    pub fn collect(&mut self, key: KeyHash, floor: Time) -> u64 {
        let mut delta = 0u64;
        self.removed.retain(|id, at| {
            let keep = at.time >= floor;
            if !keep {
                delta = delta.wrapping_sub(hash::of_removed(key, *id, *at));
            }
            keep
        });
        // What is forgotten decides nothing any more, on no node.
        self.renew_newest();
        delta
    }

    /// Drops items and removals without a trace, as though they had never arrived. Returns the change of the digest.
    pub fn forget(&mut self, key: KeyHash, mut to_remove: impl FnMut(Part<'_>) -> bool) -> u64 {
        let mut delta = 0u64;
        let mut drop = |part: Part<'_>| {
            let drop = to_remove(part);
            if drop {
                delta = delta.wrapping_sub(part.hash(key));
            }
            drop
        };
        self.items.retain(|item| {
            let keep = !drop(item.part());
            self.value_bytes -= if keep { 0 } else { item.value.heap_bytes() };
            keep
        });
        self.removed.retain(|&id, &mut at| !drop(Part::Removed { id, at }));
        self.renew_newest();
        delta
    }

    fn renew_newest(&mut self) {
        let last = self.items.back().map_or(Stamp::default(), |item| item.id);
        self.newest = self.removed.values().copied().fold(last, Stamp::max);
    }

    /// Bytes that it takes beside itself.
    pub fn heap_bytes(&self) -> usize {
        let items = allocated_or_none(self.items.capacity() * size_of::<Item>());
        items + self.value_bytes + self.deletion_bytes()
    }

    /// Those of them that are left of removals.
    pub fn deletion_bytes(&self) -> usize {
        // Mostly the first is removed, or all of them one after the other.
        of_tree(self.removed.len(), 2 * size_of::<Stamp>(), (1, 1))
    }

    /// Whether the sums that it keeps are those of what it holds.
    #[cfg(test)]
    pub fn sums_hold(&self) -> bool {
        let value_bytes: usize = self.items.iter().map(|item| item.value.heap_bytes()).sum();
        self.value_bytes == value_bytes
    }

    pub fn is_blank(&self) -> bool {
        self.items.is_empty() && self.removed.is_empty()
    }

    /// Items `start..=stop`, where negative indices count from the end (Redis LRANGE).
    pub fn range(&self, start: i64, stop: i64) -> impl Iterator<Item = &Item> {
        let length = self.items.len() as i64;
        let absolute = |index: i64| if index < 0 { length + index } else { index };
        let first = absolute(start).max(0);
        let end = absolute(stop).saturating_add(1).clamp(0, length);
        self.items.range(first.min(end) as usize..end as usize)
    }
}
