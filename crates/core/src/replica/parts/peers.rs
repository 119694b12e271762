//! All other nodes that are known, and the indices by which some of them are found.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::index::{Index, Marks};
use super::peer::Peer;
use super::recordings::{Memory, Sent};
use super::status::PeerStatus;
use crate::cache::{Digest, Millis, NodeId, Time};
use crate::wire::Heartbeat;

/// Most peers kept at a time. More than that come from a broken or hostile client.
const MAX_PEERS: usize = 4_096;

/// Most nodes kept at a time that were not challenged yet. They may all be recordings, and keep no peer out. How many
/// wait for an answer is bounded by the number of challenges in a second.
const MAX_UNPROVEN: usize = 512;

/// With more nodes than this the index is not compared with them.
const MOST_CHECKED: usize = 64;

/// Nodes that did not prove to be alive and are still remembered, so that their recordings are known as such.
const MAX_UNANSWERED: usize = 16_384;

/// Nodes that are gone and still remembered.
const MAX_GONE: usize = 65_536;

/// All peers, by id.
#[derive(Debug)]
pub(crate) struct Peers {
    known: BTreeMap<NodeId, Peer>,
    /// Made of all that are known.
    index: Index,
    /// Peers that went.
    gone: Memory,
    /// Nodes that were heard and did not prove to be alive.
    unanswered: Memory,
    /// When to look at a peer whether it is silent; some entries are out of date.
    timers: BTreeSet<(Millis, NodeId)>,
}

impl Default for Peers {
    fn default() -> Self {
        Peers {
            known: BTreeMap::new(),
            index: Index::default(),
            gone: Memory::of(MAX_GONE),
            unanswered: Memory::of(MAX_UNANSWERED),
            timers: BTreeSet::new(),
        }
    }
}

impl Peers {
    /// A message of a node has arrived. Returns whether it has proven to be alive; `None` when it is not known, and
    /// either the message is a recording or there is no room for another node.
    pub fn heard(&mut self, node: NodeId, other_issuer: bool, sent: Sent, now: Millis) -> Option<bool> {
        if !self.known.contains_key(&node) && self.is_old(node, sent) {
            return None;
        }
        self.make_known(node, sent.clock, now);
        self.change(node, |peer| {
            peer.heard(other_issuer, sent);
            peer.proven
        })
    }

    /// Whether a node that is not known was known before, and a message is no news of it.
    pub fn is_old(&self, node: NodeId, sent: Sent) -> bool {
        let before = [&self.gone, &self.unanswered]
            .into_iter()
            .filter_map(|memory| memory.get(node));
        let newest = before.map(|(_, newest)| newest).max();
        !sent.asked && newest.is_some_and(|newest| sent.number.is_none_or(|number| number <= newest))
    }

    /// Another one has named a node. It is known from now on, if there is room for another.
    pub fn named(&mut self, node: NodeId, clock: Time, now: Millis) {
        self.make_known(node, clock, now);
    }

    fn make_known(&mut self, node: NodeId, clock: Time, now: Millis) {
        if self.known.contains_key(&node) {
            return;
        }
        let mut peer = Peer::new(clock, self.unanswered.get(node).is_some(), now);
        if self.index.unchallenged() >= MAX_UNPROVEN {
            match self.index.last_unchallenged() {
                Some((rank, last)) if rank > peer.rank() => {
                    self.remove(last, now);
                }
                _ => return,
            }
        }
        peer.timer = peer.deadline();
        self.timers.insert((peer.timer, node));
        self.index.update(node, Marks::default(), peer.marks());
        self.known.insert(node, peer);
    }

    /// A node has proven to be alive. Returns whether that is news. `None` when there is no room for another peer.
    pub fn prove(&mut self, node: NodeId) -> Option<bool> {
        if self.proven(node).is_none() && self.len() >= MAX_PEERS {
            return None;
        }
        let before = self.change(node, |peer| std::mem::replace(&mut peer.proven, true));
        let news = before == Some(false);
        if news {
            self.unanswered.forget(node);
        }
        Some(news)
    }

    pub fn get(&self, node: NodeId) -> Option<&Peer> {
        self.known.get(&node)
    }

    /// A peer that has proven to be alive.
    pub fn proven(&self, node: NodeId) -> Option<&Peer> {
        self.get(node).filter(|peer| peer.proven)
    }

