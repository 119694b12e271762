//! Frames that are missing of peers, and those that peers miss of this node.

use crate::cache::{Millis, NodeId};
use crate::replica::io::Target;
use crate::replica::machine::Replica;
use crate::replica::parts::lacking::{Asked, MAX_ASKED};
use crate::replica::parts::now::Now;
use crate::replica::parts::peer::Peer;
use crate::replica::parts::schedule::Repair;
use crate::wire::{FramesGone, FramesRequest, Message, MAX_BUDGET};

/// Frames may arrive a little after the heartbeat or frame that announces them; only then are they missing.
const GAP_GRACE_MS: Millis = 100;

/// An author that does not answer is asked again after this time, and twice what answers take.
const ASK_AGAIN_MS: Millis = 400;

/// Between two requests for frames if all that the first one asks for has arrived: the author answers so many a second.
const ASK_MORE_MS: Millis = 50;

impl Replica {
    /// So many bytes have arrived of frames that were asked for, and perhaps nothing is missing any more.
    pub(crate) fn frames_arrived(&mut self, now: Now, asked: Asked, seq: u64, bytes: usize, closed: bool) {
        let pace = self.pulls.pace_mut();
        pace.waited(now.mono - asked.heard());
        pace.arrived(bytes);
        if asked.is_marker(seq) {
            // It says nothing of how fast the others come.
            return;
        }
        if asked.bytes == 0 {
            pace.begun(asked.last, now.mono);
        }
        let all = asked.bytes + bytes;
        if !asked.is_answered() && (closed || all >= asked.budget) {
            pace.answered(asked.last, (all, asked.budget), now.mono);
        }
        if !closed && all >= asked.budget {
            // There is more, and it is what a comparison finds as well.
            self.pulls.leave_to_frames();
        }
    }

    /// When the author of the frame missing longest has to be asked for it.
    fn ask_at(&self, node: NodeId, peer: &Peer) -> Option<Millis> {
        let since = peer.gap_since?;
        let (asked, pace) = (&peer.asked, self.pulls.pace());
        let at = match asked.times {
            _ if asked.gone => return None,
            // There is more.
            _ if asked.is_answered() => return Some(asked.at + ASK_MORE_MS),
            MAX_ASKED.. => return None,
            // What was asked for may still be coming in.
            0 if asked.budget == 0 => since + GAP_GRACE_MS + pace.took(),
            0 => since.max(asked.heard()) + GAP_GRACE_MS + pace.took() + pace.takes(peer.largest),
            // Whoever asks before it can know of a queue gives the author up before it can answer.
            _ => (asked.heard() + self.frames_patience(peer)).max(self.delay.unknown_until(node, asked.at)),
        };
        // What is missing may stand in the same queue as all else.
        Some(at.max(self.delay.until()))
    }

    /// Whether frames are missing that their author is about to be asked for, was asked for once, or has begun to send:
    /// what others have and this node lacks is most likely in them, and nothing is to be had twice. Where frames are
    /// lost all the time some are always missing: then others are not kept waiting for them.
    pub(crate) fn frames_come_in(&self) -> bool {
        let hoped_for = |peer: &Peer| peer.asked.bytes > 0 || peer.asked.times <= 1;
        let comes = |node, peer: &Peer| hoped_for(peer) && self.ask_at(node, peer).is_some();
        self.peers.with_gaps().any(|(node, peer)| comes(node, peer))
    }

    /// How long the author of missing frames may take to answer. The next word may be a large one.
    fn frames_patience(&self, peer: &Peer) -> Millis {
        let pace = self.pulls.pace();
        ASK_AGAIN_MS + 2 * pace.took() + pace.takes(peer.largest)
    }

    pub(crate) fn next_frames_request(&self) -> Option<Millis> {
        if self.bootstrap.is_taking() {
            return None;
        }
        let gap = |(node, peer): (NodeId, &Peer)| {
            let compared = || self.comparison_for_gap_at(peer).filter(|_| self.may_take_from(node));
            self.ask_at(node, peer).or_else(compared)
        };
        self.peers.with_gaps().filter_map(gap).min()
    }

    /// When it is clear that the author will not send what is missing. Only of interest while a comparison could start.
    fn comparison_for_gap_at(&self, peer: &Peer) -> Option<Millis> {
        peer.gap_since.filter(|_| self.pulls.own().is_none())?;
        let patience = if peer.asked.gone { 0 } else { self.frames_patience(peer) };
        Some(
            (peer.asked.heard() + patience)
                .max(self.schedule.next(Repair::Gap))
                .max(self.delay.until()),
        )
    }

    /// Whether the frames that are missing of a peer have to be replaced by a comparison.
    pub(crate) fn gap_needs_comparison(&self, node: NodeId, peer: &Peer, now: Now) -> bool {
        self.ask_at(node, peer).is_none() && self.comparison_for_gap_at(peer).is_some_and(|at| now.mono >= at)
    }

    pub(crate) fn send_frame_requests(&mut self, now: Now) {
        if !self.connected || self.bootstrap.is_taking() {
            return;
        }
        let due = |(node, peer): (NodeId, &Peer)| {
            self.ask_at(node, peer)
                .filter(|at| now.mono >= *at)
                .map(|_| (node, peer.frames.missing()))
        };
        let due: Vec<_> = self.peers.with_gaps().filter_map(due).collect();
        for (node, missing) in due {
            let budget = self.pulls.pace().room(self.under_way());
            let last = self.pulls.pace().asked(now.mono);
            let asked = self.peers.change(node, |peer| peer.asked.ask(&missing, last, budget));
            let Some(missing) = asked else { continue };
            self.counters.frames_asked += 1;
            let request = FramesRequest {
                request: self.outbox.fresh_id(),
                missing,
                budget: budget as u64,
            };
            self.send(Target::Node(node), &Message::FramesRequest(request));
        }
    }

    pub(crate) fn send_missing_frames(&mut self, now: Now, node: NodeId, request: &FramesRequest) {
        let may = self.peers.change(node, |peer| {
            // That it lacks something is no news: it gets it.
            peer.differs_since = None;
            peer.resends.take(now.mono)
        });
        if may != Some(true) {
            return;
        }
        let oldest = self.own_frames.oldest();
        let most = request.budget.min(MAX_BUDGET as u64) as usize;
        let mut bytes = 0;
        let mut gone = false;
        'runs: for &(first, last) in &request.missing {
            gone |= first < oldest;
            for seq in first.max(oldest)..=last.min(self.own_frames.newest()) {
                let Some(frame) = self.own_frames.get(seq) else {
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

    pub(crate) fn handle_frames_gone(&mut self, node: NodeId, gone: FramesGone) {
        if gone.to != self.cache.node() {
            return;
        }
        self.peers.change(node, |peer| {
            let missing = peer.frames.missing();
            let before_ring = missing.first().is_some_and(|(first, _)| *first < gone.oldest);
            // Numbers that no frame has. What the author does have was sent before this, as far as there was room. One
            // that answers a request for an earlier gap says nothing of the next.
            let all_sent = peer.asked.budget > 0 && !peer.asked.is_answered();
            peer.asked.gone |= before_ring || all_sent;
        });
    }
}
