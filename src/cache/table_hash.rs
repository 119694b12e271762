//! The hash by which the tables of this process find keys: SipHash-1-3 (J.-P. Aumasson, D. J. Bernstein, "SipHash: a fast
//! short-input PRF", 2012) under a secret of the process.
//!
//! Keys with one XXH3-64 are made at will, since its seed is known to everybody: tens of thousands of them in one bucket
//! made every lookup walk all of them. XXH3 with a secret seed would be faster, but promises nothing to those who do not
//! want to be attacked. What has to be equal on all nodes (partitions, positions, digests) stays XXH3-64.

/// What the hash depends on.
#[derive(Clone, Copy)]
pub(super) struct TableSecret([u64; 2]);

impl TableSecret {
    pub fn new(secret: [u64; 2]) -> Self {
        TableSecret(secret)
    }

    /// Where the tables look for a key.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        let [k0, k1] = self.0;
        let mut state = Sip([
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ]);
        let (words, rest) = key.as_chunks::<8>();
        for word in words {
            state.absorb(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        last[7] = key.len() as u8;
        state.absorb(u64::from_le_bytes(last));
        state.finish()
    }
}

impl std::fmt::Debug for TableSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableSecret").finish_non_exhaustive()
    }
}

struct Sip([u64; 4]);

impl Sip {
    #[inline]
    fn absorb(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.0[0] ^= word;
    }

    #[inline]
    fn finish(mut self) -> u64 {
        self.0[2] ^= 0xff;
        (0..3).for_each(|_| self.round());
        self.0.iter().fold(0, |hash, word| hash ^ word)
    }

    #[inline]
    fn round(&mut self) {
        let [mut v0, mut v1, mut v2, mut v3] = self.0;
        v0 = v0.wrapping_add(v1);
        v2 = v2.wrapping_add(v3);
        v1 = v1.rotate_left(13) ^ v0;
        v3 = v3.rotate_left(16) ^ v2;
        v0 = v0.rotate_left(32).wrapping_add(v3);
        v2 = v2.wrapping_add(v1);
        v3 = v3.rotate_left(21) ^ v0;
        v1 = v1.rotate_left(17) ^ v2;
        v2 = v2.rotate_left(32);
        self.0 = [v0, v1, v2, v3];
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hasher};

    use super::*;

    /// The hasher of the standard library is SipHash-1-3 too, with a secret of zeros.
    #[test]
    fn it_is_siphash_1_3() {
        let bytes: Vec<u8> = (0..=255).cycle().take(600).collect();
        for length in 0..bytes.len() {
            let mut known = DefaultHasher::new();
            known.write(&bytes[..length]);
            assert_eq!(
                TableSecret::new([0, 0]).hash(&bytes[..length]),
                known.finish(),
                "{length} bytes"
            );
        }
    }

    #[test]
    fn it_depends_on_the_secret() {
        let hashes = [[0, 0], [1, 0], [0, 1]].map(|secret| TableSecret::new(secret).hash(b"key"));
        assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2] && hashes[0] != hashes[2]);
    }
}
