//! Messages larger than the server's `max_payload`: cut into fragments, put together again under a bound of memory.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use crate::cache::{Millis, NodeId};
use crate::wire::Fragment;

/// Bytes of incomplete messages kept at most; those heard of least recently are dropped beyond it. A dropped frame
/// shows as a gap of sequence numbers and is repaired like any lost one.
const MAX_PENDING_BYTES: usize = 128 << 20;

/// The same for the messages of one node: room for the largest value that can be configured, and some left for others.
const MAX_NODE_BYTES: usize = 96 << 20;

/// What a piece costs in memory beside its bytes. Counted, so that tiny pieces cannot add up unseen.
const PIECE_BYTES: usize = 256;

/// How long an incomplete message is kept.
const PENDING_MS: Millis = 30_000;

/// Cuts a message into pieces of at most `most` bytes each.
pub(crate) fn split(id: u64, message: &Bytes, most: usize) -> Vec<Fragment> {
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

/// An incomplete message.
struct Pending {
    total: u64,
    bytes: usize,
    /// When its last piece came, and a number that tells apart what came at one time.
    heard: (Millis, u64),
    pieces: BTreeMap<u64, Box<[u8]>>,
}

/// Names a message: its sender, and its number there.
type Name = (NodeId, u64);

/// Puts fragments together again.
#[derive(Default)]
pub(crate) struct Assembler {
    pending: BTreeMap<Name, Pending>,
    /// The one heard of least recently first.
    by_time: BTreeMap<(Millis, u64), Name>,
    /// The same for each node.
    of_node: BTreeMap<(NodeId, (Millis, u64)), u64>,
    bytes_of_node: BTreeMap<NodeId, usize>,
    bytes: usize,
    taken: u64,
}

impl Assembler {
    /// Takes a fragment; returns the whole message when it was the last one missing.
    pub fn add(&mut self, node: NodeId, fragment: Fragment, now: Millis) -> Option<Bytes> {
        if fragment.index >= fragment.total || fragment.bytes.is_empty() {
            return None;
        }
        let name = (node, fragment.id);
        let known = self.pending.get(&name);
        if known.is_some_and(|known| known.total != fragment.total || known.pieces.contains_key(&fragment.index)) {
            return None;
        }
        let cost = fragment.bytes.len() + PIECE_BYTES;
        self.make_room(node, cost);
        self.taken += 1;
        let heard = (now, self.taken);
        let pending = self.pending.entry(name).or_insert_with(|| Pending {
            total: fragment.total,
            bytes: 0,
            heard,
            pieces: BTreeMap::new(),
        });
        self.by_time.remove(&pending.heard);
        self.by_time.insert(heard, name);
        self.of_node.remove(&(node, pending.heard));
        self.of_node.insert((node, heard), fragment.id);
        pending.heard = heard;
        pending.bytes += cost;
        self.bytes += cost;
        *self.bytes_of_node.entry(node).or_default() += cost;
        // A copy: the piece lies in whatever the client library has read at once, which may be a thousand times as much
        // and would stay for as long as the piece does.
        pending.pieces.insert(fragment.index, fragment.bytes.as_ref().into());
        if (pending.pieces.len() as u64) < pending.total {
            return None;
        }
        self.forget(name).map(|pending| {
            let mut message = BytesMut::with_capacity(pending.bytes - PIECE_BYTES * pending.pieces.len());
            pending
                .pieces
                .values()
                .for_each(|piece| message.extend_from_slice(piece));
            message.freeze()
        })
    }

    /// Drops what has waited too long.
    pub fn expire(&mut self, now: Millis) {
        while let Some((&(heard, _), &name)) = self.by_time.first_key_value() {
            if now.saturating_sub(heard) <= PENDING_MS {
                return;
            }
            self.forget(name);
        }
    }

    /// Drops older messages until there is room for `cost` bytes more of `node`.
    fn make_room(&mut self, node: NodeId, cost: usize) {
        while self
            .bytes_of_node
            .get(&node)
            .is_some_and(|bytes| bytes + cost > MAX_NODE_BYTES)
        {
            let mut of_node = self.of_node.range((node, (0, 0))..=(node, (Millis::MAX, u64::MAX)));
            match of_node.next().map(|(_, id)| *id) {
                Some(oldest) => self.forget((node, oldest)),
                None => return,
            };
        }
        while self.bytes + cost > MAX_PENDING_BYTES {
            match self.by_time.first_key_value().map(|(_, name)| *name) {
                Some(oldest) => self.forget(oldest),
                None => return,
            };
        }
    }

    fn forget(&mut self, name: Name) -> Option<Pending> {
        let pending = self.pending.remove(&name)?;
        self.by_time.remove(&pending.heard);
        self.of_node.remove(&(name.0, pending.heard));
        self.bytes -= pending.bytes;
        if let Some(bytes) = self.bytes_of_node.get_mut(&name.0) {
            *bytes -= pending.bytes;
            if *bytes == 0 {
                self.bytes_of_node.remove(&name.0);
            }
        }
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
        assert!(assembler.by_time.is_empty() && assembler.of_node.is_empty() && assembler.bytes_of_node.is_empty());
    }

    #[test]
    fn a_piece_does_not_keep_what_it_was_received_with() {
        let buffer = Bytes::from(vec![1; 1 << 20]);
        let piece = Fragment {
            id: 7,
            index: 0,
            total: 2,
            bytes: buffer.slice(..10),
        };
        let mut assembler = Assembler::default();
        assert_eq!(assembler.add(NodeId(1), piece, 0), None);
        assert!(buffer.is_unique(), "the piece is a copy");
        assert_eq!(assembler.bytes, 10 + PIECE_BYTES);
    }

    #[test]
    fn one_node_cannot_push_out_what_others_send() {
        let piece = |id, bytes: usize| Fragment {
            id,
            index: 0,
            total: 2,
            bytes: vec![1; bytes].into(),
        };
        let mut assembler = Assembler::default();
        assembler.add(NodeId(1), piece(1, 1_000), 0);
        for id in 0..200 {
            assembler.add(NodeId(2), piece(id, 1 << 20), 1);
            assert!(assembler.bytes_of_node[&NodeId(2)] <= MAX_NODE_BYTES);
        }
        let newest = assembler.pending.keys().next_back();
        assert_eq!(newest, Some(&(NodeId(2), 199)), "the oldest of its own go");
        assert!(assembler.pending.contains_key(&(NodeId(1), 1)));
        for node in 3..6 {
            (0..200).for_each(|id| {
                assembler.add(NodeId(node), piece(id, 1 << 20), 2);
            });
        }
        assert!(assembler.bytes <= MAX_PENDING_BYTES);
        let counted: usize = assembler.pending.values().map(|pending| pending.bytes).sum();
        assert_eq!(assembler.bytes, counted);
    }
}
