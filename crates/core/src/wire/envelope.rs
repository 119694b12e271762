//! What stands around the fields of every message: the header before them, the authenticator behind them.

use super::error::WireError;
use super::kind::Kind;
use crate::cache::NodeId;
use crate::codec::Encoder;

/// Newest version of the protocol that this release speaks: the first byte of every message.
pub const VERSION: u8 = 2;

/// Oldest version of the protocol that this release understands.
pub const OLDEST_VERSION: u8 = 2;

/// Bytes of the header: version, kind, node id (little endian). All versions from 2 on begin with it.
pub const HEADER_BYTES: usize = 10;

/// Bytes of the keyed hash of an authenticator that travel.
pub(crate) const TAG_BYTES: usize = 16;

/// Bytes of an issuer's public key, which as text (`C...`) is their base 32: prefix, key and checksum.
pub(crate) const ISSUER_BYTES: usize = 35;

/// Bytes of an ed25519 signature.
pub(crate) const SIGNATURE_BYTES: usize = 64;

/// Bytes an authenticator adds to a message, at most.
pub(crate) const MAX_AUTHENTICATOR_BYTES: usize = TAG_BYTES + ISSUER_BYTES + SIGNATURE_BYTES + 1;

/// Bytes of a message beside its deltas, spans or piece, at most.
pub(crate) const ENVELOPE_BYTES: usize = HEADER_BYTES + MAX_AUTHENTICATOR_BYTES + 64;

/// What every message begins with.
///
/// ```text
/// 1 byte    version
/// 1 byte    kind
/// 8 bytes   node, little endian
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Protocol version of the message.
    pub version: u8,
    /// Number of the kind of message. Another version may have kinds that this one does not know.
    pub kind: u8,
    /// The sender.
    pub node: NodeId,
}

/// Versions go no further than this for as long as the header stays what it is: text begins with a larger byte.
const MAX_VERSION: u8 = 31;

impl Header {
    /// Whether the message can be one of this protocol, in whatever version.
    pub fn is_plausible(self) -> bool {
        (1..=MAX_VERSION).contains(&self.version)
    }

    /// The header of a message of any version; `None` if it is too short to have one.
    pub fn of(message: &[u8]) -> Option<Self> {
        let (head, _) = message.split_first_chunk::<HEADER_BYTES>()?;
        let [version, kind, node @ ..] = *head;
        Some(Header {
            version,
            kind,
            node: NodeId(u64::from_le_bytes(node)),
        })
    }

    /// The kind, if this release knows it.
    pub fn known_kind(self) -> Result<Kind, WireError> {
        Kind::try_from(self.kind)
    }
}

/// Kind of a message of a version this release understands, if it has one.
pub fn kind_of(message: &[u8]) -> Option<Kind> {
    Header::of(message)?.known_kind().ok()
}

impl Encoder {
    /// Begins a message: its header, and the array of its fields.
    pub(super) fn message(version: u8, node: NodeId, kind: Kind, fields: u32) -> Self {
        let mut encoder = Encoder(Vec::with_capacity(256));
        encoder.0.extend_from_slice(&[version, kind.into()]);
        encoder.0.extend_from_slice(&node.0.to_le_bytes());
        encoder.array(fields);
        encoder
    }
}
