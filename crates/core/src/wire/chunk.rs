//! Deltas that are encoded before it is known in which message they go.

use super::envelope::ENVELOPE_BYTES;
use super::kind::Kind;
use crate::cache::{Delta, NodeId};
use crate::codec::Encoder;

/// Encoded deltas that go into one message.
#[derive(Default)]
pub(crate) struct Chunk {
    pub(super) encoder: Encoder,
    count: u32,
}

impl Chunk {
    /// All of these deltas.
    pub(super) fn of(deltas: &[Delta]) -> Self {
        let mut chunk = Chunk::default();
        for delta in deltas {
            chunk.encoder.delta(delta);
            chunk.count += 1;
        }
        chunk
    }

    /// Encoded bytes.
    pub fn len(&self) -> usize {
        self.encoder.0.len()
    }

    /// How many deltas.
    pub fn count(&self) -> u64 {
        self.count.into()
    }

    /// What stands before the deltas in a message: its header, numbers, and how many deltas follow.
    pub(super) fn head(&self, version: u8, node: NodeId, kind: Kind, fields: &[u64]) -> Vec<u8> {
        let mut head = Encoder::message(version, node, kind, fields.len() as u32 + 1);
        head.uints(fields);
        head.array(self.count);
        head.0
    }
}

/// Collects deltas into chunks of at most `max_bytes`; a single delta that is larger stands alone.
pub(crate) struct Chunker {
    max_bytes: usize,
    current: Chunk,
}

impl Chunker {
    pub fn new(max_bytes: usize) -> Self {
        Chunker {
            max_bytes,
            current: Chunk::default(),
        }
    }

    /// Adds a delta. Returns the deltas before it once it no longer fits beside them.
    pub fn push<B: AsRef<[u8]>>(&mut self, delta: &Delta<B>) -> Option<Chunk> {
        let bytes = &mut self.current.encoder;
        let start = bytes.0.len();
        bytes.delta(delta);
        if start > 0 && bytes.0.len() > self.max_bytes {
            // Where there is one full chunk, others follow: room for another with a delta too many, and the rest.
            let mut next = Vec::with_capacity(self.max_bytes + self.max_bytes / 8 + ENVELOPE_BYTES);
            next.extend_from_slice(&bytes.0[start..]);
            bytes.0.truncate(start);
            let encoder = Encoder(next);
            return Some(std::mem::replace(&mut self.current, Chunk { encoder, count: 1 }));
        }
        self.current.count += 1;
        None
    }

    /// Bytes not yet returned as a chunk.
    pub fn pending(&self) -> usize {
        self.current.len()
    }

    /// What is left.
    pub fn finish(self) -> Option<Chunk> {
        (self.current.count > 0).then_some(self.current)
    }
}
