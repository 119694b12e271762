//! Keys with their namespace.

use super::blob::Blob;

/// Longest namespace in bytes.
pub const MAX_NAMESPACE_BYTES: usize = 127;

/// Why a namespace cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// Longer than [`MAX_NAMESPACE_BYTES`].
    #[error("namespace of {0} bytes is longer than {MAX_NAMESPACE_BYTES} bytes")]
    NamespaceTooLong(usize),
}

/// A namespace and a name in one byte string: length of the namespace (1 byte), namespace, name. The empty namespace
/// is the keyspace that all links share.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(Blob);

impl Key {
    /// Joins a namespace and a name.
    pub fn new(namespace: &str, name: &[u8]) -> Result<Self, KeyError> {
        if namespace.len() > MAX_NAMESPACE_BYTES {
            return Err(KeyError::NamespaceTooLong(namespace.len()));
        }
        Ok(Key(Blob::concat(&[
            &[namespace.len() as u8],
            namespace.as_bytes(),
            name,
        ])))
    }

    /// A key of the shared keyspace.
    pub fn shared(name: &[u8]) -> Self {
        Key(Blob::concat(&[&[0], name]))
    }

    /// The bytes as they are stored and sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same.
    pub(super) fn as_blob(&self) -> &Blob {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_never_meet() {
        let keys = [
            Key::shared(b"ab"),
            Key::new("a", b"b").unwrap(),
            Key::new("ab", b"").unwrap(),
            Key::new("", b"a").unwrap(),
        ];
        for (i, a) in keys.iter().enumerate() {
            for b in &keys[i + 1..] {
                assert_ne!(a, b);
            }
        }
        assert_eq!(Key::shared(b"ab"), Key::new("", b"ab").unwrap());
    }

    #[test]
    fn a_long_namespace_is_refused() {
        assert_eq!(Key::new(&"n".repeat(128), b"k"), Err(KeyError::NamespaceTooLong(128)));
    }
}
