//! Whether anybody is there whose state this node should have.

use crate::cache::{Millis, NodeId, Partition, Time};
use crate::replica::io::{Output, Target};
use crate::replica::machine::Replica;
use crate::replica::parts::authenticator::Refusal;
use crate::replica::parts::bootstrap::Phase;
use crate::replica::parts::now::Now;
use crate::replica::parts::peer::Peer;
use crate::replica::parts::search::QUIET_MS;
use crate::replica::parts::sync_state::{Channel, Refused};
use crate::wire::{BootstrapRequest, HeartbeatState, Message, Want};

/// If those who take requests do not answer for this long, they are no peers.
const SWALLOWED_MS: Millis = 10_000;

impl Replica {
    /// Listens anew: what was not heard before means nothing.
    pub(crate) fn begin_search(&mut self, now: Now) {
        self.search.begin(now.mono);
    }

    /// A new connection is a new attempt at all that was refused.
    pub(crate) fn attempt_all(&mut self, now: Now) {
        self.search.reconnected(now.mono);
        if self.bootstrap.phase() == Phase::Bootstrapping {
            // Nobody may be there to be written to: whether this node might, the server has to be asked.
            self.publish_again(now, Channel::Node);
        }
    }

    /// A message of a node that has not proven to be alive. It may be a recording, but none that is older than clocks
    /// may differ: so nobody can keep up for longer than that the appearance of nodes that are gone.
    pub(crate) fn heard_unverified(&mut self, now: Now, node: NodeId, message: &Message<&[u8]>) {
        let (clock, interval) = match message {
            Message::Heartbeat(heartbeat) => {
                if heartbeat.state == HeartbeatState::Leaving {
                    return;
                }
                self.disowned(now, node, heartbeat.clock, &heartbeat.foreign);
                (Some(heartbeat.clock), heartbeat.interval_ms)
            }
            Message::Frame(frame) => (Some(frame.clock), 0),
            // Only one who has heard this process can have made it.
            Message::Hello(hello) if hello.to == self.cache.node() => (None, 0),
            _ => return,
        };
        if clock.is_some_and(|clock| !self.is_recent(now, clock)) {
            return;
        }
        self.search.heard(node, interval, now.mono);
    }

    /// Whether a message with this clock may have been sent lately.
    fn is_recent(&self, now: Now, clock: Time) -> bool {
        let skew = self.cache.limits().max_clock_skew_ms;
        clock.millis().abs_diff(now.wall) <= skew
    }

    /// A node names issuers it does not accept. If this node's own is among them, the two are not one cache.
    pub(crate) fn disowned(&mut self, now: Now, by: NodeId, clock: Time, foreign: &[String]) {
        let own = self.config.keyring.issuer();
        let named = own.is_some_and(|own| foreign.iter().any(|issuer| issuer == own));
        if named && self.is_recent(now, clock) {
            self.search.disowned(by, now.mono);
        }
    }

    /// A message was not accepted. Others are there then, but none whose state this node could have.
    pub(crate) fn heard_foreign(&mut self, now: Now, refusal: &Refusal) {
        match refusal {
            Refusal::Foreign(_) | Refusal::Unauthenticated | Refusal::Authenticated => {
                self.search.heard_foreign(now.mono)
            }
            Refusal::Forged => {}
        }
    }

    // --- what the server says

    /// The server says that nobody listens, or somebody else in its name: so no request ends by it, and it counts only
    /// together with others, over some time, and while nobody is heard.
    pub(crate) fn handle_no_responders(&mut self, now: Now, request: u64) {
        if !self.search.unheard(request, now.mono) {
            self.counters.repeated += 1;
            return;
        }
        if self.peers.synced().next().is_some() {
            // There is somebody: it is asked directly.
            self.ask_anew(true);
        }
        self.conclude_if_alone(now);
    }

    /// Asks again for what the server says nobody has heard.
    fn ask_anew(&mut self, directly: bool) {
        let Some(pull) = self.pulls.first() else {
            return;
        };
        pull.again |= directly;
        for request in self.search.take_unheard() {
            pull.take_back(request);
        }
    }

    /// Somebody has answered a question whether anybody is there. Returns whether it was one.
    pub(crate) fn probe_answered(&mut self, now: Now, request: u64) -> bool {
        let asked = self.search.probe_answered(request, now.mono);
        if asked {
            self.ask_anew(false);
        }
        asked
    }

