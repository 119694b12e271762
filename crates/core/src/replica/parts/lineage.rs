//! How far back the state of a node goes, and when the node last was in contact with its peers.
//!
//! Deletions are remembered for a limited time. A node that was out of contact for longer may hold what was deleted and
//! forgotten meanwhile, and must not bring it back: it resyncs, which is to say it takes the state of a peer instead of
//! merging its own into it. Which of two nodes that is follows from their lineages alone (docs/PROTOCOL.md, "Long
//! absence").

use crate::cache::{Millis, NodeId, Time};
use crate::wire::Heartbeat;

/// A contact is renewed after this part of the time for which deletions are remembered.
const CONTACT_STEPS: u64 = 24;

/// What has to be known of a state that was kept elsewhere, lest it bring back what its peers have deleted and
/// forgotten. All times are of the hybrid clock; zero where it has not happened yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lineage {
    /// Since when the state exists. Handed down from node to node: a node that bootstraps has the state of another.
    pub state_since: Time,
    /// When the bootstrap of the node that held it was done.
    pub joined_at: Time,
    /// When that node last was in contact with a synced peer, or was alone.
    pub last_contact: Time,
    /// Since when it has taken deltas of others without being in contact, if it has. A bootstrap that is
    /// interrupted leaves some behind, and later contact does not make them complete.
    pub taken_since: Option<Time>,
}

impl Lineage {
    fn of_heartbeat(heartbeat: &Heartbeat) -> Self {
        Lineage {
            state_since: heartbeat.since,
            joined_at: heartbeat.joined,
            last_contact: heartbeat.contact,
            // Heartbeats do not say. It had time to before its bootstrap was done.
            taken_since: (heartbeat.contact < heartbeat.joined).then_some(heartbeat.contact),
        }
    }
}

/// The lineage of a node, and what else decides which of two nodes resyncs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeLineage {
    pub node: NodeId,
    pub lineage: Lineage,
    /// Since when it has been listening without a break.
    pub listening_since: Time,
    /// Up to when it has forgotten deletions.
    pub floor: Time,
}

impl NodeLineage {
    pub fn of_heartbeat(node: NodeId, heartbeat: &Heartbeat) -> Self {
        NodeLineage {
            node,
            lineage: Lineage::of_heartbeat(heartbeat),
            listening_since: heartbeat.listening,
            floor: heartbeat.floor,
        }
    }

    /// Whether this node was out of contact for so long that deletions it never heard of are forgotten in the state of
    /// the other. A state that began later has forgotten nothing, unless this node has taken parts of it and they are
    /// as old. Nor has one that was in contact with nobody since the state of this node began: nothing of this one can
    /// have been deleted there.
    pub fn is_outdated_by(self, other: NodeLineage) -> bool {
        let (own, theirs) = (self.lineage, other.lineage);
        let holds_some =
            theirs.state_since <= own.last_contact || own.taken_since.is_some_and(|since| since < other.floor);
        own.last_contact < other.floor && holds_some && own.state_since <= theirs.last_contact
    }

    /// Whether the other was there all the time in which this node was out of contact, or this node was away before its
    /// bootstrap was done: then nobody has taken its state.
    fn is_behind(self, other: NodeLineage) -> bool {
        let own = self.lineage;
        let was_there = other.lineage.joined_at <= own.last_contact || own.last_contact < own.joined_at;
        self.is_outdated_by(other) && was_there
    }

    /// Whether this node has to take the state of the other instead of merging its own. Never that of a newcomer: its
    /// state may come from this very node. Of two that were both alone for so long, the one that was not listening.
    pub fn resyncs_from(self, other: NodeLineage) -> bool {
        let later = (self.listening_since, self.node) > (other.listening_since, other.node);
        self.is_behind(other) && (!other.is_behind(self) || later)
    }
}

/// The lineage of this node as it goes on.
pub(crate) struct OwnLineage {
    lineage: Lineage,
    listening_since: Time,
    /// Since when this node, which was alone for long, hears newcomers only.
    newcomers_since: Option<Millis>,
    /// The state was kept elsewhere, and the bootstrap of this process is yet to be done.
    was_kept: bool,
}

impl OwnLineage {
    /// Goes on with a state that exists, or with none yet.
    pub fn of(lineage: Lineage) -> Self {
        let state_since = match lineage.joined_at == Time::default() {
            // There is none before the bootstrap.
            true => Time(u64::MAX),
            false => lineage.state_since,
        };
        OwnLineage {
            lineage: Lineage { state_since, ..lineage },
            listening_since: Time::default(),
            newcomers_since: None,
            was_kept: false,
        }
    }

    /// Goes on with a state that was kept elsewhere, while this process was not there.
    pub fn kept(lineage: Lineage) -> Self {
        OwnLineage {
            was_kept: true,
            ..OwnLineage::of(lineage)
        }
    }

    pub fn get(&self) -> Lineage {
        self.lineage
    }

