//! The entries of a counter: what each node added on each horizon.

use super::add_entry::AddEntry;
use super::hash::{self, KeyHash};
use super::horizon::Base;
use super::memory::allocated_or_none;
use super::stamp::{NodeId, Stamp};

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

    /// Bytes that they take beside this.
    pub fn heap_bytes(&self) -> usize {
        let of = |piece: &Vec<AddEntry>| allocated_or_none(piece.capacity() * size_of::<AddEntry>());
        let pieces = allocated_or_none(self.more.capacity() * size_of::<Vec<AddEntry>>());
        of(&self.first) + pieces + self.more.iter().map(of).sum::<usize>()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::stamp::Time;

    /// An entry of a node of its own; numbers are mixed, so that they come in no order.
    fn entry(number: u64, sum: i64) -> AddEntry {
        let node = NodeId(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let last = Stamp {
            time: Time(number),
            node,
        };
        let base = Base::default();
        AddEntry { node, base, last, sum }
    }

    #[test]
    fn many_entries_lie_in_pieces_and_in_order() {
        const KEY: KeyHash = KeyHash(7);
        const COUNT: u64 = 20_000;
        let mut adds = Adds::default();
        let mut digest = 0u64;
        let mut merge = |adds: &mut Adds, entry| digest = digest.wrapping_add(adds.merge(KEY, entry));
        for number in 0..COUNT {
            merge(&mut adds, entry(number, 1));
        }
        // Of equal stamps the larger sum stays, whichever comes first.
        for sum in [3, 2] {
            (0..COUNT).for_each(|number| merge(&mut adds, entry(number, sum)));
        }
        let check = |adds: &Adds, digest: u64, held: &dyn Fn(u64) -> bool| {
            assert!(adds.iter().is_sorted_by(|a, b| a.place() < b.place()));
            assert!(adds.iter().all(|entry| entry.sum == 3));
            assert_eq!(adds.iter().count(), adds.len());
            for number in 0..COUNT {
                let AddEntry { node, base, .. } = entry(number, 0);
                assert_eq!(adds.contains(node, base), held(number), "{number}");
            }
            let sum = adds
                .iter()
                .fold(0u64, |sum, entry| sum.wrapping_add(hash::of_add(KEY, entry)));
            assert_eq!(sum, digest);
            assert_eq!(
                adds.newest(),
                adds.iter().map(|entry| entry.last).max().unwrap_or_default()
            );
            // No entry that arrives moves more than a piece.
            assert!(adds.more.iter().chain([&adds.first]).all(|piece| piece.len() <= PIECE));
        };
        check(&adds, digest, &|_| true);
        digest = digest.wrapping_add(adds.drop_where(KEY, |entry| entry.last.time.0 % 3 != 1));
        check(&adds, digest, &|number| number % 3 == 1);
        digest = digest.wrapping_add(adds.drop_where(KEY, |_| true));
        check(&adds, digest, &|_| false);
        assert!(adds.is_empty() && digest == 0);
    }
}
