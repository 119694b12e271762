//! Recent frames of this node, kept for peers that missed some.

use std::collections::VecDeque;

use bytes::Bytes;

/// Frames in order of their numbers, bounded by bytes: the oldest go first.
pub(crate) struct Ring {
    frames: VecDeque<(u64, Bytes)>,
    bytes: usize,
    capacity: usize,
}

/// What a frame costs beside its bytes.
const FRAME_BYTES: usize = 64;

impl Ring {
    pub fn new(capacity: usize) -> Self {
        Ring {
            frames: VecDeque::new(),
            bytes: 0,
            capacity,
        }
    }

    /// Keeps frame `seq`, which is newer than all kept.
    pub fn keep(&mut self, seq: u64, frame: Bytes) {
        self.bytes += frame.len() + FRAME_BYTES;
        self.frames.push_back((seq, frame));
        while self.bytes > self.capacity {
            let Some((_, oldest)) = self.frames.pop_front() else {
                return;
            };
            self.bytes -= oldest.len() + FRAME_BYTES;
        }
    }

    /// Frame `seq` without its authenticator, if it is kept.
    pub fn get(&self, seq: u64) -> Option<&Bytes> {
        let place = self.frames.binary_search_by_key(&seq, |(seq, _)| *seq).ok()?;
        Some(&self.frames[place].1)
    }

    /// Number of the oldest frame kept.
    pub fn oldest(&self) -> Option<u64> {
        self.frames.front().map(|(seq, _)| *seq)
    }

    /// Bytes kept.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_frames_go_when_the_bytes_are_used_up() {
        let mut ring = Ring::new(10 * (100 + FRAME_BYTES));
        for seq in 1..=25 {
            ring.keep(seq, Bytes::from(vec![seq as u8; 100]));
            assert!(ring.bytes() <= 10 * (100 + FRAME_BYTES));
        }
        assert_eq!(ring.oldest(), Some(16));
        assert_eq!(ring.get(15), None);
        assert_eq!(ring.get(16), Some(&Bytes::from(vec![16; 100])));
        // A number that was never used, because NATS was away, is not there either.
        ring.keep(30, Bytes::new());
        assert_eq!(ring.get(27), None);
    }

    #[test]
    fn a_frame_larger_than_the_ring_is_not_kept() {
        let mut ring = Ring::new(100);
        ring.keep(1, Bytes::from(vec![0; 1_000]));
        assert_eq!((ring.get(1), ring.bytes()), (None, 0));
    }
}
