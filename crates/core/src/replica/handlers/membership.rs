//! Who is there: challenges, heartbeats, nodes of other issuers and versions.
//!
//! A message that proves who wrote it may still be a recording. So a node counts only after it has answered a challenge
//! of this process; from then on its frames and heartbeats are numbered and each is taken once.

use crate::cache::{Millis, NodeId, Time};
use crate::replica::io::Target;
use crate::replica::machine::Replica;
use crate::replica::parts::authenticator::Refusal;
use crate::replica::parts::heartbeats::Heartbeats;
use crate::replica::parts::lineage::{Lineage, NodeLineage};
use crate::replica::parts::notice::Notice;
use crate::replica::parts::now::Now;
use crate::replica::parts::peer::Peer;
use crate::wire::{Header, Heartbeat, HeartbeatState, Hello, Message, Welcome, MAX_HINTS};

/// A node that was alone for long waits this many intervals of heartbeats for others than newcomers.
const NEWCOMER_HEARTBEATS: u64 = 3;

impl Replica {
    /// When the next challenge is due, if one is.
    pub(crate) fn next_challenge(&self) -> Option<Millis> {
        let (unaware, unproven) = self.peers.next_challenges();
        let unproven = unproven.map(|at| at.max(self.budgets.challenges.next()));
        unaware.into_iter().chain(unproven).min()
    }

    pub(crate) fn tick_membership(&mut self, now: Now) {
        debug_assert!(self.peers.index_is_right());
        if !self.connected {
            return;
        }
        self.delay.look(now.mono);
        let silent = match now.mono < self.delay.until() {
            true => Vec::new(),
            false => self.peers.silent(self.taken_in(now)),
        };
        for node in silent {
            if self.peers.get(node).is_some_and(|peer| peer.proven) {
                tracing::info!(peer = %node, "peer is silent and counts as gone");
            }
            self.remove(now, node);
        }
        for node in self.peers.due_unaware(now.mono) {
            self.send_hello(now, node);
        }
        self.challenge_unproven(now);
        self.peers
            .forget_gone(2 * self.cache.limits().tombstone_ttl_ms, now.mono);
    }

    fn remove(&mut self, now: Now, node: NodeId) {
        if self.peers.remove(node, now.mono) {
            self.schedule.add_candidates(self.peers.iter().map(|(peer, _)| peer));
        }
        self.schedule.no_candidate(node);
        self.delay.gone(node);
        self.give_up_pulls_from(now, node);
        self.check_acks(u64::MAX);
    }

    /// Takes the requests of a node that were waiting for the proof that it is alive.
    fn take_parked(&mut self, now: Now, node: NodeId) {
        let parked = self.peers.change(node, Peer::take_parked).unwrap_or_default();
        for request in parked {
            self.serve(now, node, request);
        }
    }

    /// Asks a node that was heard to prove that it is alive, and whether it counts this one as a peer.
    pub(crate) fn challenge(&mut self, now: Now, node: NodeId) {
        if !self.connected {
            return;
        }
        match self.peers.get(node) {
            Some(peer) if peer.proven && peer.is_unverified() => self.send_hello(now, node),
            Some(peer) if !peer.proven => self.challenge_unproven(now),
            _ => {}
        }
    }

    /// Challenges nodes that have yet to prove that they are alive, those first that most likely are: few at a time,
    /// since most may be recordings.
    fn challenge_unproven(&mut self, now: Now) {
        while self.budgets.challenges.is_left(now.mono) {
            let Some(node) = self.peers.due_unproven(now.mono, self.outbox.id()) else {
                return;
            };
            self.budgets.challenges.take(now.mono);
            self.send_hello(now, node);
        }
    }

    fn send_hello(&mut self, now: Now, node: NodeId) {
        let due = self.peers.get(node).filter(|peer| now.mono >= peer.next_challenge());
        let Some(knows_you) = due.map(|peer| peer.proven) else {
            return;
        };
        let number = self.outbox.fresh_id();
        self.peers.change(node, |peer| peer.challenged(number, now.mono));
        let hello = Hello {
            to: node,
            number,
            knows_you,
        };
        self.introduce(Target::Node(node), &Message::Hello(hello));
    }

