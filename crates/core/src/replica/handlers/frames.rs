//! Frames: this node's deltas on their way out, and peers' deltas on their way in.

use crate::cache::{Delta, DeltaError, NodeId, Time};
use crate::replica::io::Target;
use crate::replica::machine::Replica;
use crate::replica::parts::lacking::Withheld;
use crate::replica::parts::notice::Notice;
use crate::replica::parts::now::Now;
use crate::replica::parts::outbox::MAX_FRAME_BYTES;
use crate::replica::parts::pending_writes::AckRequest;
use crate::wire::{Chunk, Chunker, Frame};

/// Counters with at least so many entries of nodes that are gone are folded.
const FOLD_ENTRIES: usize = 16;

/// Partitions looked at for that with each heartbeat.
const FOLD_PARTITIONS: u16 = 8;

impl Replica {
    // --- own deltas

    /// Sends deltas as frames. While NATS is away they are not kept: the number of the frame they would have had
    /// stays missing, and peers fetch by digest what they do not have.
    pub(crate) fn handle_local(&mut self, now: Now, deltas: &[Delta], acks: Vec<AckRequest>) {
        let first = self.own_frames.newest() + 1;
        if self.connected {
            let mut chunker = Chunker::new(self.message_bytes());
            for delta in deltas {
                if let Some(chunk) = chunker.push(delta) {
                    self.send_frame(chunk, !acks.is_empty());
                }
            }
            if let Some(chunk) = chunker.finish() {
                self.send_frame(chunk, !acks.is_empty());
            }
        } else {
            self.own_frames.fresh_seq();
            self.counters.commands_unsent += deltas.len() as u64;
        }
        for request in acks {
            let peers = self.peers.iter().map(|(node, _)| node).collect();
            self.pending
                .wait(request, first, self.own_frames.newest(), peers, now.mono);
        }
        self.check_acks(u64::MAX);
    }

    fn send_frame(&mut self, chunk: Chunk, wants_ack: bool) {
        let seq = self.own_frames.fresh_seq();
        self.counters.frames_sent += 1;
        self.counters.commands_sent += chunk.count();
        let clock = self.cache.clock().latest();
        let frame = chunk.into_frame(
            self.version_for(Target::Deltas),
            self.cache.node(),
            seq,
            wants_ack,
            clock,
        );
        self.own_frames.keep(seq, frame.clone().into());
        self.publish(Target::Deltas, frame);
    }

    /// Writes counters of nodes that are gone shorter. One node of the lattice does it: of those that have seen for
    /// long enough who comes and goes, the one with the lowest id. The others get it by the next comparison: as frames,
    /// these deltas would be older than the deletions they remember.
    pub(crate) fn fold(&mut self, now: Now) {
        let ttl = self.cache.limits().tombstone_ttl_ms;
        let watched = self.calls.running_for(now.mono) > ttl;
        let node = self.cache.node();
        // By a clock that is wrong nothing is known to be old enough.
        let watched = watched && self.clock_fault(now).is_none();
        if !self.bootstrap.is_synced() || !watched || self.peers.iter().any(|(peer, _)| peer < node) {
            return;
        }
        for _ in 0..FOLD_PARTITIONS {
            let partition = crate::cache::Partition(self.next_fold);
            self.next_fold = (self.next_fold + 1) % crate::cache::PARTITIONS as u16;
            let may_add = |author| author == node || self.peers.may_return(author, 2 * ttl, now.mono);
            let deltas = self.cache.fold(partition, FOLD_ENTRIES, now.wall, may_add);
            self.counters.folded += deltas.len() as u64;
        }
    }

    // --- peers' deltas

    /// A frame of a peer has arrived, of so many bytes without its authenticator.
    pub(crate) fn handle_frame(&mut self, now: Now, node: NodeId, mut frame: Frame<&[u8]>, bytes: usize) {
        let Some(peer) = self.peers.proven(node) else { return };
        let follows = peer.frames.follows(frame.seq);
        if !peer.frames.takes(frame.seq) {
            self.counters.repeated += 1;
            let again = frame.wants_ack && peer.has_effect_of(frame.seq);
            if again && self.peers.change(node, |peer| peer.repeats.take(now.mono)) == Some(true) {
                self.send_ack(now, node, frame.seq);
            }
            return;
        }
        self.counters.frames_received += 1;
        // What is older than the deletions this node remembers cannot be told from something deleted. A comparison
        // decides about it, once it is clear which of the two nodes was away for too long.
        let floor = self.cache.floor();
        let sent = frame.deltas.len();
        frame.deltas.retain(|delta| delta.newest().time >= floor);
        let whole = frame.deltas.len() == sent;
        let refused = self.apply(now, node, &frame.deltas, frame.clock);
        let heard = self.taken_in(now);
        self.delay.frame(node, follows && whole, now.mono);
        let asked = self.peers.get(node).and_then(|peer| peer.asked_for(frame.seq));
        // One that is older than the floor stays missing, however often it comes: it is no progress.
        let asked = asked.filter(|_| whole);
        let closed = self.peers.change(node, |peer| {
            peer.largest = peer.largest.max(bytes.min(MAX_FRAME_BYTES));
            if asked.is_some() {
                peer.asked.arrived(frame.seq, bytes, now.mono);
            }
            match refused {
                _ if !whole => peer.announced(frame.seq, now.mono),
                None => peer.arrived(frame.seq, now.mono, heard),
                // It will not be taken either if it is asked for again at once.
                Some(withheld) => peer.arrived_in_vain(frame.seq, withheld, now.mono, heard),
            }
            !peer.frames.has_gap()
        });
        if let Some(asked) = asked {
            self.frames_arrived(now, asked, frame.seq, bytes, closed == Some(true));
        }
        if !whole {
            self.counters.outdated += 1;
        } else if refused.is_none() && frame.wants_ack {
            self.send_ack(now, node, frame.seq);
        }
        self.settle(now);
    }

    /// Merges deltas that `from` has sent. Returns what was refused of them, if anything was.
    pub(crate) fn apply(&mut self, now: Now, from: NodeId, deltas: &[Delta<&[u8]>], clock: Time) -> Option<Withheld> {
        self.observe(now, clock);
        if !deltas.is_empty() {
            self.lineage.takes_deltas(self.hybrid_now(now));
        }
        let mut refused = None;
        self.counters.commands_received += deltas.len() as u64;
        let mut number = 0;
        self.cache.apply_all(deltas, now.wall, |applied| {
            number += 1;
            if let Err(error) = applied {
                self.counters.refused += 1;
                let withheld = refused.get_or_insert(Withheld::NOTHING);
                if let DeltaError::FromTheFuture { ahead_ms } = error {
                    withheld.deltas += 1;
                    withheld.from = withheld.from.min(now.wall.saturating_add(ahead_ms).saturating_add(1));
                }
                if let Some(suppressed) = self.logs.refused.pass(now.mono) {
                    // Its author, if it is there; else it was passed on by somebody.
                    let author = deltas[number - 1].newest().node;
                    self.outbox.tell(Notice::RefusedDelta {
                        error,
                        author,
                        host: self.peers.host(author),
                        sender: self.peers.host(from).unwrap_or_else(|| from.to_string()),
                        suppressed,
                    });
                }
            }
        });
        refused
    }

    /// Follows a peer's clock, unless it is too far ahead to be right.
    pub(crate) fn observe(&self, now: Now, clock: Time) {
        if clock.millis() <= now.wall.saturating_add(self.cache.limits().max_clock_skew_ms) {
            self.cache.clock().observe(clock);
        }
    }
}
