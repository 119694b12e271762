//! The network: connections, and messages on their way.

use bytes::Bytes;
use kvcache_core::cache::Millis;
use kvcache_core::replica::{Channel, Input, Output, Refused, Target};
use kvcache_core::wire::{self, Kind};
use rand::RngExt;

use crate::event::{Event, Mail, Origin, Sender};
use crate::node::Subject;
use crate::world::World;

/// More than an honest replica queues in one call: an answer to a bootstrap request, and what does not fit in its
/// bound.
const MAX_QUEUED_BYTES: u64 = 4 << 20;

/// Directions of a link: from a node to the server, and from the server to it.
const UP: usize = 0;
const DOWN: usize = 1;

/// What the server needs to say that nobody listens.
const NOTICE_BYTES: usize = 80;

impl Subject {
    const ALL: [Subject; 4] = [Subject::Deltas, Subject::Heartbeat, Subject::Bootstrap, Subject::Node];

    fn channel(self) -> Channel {
        match self {
            Subject::Deltas => Channel::Deltas,
            Subject::Heartbeat => Channel::Heartbeat,
            Subject::Bootstrap => Channel::Bootstrap,
            Subject::Node => Channel::Node,
        }
    }

    fn of(target: Target) -> Self {
        match target {
            Target::Deltas => Subject::Deltas,
            Target::Heartbeat => Subject::Heartbeat,
            Target::Bootstrap { .. } => Subject::Bootstrap,
            Target::Node(_) => Subject::Node,
        }
    }
}

impl World {
    /// Connects a process that runs, unless it is connected or there is no server.
    pub(crate) fn connect(&mut self, node: usize) {
        if self.server_down || !self.nodes[node].active() || self.nodes[node].session.is_some() {
            return;
        }
        self.notice(node);
        self.tell(|| format!("node {node} connects"));
        self.sessions += 1;
        let max_payload = self.max_payload;
        self.nodes[node].session = Some(self.sessions);
        self.nodes[node].told = true;
        self.nodes[node].busy_us = [0; 2];
        self.nodes[node].max_payload = max_payload;
        self.nodes[node].unsubscribed = [false; 4];
        self.input(node, Input::Connected { max_payload });
        self.take_subscriptions(node);
    }

    /// The node finds out that it is not connected any more.
    pub(crate) fn notice(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        if it.told && it.session.is_none() && it.active() {
            it.told = false;
            self.tell(|| format!("node {node} notices that its connection is lost"));
            self.input(node, Input::Disconnected);
        }
    }

    /// Performs what a replica asks for.
    pub(crate) fn perform(&mut self, node: usize) {
        let mut queued = 0;
        let mut asked = None;
        while let Some(output) = self.nodes[node].replica.poll_output() {
            match output {
                Output::AnswerBootstraps => self.nodes[node].answers = true,
                Output::LeaveBootstraps => {
                    self.nodes[node].answers = false;
                    self.give_up(node);
                }
                Output::Acked { id, result } => {
                    if result.is_ok() {
                        self.confirms(node, id);
                    }
                }
                Output::Answer(job) => asked = Some(job),
                Output::SubscribeAgain(what) => self.subscribe_again(node, what),
                Output::Tell(_) => {}
                Output::Publish { to, payload } => {
                    let (length, most) = (payload.len(), self.nodes[node].max_payload);
                    assert!(self.nodes[node].told, "node {node} sends while it is not connected");
                    assert!(
                        length <= most,
                        "node {node} sends {length} bytes where {most} are allowed"
                    );
                    queued += length as u64;
                    self.publish(node, to, payload);
                }
            }
        }
        assert!(
            queued <= MAX_QUEUED_BYTES,
            "node {node} queued {queued} bytes in one call"
        );
        self.outcome.queued_bytes = self.outcome.queued_bytes.max(queued);
        if let Some(job) = asked {
            let answered = job.run(&self.nodes[node].cache);
            self.input(node, Input::Answered(answered));
        }
    }

    fn publish(&mut self, from: usize, to: Target, payload: Bytes) {
        if to == Target::Heartbeat {
            self.heartbeats += 1;
        } else {
            self.busy_at = self.now;
            if !self.trouble {
                self.outcome.repair_messages += 1;
                self.outcome.repair_bytes += payload.len() as u64;
            }
        }
        let Some(session) = self.nodes[from].session else {
            // The connection is gone, and the node has not noticed yet.
            self.outcome.lost += 1;
            return;
        };
        let sender = self.sender(from, to, &payload);
        let at = self.pass(from, UP, payload.len());
        if at <= self.now {
            return self.route(sender, session, to, payload);
        }
        self.at(
            at,
            Event::Route {
                sender,
                session,
                to,
                payload,
            },
        );
    }

