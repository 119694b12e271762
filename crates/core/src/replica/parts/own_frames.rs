//! The frames of this node: their numbers, and those kept for peers that missed some.

use bytes::Bytes;

use super::ring::Ring;

pub(crate) struct OwnFrames {
    /// Newest frame.
    seq: u64,
    ring: Ring,
}

impl OwnFrames {
    /// Goes on after the frame `seq`, and keeps `bytes` of recent frames.
    pub fn after(seq: u64, bytes: usize) -> Self {
        OwnFrames {
            seq,
            ring: Ring::new(bytes),
        }
    }

    /// Number of the newest frame.
    pub fn newest(&self) -> u64 {
        self.seq
    }

    /// The number of the next frame. A frame that is not sent leaves its number missing at the peers.
    pub fn fresh_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    pub fn keep(&mut self, seq: u64, frame: Bytes) {
        self.ring.keep(seq, frame);
    }

    pub fn get(&self, seq: u64) -> Option<&Bytes> {
        self.ring.get(seq)
    }

    /// The oldest frame that is kept, or the one that would be the next.
    pub fn oldest(&self) -> u64 {
        self.ring.oldest().unwrap_or(self.seq + 1)
    }
}
