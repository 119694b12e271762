//! What this node knows of the others: position in their frame sequences, and their last beat.

use std::collections::{BTreeMap, BTreeSet};

use super::status::PeerStatus;
use super::wire::{Beat, BeatState};
use crate::cache::{Digest, Millis, NodeId, Time};

/// Most peers kept at a time. More beats than that come from a broken or hostile client.
const MAX_PEERS: usize = 4_096;

/// Frames received beyond a gap that are remembered one by one.
const MAX_AHEAD: usize = 4_096;

/// A peer is gone after this many of its beat intervals without a word.
const MISSED_BEATS: u64 = 5;

/// Longest beat interval that is believed.
const MAX_INTERVAL_MS: Millis = 3_600_000;

/// Interval assumed of a peer that has sent frames but no beat yet.
const UNKNOWN_INTERVAL_MS: Millis = 12_000;

/// Which frames of one peer have arrived.
#[derive(Default, Debug)]
pub(super) struct SeqTracker {
    /// All frames up to this one have arrived, or their effect has.
    contiguous: u64,
    /// Frames that arrived beyond a gap.
    ahead: BTreeSet<u64>,
    /// The newest frame known to exist.
    newest: u64,
}

impl SeqTracker {
    pub fn arrived(&mut self, seq: u64) {
        self.announced(seq);
        if seq > self.contiguous && self.ahead.len() < MAX_AHEAD {
            self.ahead.insert(seq);
        }
        self.advance();
    }

    pub fn announced(&mut self, seq: u64) {
        self.newest = self.newest.max(seq);
    }

    /// The effect of all frames up to `seq` is here.
    pub fn complete_to(&mut self, seq: u64) {
        self.announced(seq);
        if seq > self.contiguous {
            self.contiguous = seq;
            self.ahead = self.ahead.split_off(&(seq + 1));
            self.advance();
        }
    }

    fn advance(&mut self) {
        while self.ahead.remove(&(self.contiguous + 1)) {
            self.contiguous += 1;
        }
    }

    pub fn has_gap(&self) -> bool {
        self.contiguous < self.newest
    }
}

#[derive(Debug)]
pub(super) struct Peer {
    pub frames: SeqTracker,
    /// Since when frames are missing.
    pub gap_since: Option<Millis>,
    /// Since when its digest differs although no frame is missing.
    pub differs_since: Option<Millis>,
    /// Whether it has forgotten deletions up to the same time as this node.
    pub floor_agrees: bool,
    /// The connection was lost: nothing about this peer is certain until its digest is equal or it was pulled from.
    pub doubtful: bool,
    last_heard: Millis,
    interval: Millis,
    beat: Option<Beat>,
}

impl Peer {
    fn new(now: Millis) -> Self {
        Peer {
            frames: SeqTracker::default(),
            gap_since: None,
            differs_since: None,
            floor_agrees: false,
            doubtful: false,
            last_heard: now,
            interval: UNKNOWN_INTERVAL_MS,
            beat: None,
        }
    }

    pub fn synced(&self) -> bool {
        self.beat.as_ref().is_some_and(|beat| beat.state == BeatState::Synced)
    }

    /// Whether something of this peer is known to be missing here.
    pub fn incomplete(&self) -> bool {
        self.frames.has_gap() || self.doubtful
    }

    /// Takes note of a frame. What is doubtful waits for the next beat, which may show that nothing was lost.
    pub fn arrived(&mut self, seq: u64, now: Millis) {
        self.frames.arrived(seq);
        self.update_gap(self.frames.has_gap(), now);
    }

    /// Starts or stops the clock of a gap.
    fn update_gap(&mut self, missing: bool, now: Millis) {
        self.gap_since = if missing { self.gap_since.or(Some(now)) } else { None };
    }

    /// The effect of all its frames up to `seq` is here.
    pub fn pulled(&mut self, seq: u64, now: Millis) {
        self.frames.complete_to(seq);
        self.doubtful = false;
        self.differs_since = None;
        self.gap_since = None;
        self.update_gap(self.frames.has_gap(), now);
    }

    fn deadline(&self) -> Millis {
        self.last_heard + self.interval * MISSED_BEATS
    }
}

/// All peers, by id.
#[derive(Default, Debug)]
pub(super) struct Peers(BTreeMap<NodeId, Peer>);

impl Peers {
    /// The peer `node`, which was just heard. `None` when there is no room for another.
    pub fn heard(&mut self, node: NodeId, now: Millis) -> Option<&mut Peer> {
        if !self.0.contains_key(&node) && self.0.len() >= MAX_PEERS {
            return None;
        }
        let peer = self.0.entry(node).or_insert_with(|| Peer::new(now));
        peer.last_heard = now;
        Some(peer)
    }

    pub fn knows(&self, node: NodeId) -> bool {
        self.0.get(&node).is_some_and(|peer| peer.beat.is_some())
    }

    pub fn get_mut(&mut self, node: NodeId) -> Option<&mut Peer> {
        self.0.get_mut(&node)
    }

    /// Takes note of a beat. `own` and `floor` are this node's digest and floor.
    pub fn beat(&mut self, beat: Beat, own: Digest, floor: Time, now: Millis) {
        let Some(peer) = self.heard(beat.node, now) else { return };
        peer.interval = beat.interval_ms.clamp(1, MAX_INTERVAL_MS);
        if beat.digest == own {
            peer.pulled(beat.seq, now);
        } else {
            peer.frames.announced(beat.seq);
            peer.update_gap(peer.incomplete(), now);
            let comparable = !peer.incomplete() && beat.state == BeatState::Synced;
            peer.differs_since = comparable.then(|| peer.differs_since.unwrap_or(now));
            peer.floor_agrees = beat.floor == floor;
        }
        peer.beat = Some(beat);
    }

    /// Forgets a peer. Returns whether it was known and something of it is missing here.
    pub fn remove(&mut self, node: NodeId) -> bool {
        self.0.remove(&node).is_some_and(|peer| peer.incomplete())
    }

    /// Peers that have been silent for too long.
    pub fn silent(&self, now: Millis) -> Vec<NodeId> {
        self.0
            .iter()
            .filter(|(_, peer)| now >= peer.deadline())
            .map(|(node, _)| *node)
            .collect()
    }

    /// The connection was lost: any frame of any peer may have been missed.
    pub fn doubt_all(&mut self, now: Millis) {
        for peer in self.0.values_mut() {
            peer.doubtful = true;
            peer.last_heard = now;
            peer.gap_since = None;
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.0.iter().map(|(node, peer)| (*node, peer))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn status(&self) -> Vec<PeerStatus> {
        let known = |(node, peer): (NodeId, &Peer)| {
            peer.beat.as_ref().map(|beat| PeerStatus {
                node,
                host: beat.host.clone(),
                release: beat.release.clone(),
                keys: beat.keys,
                digest: beat.digest,
                synced: peer.synced(),
            })
        };
        self.iter().filter_map(known).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_shows_and_closes() {
        let mut frames = SeqTracker::default();
        frames.arrived(1);
        frames.arrived(3);
        assert!(frames.has_gap());
        frames.arrived(2);
        assert!(!frames.has_gap());
        frames.announced(4);
        assert!(frames.has_gap());
        frames.complete_to(4);
        assert!(!frames.has_gap());
    }

    #[test]
    fn frames_beyond_a_pulled_gap_count() {
        let mut frames = SeqTracker::default();
        for seq in [5, 6, 8] {
            frames.arrived(seq);
        }
        frames.complete_to(4);
        assert!(frames.has_gap());
        frames.arrived(7);
        assert!(!frames.has_gap());
    }
}