    /// A message that is sent now passes the link of a node, one after the other. Returns when it is through.
    fn pass(&mut self, node: usize, direction: usize, bytes: usize) -> Millis {
        let Some(rate) = self.scenario.rate else {
            return self.now;
        };
        let busy = &mut self.nodes[node].busy_us[direction];
        *busy = (*busy).max(self.now * 1_000) + bytes as u64 * 1_000_000 / rate;
        let at = *busy / 1_000;
        self.outcome.backlog_ms = self.outcome.backlog_ms.max(at - self.now);
        at
    }

    /// How long it takes until all that is before slow links is through.
    pub(crate) fn backlog_ms(&self) -> Millis {
        let busy = self.nodes.iter().flat_map(|node| node.busy_us).max().unwrap_or(0);
        (busy / 1_000).saturating_sub(self.now)
    }

    /// The server tells a node what it refuses.
    fn says_no(&mut self, node: usize, what: Refused) {
        let Some(session) = self.nodes[node].session else {
            return;
        };
        let mail = Mail {
            origin: Origin::Server,
            input: Input::Refused {
                what,
                subject: format!("{what:?}"),
            },
        };
        let at = self.pass(node, DOWN, NOTICE_BYTES);
        self.at(
            at,
            Event::Deliver {
                to: node,
                session,
                mail,
            },
        );
    }

    /// The server takes the subscriptions from a node that it refuses it, and tells it.
    pub(crate) fn take_subscriptions(&mut self, node: usize) {
        for subject in Subject::ALL {
            if self.nodes[node].session.is_some() && self.nodes[node].refused.subscribe[subject as usize] {
                self.nodes[node].unsubscribed[subject as usize] = true;
                self.says_no(node, Refused::Subscribe(subject.channel()));
            }
        }
    }

    /// A node makes subscriptions again that it was refused.
    fn subscribe_again(&mut self, node: usize, what: Refused) {
        for subject in Subject::ALL {
            if what == Refused::Subscribe(subject.channel()) {
                let refused = self.nodes[node].refused.subscribe[subject as usize];
                self.nodes[node].unsubscribed[subject as usize] = refused;
                if refused {
                    self.says_no(node, what);
                }
            }
        }
    }

    /// A message has arrived at the server, unless its connection is gone by now.
    pub(crate) fn route(&mut self, sender: Sender, session: u64, to: Target, payload: Bytes) {
        let from = sender.place;
        let subject = Subject::of(to);
        if self.nodes[from].session != Some(session) {
            self.outcome.lost += 1;
            return;
        }
        if self.nodes[from].refused.publish[subject as usize] {
            self.outcome.lost += 1;
            return self.says_no(from, Refused::Publish(subject.channel()));
        }
        self.record(sender, &payload);
        let meant = |world: &World, other: usize| match to {
            Target::Node(id) => world.nodes[other].cache.node() == id,
            Target::Deltas | Target::Heartbeat => other != from,
            Target::Bootstrap { .. } => false,
        };
        // A node that was refused its subscription misses what it would have heard.
        let misses = |world: &World, other: usize| {
            let there = &world.nodes[other];
            there.session.is_some() && there.unsubscribed[subject as usize]
        };
        let missed = (0..self.nodes.len()).filter(|other| meant(self, *other) && misses(self, *other));
        self.outcome.lost += missed.count() as u64;
        let hears = |world: &World, other: usize| {
            let there = &world.nodes[other];
            other != from && there.session.is_some() && !there.unsubscribed[subject as usize]
        };
        match to {
            Target::Deltas | Target::Heartbeat => {
                for other in 0..self.nodes.len() {
                    if hears(self, other) {
                        self.send(sender, other, &payload);
                    }
                }
            }
            Target::Node(id) => {
                let there = |other: &usize| self.nodes[*other].cache.node() == id && hears(self, *other);
                if let Some(other) = (0..self.nodes.len()).find(there) {
                    self.send(sender, other, &payload);
                }
            }
            Target::Bootstrap { request } => {
                let places = self.nodes.len();
                let group = |world: &World, other: usize| {
                    hears(world, other) && world.nodes[other].answers && !world.split[from * places + other]
                };
                let size = (0..places).filter(|&other| group(self, other)).count();
                if size == 0 {
                    return self.nobody_listens(from, session, request);
                }
                let chosen = self.rng.random_range(0..size);
                let member = (0..places).filter(|&other| group(self, other)).nth(chosen);
                self.send(sender, member.expect("one of the group"), &payload);
            }
        }
    }

