//! Frames: this node's commands on their way out, peers' commands on their way in, and what is missing of them.

use super::acks::Ack as Wanted;
use super::acks::{AckRequest, Unconfirmed, Waiter};
use super::machine::{Output, Phase, Replica, Target};
use super::outbound::MAX_FRAME_BYTES;
use super::peers::{Asked, Peer, Withheld};
use super::pull::Pull;
use super::Now;
use crate::cache::{Command, CommandError, Millis, NodeId, Time};
use crate::wire::{Ack, Chunk, Chunker, Frame, FramesGone, FramesRequest, Message};

/// Frames may arrive a little after the beat or frame that announces them; only then are they missing.
const GAP_GRACE_MS: Millis = 100;

/// An author that does not answer is asked again after this time, and twice what answers take.
const ASK_AGAIN_MS: Millis = 400;

/// Between two requests for frames if all that the first one asks for has arrived: the author answers so many a second.
const ASK_MORE_MS: Millis = 50;

/// Requests for frames without progress after which a comparison has to do.
pub(super) const MAX_ASKED: u32 = 3;

/// Most bytes of frames sent again for one request, however much is asked for.
const RESEND_BYTES: usize = 1 << 20;

/// Counters with at least so many entries of nodes that are gone are folded.
const FOLD_ENTRIES: usize = 16;

/// Partitions looked at for that with each beat.
const FOLD_PARTITIONS: u16 = 8;

impl Replica {
    // --- own commands

    /// Sends commands as frames. While NATS is away they are not kept: the number of the frame they would have had
    /// stays missing, and peers fetch by digest what they do not have.
    pub(super) fn publish_commands(&mut self, now: Now, commands: &[Command], acks: Vec<AckRequest>) {
        let first = self.seq + 1;
        if self.connected {
            let mut chunker = Chunker::new(self.message_bytes());
            for command in commands {
                if let Some(chunk) = chunker.push(command) {
                    self.frame(chunk, !acks.is_empty());
                }
            }
            if let Some(chunk) = chunker.finish() {
                self.frame(chunk, !acks.is_empty());
            }
        } else {
            self.seq += 1;
            self.counters.commands_unsent += commands.len() as u64;
        }
        for request in acks {
            let peers = self.peers.iter().map(|(node, _)| node).collect();
            self.acks.wait(request, first, self.seq, peers, now.mono);
        }
        self.check_acks(u64::MAX);
    }

    fn frame(&mut self, chunk: Chunk, wants_ack: bool) {
        self.seq += 1;
        self.counters.frames_sent += 1;
        self.counters.commands_sent += chunk.count();
        let clock = self.cache.clock().latest();
        let frame = chunk.into_frame(
            self.version_for(Target::Commands),
            self.cache.node(),
            self.seq,
            wants_ack,
            clock,
        );
        self.ring.keep(self.seq, frame.clone().into());
        self.publish(Target::Commands, frame);
    }

    /// Writes counters of nodes that are gone shorter. One node of the lattice does it: of those that have seen for long
    /// enough who comes and goes, the one with the lowest id. The others get it by the next comparison: as frames, these
    /// commands would be older than the deletions they remember.
    pub(super) fn fold(&mut self, now: Now) {
        let ttl = self.cache.limits().tombstone_ttl_ms;
        let watched = self
            .started
            .is_some_and(|started| now.mono.saturating_sub(started) > ttl);
        let node = self.cache.node();
        // By a clock that is wrong nothing is known to be old enough.
        let watched = watched && self.clock_fault(now).is_none();
        if self.phase != Phase::Synced || !watched || self.peers.iter().any(|(peer, _)| peer < node) {
            return;
        }
        for _ in 0..FOLD_PARTITIONS {
            let partition = crate::cache::Partition(self.next_fold);
            self.next_fold = (self.next_fold + 1) % crate::cache::PARTITIONS as u16;
            let may_add = |author| author == node || self.peers.may_return(author, 2 * ttl, now.mono);
            let commands = self.cache.fold(partition, FOLD_ENTRIES, now.wall, may_add);
            self.counters.folded += commands.len() as u64;
        }
    }

    // --- peers' commands

