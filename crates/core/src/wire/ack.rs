//! Confirming frames.

use super::kind::Kind;
use crate::cache::NodeId;
use crate::codec::{CodecError, Decoder, Encoder};

/// Says that frames were applied.
///
/// ```text
/// array of 3
///   uint   to
///   uint   seq
///   uint   contiguous
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameAck {
    /// The author of the frames.
    pub to: NodeId,
    /// This frame was applied ...
    pub seq: u64,
    /// ... and all up to this one.
    pub contiguous: u64,
}

impl FrameAck {
    pub(super) fn encode(&self, version: u8, node: NodeId) -> Vec<u8> {
        let mut encoder = Encoder::message(version, node, Kind::Ack, 3);
        encoder.uints(&[self.to.0, self.seq, self.contiguous]);
        encoder.0
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, CodecError> {
        decoder.array(3, Kind::Ack.name())?;
        Ok(FrameAck {
            to: decoder.node()?,
            seq: decoder.seq()?,
            contiguous: decoder.seq()?,
        })
    }
}