    /// Changes what is known of a node, if it is known. There is no other way to do so.
    pub fn change<R>(&mut self, node: NodeId, change: impl FnOnce(&mut Peer) -> R) -> Option<R> {
        let peer = self.known.get_mut(&node)?;
        let before = peer.marks();
        let result = change(peer);
        self.index.update(node, before, peer.marks());
        let deadline = peer.deadline();
        if deadline < peer.timer {
            self.timers.remove(&(peer.timer, node));
            peer.timer = deadline;
            self.timers.insert((deadline, node));
        }
        Some(result)
    }

    /// Whether the index says what a look at each peer says, as far as that is soon done.
    pub fn index_is_right(&self) -> bool {
        if self.known.len() > MOST_CHECKED {
            return true;
        }
        let mut index = Index::default();
        for (node, peer) in &self.known {
            index.update(*node, Marks::default(), peer.marks());
        }
        index == self.index
    }

    /// Takes note of the heartbeat of a proven peer, which reached this node at `heard`. `equal_to` are this node's
    /// digest and floor. Returns false for a heartbeat that is older than one before.
    pub fn heartbeat(
        &mut self,
        node: NodeId,
        heartbeat: Heartbeat,
        equal_to: (Digest, Time),
        now: Millis,
        heard: Millis,
    ) -> bool {
        let is_news = |last: &Peer| {
            last.heartbeat
                .as_ref()
                .is_none_or(|last| heartbeat.number > last.number)
        };
        if !self.proven(node).is_some_and(is_news) {
            return false;
        }
        self.change(node, |peer| peer.takes_heartbeat(heartbeat, equal_to, now, heard));
        true
    }

    /// Forgets a peer. Returns whether it was known and something of it is missing here.
    pub fn remove(&mut self, node: NodeId, now: Millis) -> bool {
        let Some(peer) = self.known.remove(&node) else {
            return false;
        };
        self.index.update(node, peer.marks(), Marks::default());
        self.timers.remove(&(peer.timer, node));
        if peer.proven {
            self.gone.remember(node, now, peer.number());
        } else if peer.leaves_unanswered() {
            self.unanswered.remember(node, now, peer.number());
        }
        peer.proven && peer.is_lacking()
    }

    /// Whether a node is here, or went less than `within` ago.
    pub fn may_return(&self, node: NodeId, within: Millis, now: Millis) -> bool {
        let recently = |(at, _): (Millis, u64)| now.saturating_sub(at) < within;
        self.known.contains_key(&node) || self.gone.get(node).is_some_and(recently)
    }

    /// Forgets those who went longer than `within` ago.
    pub fn forget_gone(&mut self, within: Millis, now: Millis) {
        if let Some(until) = now.checked_sub(within) {
            self.gone.forget_until(until);
            self.unanswered.forget_until(until);
        }
    }

