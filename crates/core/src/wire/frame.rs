//! What a node has written.

use super::chunk::Chunk;
use super::envelope::MAX_AUTHENTICATOR_BYTES;
use super::kind::Kind;
use crate::cache::{Blob, Delta, NodeId, Time};
use crate::codec::{CodecError, Decoder, Held};

/// A batch of deltas in the order in which their author made them.
///
/// ```text
/// array of 4
///   uint    seq
///   flag    wants_ack
///   uint    clock
///   array   deltas
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame<B = Blob> {
    /// Number of the frame, from 1 for each process start.
    pub seq: u64,
    /// Every receiver says when it has applied the frame.
    pub wants_ack: bool,
    /// The author's hybrid clock.
    pub clock: Time,
    /// The deltas.
    pub deltas: Vec<Delta<B>>,
}

impl Frame {
    pub(super) fn encode(&self, version: u8, node: NodeId) -> Vec<u8> {
        Chunk::of(&self.deltas).into_frame(version, node, self.seq, self.wants_ack, self.clock)
    }
}

impl Chunk {
    /// The deltas as a [`Frame`], in as many bytes as it takes: the ring keeps it.
    pub fn into_frame(self, version: u8, node: NodeId, seq: u64, wants_ack: bool, clock: Time) -> Vec<u8> {
        let mut message = self.head(version, node, Kind::Frame, &[seq, wants_ack.into(), clock.0]);
        message.reserve_exact(self.len() + MAX_AUTHENTICATOR_BYTES);
        message.extend_from_slice(&self.encoder.0);
        message
    }
}

impl<B> Frame<B> {
    pub(super) fn decode<'a>(decoder: &mut Decoder<'a>) -> Result<Self, CodecError>
    where
        B: Held<'a>,
    {
        decoder.array(4, Kind::Frame.name())?;
        Ok(Frame {
            seq: decoder.seq()?,
            wants_ack: decoder.flag("acknowledgement flag")?,
            clock: decoder.time("clock")?,
            deltas: decoder.deltas()?,
        })
    }
}
