//! The hash by which the tables of this process find keys: aHash under a secret of the process.
//!
//! Keys with one XXH3-64 are made at will, since its seed is known to everybody: tens of thousands of them in one
//! bucket made every lookup walk all of them. aHash is made for tables whose keys others choose, and so is SipHash-1-3,
//! with which a get of a key of 16 bytes took 15 % more instructions. XXH3 with a secret seed promises nothing. What
//! has to be equal on all nodes (partitions, positions, digests) stays XXH3-64.

use std::hash::{BuildHasher, Hasher};

use ahash::RandomState;

use crate::cache::hash::{KeyHash, Partition};

/// What the hash depends on.
#[derive(Clone)]
pub(super) struct TableSecret(RandomState);

impl TableSecret {
    pub fn new(secret: [u64; 4]) -> Self {
        let [first, second, third, fourth] = secret;
        TableSecret(RandomState::with_seeds(first, second, third, fourth))
    }

    /// Where the tables look for a key.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write(key);
        hasher.finish()
    }
}

impl std::fmt::Debug for TableSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableSecret").finish_non_exhaustive()
    }
}

/// Where a key lives: worked out once per operation.
#[derive(Clone, Copy)]
pub(in crate::cache) struct Home {
    pub(super) hash: KeyHash,
    pub partition: Partition,
    /// Where the table of the partition looks for it.
    pub(super) place: u64,
}

impl Home {
    #[inline]
    pub(super) fn of(key: &[u8], secret: &TableSecret) -> Self {
        let hash = KeyHash::of(key);
        let partition = Partition::of(hash);
        let place = secret.hash(key);
        Home { hash, partition, place }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn it_depends_on_all_of_the_secret() {
        let secrets = [[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]];
        let of = |key: &[u8]| secrets.map(|secret| TableSecret::new(secret).hash(key)).into_iter();
        for key in [&b"key"[..], b"a key of 16 byte", &[7; 100]] {
            assert_eq!(of(key).collect::<BTreeSet<u64>>().len(), secrets.len(), "{key:?}");
        }
    }

    #[test]
    fn keys_of_zeros_do_not_collide() {
        let secret = TableSecret::new([1, 2, 3, 4]);
        let hashes: BTreeSet<u64> = (0..200).map(|length| secret.hash(&vec![0; length])).collect();
        assert_eq!(hashes.len(), 200);
    }

    /// Keys of 16 bytes with one hash. Of such a key the hash is that of `swapped(low) + high + fold(low * high)`,
    /// where `low` and `high` are its halves, each combined with a constant, and `fold` combines the halves of the
    /// product. For a small even `low` and a guess of the upper half of the product, `high` follows bit by bit.
    fn colliding_keys(most: usize) -> Vec<[u8; 16]> {
        const LOW: u64 = 0x1f67_b3b7_a4a4_4072 ^ 0x78e5_c0cc_4ee6_79cb;
        const HIGH: u64 = 0x2172_ffcc_7dd0_5a82 ^ 0x8e24_43f7_7446_08b8;
        let mut keys = Vec::new();
        for low in (2u64..).step_by(2) {
            let target = 0x1234u64.wrapping_sub(low.swap_bytes());
            for upper in 0..low {
                let mut high = 0u64;
                for bit in 0..64 {
                    let sum = high.wrapping_add(low.wrapping_mul(high) ^ upper);
                    high |= (sum ^ target) & 1 << bit;
                }
                if (u128::from(low) * u128::from(high)) >> 64 == u128::from(upper) {
                    let halves = [(low ^ LOW).to_le_bytes(), (high ^ HIGH).to_le_bytes()];
                    keys.push(halves.as_flattened().try_into().expect("16 bytes"));
                }
            }
            if keys.len() >= most {
                return keys;
            }
        }
        unreachable!("there is no end of them")
    }

    #[test]
    fn keys_that_are_made_to_collide_do_not_collide_in_tables() {
        let keys = colliding_keys(200);
        let hashes: BTreeSet<u64> = keys.iter().map(|key| KeyHash::of(key).0).collect();
        assert_eq!(hashes.len(), 1, "the attack");
        let secret = TableSecret::new([1, 2, 3, 4]);
        let places: BTreeSet<u64> = keys.iter().map(|key| Home::of(key, &secret).place).collect();
        assert_eq!(places.len(), keys.len());
    }
}