    pub(crate) fn handle_hello(&mut self, now: Now, node: NodeId, hello: &Hello) {
        if hello.to != self.cache.node() {
            return;
        }
        // Each counts once: a recording neither tells what its author thinks of this node, nor is answered.
        let proven = self.peers.change(node, |peer| {
            let anew = peer.challenges_anew(hello.number);
            anew.then(|| {
                peer.asked_for_answer(hello.number, hello.knows_you);
                peer.proven
            })
        });
        let Some(proven) = proven.flatten() else {
            self.counters.repeated += 1;
            return;
        };
        if !proven && !self.budgets.welcomes.take(now.mono) {
            return;
        }
        let heartbeat = self.fresh_heartbeat(now, self.heartbeat_state());
        let welcome = Welcome {
            to: node,
            number: hello.number,
            knows_you: self.peers.get(node).is_some_and(|peer| peer.proven),
            host: self.config.host.clone(),
            release: self.config.release.clone(),
            heartbeat,
        };
        self.introduce(Target::Node(node), &Message::Welcome(welcome));
    }

    pub(crate) fn handle_welcome(&mut self, now: Now, node: NodeId, welcome: Welcome) {
        let own = self.cache.node();
        let answers = self.peers.change(node, |peer| {
            let answers = welcome.to == own && peer.answers(welcome.number);
            if answers {
                peer.answered(welcome.knows_you);
                (peer.host, peer.release) = (welcome.host.clone(), welcome.release.clone());
            }
            answers
        });
        if answers != Some(true) {
            self.counters.repeated += 1;
            return;
        }
        let Some(news) = self.peers.prove(node) else {
            if let Some(suppressed) = self.logs.full.pass(now.mono) {
                tracing::warn!(%node, suppressed, "a node cannot become a peer: there are too many");
            }
            return;
        };
        if news {
            tracing::info!(peer = %node, host = %welcome.host, release = %welcome.release, "peer joins");
        }
        self.search.is_verified(node);
        self.told_by_peer(now, node, welcome.heartbeat, true);
        self.take_parked(now, node);
    }

    pub(crate) fn heartbeat_interval(&self) -> Millis {
        Heartbeats::interval(self.config.heartbeat_interval_ms, self.peers.len())
    }

    pub(crate) fn heartbeat_state(&self) -> HeartbeatState {
        match self.bootstrap.is_synced() {
            true => HeartbeatState::Synced,
            false => HeartbeatState::Starting,
        }
    }

    pub(crate) fn send_heartbeat(&mut self, now: Now, state: HeartbeatState) {
        self.look_at_clocks(now);
        let mut heartbeat = self.fresh_heartbeat(now, state);
        heartbeat.hints = self.cache.take_hints(MAX_HINTS);
        self.heartbeats.sent(now.mono, self.heartbeat_interval());
        self.introduce(Target::Heartbeat, &Message::Heartbeat(heartbeat));
    }

    pub(crate) fn fresh_heartbeat(&mut self, now: Now, state: HeartbeatState) -> Heartbeat {
        let number = self.outbox.fresh_id();
        let lineage = self.lineage();
        Heartbeat {
            number,
            seq: self.own_frames.newest(),
            digest: self.cache.root_digest(),
            keys: self.cache.keys(),
            clock: self.cache.clock().latest().max(self.hybrid_now(now)),
            floor: self.cache.floor(),
            contact: lineage.last_contact,
            since: lineage.state_since,
            joined: lineage.joined_at,
            listening: self.lineage.listening_since(),
            state,
            interval_ms: self.heartbeat_interval(),
            wants_heartbeats: self.heartbeats.asks(),
            versions: self.config.versions,
            foreign: self.foreign.issuers_for_heartbeat(number, now.mono),
            room: self.cache.room(),
            hints: Vec::new(),
            store: self.cache.shared_store(),
        }
    }