    /// Peers that have been silent for too long, as far as all is taken in that arrived until `now`.
    pub fn silent(&mut self, now: Millis) -> Vec<NodeId> {
        let mut silent = Vec::new();
        while let Some((at, node)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, node));
            let Some(peer) = self.known.get_mut(&node) else {
                continue;
            };
            // It was heard since the timer was set. One that is silent is looked at again if it is not removed.
            peer.timer = peer.deadline();
            if peer.timer <= now {
                peer.timer = now + 1;
                silent.push(node);
            }
            self.timers.insert((peer.timer, node));
        }
        silent
    }

    /// This node did not listen for a while: silence until now means nothing. Nor does what waits to be taken in, which
    /// may be old: only the answer to a new challenge shows where a peer stands.
    pub fn restart_silence(&mut self, now: Millis) {
        for (node, peer) in &mut self.known {
            let before = peer.marks();
            peer.restart_silence(now);
            self.index.update(*node, before, peer.marks());
        }
    }

    /// Peers that have proven to be alive.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.of(self.index.proven())
    }

    /// Those of them that are synced.
    pub fn synced(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.of(self.index.synced())
    }

    /// Those that were only heard as well.
    pub fn all(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.known.iter().map(|(node, peer)| (*node, peer))
    }

    /// Whether one that has proven to be alive does not count this node as a peer, as far as is known.
    pub fn any_unaware(&self) -> bool {
        self.index.any_unaware()
    }

    /// Those that have proven to be alive, do not count this node as a peer, and may be challenged by now.
    pub fn due_unaware(&self, now: Millis) -> Vec<NodeId> {
        self.index.due_unaware(now)
    }

    /// The one to be challenged first of those that have yet to prove that they are alive and may be challenged by now:
    /// one that was not challenged yet. Every other time it is the one that spoke last, even if it was challenged
    /// before: the answer may be lost.
    pub fn due_unproven(&self, now: Millis, number: u64) -> Option<NodeId> {
        let fresh = self.index.first_unchallenged();
        // Those that were challenged a moment ago are few.
        let due =
            |(_, node): &(Reverse<Time>, NodeId)| self.get(*node).is_some_and(|peer| peer.next_challenge() <= now);
        let again = || self.index.challenged().find(due);
        match fresh {
            Some(((_, clock), node)) if number % 2 == 1 => {
                let newer = again().filter(|(newest, _)| *newest < clock);
                Some(newer.map_or(node, |(_, node)| node))
            }
            Some((_, node)) => Some(node),
            None => again().map(|(_, node)| node),
        }
    }

    /// When the next challenge may follow: of those that have proven to be alive, and of the others.
    pub fn next_challenges(&self) -> (Option<Millis>, Option<Millis>) {
        self.index.next_challenges()
    }

    /// Those that still have to be challenged, proven or not.
    pub fn unverified(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.of(self.index.unverified())
    }

    /// Those that have proven to be alive and of which frames are missing.
    pub fn with_gaps(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.of(self.index.gaps())
    }

    /// Bytes of frames that were asked for and are still to come.
    pub fn under_way(&self) -> usize {
        self.with_gaps().map(|(_, peer)| peer.asked.outstanding()).sum()
    }

    /// Those that have proven to be alive and differ although no frame is missing.
    pub fn differing(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.of(self.index.differing())
    }

    /// Those that have proven to be alive and hold what was refused here.
    pub fn withholding(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.of(self.index.withholding())
    }

    fn of<'a>(&'a self, nodes: &'a BTreeSet<NodeId>) -> impl Iterator<Item = (NodeId, &'a Peer)> {
        nodes.iter().filter_map(|node| Some((*node, self.known.get(node)?)))
    }

    /// Those that do not know this node, or of which something is missing here.
    pub fn unsettled(&self) -> impl Iterator<Item = &Peer> {
        let known = self.with_gaps().filter(|(_, peer)| !peer.is_unverified());
        self.unverified().chain(known).map(|(_, peer)| peer)
    }

    /// Whether one that has proven to be alive authenticates with another issuer's seed.
    pub fn any_other_issuer(&self) -> bool {
        self.index.any_other_issuer()
    }

    /// The newest version that all speak that have proven to be alive.
    pub fn version(&self) -> Option<u8> {
        self.index.version()
    }

    /// Until when all that have proven to be alive are certain to be in contact.
    pub fn present_until(&self) -> Option<Millis> {
        self.index.present_until()
    }

    /// Whether no other node is known, proven or not.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub fn len(&self) -> usize {
        self.index.proven().len()
    }

    /// What the clocks of the peers say by now: half of all nodes and more, this one not among them, say the first time
    /// or an earlier one, and half and more the second or a later one. `None` if there is no peer.
    pub fn clocks(&self, now: Millis) -> Option<[Millis; 2]> {
        let mut clocks: Vec<Millis> = self.iter().filter_map(|(_, peer)| peer.clock_at(now)).collect();
        clocks.sort_unstable();
        let half = (clocks.len() + 1).div_ceil(2);
        let first = clocks.get(half - 1)?;
        Some([*first, *clocks.get(clocks.len() - half)?])
    }

    /// How the host of a peer is called, or the peer if that is not known.
    pub fn host(&self, node: NodeId) -> Option<String> {
        let peer = self.get(node)?;
        Some(match peer.host.as_str() {
            "" => node.to_string(),
            host => host.to_owned(),
        })
    }

    pub fn status(&self) -> Vec<PeerStatus> {
        let known = |(node, peer): (NodeId, &Peer)| {
            peer.heartbeat.as_ref().map(|heartbeat| PeerStatus {
                node,
                host: peer.host.clone(),
                release: peer.release.clone(),
                keys: heartbeat.keys,
                digest: heartbeat.digest,
                synced: peer.synced(),
                heartbeat: heartbeat.number,
                room: heartbeat.room,
                store: heartbeat.store,
            })
        };
        self.iter().filter_map(known).collect()
    }
}