    /// Whether there is somebody who may have a state, or something that keeps this node from hearing it.
    fn may_have_company(&self) -> bool {
        let has_state = |peer: &Peer| {
            peer.heartbeat
                .as_ref()
                .is_none_or(|heartbeat| heartbeat.state != HeartbeatState::Starting)
        };
        self.search.may_have_company() || self.peers.iter().any(|(_, peer)| has_state(peer))
    }

    fn conclude_if_alone(&mut self, now: Now) {
        if self.bootstrap.phase() != Phase::Bootstrapping || !self.connected {
            return;
        }
        if self.may_have_company() {
            self.search.silence(now.mono);
            return;
        }
        let quiet = self.search.quiet_ms(now.mono);
        if self.peers.len() < self.config.min_peers || quiet < QUIET_MS {
            return;
        }
        let answered = self.pulls.own().is_some_and(|pull| pull.answered);
        let told = self.search.is_told();
        let swallowed = quiet >= SWALLOWED_MS && !told && !answered;
        if !told && !swallowed {
            return;
        }
        match (swallowed, answered, self.peers.len()) {
            (true, ..) => {
                tracing::warn!("those who take bootstrap requests do not answer this node: going on without them")
            }
            (_, true, _) => {
                tracing::warn!("the peers that answered the bootstrap are gone; going on with what has arrived")
            }
            (.., 0) => tracing::info!(quiet_ms = quiet, "nobody is there: first node of the lattice"),
            (.., peers) => tracing::info!(peers, "no peer has a state yet: among the first nodes of the lattice"),
        }
        self.search.conclude_alone(swallowed);
        self.pulls.end_own();
        self.bootstrapped(now);
    }

    /// The state of this node is one with that of a peer.
    pub(crate) fn merged(&mut self, node: NodeId) {
        if self.search.merged() {
            tracing::info!(peer = %node, "this node was alone before; its state and that of the peer are one now");
        }
    }

    /// The server refuses something.
    pub(crate) fn handle_refused(&mut self, now: Now, what: Refused, subject: String) {
        self.search.deny(what, subject, now.mono);
    }

    /// Tries again what the server refuses. It answers only if it still does.
    fn try_again(&mut self, now: Now) {
        let due = self.search.due_attempts(self.bootstrap.is_synced(), now.mono);
        for what in due {
            match what {
                Refused::Publish(channel) => self.publish_again(now, channel),
                Refused::Subscribe(_) | Refused::Subscriptions => {
                    self.outbox.push(Output::SubscribeAgain(what));
                }
                // The shell tries by itself.
                Refused::Connection => {}
            }
        }
    }

    /// A message that does no harm wherever it arrives.
    fn publish_again(&mut self, now: Now, channel: Channel) {
        let to = match channel {
            Channel::Deltas => Target::Deltas,
            Channel::Heartbeat => Target::Heartbeat,
            Channel::Node => Target::Node(self.cache.node()),
            Channel::Bootstrap => return self.send_probe(),
        };
        let heartbeat = self.fresh_heartbeat(now, self.heartbeat_state());
        self.introduce(to, &Message::Heartbeat(heartbeat));
    }

    // --- time

    /// Asks whoever answers bootstraps for nothing: the answer, or the word of the server, tells whether anybody is
    /// there.
    fn send_probe(&mut self) {
        let request = self.outbox.fresh_id();
        self.search.asked(request);
        let nothing = BootstrapRequest {
            request,
            from: Partition(0),
            digests: Vec::new(),
            want: Want::Deltas,
            budget: 0,
            rest: None,
        };
        self.send(Target::Bootstrap { request }, &Message::BootstrapRequest(nothing));
    }

    pub(crate) fn next_search(&self) -> Option<Millis> {
        self.search
            .next_probe()
            .filter(|_| self.bootstrap.phase() == Phase::Bootstrapping)
    }

    pub(crate) fn tick_search(&mut self, now: Now) {
        self.search.expire(now.mono);
        self.search.knows(self.peers.len(), self.config.min_peers);
        if !self.connected {
            return;
        }
        self.try_again(now);
        if self.bootstrap.phase() != Phase::Bootstrapping {
            return;
        }
        self.conclude_if_alone(now);
        let answered = self.pulls.own().is_some_and(|pull| pull.answered);
        if self.bootstrap.phase() == Phase::Bootstrapping && self.search.probe_is_due(answered, now.mono) {
            self.send_probe();
        }
    }
}