    pub(crate) fn hybrid_now(&self, now: Now) -> Time {
        Time::from_millis(self.cache.clock().now(now.wall))
    }

    pub(crate) fn handle_heartbeat(&mut self, now: Now, node: NodeId, heartbeat: Heartbeat) {
        self.told_by_peer(now, node, heartbeat, false);
    }

    /// A heartbeat, or one in an answer to a challenge.
    fn told_by_peer(&mut self, now: Now, node: NodeId, mut heartbeat: Heartbeat, answer: bool) {
        let hints = std::mem::take(&mut heartbeat.hints);
        let lineage = NodeLineage::of_heartbeat(node, &heartbeat);
        let (state, clock, wants_heartbeats, digest) = (
            heartbeat.state,
            heartbeat.clock,
            heartbeat.wants_heartbeats,
            heartbeat.digest,
        );
        let interval = heartbeat.interval_ms;
        if !heartbeat.foreign.is_empty() {
            self.disowned(now, node, heartbeat.clock, &heartbeat.foreign);
            self.named_foreign(node, &heartbeat.foreign);
        }
        let own = self.cache.root_digest();
        let had_gap = self.peers.get(node).is_some_and(Peer::is_lacking);
        let (floor, heard) = (self.cache.floor(), self.taken_in(now));
        if !self.peers.heartbeat(node, heartbeat, (own, floor), now.mono, heard) {
            self.counters.repeated += 1;
            return;
        }
        hints.into_iter().for_each(|hint| self.cache.hint(hint));
        self.delay.heartbeat(node, interval, now.mono);
        if state == HeartbeatState::Leaving {
            tracing::info!(peer = %node, "peer leaves");
            // Its last frames may come after its last heartbeat.
            let waits = self.peers.get(node).is_some_and(|peer| peer.frames.has_gap());
            return if waits {
                self.check_acks(u64::MAX)
            } else {
                self.remove(now, node)
            };
        }
        let both = state == HeartbeatState::Synced && self.bootstrap.is_synced();
        if digest == own {
            self.schedule.no_candidate(node);
            if had_gap {
                self.send_ack_of_all(now, node);
            }
            if both {
                self.merged(node);
            }
        }
        self.observe(now, clock);
        if both && self.is_plausible(now, lineage, clock) {
            self.compare_lineages(now, lineage, clock, digest == own, answer);
        }
        self.follow_floor(now, lineage.floor);
        if wants_heartbeats {
            let spread = self.spread(2 * self.peers.len() as Millis);
            self.heartbeats.asked(now.mono, spread);
        }
        self.settle(now);
        self.begin_repair(now);
    }

    /// Looks whether this node is in contact with a synced peer, or has to resync from it.
    fn compare_lineages(&mut self, now: Now, peer: NodeLineage, clock: Time, equal: bool, answer: bool) {
        if equal {
            self.in_contact(now, peer, clock, true);
        } else if !answer {
            // A peer that is heard may not hear this node: then nothing that is missing here can be asked for. And what
            // waited while this node was stopped is old. Only the answer to a challenge shows where a peer stands.
            if self.lineage.last_contact() < peer.lineage.joined_at || self.contact_is_old(now) {
                self.send_hello(now, peer.node);
            }
        } else if self.node_lineage().resyncs_from(peer) {
            self.begin_resync(now, peer.node, peer.floor);
        } else {
            self.in_contact(now, peer, clock, false);
        }
    }

    pub(crate) fn contact_is_old(&self, now: Now) -> bool {
        let present = self.cache.clock().now(now.wall);
        self.lineage.is_old(present, self.cache.limits().tombstone_ttl_ms)
    }

