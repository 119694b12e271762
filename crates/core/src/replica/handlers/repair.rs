//! Which repair is due.

use crate::cache::{NodeId, Time};
use crate::replica::io::Output;
use crate::replica::machine::Replica;
use crate::replica::parts::bootstrap::Phase;
use crate::replica::parts::lacking::Withheld;
use crate::replica::parts::now::Now;
use crate::replica::parts::peer::Peer;
use crate::replica::parts::pull::Pull;
use crate::replica::parts::schedule::Repair;
use crate::replica::parts::spread::spread_of;
use crate::replica::parts::task::Purpose;

/// While one of two nodes has forgotten older deletions than the other, their digests differ for no reason. A
/// difference that stays for this many heartbeat intervals is looked at all the same.
const FLOOR_PATIENCE: u64 = 30;

/// What was refused for its stamps is asked for again when the first of it can be taken; if some is still refused then,
/// after this many heartbeat intervals.
const WITHHELD_PAUSE: u64 = 10;

impl Replica {
    /// This node was away for too long: it takes the state of `node`.
    pub(crate) fn begin_resync(&mut self, now: Now, node: NodeId, floor: Time) {
        tracing::warn!(
            peer = %node,
            "this node was out of contact for longer than deletions are remembered: it takes the state of its peers"
        );
        self.counters.yields += 1;
        self.bootstrap.resyncs(now.mono);
        self.heartbeats.hurry(now.mono);
        self.pulls.end_reverse();
        self.outbox.push(Output::LeaveBootstraps);
        self.pulls.start(Pull::new(Purpose::Resync(node, floor), now.mono));
    }

    /// It did not work out. The next heartbeat of a synced peer starts it again; if none comes, this node is all there
    /// is.
    pub(crate) fn end_resync(&mut self, now: Now) {
        self.bootstrap.resync_failed(now.mono);
        self.heartbeats.hurry(now.mono);
        self.outbox.push(Output::AnswerBootstraps);
    }

    /// Starts a pull where something is missing and none is under way.
    pub(crate) fn begin_repair(&mut self, now: Now) {
        let ready = matches!(self.bootstrap.phase(), Phase::Synced | Phase::Settling);
        if !self.connected || !ready || self.pulls.own().is_some() {
            return;
        }
        let found = self
            .meeting(now)
            .or_else(|| self.gap(now))
            .or_else(|| self.departed(now))
            .or_else(|| self.withheld(now))
            .or_else(|| self.difference(now));
        let Some(purpose) = found else { return };
        match purpose {
            Purpose::Meeting(_) => {
                let interval = self.heartbeat_interval();
                let pause = interval / 2 + self.spread(interval / 2);
                self.schedule.set(Repair::Meeting, now.mono + pause);
            }
            Purpose::Difference(_) => {
                let interval = self.config.heartbeat_interval_ms;
                let pause = interval + self.spread(interval);
                self.schedule.set(Repair::Difference, now.mono + pause);
            }
            Purpose::Departed(_) => {
                // The next heartbeats may show that the others have nothing more.
                let interval = self.heartbeat_interval();
                let pause = interval + self.spread(interval / 2);
                self.schedule.set(Repair::Departed, now.mono + pause);
            }
            _ => {}
        }
        self.pulls.start(Pull::new(purpose, now.mono));
    }

    /// This node was alone, and a peer has a state of its own.
    fn meeting(&self, now: Now) -> Option<Purpose> {
        if !self.search.is_alone() || !self.bootstrap.is_synced() || now.mono < self.schedule.next(Repair::Meeting) {
            return None;
        }
        let own = self.cache.node();
        let peers = self.peers.iter().filter(|(node, _)| self.may_take_from(*node));
        peers
            .min_by_key(|(node, _)| spread_of(own, node.0))
            .map(|(node, _)| Purpose::Meeting(node))
    }

    /// Where many nodes miss frames of many others, comparing with one at random makes two of them whole; a few rounds
    /// of that, and all are equal, which closes every gap.
    fn gap(&self, now: Now) -> Option<Purpose> {
        let own = NodeId(self.cache.node().0 ^ self.counters.pulls);
        self.peers
            .with_gaps()
            .filter(|(node, peer)| self.gap_needs_comparison(*node, peer, now) && self.may_take_from(*node))
            .min_by_key(|(node, _)| spread_of(own, node.0))
            .map(|(node, _)| Purpose::Gap(node))
    }

    /// Who of the others has received what is missing of a peer that is gone cannot be known: each is compared with.
    fn departed(&self, now: Now) -> Option<Purpose> {
        if now.mono < self.schedule.next(Repair::Departed) {
            return None;
        }
        let own = self.cache.node();
        let candidates = self.schedule.candidates().filter(|node| self.may_take_from(*node));
        candidates
            .min_by_key(|node| spread_of(own, node.0))
            .map(Purpose::Departed)
    }

    /// The time has come to take what was refused. Not all of it may be of one time, and not all nodes ask at once.
    fn withheld(&self, now: Now) -> Option<Purpose> {
        let interval = self.config.heartbeat_interval_ms;
        let own = self.cache.node();
        let is_due = |(node, peer): &(NodeId, &Peer)| {
            let jitter = spread_of(own, node.0) % interval;
            let due = |withheld: Withheld| {
                let rested = now.mono >= withheld.asked + WITHHELD_PAUSE * interval;
                now.wall >= withheld.from.saturating_add(jitter) && rested
            };
            peer.withheld.is_some_and(due) && self.may_take_from(*node)
        };
        let due = self.peers.withholding().filter(is_due);
        due.min_by_key(|(node, _)| spread_of(own, node.0))
            .map(|(node, _)| Purpose::Withheld(node))
    }

    /// Whether this node holds what the peer refuses for now, by what its clock says. One that only repeats what the
    /// clocks of others say now and then seems to stand still: then nothing better is known than the time here.
    fn is_refused_by(&self, peer: &Peer, now: Now) -> bool {
        let clock = self.cache.clock();
        let newest = clock.latest().max(clock.stray()).millis();
        let skew = self.cache.limits().max_clock_skew_ms;
        newest > peer.clock_at(now.mono).unwrap_or(now.wall).saturating_add(skew)
    }

    fn difference(&self, now: Now) -> Option<Purpose> {
        if now.mono < self.schedule.next(Repair::Difference) || self.frames_come_in() {
            return None;
        }
        let interval = self.config.heartbeat_interval_ms;
        let own = self.cache.node();
        let stays = |node: NodeId, peer: &Peer| {
            let in_vain = peer.withheld.is_some() || self.is_refused_by(peer, now);
            let patience = if peer.floor_agrees && !in_vain {
                1
            } else {
                FLOOR_PATIENCE
            };
            // A reconciliation goes both ways: one of the two is enough, and begins a little earlier.
            let patience = interval * patience + if own < node { 0 } else { 2 * interval };
            peer.differs_since.is_some_and(|since| now.mono >= since + patience)
        };
        // Not all nodes at once with the same one.
        self.peers
            .differing()
            .filter(|(node, peer)| stays(*node, peer) && self.may_take_from(*node))
            .min_by_key(|(node, _)| spread_of(own, node.0))
            .map(|(node, _)| Purpose::Difference(node))
    }
}
