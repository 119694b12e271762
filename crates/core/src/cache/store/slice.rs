//! Writing a partition out in slices: what anybody can put into one partition, or into one key, has no bound, but what
//! is written out under one lock and sent in one answer has.

use super::Cache;
use crate::cache::delta::Delta;
use crate::cache::hash::Partition;
use crate::cache::table::{entries, let_others_in, Entry};

/// Where a slice of a partition begins. Only the cache that gave it can go on from there: it says where keys lie in its
/// tables, and elements within a key, by the secret of the process.
///
/// A key has its place in this order for as long as the process lives. So slices that follow one another show all that
/// was there before the first of them and has not gone since, whatever is written between them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Cursor {
    key: u64,
    element: u64,
}

impl Cursor {
    /// A cursor as bytes, which are ordered as cursors are.
    pub fn to_bytes(self) -> [u8; 16] {
        let [key, element] = [self.key, self.element].map(u64::to_be_bytes);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&key);
        bytes[8..].copy_from_slice(&element);
        bytes
    }

    /// The cursor with these bytes.
    pub fn of_bytes(bytes: [u8; 16]) -> Self {
        let both = u128::from_be_bytes(bytes);
        Cursor {
            key: (both >> 64) as u64,
            element: both as u64,
        }
    }

    /// The first one after all of a key.
    fn after(key: u64) -> Option<Cursor> {
        let key = key.checked_add(1)?;
        Some(Cursor { key, element: 0 })
    }
}

impl Cache {
    /// Writes a partition out as deltas that rebuild it in any other cache. What the next sweep drops is left out:
    /// two nodes that are not swept at the same time would give it back to each other for ever.
    ///
    /// This and all that looks at every key of a partition takes its lock for a piece of its table at a time. So what
    /// is seen need not be what the partition held at any one moment; but of each key it is, at some moment since the
    /// call.
    pub fn deltas(&self, partition: Partition, mut emit: impl FnMut(Delta<&[u8]>)) {
        let mut from = Some(Cursor::default());
        while let Some(cursor) = from {
            from = self.slice(partition, cursor, usize::MAX, &mut emit);
        }
    }

    /// Writes out a slice of a partition, as [`Cache::deltas`] does with the whole: deltas of about `most` bytes, or a
    /// single larger one, and no more than one piece of the table. Returns where the next slice begins, or `None` at
    /// the end of the partition. `emit` is called with the partition locked.
    pub fn slice(
        &self,
        partition: Partition,
        from: Cursor,
        most: usize,
        mut emit: impl FnMut(Delta<&[u8]>),
    ) -> Option<Cursor> {
        if from > Cursor::default() {
            let_others_in();
        }
        let moment = self.latest_moment();
        let table = self.tables.table(partition);
        let (piece, first, last) = table.piece_around(from.key);
        let mut write = |entry: &Entry, elements: Option<(u64, u64)>| {
            let state = self.tables.state(entry);
            if state.is_forgotten(moment) {
                return;
            }
            let key = entry.key();
            state.parts(|part| {
                if elements.is_none_or(|(from, to)| (from..=to).contains(&self.tables.order_of_part(&part))) {
                    let change = part.change();
                    emit(Delta { key, change });
                }
            });
        };

        // Mostly a partition is one piece, and fits.
        let mut bytes = 0usize;
        let mut fits = |entry: &Entry| {
            bytes = bytes.saturating_add(entry.written_bytes());
            bytes <= most
        };
        let all_of_piece = from.key == first && from.element == 0;
        if all_of_piece && (most == usize::MAX || entries(piece).all(&mut fits)) {
            entries(piece).for_each(|entry| write(entry, None));
            return Cursor::after(last);
        }

        // Keys that fill a slice by themselves have slices of their own. All others are about evenly spread over the
        // order.
        let (mut bytes, mut bytes_of_key, mut large) = (0usize, 0usize, None);
        for entry in entries(piece) {
            let (order, size) = (self.tables.order_of(entry), entry.written_bytes());
            if order == from.key {
                bytes_of_key = bytes_of_key.saturating_add(size);
            }
            if order > from.key && size > most {
                large = Some(large.map_or(order, |known: u64| known.min(order)));
            } else if order >= from.key {
                bytes = bytes.saturating_add(size);
            }
        }
        let of_key = || entries(piece).filter(|entry| self.tables.order_of(entry) == from.key);
        if bytes_of_key > most && of_key().all(Entry::is_small) {
            of_key().for_each(|entry| write(entry, None));
            return Cursor::after(from.key);
        }
        if from.element > 0 || bytes_of_key > most {
            // Elements too are evenly spread.
            let left = u64::MAX - from.element;
            let bytes_left = (bytes_of_key as f64 * (left as f64 / u64::MAX as f64)) as usize;
            let to = from.element + left / slices(bytes_left, most);
            of_key().for_each(|entry| write(entry, Some((from.element, to))));
            return match to.checked_add(1) {
                Some(element) => Some(Cursor { element, ..from }),
                None => Cursor::after(from.key),
            };
        }
        let to = from.key + (last - from.key) / slices(bytes, most);
        let to = large.map_or(to, |large| to.min(large - 1));
        let of_slice = entries(piece).filter(|entry| (from.key..=to).contains(&self.tables.order_of(entry)));
        of_slice.for_each(|entry| write(entry, None));
        Cursor::after(to)
    }
}

