//! Messages larger than the server's `max_payload`: cut into fragments, put together again under a bound of memory.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::wire::Fragment;
use crate::cache::{Millis, NodeId};

/// Bytes of incomplete messages kept at most; the oldest are dropped beyond it. A dropped frame shows as a gap of
/// sequence numbers and is repaired like any lost one.
const MAX_PENDING_BYTES: usize = 128 << 20;

/// What a piece costs in memory beside its bytes. Counted, so that tiny pieces cannot add up unseen.
const PIECE_BYTES: usize = 256;

/// How long an incomplete message is kept.
const PENDING_MS: Millis = 30_000;

/// Cuts a message into pieces of at most `most` bytes each.
pub(super) fn split(id: u64, message: &Bytes, most: usize) -> Vec<Fragment> {
    let piece = most.max(1);
    let total = message.len().div_ceil(piece) as u64;
    let fragment = |index: u64| {
        let start = index as usize * piece;
        Fragment {
            id,
            index,
            total,
            bytes: message.slice(start..message.len().min(start + piece)),
        }
    };
    (0..total).map(fragment).collect()
}

struct Pending {
    total: u64,
    bytes: usize,
    last_heard: Millis,
    pieces: BTreeMap<u64, Bytes>,
}

/// Puts fragments together again.
#[derive(Default)]
pub(super) struct Assembler {
    pending: BTreeMap<(NodeId, u64), Pending>,
    bytes: usize,
}

impl Assembler {
    /// Takes a fragment; returns the whole message when it was the last one missing.
    pub fn add(&mut self, node: NodeId, fragment: Fragment, now: Millis) -> Option<Bytes> {
        if fragment.index >= fragment.total || fragment.bytes.is_empty() {
            return None;
        }
        let key = (node, fragment.id);
        let pending = self.pending.entry(key).or_insert_with(|| Pending {
            total: fragment.total,
            bytes: 0,
            last_heard: now,
            pieces: BTreeMap::new(),
        });
        if pending.total != fragment.total || pending.pieces.contains_key(&fragment.index) {
            return None;
        }
        pending.last_heard = now;
        let cost = fragment.bytes.len() + PIECE_BYTES;
        pending.bytes += cost;
        self.bytes += cost;
        pending.pieces.insert(fragment.index, fragment.bytes);
        if pending.pieces.len() as u64 == pending.total {
            return self.forget(key).map(|pending| {
                let mut message = BytesMut::with_capacity(pending.bytes - PIECE_BYTES * pending.pieces.len());
                pending
                    .pieces
                    .values()
                    .for_each(|piece| message.extend_from_slice(piece));
                message.freeze()
            });
        }
        self.bound();
        None
    }

    /// Drops what has waited too long.
    pub fn expire(&mut self, now: Millis) {
        let expired = |pending: &Pending| now.saturating_sub(pending.last_heard) > PENDING_MS;
        let old: Vec<_> = self
            .pending
            .iter()
            .filter(|(_, pending)| expired(pending))
            .map(|(key, _)| *key)
            .collect();
        for key in old {
            self.forget(key);
        }
    }

    fn bound(&mut self) {
        while self.bytes > MAX_PENDING_BYTES {
            let oldest = self
                .pending
                .iter()
                .min_by_key(|(_, pending)| pending.last_heard)
                .map(|(key, _)| *key);
            match oldest {
                Some(key) => self.forget(key),
                None => return,
            };
        }
    }

    fn forget(&mut self, key: (NodeId, u64)) -> Option<Pending> {
        let pending = self.pending.remove(&key)?;
        self.bytes -= pending.bytes;
        Some(pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_order_and_repeats_put_the_message_together_once() {
        let message = Bytes::from((0..100_000u32).map(|n| n as u8).collect::<Vec<_>>());
        let mut fragments = split(7, &message, 4_096);
        assert!(fragments.len() > 20);
        fragments.reverse();
        let mut assembler = Assembler::default();
        let whole: Vec<_> = fragments
            .iter()
            .flat_map(|fragment| [fragment.clone(), fragment.clone()])
            .filter_map(|fragment| assembler.add(NodeId(1), fragment, 0))
            .collect();
        assert_eq!(whole, [message]);
    }

    #[test]
    fn incomplete_messages_expire() {
        let fragments = split(7, &Bytes::from(vec![1; 10_000]), 4_096);
        let mut assembler = Assembler::default();
        assert_eq!(assembler.add(NodeId(1), fragments[0].clone(), 0), None);
        assembler.expire(PENDING_MS + 1);
        assert_eq!(assembler.bytes, 0);
        assert!(assembler.pending.is_empty());
    }
}
