//! Keys the SDK can read.

use wasmbus_rpc::wascap::prelude::KeyPair;

/// A key whose seed and public key the SDK can read. One valid key in 65,536 it takes for broken: nkeys 0.3 compares
/// the checksum with the first two bytes of a key and takes it if they differ.
pub fn sdk_readable(generate: impl Fn() -> KeyPair) -> KeyPair {
    loop {
        let key = generate();
        let seed_is_read = key.seed().is_ok_and(|seed| KeyPair::from_seed(&seed).is_ok());
        if seed_is_read && KeyPair::from_public_key(&key.public_key()).is_ok() {
            return key;
        }
    }
}
