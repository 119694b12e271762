//! Asking for frames that did not arrive.

use super::kind::Kind;
use crate::cache::NodeId;
use crate::codec::{CodecError, Decoder, Encoder};

/// Asks the author for frames. The answer are the frames themselves, or [`FramesGone`].
///
/// ```text
/// array of 3
///   uint    request
///   array   missing: uint first, uint last, in turns
///   uint    budget
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FramesRequest {
    /// Number of the request, unique at the asking node.
    pub request: u64,
    /// First and last number of each run of missing frames.
    pub missing: Vec<(u64, u64)>,
    /// About how many bytes the frames may have.
    pub budget: u64,
}

impl FramesRequest {
    pub(super) fn encode(&self, version: u8, node: NodeId) -> Vec<u8> {
        let mut encoder = Encoder::message(version, node, Kind::FramesRequest, 3);
        encoder.uint(self.request);
        encoder.array(2 * self.missing.len() as u32);
        let runs = self.missing.iter();
        runs.for_each(|(first, last)| encoder.uints(&[*first, *last]));
        encoder.uint(self.budget);
        encoder.0
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, CodecError> {
        decoder.array(3, Kind::FramesRequest.name())?;
        Ok(FramesRequest {
            request: decoder.uint("request")?,
            missing: decoder.pairs("missing frames")?,
            budget: decoder.uint("budget")?,
        })
    }
}

/// Frames that were asked for are no longer kept: they have to be replaced by a comparison.
///
/// ```text
/// array of 2
///   uint   to
///   uint   oldest
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FramesGone {
    /// The node that asked.
    pub to: NodeId,
    /// Oldest frame that is kept, or the next one if none is.
    pub oldest: u64,
}

impl FramesGone {
    pub(super) fn encode(&self, version: u8, node: NodeId) -> Vec<u8> {
        let mut encoder = Encoder::message(version, node, Kind::FramesGone, 2);
        encoder.uints(&[self.to.0, self.oldest]);
        encoder.0
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, CodecError> {
        decoder.array(2, Kind::FramesGone.name())?;
        Ok(FramesGone {
            to: decoder.node()?,
            oldest: decoder.uint("oldest frame")?,
        })
    }
}
