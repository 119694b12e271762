//! The hash by which the tables of this process find keys: aHash under a secret of the process.
//!
//! Keys with one XXH3-64 are made at will, since its seed is known to everybody: tens of thousands of them in one bucket
//! made every lookup walk all of them. aHash is made for tables whose keys others choose, and so is SipHash-1-3, with
//! which a get of a key of 16 bytes took 15 % more instructions. XXH3 with a secret seed promises nothing. What has to be
//! equal on all nodes (partitions, positions, digests) stays XXH3-64.

use std::hash::{BuildHasher, Hasher};

use ahash::RandomState;

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
}
