//! The network: connections, and messages on their way.

use bytes::Bytes;
use nats_kvcache::replica::wire::Header;
use nats_kvcache::replica::{Input, Output, Target};
use rand::RngExt;

use crate::world::{Event, World};

/// More than an honest replica queues in one call: an answer to a replay request, and what does not fit in its bound.
const MAX_QUEUED_BYTES: u64 = 4 << 20;

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
        self.nodes[node].max_payload = max_payload;
        self.input(node, Input::Connected { max_payload });
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
        while let Some(output) = self.nodes[node].replica.poll_output() {
            match output {
                Output::AnswerReplays => self.nodes[node].answers = true,
                Output::LeaveReplays => {
                    self.nodes[node].answers = false;
                    self.give_up(node);
                }
                Output::Acked { .. } => {}
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
    }

    fn publish(&mut self, from: usize, to: Target, payload: Bytes) {
        if to == Target::Beat {
            self.beats += 1;
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
        match to {
            Target::Commands | Target::Beat => {
                for other in (0..self.nodes.len()).filter(|&other| other != from) {
                    self.send(from, other, &payload);
                }
            }
            Target::Node(id) => {
                let there = |other: &usize| *other != from && self.nodes[*other].cache.node() == id;
                if let Some(other) = (0..self.nodes.len()).find(there) {
                    self.send(from, other, &payload);
                }
            }
            Target::Replay { request } => {
                let group = |world: &World, other: usize| {
                    let there = &world.nodes[other];
                    other != from
                        && there.answers
                        && there.session.is_some()
                        && !world.split[from * world.nodes.len() + other]
                };
                let size = (0..self.nodes.len()).filter(|&other| group(self, other)).count();
                if size == 0 {
                    let input = Input::NoResponders { request };
                    return self.at(
                        self.now,
                        Event::Deliver {
                            to: from,
                            session,
                            input,
                        },
                    );
                }
                let chosen = self.rng.random_range(0..size);
                let member = (0..self.nodes.len()).filter(|&other| group(self, other)).nth(chosen);
                self.send(from, member.expect("one of the group"), &payload);
            }
        }
    }

    /// Puts a message on its way to one node.
    fn send(&mut self, from: usize, to: usize, payload: &Bytes) {
        let Some(session) = self.nodes[to].session else { return };
        if self.deaf[from * self.nodes.len() + to] {
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
            let arrival = self.now + self.rng.random_range(0..=self.scenario.max_delay_ms);
            let input = Input::Message(payload.clone());
            self.at(arrival, Event::Deliver { to, session, input });
        }
    }

    /// A message arrives, if its receiver is still there.
    pub(crate) fn deliver(&mut self, to: usize, session: u64, input: Input) {
        let mailbox = self.scenario.mailbox;
        let node = &mut self.nodes[to];
        if node.session != Some(session) || node.slow {
            self.outcome.lost += 1;
            return;
        }
        if let Some(pause) = &mut node.pause {
            if pause.mailbox.len() < mailbox {
                pause.mailbox.push_back(input);
            } else {
                pause.overflow = true;
                self.outcome.lost += 1;
            }
            return;
        }
        self.receive(to, input);
    }

    /// A process takes a message in.
    pub(crate) fn receive(&mut self, to: usize, input: Input) {
        if let Input::Message(bytes) = &input {
            self.hears(to, bytes);
            self.outcome.messages += 1;
            self.outcome.bytes += bytes.len() as u64;
            // See docs/PROTOCOL.md for the kinds.
            match Header::of(bytes).map(|header| header.kind) {
                Some(8) => self.outcome.splits += 1,
                Some(19) => self.outcome.exchanges += 1,
                _ => {}
            }
            self.outcome.trace = self.outcome.trace.rotate_left(5) ^ fold(self.now ^ (to as u64) << 48, bytes);
        }
        self.input(to, input);
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
