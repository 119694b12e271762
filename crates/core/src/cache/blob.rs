//! Bytes as they are kept in memory: up to 23 of them inline, more on the heap.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;
use compact_bytes::CompactBytes;

use super::memory::allocated;

/// An immutable byte string that orders, compares and hashes as its slice does.
#[derive(Clone, Debug, Default)]
pub struct Blob(CompactBytes);

impl Blob {
    /// A copy of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Blob(CompactBytes::new(bytes))
    }

    /// The parts one after the other.
    pub(super) fn concat(parts: &[&[u8]]) -> Self {
        let mut bytes = CompactBytes::with_capacity(parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        Blob(bytes)
    }

    /// Bytes it takes beside itself.
    pub(super) fn heap_bytes(&self) -> usize {
        match self.0.spilled() {
            true => allocated(self.0.capacity()),
            false => 0,
        }
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self)
    }
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl AsRef<[u8]> for Blob {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Self {
        Blob::new(bytes)
    }
}

impl From<&str> for Blob {
    fn from(text: &str) -> Self {
        Blob::new(text.as_bytes())
    }
}

impl From<Bytes> for Blob {
    fn from(bytes: Bytes) -> Self {
        Blob::new(&bytes)
    }
}

impl Borrow<[u8]> for Blob {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Blob {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Blob {}

impl PartialOrd for Blob {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Blob {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl Hash for Blob {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}
