//! The entries of a counter: what each node added on each horizon.

use super::command::Base;
use super::hash::{self, KeyHash};
use super::stamp::{NodeId, Stamp};
use super::state::Horizon;

/// Cumulative sum of what one node added while it saw one horizon; merged by newest stamp.
#[derive(Clone, Debug)]
pub(super) struct AddEntry {
    pub node: NodeId,
    pub base: Base,
    pub last: Stamp,
    pub sum: i64,
}

impl AddEntry {
    /// Whether this entry still means something above `horizon`.
    pub fn survives(&self, horizon: Horizon) -> bool {
        self.base.horizon() >= horizon || self.last > horizon.stamp
    }

    fn place(&self) -> (NodeId, Base) {
        (self.node, self.base)
    }
}

/// Most entries in a piece. Entries arrive in any order, and each moves the rest of its piece.
const PIECE: usize = 512;

/// Entries, each (node, base) once. Nearly all counters have a few; whoever invents nodes can make many.
#[derive(Clone, Debug, Default)]
pub(super) struct Adds {
    /// Sorted by node and base, and below all others.
    first: Vec<AddEntry>,
    /// The rest in order, in pieces that are not empty.
    more: Vec<Vec<AddEntry>>,
    /// Newest stamp among them, or the zero stamp.
    newest: Stamp,
}

impl Adds {
    /// All entries, sorted by node and base.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &AddEntry> {
        self.first.iter().chain(self.more.iter().flatten())
    }

    pub fn len(&self) -> usize {
        self.first.len() + self.more.iter().map(Vec::len).sum::<usize>()
    }

    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Stamp of the newest addition, or the zero stamp.
    pub fn newest(&self) -> Stamp {
        self.newest
    }

    pub fn contains(&self, node: NodeId, base: Base) -> bool {
        let place = (node, base);
        let piece = match self.pieces_up_to(place) {
            0 => &self.first,
            number => &self.more[number - 1],
        };
        piece.binary_search_by_key(&place, AddEntry::place).is_ok()
    }

    /// Merges an entry by newest stamp; of equal stamps the larger content stays. Returns the change of the digest.
    pub fn merge(&mut self, key: KeyHash, entry: AddEntry) -> u64 {
        let number = self.pieces_up_to(entry.place());
        let piece = match number {
            0 => &mut self.first,
            number => &mut self.more[number - 1],
        };
        let newest = self.newest.max(entry.last);
        let new_hash = hash::of_add(key, &entry);
        let delta = match piece.binary_search_by_key(&entry.place(), AddEntry::place) {
            Err(place) => {
                piece.insert(place, entry);
                if piece.len() > PIECE {
                    let upper = piece.split_off(PIECE / 2);
                    self.more.insert(number, upper);
                }
                new_hash
            }
            Ok(place) => {
                let known = &mut piece[place];
                if (known.last, known.sum as u64) >= (entry.last, entry.sum as u64) {
                    return 0;
                }
                let old = std::mem::replace(known, entry);
                new_hash.wrapping_sub(hash::of_add(key, &old))
            }
        };
        self.newest = newest;
        delta
    }

    /// Drops entries. Returns the change of the digest.
    pub fn drop_where(&mut self, key: KeyHash, mut gone: impl FnMut(&AddEntry) -> bool) -> u64 {
        let mut delta = 0u64;
        let mut newest = Stamp::default();
        let mut keep = |entry: &AddEntry| {
            let drop = gone(entry);
            if drop {
                delta = delta.wrapping_sub(hash::of_add(key, entry));
            } else {
                newest = newest.max(entry.last);
            }
            !drop
        };
        self.first.retain(&mut keep);
        for piece in &mut self.more {
            piece.retain(&mut keep);
        }
        self.newest = newest;
        self.more.retain(|piece| !piece.is_empty());
        if self.first.is_empty() && !self.more.is_empty() {
            self.first = self.more.remove(0);
        }
        delta
    }

    /// How many pieces after the first begin at or before a place: the number of the piece that it belongs to.
    fn pieces_up_to(&self, place: (NodeId, Base)) -> usize {
        self.more.partition_point(|piece| piece[0].place() <= place)
    }
}
