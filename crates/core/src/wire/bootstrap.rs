//! Asking for the state of partitions, and being told it.

use super::bounds::MAX_SEQ;
use super::chunk::Chunk;
use super::envelope::MAX_AUTHENTICATOR_BYTES;
use super::fields::Part;
use super::kind::Kind;
use crate::cache::{Blob, Cursor, Delta, Digest, NodeId, Partition, Time};
use crate::codec::{CodecError, Decoder, Encoder, Held};

/// Asks for what the partitions hold whose digests differ from those given.
///
/// ```text
/// array of 6
///   uint         request
///   uint         from
///   hashes       digests: from + their number is at most PARTITIONS
///   uint         want: 0 deltas, 1 splits
///   uint         budget
///   cursor       rest: bin of 16, or nil for none
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootstrapRequest {
    /// Number of the request, unique at the asking node.
    pub request: u64,
    /// First partition.
    pub from: Partition,
    /// The requester's digests of `from` and the partitions after it.
    pub digests: Vec<Digest>,
    /// What the answer holds of partitions that differ: all their deltas, or how they split into spans.
    pub want: Want,
    /// About how many bytes the answer may have. It ends after the partition or span with which it exceeds them.
    pub budget: u64,
    /// Where the answer begins in the first partition: what [`AnswerEnd::rest`] of an answer of this node said.
    pub rest: Option<Cursor>,
}

impl BootstrapRequest {
    pub(super) fn encode(&self, version: u8, node: NodeId) -> Vec<u8> {
        let mut encoder = Encoder::message(version, node, Kind::BootstrapRequest, 6);
        encoder.uints(&[self.request, self.from.0.into()]);
        let digests: Vec<u64> = self.digests.iter().map(|digest| digest.0).collect();
        encoder.hashes(&digests);
        encoder.uints(&[self.want.code(), self.budget]);
        encoder.cursor(self.rest);
        encoder.0
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, CodecError> {
        decoder.array(6, Kind::BootstrapRequest.name())?;
        let request = decoder.uint("request")?;
        let (from, digests) = decoder.range(|decoder| decoder.hashes("digests"))?;
        Ok(BootstrapRequest {
            request,
            from,
            digests: digests.into_iter().map(Digest).collect(),
            want: Want::of_code(decoder.uint("wanted answer")?)?,
            budget: decoder.uint("budget")?,
            rest: decoder.cursor()?,
        })
    }
}

/// How a [`BootstrapRequest`] wants its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// [`BootstrapDeltas`]: the requester has little or nothing.
    Deltas,
    /// `RangeSplits`: the requester has most of it.
    RangeSplits,
}

impl Want {
    fn code(self) -> u64 {
        match self {
            Want::Deltas => 0,
            Want::RangeSplits => 1,
        }
    }

    fn of_code(code: u64) -> Result<Self, CodecError> {
        match code {
            0 => Ok(Want::Deltas),
            1 => Ok(Want::RangeSplits),
            _ => Err(CodecError::Malformed("wanted answer")),
        }
    }
}

/// Deltas in answer to a request.
///
/// ```text
/// array of 5
///   part    to, request, index
///   uint    clock
///   array   deltas
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootstrapDeltas<B = Blob> {
    /// Which part of which answer this is.
    pub part: Part,
    /// The responder's hybrid clock.
    pub clock: Time,
    /// The deltas.
    pub deltas: Vec<Delta<B>>,
}

impl BootstrapDeltas {
    pub(super) fn encode(&self, version: u8, node: NodeId) -> Vec<u8> {
        Chunk::of(&self.deltas).into_bootstrap(version, node, self.part, self.clock)
    }
}

impl Chunk {
    /// The deltas as [`BootstrapDeltas`], where they lie: they are many, and gone when they are sent.
    pub fn into_bootstrap(self, version: u8, node: NodeId, part: Part, clock: Time) -> Vec<u8> {
        let numbers = [part.to.0, part.request, part.index, clock.0];
        let head = self.head(version, node, Kind::BootstrapDeltas, &numbers);
        let mut message = self.encoder.0;
        message.reserve_exact(head.len() + MAX_AUTHENTICATOR_BYTES);
        message.splice(0..0, head);
        message
    }
}

impl<B> BootstrapDeltas<B> {
    pub(super) fn decode<'a>(decoder: &mut Decoder<'a>) -> Result<Self, CodecError>
    where
        B: Held<'a>,
    {
        decoder.array(5, Kind::BootstrapDeltas.name())?;
        Ok(BootstrapDeltas {
            part: decoder.part()?,
            clock: decoder.time("clock")?,
            deltas: decoder.deltas()?,
        })
    }
}

/// End of the answer to a request.
///
/// ```text
/// array of 6
///   uint     to
///   uint     request
///   uint     parts
///   uint     next
///   cursor   rest: bin of 16, or nil for none
///   array    seqs: uint node, uint seq, in turns
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnswerEnd {
    /// The node that asked.
    pub to: NodeId,
    /// Which request is answered.
    pub request: u64,
    /// How many parts the answer had.
    pub parts: u64,
    /// How much of the request was answered: for a [`BootstrapRequest`] or `DigestRequest` partitions below this one,
    /// else so many spans or partitions. The rest has to be asked for again.
    pub next: u64,
    /// Up to where partition `next` was answered as well, if that is not from its beginning. Only the responder can go
    /// on from there. Only in answer to a [`BootstrapRequest`] that wants deltas.
    pub rest: Option<Cursor>,
    /// What the answer stands for: the effect of all frames of these nodes up to these numbers, the responder first.
    pub seqs: Vec<(NodeId, u64)>,
}

impl AnswerEnd {
    pub(super) fn encode(&self, version: u8, node: NodeId) -> Vec<u8> {
        let mut encoder = Encoder::message(version, node, Kind::AnswerEnd, 6);
        encoder.uints(&[self.to.0, self.request, self.parts, self.next]);
        encoder.cursor(self.rest);
        encoder.array(2 * self.seqs.len() as u32);
        self.seqs.iter().for_each(|(node, seq)| encoder.uints(&[node.0, *seq]));
        encoder.0
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, CodecError> {
        decoder.array(6, Kind::AnswerEnd.name())?;
        Ok(AnswerEnd {
            to: decoder.node()?,
            request: decoder.uint("request")?,
            parts: decoder.uint("number of parts")?,
            next: decoder.uint("next")?,
            rest: decoder.cursor()?,
            seqs: {
                let pairs = decoder.pairs("sequence numbers")?;
                if pairs.iter().any(|(_, seq)| *seq > MAX_SEQ) {
                    return Err(CodecError::Malformed("sequence number"));
                }
                pairs.into_iter().map(|(node, seq)| (NodeId(node), seq)).collect()
            },
        })
    }
}

impl Encoder {
    fn cursor(&mut self, cursor: Option<Cursor>) {
        match cursor {
            Some(cursor) => self.bin(&cursor.to_bytes()),
            None => self.nil(),
        }
    }
}

impl Decoder<'_> {
    fn cursor(&mut self) -> Result<Option<Cursor>, CodecError> {
        if self.is_nil() {
            return Ok(None);
        }
        let bytes = self.bin::<&[u8]>("rest")?;
        let bytes = bytes.try_into().map_err(|_| CodecError::Malformed("rest"))?;
        Ok(Some(Cursor::of_bytes(bytes)))
    }
}