    /// The server says that nobody listens to a request.
    fn nobody_listens(&mut self, to: usize, session: u64, request: u64) {
        let lost = self.trouble && self.scenario.lost_notices > 0.0;
        if lost && self.rng.random_bool(self.scenario.lost_notices) {
            self.outcome.lost_notices += 1;
            return;
        }
        let at = self.pass(to, DOWN, NOTICE_BYTES);
        let mail = Mail {
            origin: Origin::Server,
            input: Input::NoResponders { request },
        };
        self.at(at, Event::Deliver { to, session, mail });
    }

    /// Puts a message on its way from the server to one node.
    fn send(&mut self, sender: Sender, to: usize, payload: &Bytes) {
        if self.deaf[sender.place * self.nodes.len() + to] {
            self.outcome.lost += 1;
            return;
        }
        let mut copies = 1;
        if self.trouble {
            if self.rng.random_bool(self.scenario.loss) {
                self.outcome.lost += 1;
                return;
            }
            if self.rng.random_bool(self.scenario.repeat) {
                self.outcome.repeated += 1;
                copies = 2;
            }
        }
        for _ in 0..copies {
            self.carry(Origin::Node(sender), to, payload);
        }
    }

    /// A message goes from the server to a node, whoever has sent it.
    pub(crate) fn carry(&mut self, origin: Origin, to: usize, payload: &Bytes) {
        let Some(session) = self.nodes[to].session else { return };
        let through = self.pass(to, DOWN, payload.len());
        let at = through + self.rng.random_range(0..=self.scenario.max_delay_ms);
        let mail = Mail {
            origin,
            input: Input::Message(payload.clone()),
        };
        self.at(at, Event::Deliver { to, session, mail });
    }

    /// A message arrives, if its receiver is still there.
    pub(crate) fn deliver(&mut self, to: usize, session: u64, mail: Mail) {
        let mailbox = self.scenario.mailbox;
        let node = &mut self.nodes[to];
        // What the server says of the connection itself is not among the messages that a client drops.
        let told = matches!(mail.input, Input::Refused { .. });
        if node.session != Some(session) || (node.slow && !told) {
            self.outcome.lost += 1;
            return;
        }
        if let Some(pause) = &mut node.pause {
            if told || pause.mailbox.len() < mailbox {
                pause.mailbox.push_back(mail);
            } else {
                pause.overflow = true;
                self.outcome.lost += 1;
            }
            return;
        }
        self.receive(to, mail);
    }

    /// A process takes a message in.
    pub(crate) fn receive(&mut self, to: usize, mail: Mail) {
        if let Input::Message(bytes) = &mail.input {
            match mail.origin {
                Origin::Node(sender) => {
                    self.hears(to, bytes);
                    self.was_sent(to, sender);
                }
                Origin::Recording(sender) => {
                    self.was_repeated(to, sender);
                    // It may be a request, which is answered once more.
                    self.waiting += u64::from(!self.trouble);
                }
                Origin::Server => {}
            }
            self.outcome.messages += 1;
            self.outcome.bytes += bytes.len() as u64;
            match wire::kind_of(bytes) {
                Some(Kind::RangeSplits) => self.outcome.splits += 1,
                Some(Kind::Reconcile) => self.outcome.reconciliations += 1,
                _ => {}
            }
            self.outcome.trace = self.outcome.trace.rotate_left(5) ^ fold(self.now ^ (to as u64) << 48, bytes);
        }
        self.input(to, mail.input);
    }
}

/// Hash of a message and of where and when it arrived.
fn fold(start: u64, bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut words = bytes.chunks_exact(8);
    let mut hash = start.wrapping_mul(PRIME);
    for word in &mut words {
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        hash = (hash.rotate_left(23) ^ word).wrapping_mul(PRIME);
    }
    for byte in words.remainder() {
        hash = (hash.rotate_left(23) ^ u64::from(*byte)).wrapping_mul(PRIME);
    }
    hash
}
