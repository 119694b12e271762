//! Fields that several families of messages have in common.

use super::bounds::MAX_SEQ;
use crate::cache::{NodeId, Partition, PARTITIONS};
use crate::codec::{CodecError, Decoder, Encoder};

/// Names one part of an answer.
///
/// ```text
/// uint   to
/// uint   request
/// uint   index
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// The node that asked.
    pub to: NodeId,
    /// The number it gave its request.
    pub request: u64,
    /// Number of this part, from 0.
    pub index: u64,
}

impl Encoder {
    pub(super) fn part(&mut self, part: Part) {
        self.uints(&[part.to.0, part.request, part.index]);
    }
}

impl Decoder<'_> {
    pub(super) fn part(&mut self) -> Result<Part, CodecError> {
        Ok(Part {
            to: self.node()?,
            request: self.uint("request")?,
            index: self.uint("index")?,
        })
    }

    /// The number of a frame.
    pub(super) fn seq(&mut self) -> Result<u64, CodecError> {
        match self.uint("sequence number")? {
            seq @ 0..=MAX_SEQ => Ok(seq),
            _ => Err(CodecError::Malformed("sequence number")),
        }
    }

    /// The first partition of a range, and what is given for it and those after it.
    pub(super) fn range<T>(
        &mut self,
        digests: impl Fn(&mut Self) -> Result<Vec<T>, CodecError>,
    ) -> Result<(Partition, Vec<T>), CodecError> {
        let from = self.uint("first partition")?;
        let digests = digests(self)?;
        if from.saturating_add(digests.len() as u64) > PARTITIONS as u64 {
            return Err(CodecError::Malformed("range of partitions"));
        }
        Ok((Partition(from as u16), digests))
    }
}