    /// A frame of a peer has arrived, of so many bytes without its seal.
    pub(super) fn frame_of_peer(&mut self, now: Now, node: NodeId, mut frame: Frame<&[u8]>, bytes: usize) {
        let Some(peer) = self.peers.proven(node) else { return };
        let follows = peer.frames.follows(frame.seq);
        if !peer.frames.takes(frame.seq) {
            self.counters.repeated += 1;
            let again = frame.wants_ack && peer.has_effect_of(frame.seq);
            if again && self.peers.change(node, |peer| peer.repeats.take(now.mono)) == Some(true) {
                self.confirm(now, node, frame.seq);
            }
            return;
        }
        self.counters.frames_received += 1;
        // What is older than the deletions this node remembers cannot be told from something deleted. A comparison
        // decides about it, once it is clear which of the two nodes was away for too long.
        let floor = self.cache.floor();
        let sent = frame.commands.len();
        frame.commands.retain(|command| command.newest().time >= floor);
        let whole = frame.commands.len() == sent;
        let refused = self.apply(now, node, &frame.commands, frame.clock);
        let heard = self.taken_in(now);
        self.delay.frame(node, follows && whole, now.mono);
        let asked = self.peers.get(node).and_then(|peer| peer.asked_for(frame.seq));
        // One that is older than the floor stays missing, however often it comes: it is no progress.
        let asked = asked.filter(|_| whole);
        let closed = self.peers.change(node, |peer| {
            peer.largest = peer.largest.max(bytes.min(MAX_FRAME_BYTES));
            if asked.is_some() {
                peer.answered_in_part(bytes, now.mono);
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
            self.frames_arrived(now, asked, bytes, closed == Some(true));
        }
        if !whole {
            self.counters.outdated += 1;
        } else if refused.is_none() && frame.wants_ack {
            self.confirm(now, node, frame.seq);
        }
        self.settle(now);
    }

    /// Everything of a peer is here, not all of it by its frames: somebody there may wait to hear that.
    pub(super) fn confirm_all(&mut self, now: Now, node: NodeId) {
        let contiguous = self.peers.get(node).map_or(0, |peer| peer.confirmed_to(now.mono));
        let ack = Ack {
            to: node,
            seq: contiguous,
            contiguous,
        };
        self.send(Target::Node(node), &Message::Ack(ack));
    }

    fn confirm(&mut self, now: Now, node: NodeId, seq: u64) {
        let contiguous = self.peers.get(node).map_or(0, |peer| peer.confirmed_to(now.mono));
        let ack = Ack {
            to: node,
            seq,
            contiguous,
        };
        self.send(Target::Node(node), &Message::Ack(ack));
    }

    /// Merges commands that `from` has sent. Returns what was refused of them, if anything was.
    pub(super) fn apply(
        &mut self,
        now: Now,
        from: NodeId,
        commands: &[Command<&[u8]>],
        clock: Time,
    ) -> Option<Withheld> {
        self.observe(now, clock);
        if self.taken.is_none() && !commands.is_empty() {
            self.taken = Some(self.hybrid_now(now));
        }
        let mut refused = None;
        self.counters.commands_received += commands.len() as u64;
        let mut number = 0;
        self.cache.apply_all(commands, now.wall, |applied| {
            number += 1;
            if let Err(error) = applied {
                self.counters.refused += 1;
                let withheld = refused.get_or_insert(Withheld::NOTHING);
                if let CommandError::FromTheFuture { ahead_ms } = error {
                    withheld.commands += 1;
                    withheld.from = withheld.from.min(now.wall.saturating_add(ahead_ms).saturating_add(1));
                }
                if let Some(suppressed) = self.logs.refused.pass(now.mono) {
                    // Its author, if it is there; else it was passed on by somebody.
                    let author = commands[number - 1].newest().node;
                    let host = self.peers.host(author).unwrap_or_else(|| "unknown".into());
                    let sender = self.peers.host(from).unwrap_or_else(|| from.to_string());
                    let (host, sender) = (host.escape_debug(), sender.escape_debug());
                    tracing::warn!(
                        %error, %author, %host, %sender, suppressed,
                        "refused a command of a peer; check the clock of its host"
                    );
                }
            }
        });
        refused
    }

    /// Follows a peer's clock, unless it is too far ahead to be right.
    pub(super) fn observe(&self, now: Now, clock: Time) {
        if clock.millis() <= now.wall.saturating_add(self.cache.limits().max_clock_skew_ms) {
            self.cache.clock().observe(clock);
        }
    }

    // --- missing frames

    /// So many bytes have arrived of frames that were asked for, and perhaps nothing is missing any more.
    fn frames_arrived(&mut self, now: Now, asked: Asked, bytes: usize, closed: bool) {
        self.pace.waited(now.mono - asked.heard());
        self.pace.arrived(bytes);
        if asked.bytes == 0 {
            self.pace.begun(asked.last, now.mono);
        }
        let all = asked.bytes + bytes;
        if !asked.is_answered() && (closed || all >= asked.budget) {
            self.pace.answered(asked.last, (all, asked.budget), now.mono);
        }
        if !closed && all >= asked.budget {
            // There is more, and it is what a comparison finds as well.
            let pulls = [&mut self.pull, &mut self.reverse].into_iter().flatten();
            pulls.for_each(Pull::leave_to_frames);
        }
    }

    /// When the author of the frame missing longest has to be asked for it.
    fn ask_at(&self, node: NodeId, peer: &Peer) -> Option<Millis> {
        let since = peer.gap_since?;
        let asked = &peer.asked;
        let at = match asked.times {
            _ if asked.gone => return None,
            MAX_ASKED.. => return None,
            // There is more.
            _ if asked.is_answered() => return Some(asked.last.at + ASK_MORE_MS),
            // What was asked for may still be coming in.
            0 if asked.budget == 0 => since + GAP_GRACE_MS + self.pace.took(),
            0 => since.max(asked.heard()) + GAP_GRACE_MS + self.pace.took() + self.pace.takes(peer.largest),
            // Whoever asks before it can know of a queue asks for the same twice.
            _ => (asked.heard() + self.frames_patience(peer)).max(self.delay.unknown_until(node, asked.last.at)),
        };
        // What is missing may stand in the same queue as all else.
        Some(at.max(self.delay.until()))
    }

    /// Whether frames are missing that their author is about to be asked for, was asked for once, or has begun to send: what
    /// others have and this node lacks is most likely in them, and nothing is to be had twice. Where frames are lost all the
    /// time some are always missing: then others are not kept waiting for them.
    pub(super) fn frames_come_in(&self) -> bool {
        let hoped_for = |peer: &Peer| peer.asked.bytes > 0 || peer.asked.times <= 1;
        let comes = |node, peer: &Peer| hoped_for(peer) && self.ask_at(node, peer).is_some();
        self.peers.with_gaps().any(|(node, peer)| comes(node, peer))
    }

    /// How long the author of missing frames may take to answer. The next word may be a large one.
    fn frames_patience(&self, peer: &Peer) -> Millis {
        ASK_AGAIN_MS + 2 * self.pace.took() + self.pace.takes(peer.largest)
    }

    pub(super) fn next_frames_request(&self) -> Option<Millis> {
        if self.phase == Phase::Replaying || self.phase == Phase::Yielding {
            return None;
        }
        let gap = |(node, peer): (NodeId, &Peer)| {
            let hopeless = || self.gap_hopeless_at(peer).filter(|_| self.may_take_from(node));
            self.ask_at(node, peer).or_else(hopeless)
        };
        self.peers.with_gaps().filter_map(gap).min()
    }

    /// When it is clear that the author will not send what is missing. Only of interest while a comparison could start.
    fn gap_hopeless_at(&self, peer: &Peer) -> Option<Millis> {
        peer.gap_since.filter(|_| self.pull.is_none())?;
        let patience = if peer.asked.gone { 0 } else { self.frames_patience(peer) };
        Some(
            (peer.asked.heard() + patience)
                .max(self.next_gap_comparison)
                .max(self.delay.until()),
        )
    }

    /// Whether the frames that are missing of a peer have to be replaced by a comparison.
    pub(super) fn gap_is_hopeless(&self, node: NodeId, peer: &Peer, now: Now) -> bool {
        self.ask_at(node, peer).is_none() && self.gap_hopeless_at(peer).is_some_and(|at| now.mono >= at)
    }

    pub(super) fn ask_for_frames(&mut self, now: Now) {
        if !self.connected || self.phase == Phase::Replaying || self.phase == Phase::Yielding {
            return;
        }
        let due = |(node, peer): (NodeId, &Peer)| {
            self.ask_at(node, peer)
                .filter(|at| now.mono >= *at)
                .map(|_| (node, peer.frames.missing()))
        };
        let due: Vec<_> = self.peers.with_gaps().filter_map(due).collect();
        for (node, missing) in due {
            let newest = missing.last().map_or(0, |(_, last)| *last);
            let budget = self.pace.room(self.under_way());
            let last = self.pace.asked(now.mono);
            self.peers.change(node, |peer| peer.asked.again(last, newest, budget));
            self.counters.frames_asked += 1;
            let request = FramesRequest {
                request: self.fresh_id(),
                missing,
                budget: budget as u64,
            };
            self.send(Target::Node(node), &Message::FramesRequest(request));
        }
    }

    pub(super) fn serve_frames(&mut self, now: Now, node: NodeId, request: &FramesRequest) {
        let may = self.peers.change(node, |peer| {
            // That it lacks something is no news: it gets it.
            peer.differs_since = None;
            peer.resends.take(now.mono)
        });
        if may != Some(true) {
            return;
        }
        let oldest = self.ring.oldest().unwrap_or(self.seq + 1);
        let most = request.budget.min(RESEND_BYTES as u64) as usize;
        let mut bytes = 0;
        let mut gone = false;
        'runs: for &(first, last) in &request.missing {
            gone |= first < oldest;
            for seq in first.max(oldest)..=last.min(self.seq) {
                let Some(frame) = self.ring.get(seq) else {
                    gone = true;
                    continue;
                };
                let frame = frame.to_vec();
                bytes += frame.len();
                self.counters.frames_resent += 1;
                self.publish(Target::Node(node), frame);
                if bytes >= most {
                    break 'runs;
                }
            }
        }
        if gone {
            self.send(
                Target::Node(node),
                &Message::FramesGone(FramesGone { to: node, oldest }),
            );
        }
    }

    pub(super) fn frames_gone(&mut self, node: NodeId, gone: FramesGone) {
        if gone.to != self.cache.node() {
            return;
        }
        self.peers.change(node, |peer| {
            let missing = peer.frames.missing();
            let before_ring = missing.first().is_some_and(|(first, _)| *first < gone.oldest);
            // Numbers that no frame has. What the author does have was sent before this, as far as there was room. One that
            // answers a request for an earlier gap says nothing of the next.
            let all_sent = peer.asked.budget > 0 && !peer.asked.is_answered();
            peer.asked.gone |= before_ring || all_sent;
        });
    }

    // --- confirmations

    pub(super) fn ack_of_peer(&mut self, node: NodeId, ack: Ack) {
        if ack.to != self.cache.node() {
            return;
        }
        let sent = self.seq;
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
    pub(super) fn check_acks(&mut self, last: u64) {
        let joining = self.phase == Phase::Replaying || self.settling.is_some();
        if self.acks.is_empty() || !self.connected || joining {
            return;
        }
        let whole = self.is_whole();
        let peers = &self.peers;
        let lacks = |node: &NodeId, waiter: &Waiter| {
            let peer = peers.proven(*node).filter(|peer| !peer.is_leaving());
            peer.is_some_and(|peer| !peer.confirmed.covers(waiter.first, waiter.last))
        };
        let done = self.acks.take(last, |waiter| match waiter.wanted {
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
        self.acks.confirmed(&done, self.last_call);
        for waiter in done {
            self.outputs.push_back(Output::Acked {
                id: waiter.id,
                result: Ok(()),
            });
        }
    }

    pub(super) fn tick_acks(&mut self, now: Now) {
        if self.acks.is_empty() {
            return;
        }
        self.check_acks(u64::MAX);
        for waiter in self.acks.take(u64::MAX, |waiter| now.mono >= waiter.deadline) {
            let result = Err(self.unconfirmed(&waiter));
            self.outputs.push_back(Output::Acked { id: waiter.id, result });
        }
        if !self.connected {
            return;
        }
        for (first, last, peers) in self.acks.due(now.mono) {
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
            .filter_map(|seq| self.ring.get(seq))
            .map(|frame| frame.to_vec())
            .collect();
        for frame in frames {
            self.counters.frames_resent += 1;
            self.publish(Target::Node(node), frame);
        }
    }
}