    /// Takes note of the contact with a synced peer.
    fn in_contact(&mut self, now: Now, peer: NodeLineage, clock: Time, equal: bool) {
        let patience = NEWCOMER_HEARTBEATS * self.heartbeat_interval();
        if !equal && self.lineage.awaits_others_than(peer, now.mono, patience) {
            return;
        }
        // As of when the heartbeat was sent: it may have waited here for a long time.
        let at = clock.min(self.hybrid_now(now));
        self.lineage.in_contact(peer, at, self.cache.floor());
    }

    pub(crate) fn node_lineage(&self) -> NodeLineage {
        self.lineage.of_node(self.cache.node(), self.cache.floor())
    }

    /// The state of this node is that of its peers, and goes back as far as theirs.
    pub(crate) fn inherit_lineage(&mut self) {
        let heartbeats = self.peers.synced().filter_map(|(_, peer)| peer.heartbeat.as_ref());
        self.lineage.inherits(heartbeats.map(|heartbeat| heartbeat.since));
    }

    /// A peer has collected deletions up to `floor`; so does this node, within what its own settings allow.
    fn follow_floor(&self, now: Now, floor: Time) {
        if floor <= self.newest_floor(now) {
            self.cache.raise_floor(floor);
        }
    }

    /// The newest floor that a clock which is right within the limits can have.
    fn newest_floor(&self, now: Now) -> Time {
        let limits = self.cache.limits();
        let newest = now.wall.saturating_add(limits.max_clock_skew_ms);
        Time::from_millis(newest.saturating_sub(limits.tombstone_ttl_ms))
    }

    /// Whether the times of a peer can be right. No node resyncs because of a clock that is wrong.
    fn is_plausible(&self, now: Now, peer: NodeLineage, clock: Time) -> bool {
        let newest = now.wall.saturating_add(self.cache.limits().max_clock_skew_ms);
        let newest = Time::from_millis(newest.saturating_add(1));
        let Lineage {
            joined_at,
            last_contact,
            ..
        } = peer.lineage;
        peer.floor <= self.newest_floor(now) && last_contact.max(joined_at).max(clock) < newest
    }

    // --- those who are no peers

    pub(crate) fn unknown_version(&mut self, now: Now, header: Header) {
        self.counters.unknown_versions += 1;
        let named = self.foreign.hears_version(header.version, header.node, now.mono);
        if named == Some(true) && self.logs.foreign.take(now.mono) {
            self.outbox.tell(Notice::ForeignVersion {
                node: header.node,
                version: header.version,
                spoken: self.config.versions,
            });
        }
    }

    pub(crate) fn refused_message(&mut self, now: Now, header: Header, refusal: &Refusal) {
        self.counters.unauthenticated += 1;
        self.heard_foreign(now, refusal);
        if let Refusal::Foreign(issuer) = refusal {
            return self.foreign_issuer(now, header.node, issuer);
        }
        if let Some(suppressed) = self.logs.unauthenticated.pass(now.mono) {
            self.outbox.tell(Notice::RefusedMessage {
                node: header.node,
                refusal: refusal.clone(),
                suppressed,
            });
        }
    }

    fn foreign_issuer(&mut self, now: Now, node: NodeId, issuer: &String) {
        let named = self.foreign.hears_issuer(issuer, now.mono);
        if named == Some(true) && self.logs.foreign.take(now.mono) {
            self.outbox.tell(Notice::ForeignIssuer {
                node,
                issuer: issuer.clone(),
            });
        }
    }

    /// A peer names issuers it does not accept.
    fn named_foreign(&mut self, node: NodeId, foreign: &[String]) {
        if let Some(own) = self.config.keyring.issuer() {
            let news = self
                .peers
                .get(node)
                .and_then(|peer| peer.heartbeat.as_ref())
                .is_none_or(|heartbeat| heartbeat.foreign.is_empty());
            if news && foreign.iter().any(|issuer| issuer == own) {
                self.outbox.tell(Notice::Disowned {
                    by: node,
                    issuer: own.to_string(),
                });
            }
        }
    }
}
