//! A stranger on the account: he hears all, and sends what he has recorded, and what a server says.

use bytes::Bytes;
use kvcache_core::replica::Input;
use rand::RngExt;

use crate::event::{End, Mail, Origin, Sender};
use crate::scenario::{spread, Fault};
use crate::world::World;

/// Recordings that the stranger keeps.
const KEPT: usize = 128;

/// Recordings that he sends at once.
const BATCH: u32 = 16;

/// Requests are numbered together with heartbeats and challenges: so far back one is met now and then.
const NUMBERS_BACK: u64 = 12;

impl World {
    /// The stranger hears a message. He keeps old ones and new ones of all nodes.
    pub(crate) fn record(&mut self, sender: Sender, payload: &Bytes) {
        if !self.trouble || !self.scenario.faults.contains(&Fault::Recordings) {
            return;
        }
        self.seen += 1;
        if self.recorded.len() < KEPT {
            self.recorded.push((sender, payload.clone()));
        } else if self.seen.is_multiple_of(7) {
            self.recorded[self.seen / 7 % KEPT] = (sender, payload.clone());
        }
    }

    pub(crate) fn send_recordings(&mut self, node: usize) {
        if self.recorded.is_empty() {
            return;
        }
        let left = spread(&mut self.rng, 1, 200) as u32;
        let to = self.rng.random_bool(0.7).then_some(node);
        let one = self.rng.random_bool(0.3);
        let which = one.then(|| self.rng.random_range(0..self.recorded.len()));
        self.tell(|| format!("a stranger sends {left} recordings to {to:?}, {which:?}"));
        self.recordings(left, to, which);
    }

    /// Sends some recordings, and the others soon.
    pub(crate) fn recordings(&mut self, left: u32, to: Option<usize>, which: Option<usize>) {
        let batch = left.min(BATCH);
        for _ in 0..batch {
            let which = which.unwrap_or_else(|| self.rng.random_range(0..self.recorded.len()));
            let (sender, payload) = self.recorded[which].clone();
            for node in 0..self.nodes.len() {
                if to.is_none_or(|to| to == node) {
                    self.outcome.recordings += 1;
                    self.carry(Origin::Recording(sender), node, &payload);
                }
            }
        }
        if left > batch {
            let pause = self.rng.random_range(1..100);
            self.end_after(
                pause,
                End::Recordings {
                    left: left - batch,
                    to,
                    which,
                },
            );
        }
    }

    pub(crate) fn forge_notices(&mut self, node: usize) {
        let left = spread(&mut self.rng, 1, 60) as u32;
        self.tell(|| format!("a stranger tells node {node} {left} times that nobody listens"));
        self.forged_notices(left, node);
    }

    pub(crate) fn forged_notices(&mut self, left: u32, node: usize) {
        let newest = self.nodes[node].replica.handover().id;
        let request = (newest + 2).saturating_sub(self.rng.random_range(0..NUMBERS_BACK));
        if let Some(session) = self.nodes[node].session {
            self.outcome.forged_notices += 1;
            let mail = Mail {
                origin: Origin::Server,
                input: Input::NoResponders { request },
            };
            self.deliver(node, session, mail);
        }
        if left > 1 {
            let pause = self.rng.random_range(0..100);
            self.end_after(
                pause,
                End::ForgedNotices {
                    left: left - 1,
                    to: node,
                },
            );
        }
    }
}
