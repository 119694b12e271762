//! Confirmations: this node's of what peers have sent, and theirs of what it has sent.

use crate::cache::NodeId;
use crate::replica::io::{Output, Target};
use crate::replica::machine::Replica;
use crate::replica::parts::bootstrap::Phase;
use crate::replica::parts::now::Now;
use crate::replica::parts::peer::Peer;
use crate::replica::parts::pending_writes::AckLevel as Wanted;
use crate::replica::parts::pending_writes::{Unconfirmed, Waiter};
use crate::wire::{FrameAck, Message};

impl Replica {
    /// Everything of a peer is here, not all of it by its frames: somebody there may wait to hear that.
    pub(crate) fn send_ack_of_all(&mut self, now: Now, node: NodeId) {
        let contiguous = self.peers.get(node).map_or(0, |peer| peer.confirmed_to(now.mono));
        let ack = FrameAck {
            to: node,
            seq: contiguous,
            contiguous,
        };
        self.send(Target::Node(node), &Message::Ack(ack));
    }

    pub(crate) fn send_ack(&mut self, now: Now, node: NodeId, seq: u64) {
        let contiguous = self.peers.get(node).map_or(0, |peer| peer.confirmed_to(now.mono));
        let ack = FrameAck {
            to: node,
            seq,
            contiguous,
        };
        self.send(Target::Node(node), &Message::Ack(ack));
    }

    pub(crate) fn handle_ack(&mut self, node: NodeId, ack: FrameAck) {
        if ack.to != self.cache.node() {
            return;
        }
        let sent = self.own_frames.newest();
        self.peers.change(node, |peer| {
            // Nobody can confirm what was not sent.
            peer.confirmed.complete_to(ack.contiguous.min(sent));
            if ack.seq <= sent {
                peer.confirmed.arrived(ack.seq);
            }
        });
        self.check_acks(ack.seq.max(ack.contiguous));
    }

    /// Answers those who wait for frames up to `last` and have what they wait for.
    pub(crate) fn check_acks(&mut self, last: u64) {
        let joining = self.bootstrap.phase() == Phase::Bootstrapping || self.bootstrap.settling().is_some();
        if self.pending.is_empty() || !self.connected || joining {
            return;
        }
        let whole = self.is_whole();
        let peers = &self.peers;
        let lacks = |node: &NodeId, waiter: &Waiter| {
            let peer = peers.proven(*node).filter(|peer| !peer.is_leaving());
            peer.is_some_and(|peer| !peer.confirmed.covers(waiter.first, waiter.last))
        };
        let done = self.pending.take(last, |waiter| match waiter.wanted {
            Wanted::Local => true,
            Wanted::Peers(number) => {
                let covers = |(_, peer): &(NodeId, &Peer)| peer.confirmed.covers(waiter.first, waiter.last);
                peers.iter().filter(covers).count() >= number as usize
            }
            // Others may be there that are no peers.
            Wanted::All if !whole => false,
            Wanted::All => {
                // One after the other, so that all confirmations of a write together look once at each peer.
                while waiter.peers.last().is_some_and(|node| !lacks(node, waiter)) {
                    waiter.peers.pop();
                }
                waiter.peers.is_empty()
            }
        });
        self.pending.confirmed(&done, self.calls.last());
        for waiter in done {
            self.outbox.push(Output::Acked {
                id: waiter.id,
                result: Ok(()),
            });
        }
    }

    pub(crate) fn tick_acks(&mut self, now: Now) {
        if self.pending.is_empty() {
            return;
        }
        self.check_acks(u64::MAX);
        for waiter in self.pending.take(u64::MAX, |waiter| now.mono >= waiter.deadline) {
            let result = Err(self.unconfirmed(&waiter));
            self.outbox.push(Output::Acked { id: waiter.id, result });
        }
        if !self.connected {
            return;
        }
        for (first, last, peers) in self.pending.due(now.mono) {
            for node in peers {
                self.send_again(node, first, last);
            }
        }
    }

    fn unconfirmed(&self, waiter: &Waiter) -> Unconfirmed {
        let (confirmed, missing): (Vec<_>, Vec<_>) = self
            .peers
            .iter()
            .partition(|(_, peer)| peer.confirmed.covers(waiter.first, waiter.last));
        let name = |(node, _): (NodeId, &Peer)| self.peers.host(node).unwrap_or_default();
        Unconfirmed {
            confirmed: confirmed.len(),
            missing: missing.into_iter().map(name).collect(),
            disconnected: !self.connected,
        }
    }

    fn send_again(&mut self, node: NodeId, first: u64, last: u64) {
        let lacks = |seq: u64| {
            self.peers
                .get(node)
                .is_some_and(|peer| peer.proven && !peer.confirmed.covers(seq, seq))
        };
        let frames: Vec<Vec<u8>> = (first..=last)
            .filter(|seq| lacks(*seq))
            .filter_map(|seq| self.own_frames.get(seq))
            .map(|frame| frame.to_vec())
            .collect();
        for frame in frames {
            self.counters.frames_resent += 1;
            self.publish(Target::Node(node), frame);
        }
    }
}