/// How many slices so many bytes make.
fn slices(bytes: usize, most: usize) -> u64 {
    bytes.div_ceil(most.max(1)).max(1) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::Limits;
    use super::*;
    use crate::cache::delta::StateDelta;
    use crate::cache::hash::KeyHash;
    use crate::cache::key::Key;
    use crate::cache::stamp::NodeId;

    const MOST: usize = 128 << 10;

    /// A key with the hash of all others made so: the second of its words is multiplied with 0.
    fn key(n: u64) -> Key {
        let [_, free @ ..] = n.to_be_bytes();
        let constant = 0x1cad_21f7_2c81_017cu64.to_le_bytes();
        Key::shared(&[&free[..], &constant, b"0123456789abcdef"].concat())
    }

    fn partition() -> Partition {
        Partition::of(KeyHash::of(key(0).as_bytes()))
    }

    fn cache() -> Cache {
        Cache::with_secret(NodeId(1), Limits::default(), [3, 4, 5, 6])
    }

    /// Key and element.
    type Identity = (Vec<u8>, Vec<u8>);

    fn identity(delta: &Delta<&[u8]>) -> Identity {
        let element = match delta.change {
            StateDelta::SetAdd { member, .. } | StateDelta::SetRemove { member, .. } => member.to_vec(),
            StateDelta::ListPush { id, .. } | StateDelta::ListRemove { id, .. } => id.time.0.to_le_bytes().to_vec(),
            _ => Vec::new(),
        };
        (delta.key.to_vec(), element)
    }

    /// All components that slices show, each once, and the number of slices. `between` is called after each slice.
    fn written(cache: &Cache, mut between: impl FnMut()) -> (BTreeSet<Identity>, usize) {
        let (mut all, mut slices) = (BTreeSet::new(), 0);
        let mut from = Some(Cursor::default());
        while let Some(cursor) = from {
            let (mut bytes, mut count) = (0, 0);
            from = cache.slice(partition(), cursor, MOST, |delta| {
                let (key, element) = identity(&delta);
                bytes += key.len() + element.len() + 32;
                if let StateDelta::Put { value, .. } = &delta.change {
                    bytes += value.bytes().map_or(0, <[u8]>::len);
                }
                count += 1;
                assert!(all.insert((key, element)), "nothing comes twice");
            });
            assert!(bytes <= 2 * MOST || count == 1, "{bytes} bytes in a slice");
            assert!(from.is_none_or(|next| next > cursor && Cursor::of_bytes(next.to_bytes()) == next));
            slices += 1;
            between();
        }
        (all, slices)
    }

    #[test]
    fn slices_show_everything_once_and_are_bounded() {
        let cache = cache();
        let set = |n: u64, bytes: usize| drop(cache.set(&key(n), &vec![7; bytes][..], 0, 1).expect("fits"));
        (0..30_000).for_each(|n| set(n, (n % 50) as usize));
        (0..3).for_each(|n| set(1 << 30 | n, 200_000));
        let members = |n: u64| format!("{n:0100}").into_bytes();
        for n in 0..2_000 {
            drop(cache.set_add(&key(1 << 40), &members(n)[..], 1).expect("fits"));
            drop(cache.list_push(&key(1 << 41), &members(n)[..], 1).expect("fits"));
        }
        for n in 0..1_000 {
            drop(cache.set_remove(&key(1 << 40), &members(n)[..], 1).expect("a set"));
        }
        let mut expected = BTreeSet::new();
        cache.deltas(partition(), |delta| {
            expected.insert(identity(&delta));
        });
        assert_eq!(expected.len(), 30_003 + 4_000);
        let (all, slices) = written(&cache, || ());
        assert!(all == expected);
        assert!((30..120).contains(&slices), "{slices} slices");
    }

    #[test]
    fn what_was_there_is_shown_whatever_is_written_meanwhile() {
        let cache = cache();
        let set = |n: u64| drop(cache.set(&key(n), &[7; 50][..], 0, 1).expect("fits"));
        (0..20_000).for_each(set);
        let mut new = 20_000;
        // The table is cut several times.
        let (all, _) = written(&cache, || {
            (new..new + 3_000).for_each(set);
            new += 3_000;
        });
        assert!(new > 60_000, "{new}");
        assert!((0..20_000).all(|n| all.contains(&(key(n).as_bytes().to_vec(), Vec::new()))));
    }
}
