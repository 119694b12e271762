//! Pieces of messages that are too large for the server.

use bytes::Bytes;

use super::envelope::ENVELOPE_BYTES;
use super::kind::Kind;
use crate::cache::NodeId;
use crate::codec::{CodecError, Decoder, Encoder};

/// A piece of a message that is larger than the server's `max_payload`.
///
/// ```text
/// array of 4
///   uint   id
///   uint   index
///   uint   total
///   bin    bytes
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Number of the fragmented message, unique at the sender.
    pub id: u64,
    /// Number of this piece, from 0.
    pub index: u64,
    /// Number of pieces.
    pub total: u64,
    /// The piece. All pieces in order are a message without an authenticator.
    pub bytes: Bytes,
}

impl Fragment {
    pub(super) fn encode(&self, version: u8, node: NodeId) -> Vec<u8> {
        let mut encoder = Encoder::message(version, node, Kind::Fragment, 4);
        encoder.0.reserve(self.bytes.len() + ENVELOPE_BYTES);
        encoder.uints(&[self.id, self.index, self.total]);
        encoder.bin(&self.bytes);
        encoder.0
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, CodecError> {
        decoder.array(4, Kind::Fragment.name())?;
        Ok(Fragment {
            id: decoder.uint("id of a fragment")?,
            index: decoder.uint("index of a fragment")?,
            total: decoder.uint("number of fragments")?,
            bytes: decoder.bin("bytes of a fragment")?,
        })
    }
}
