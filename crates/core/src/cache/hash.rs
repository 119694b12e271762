//! Hashes that are equal on every node: partition of a key, and the component hashes that digests are sums of.
//!
//! All are XXH3-64 (seed 0), which is specified and does not depend on the platform. The exact input is part of the
//! protocol (docs/PROTOCOL.md, "Digests"); a change of it is a new protocol version.

use xxhash_rust::xxh3::xxh3_64;

use super::add_entry::{AddEntry, SeenAdd};
use super::horizon::{Base, Horizon};
use super::stamp::{Millis, NodeId, Stamp};

/// Number of partitions; also the number of shards of the map, so that one partition is one shard.
pub const PARTITIONS: usize = 1024;

/// Number of a partition, below [`PARTITIONS`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Partition(pub u16);

impl Partition {
    /// The partition of a key with this hash. The last of them takes twice as many keys as the first, by chance, and
    /// those between lie evenly between the two: so their tables do not double all at the same number of keys, and the
    /// memory of all of them together grows with the number of keys, not in steps.
    pub fn of(hash: KeyHash) -> Self {
        Partition((hash.path() >> (u64::BITS - PARTITIONS.ilog2())) as u16)
    }

    /// All partitions in order.
    pub fn all() -> impl Iterator<Item = Partition> {
        (0..PARTITIONS as u16).map(Partition)
    }
}

/// XXH3-64 of the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyHash(pub u64);

impl KeyHash {
    /// The hash of a key.
    pub fn of(key: &[u8]) -> Self {
        KeyHash(xxh3_64(key))
    }

    /// Where the key stands among all keys: its upper bits are the partition. With x in [0, 1), the hash rotated so
    /// that bits come first that do not place it within a table, this is (4x - x²) / 3. So the density of keys rises
    /// from 3/4 to 3/2.
    pub(super) fn path(self) -> u64 {
        let x = self.0.rotate_left(7);
        let squared = ((u128::from(x) * u128::from(x)) >> 64) as u64;
        let of_4 = x - (squared >> 2);
        of_4.saturating_add(of_4 / 3)
    }
}

/// Hash of one component of a key's state over identity, stamp and content.
///
/// The stamp alone would name the content, were it not for a peer that uses one twice: then the larger content is taken
/// everywhere, and until it is, digests differ.
fn component(key: KeyHash, kind: u64, identity: [u64; 3], stamp: Stamp, content: u64) -> u64 {
    let [first, second, third] = identity;
    let Stamp { time, node } = stamp;
    words([key.0, kind, first, second, third, time.0, node.0, content])
}

/// Hash of words in little endian.
fn words<const N: usize>(words: [u64; N]) -> u64 {
    // A loop: `map` is not always inlined, and then calls a function for each word.
    let mut bytes = [[0; 8]; N];
    for (bytes, word) in bytes.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    xxh3_64(bytes.as_flattened())
}

/// Hash of what a component is about, within its key: its kind and identity, never its newest stamp. Not 0, which is
/// the reset.
fn element(kind: u64, identity: [u64; 3]) -> u64 {
    words([kind, identity[0], identity[1], identity[2]]).max(1)
}

/// Content hash of a value or list item. Not 0, which stands for none.
pub(super) fn of_value(value: &[u8]) -> u64 {
    xxh3_64(value).max(1)
}

/// Content hash of a reset, given that of its value (0 where there is none).
pub(super) fn of_content(value: u64, expires_at: Option<Millis>, seen: &[SeenAdd]) -> u64 {
    if expires_at.is_none() && seen.is_empty() {
        return value;
    }
    let of_seen = |entry: &SeenAdd| {
        let [time, node, adding] = identity_of_add(entry.node, entry.base);
        words([kind_of_add(entry.base), time, node, adding, entry.sum as u64])
    };
    let seen = seen.iter().fold(0, |sum: u64, entry| sum.wrapping_add(of_seen(entry)));
    words([value, expires_at.is_some().into(), expires_at.unwrap_or(0), seen]).max(1)
}