    pub fn last_contact(&self) -> Time {
        self.lineage.last_contact
    }

    pub fn listening_since(&self) -> Time {
        self.listening_since
    }

    pub fn has_joined(&self) -> bool {
        self.lineage.joined_at != Time::default()
    }

    pub fn of_node(&self, node: NodeId, floor: Time) -> NodeLineage {
        NodeLineage {
            node,
            lineage: self.lineage,
            listening_since: self.listening_since,
            floor,
        }
    }

    /// The connection is there. From the first one on, this node may hold what others delete.
    pub fn connected(&mut self, now: Time) {
        if self.lineage.last_contact == Time::default() {
            self.lineage.last_contact = now;
        }
    }

    /// What was sent until now may have been missed.
    pub fn listens_from(&mut self, now: Time) {
        self.listening_since = now;
    }

    /// Deltas of others are about to be merged.
    pub fn takes_deltas(&mut self, now: Time) {
        self.lineage.taken_since.get_or_insert(now);
    }

    /// Whether the last contact is as old as `ttl_ms`, for which deletions are remembered.
    pub fn was_away(&self, now_ms: Millis, ttl_ms: Millis) -> bool {
        self.lineage.last_contact != Time::default() && self.age_ms(now_ms) > ttl_ms
    }

    /// Whether the contact has to be renewed.
    pub fn is_old(&self, now_ms: Millis, ttl_ms: Millis) -> bool {
        self.age_ms(now_ms) > ttl_ms / CONTACT_STEPS
    }

    fn age_ms(&self, now_ms: Millis) -> Millis {
        now_ms.saturating_sub(self.lineage.last_contact.millis())
    }

    /// Whether a peer has joined after this node was in contact for the last time, and has forgotten deletions since:
    /// it is a newcomer, and this node was alone for long. Either its state is its own or from here, or those it is
    /// from will be heard soon, and have to hear how long this node was alone. Such a peer is waited out for
    /// `patience`.
    pub fn awaits_others_than(&mut self, peer: NodeLineage, now: Millis, patience: Millis) -> bool {
        if self.lineage.last_contact >= peer.floor.min(peer.lineage.joined_at) {
            return false;
        }
        let since = *self.newcomers_since.get_or_insert(now);
        now.saturating_sub(since) < patience
    }

    /// In contact with a synced peer `at` that time. The two states become one; and this one goes back as far as that of
    /// the peer as soon as the peer is in contact as well. Until then nothing of it has to be here, and a peer that was
    /// away for longer than deletions are remembered here, up to `floor`, would give it up for a state that began later.
    pub fn in_contact(&mut self, peer: NodeLineage, at: Time, floor: Time) {
        self.newcomers_since = None;
        let own = &mut self.lineage;
        own.last_contact = own.last_contact.max(at);
        own.taken_since = None;
        if peer.lineage.last_contact >= floor {
            own.state_since = own.state_since.min(peer.lineage.state_since);
        }
    }

    /// The state of this node is that of others, and goes back as far as theirs.
    pub fn inherits(&mut self, theirs: impl Iterator<Item = Time>) {
        let oldest = theirs.min().unwrap_or(self.lineage.state_since);
        self.lineage.state_since = self.lineage.state_since.min(oldest);
    }

    /// The bootstrap is done. If it is not `complete`, this node may hold what was deleted and forgotten meanwhile.
    pub fn joined(&mut self, now: Time, complete: bool) {
        let own = &mut self.lineage;
        own.joined_at = now;
        own.state_since = own.state_since.min(own.last_contact);
        if complete {
            self.is_complete(now);
        }
    }

    /// The bootstrap is done. A state that was kept elsewhere joins now: its node was not there before, so nobody has
    /// taken it since, and nobody was out of contact with it. What it lacks of what others have forgotten meanwhile it is
    /// about to learn.
    pub fn rejoined(&mut self, now: Time) {
        if std::mem::take(&mut self.was_kept) {
            self.lineage.joined_at = now;
        }
    }

    /// What this node holds is what its peers hold.
    pub fn is_complete(&mut self, now: Time) {
        self.lineage.last_contact = now;
        self.lineage.taken_since = None;
    }

    /// Whether a clock that is right can have shown all that was noted, `newest` being the first time it cannot.
    pub fn is_possible(&self, newest: Time) -> bool {
        let Lineage {
            joined_at,
            last_contact,
            ..
        } = self.lineage;
        [last_contact, joined_at, self.listening_since]
            .iter()
            .all(|time| *time < newest)
    }

    /// The clock was wrong when the times were noted.
    pub fn correct(&mut self, corrected: impl Fn(Time) -> Time) {
        let own = &mut self.lineage;
        own.last_contact = corrected(own.last_contact);
        own.joined_at = corrected(own.joined_at);
        own.taken_since = own.taken_since.map(&corrected);
        if own.state_since != Time(u64::MAX) {
            own.state_since = corrected(own.state_since);
        }
        self.listening_since = corrected(self.listening_since);
    }
}
