//! Taking note of what has changed in a partition.

use super::changes::{Change, Element};
use super::entry::Entry;
use super::partition::{Digest, PartitionStats};
use super::pieces::{entries, let_others_in, Piece};
use super::tables::{fetch_bucket, Tables};
use crate::cache::component::Part;
use crate::cache::hash::Partition;

/// Changes that are taken under one lock: others have to wait meanwhile.
const AT_ONCE: usize = 256;

/// What taking the changes of a partition has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// The digest of the partition at a moment at which all of its changes had been shown; `None` where more are left.
    pub digest: Option<Digest>,
    /// Components have gone since the last time without being shown: forgotten, or covered by a reset.
    pub vanished: bool,
}

impl Tables {
    /// Takes note of all changes from now on: up to `limit` of a partition one by one.
    pub fn track_changes(&self, limit: usize) {
        for partition in Partition::all() {
            self.table_mut(partition).changes.track(limit);
        }
    }

    /// Notes each key of a partition as changed.
    pub fn note_all(&self, partition: Partition) {
        let mut from = Some(0);
        while let Some(order) = from {
            let mut table = self.table_mut(partition);
            let (piece, _, last) = table.piece_around_mut(order);
            let places: Vec<u64> = entries(piece).map(|entry| self.place_of(entry)).collect();
            for place in places {
                if let Some(entry) = self.find(piece, place) {
                    entry.set_changed(true);
                }
            }
            table.changes.overflow();
            self.stats(partition).set_changes(table.changes.len());
            drop(table);
            from = last.checked_add(1);
            from.iter().for_each(|_| let_others_in());
        }
    }

    /// Shows the keys and components that have changed, with the partition locked, until `show` has said that it has
    /// enough. What was shown is noted as changed no more.
    pub fn take_changes(&self, partition: Partition, mut show: impl FnMut(&[u8], Part<'_>) -> bool) -> Taken {
        let stats = self.stats(partition);
        let mut enough = false;
        loop {
            let mut table = self.table_mut(partition);
            let taken = table.changes.take(AT_ONCE);
            let is_last = taken.len() < AT_ONCE && table.changes.is_empty();
            for change in &taken {
                fetch_bucket(table.piece(change.place), change.place);
            }
            for Change { place, element } in &taken {
                let piece = table.piece_mut(*place);
                if let Some(entry) = self.find(piece, *place) {
                    enough |= self.show_changed(entry, element.as_ref(), &mut show);
                }
            }
            if is_last || enough {
                let left = table.changes.len();
                stats.set_changes(left);
                let vanished = std::mem::take(&mut table.changes.vanished);
                let digest = (left == 0).then(|| stats.digest());
                return Taken { digest, vanished };
            }
            let overflowed = taken.len() < AT_ONCE && table.changes.overflowed;
            drop(table);
            let_others_in();
            if overflowed && !self.take_noted(partition, &mut show) {
                enough = true;
            }
        }
    }

    /// Shows the keys that are noted but not in the log. Returns false where `show` has enough.
    fn take_noted(&self, partition: Partition, show: &mut impl FnMut(&[u8], Part<'_>) -> bool) -> bool {
        // What changes from now on is in the log, or overflows it again.
        self.table_mut(partition).changes.overflowed = false;
        let mut from = Some(0);
        while let Some(order) = from {
            let mut table = self.table_mut(partition);
            let (piece, _, last) = table.piece_around_mut(order);
            let noted = entries(piece).filter(|entry| entry.is_changed());
            let places: Vec<u64> = noted.map(|entry| self.place_of(entry)).collect();
            for place in places {
                if let Some(entry) = self.find(piece, place) {
                    if self.show_changed(entry, None, show) {
                        table.changes.overflow();
                        self.stats(partition).set_changes(table.changes.len());
                        return false;
                    }
                }
            }
            drop(table);
            from = last.checked_add(1);
            from.iter().for_each(|_| let_others_in());
        }
        true
    }

    fn find<'t>(&self, piece: &'t mut Piece, place: u64) -> Option<&'t mut Entry> {
        piece.get_mut(place, |entry| self.place_of(entry) == place)
    }

    fn show_changed(
        &self,
        entry: &mut Entry,
        element: Option<&Element>,
        show: &mut impl FnMut(&[u8], Part<'_>) -> bool,
    ) -> bool {
        let whole = entry.is_changed() || element.is_none();
        entry.set_changed(false);
        let (key, state) = (entry.key(), entry.state(&self.nodes));
        if let Some(element) = element.filter(|_| !whole) {
            return state.part(element.slot()).is_some_and(|part| show(key, part));
        }
        let mut enough = false;
        state.parts(|part| enough |= show(key, part));
        enough
    }
}

impl PartitionStats {
    /// Whether anything has changed that nobody has taken note of.
    pub fn has_changes(&self) -> bool {
        self.changes() > 0
    }
}