/// The newest reset of a key; 0 where there was none.
pub(super) fn of_reset(key: KeyHash, horizon: Horizon, content: u64) -> u64 {
    if horizon == Horizon::START {
        return 0;
    }
    component(key, 1 | u64::from(horizon.void) << 8, [0; 3], horizon.stamp, content)
}

/// One counter entry.
pub(super) fn of_add(key: KeyHash, entry: &AddEntry) -> u64 {
    let AddEntry { node, base, last, sum } = *entry;
    component(key, kind_of_add(base), identity_of_add(node, base), last, sum as u64)
}

/// Place of a counter entry within its key.
pub(super) fn element_of_add(node: NodeId, base: Base) -> u64 {
    element(kind_of_add(base), identity_of_add(node, base))
}

fn kind_of_add(base: Base) -> u64 {
    2 | u64::from(base.void) << 8 | u64::from(base.expired) << 9
}

fn identity_of_add(node: NodeId, base: Base) -> [u64; 3] {
    [base.stamp.time.0, base.stamp.node.0, node.0]
}

/// One list item that is there.
pub(super) fn of_item(key: KeyHash, id: Stamp, value: &[u8]) -> u64 {
    let content = of_value(value);
    component(key, 3, [id.time.0, id.node.0, 0], Stamp::default(), content)
}

/// One list item that was removed.
pub(super) fn of_removed(key: KeyHash, id: Stamp, at: Stamp) -> u64 {
    component(key, 3, [id.time.0, id.node.0, 0], at, 0)
}

/// Place of a list item, there or removed, within its key.
pub(super) fn element_of_item(id: Stamp) -> u64 {
    element(3, [id.time.0, id.node.0, 0])
}

/// One set member.
pub(super) fn of_member(key: KeyHash, member: &[u8], at: Stamp, present: bool) -> u64 {
    component(key, 4, [xxh3_64(member), 0, 0], at, present.into())
}

/// Place of a set member, there or not, within its key.
pub(super) fn element_of_member(member: &[u8]) -> u64 {
    element(4, [xxh3_64(member), 0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_the_published_ones() {
        // Test vector of the XXH3 specification: empty input, seed 0.
        assert_eq!(KeyHash::of(b"").0, 0x2d06_8005_38d3_94c2);
    }

    /// The vectors of docs/PROTOCOL.md.
    #[test]
    fn the_published_positions_hold() {
        let published = include_str!("../../../../docs/PROTOCOL.md");
        for hash in [
            0,
            1,
            0x2d06_8005_38d3_94c2,
            0x0123_4567_89ab_cdef,
            u64::MAX - 1,
            u64::MAX,
        ]
        .map(KeyHash)
        {
            let (path, Partition(partition)) = (hash.path(), Partition::of(hash));
            let line = format!("| `{:016x}` | `{path:016x}` | {partition} |", hash.0);
            assert!(published.contains(&line), "{line}");
        }
    }

    #[test]
    fn keys_are_spread_from_three_quarters_to_one_and_a_half() {
        const PER_PARTITION: usize = 1_000;
        let mut keys = [0usize; PARTITIONS];
        for n in 0..PARTITIONS * PER_PARTITION {
            keys[usize::from(Partition::of(KeyHash::of(&n.to_le_bytes())).0)] += 1;
        }
        for (partition, found) in keys.chunks(64).enumerate() {
            let (first, last) = (partition as f64 / 16.0, (partition + 1) as f64 / 16.0);
            // The inverse of the path: x = 2 - sqrt(4 - 3y).
            let x = |y: f64| 2.0 - (4.0 - 3.0 * y).sqrt();
            let expected = (x(last) - x(first)) * (PARTITIONS * PER_PARTITION) as f64;
            let found = found.iter().sum::<usize>() as f64;
            assert!(
                (found / expected - 1.0).abs() < 0.03,
                "{partition}: {found}, {expected}"
            );
        }
    }
}
