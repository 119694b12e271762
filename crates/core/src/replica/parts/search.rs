//! What is known of those who may be there, and whose state this node should have.
//!
//! That nobody answers proves nothing: requests may be refused, answers may be slow, a server may not know yet who
//! listens at the others. So a node takes itself for alone only after it has listened for some seconds, was told
//! several times by the server that nobody listens, and has heard of nobody who may have a state.

use std::collections::BTreeMap;

use super::sync_state::{Channel, Refused};
use crate::cache::{Millis, NodeId};

/// How long nobody may be heard before a node takes itself for alone. A server that starts together with it may take
/// two seconds to find the others.
pub(crate) const QUIET_MS: Millis = 2_500;

/// How often the server has to say meanwhile that nobody listens.
const MIN_UNHEARD: u32 = 4;

/// Between two questions whether anybody answers bootstraps.
const PROBE_MS: Millis = 250;

/// The same, once somebody has answered.
const SLOW_PROBE_MS: Millis = 1_000;

/// Requests that nobody has answered yet and that are remembered.
const MAX_OPEN: usize = 64;

/// Nodes that were heard but have not proven to be alive, and that are remembered.
const MAX_HEARD: usize = 64;

/// How long such a node counts without a new message, at least and at most; it may heartbeat slowly.
pub(crate) const MIN_HEARD_MS: Millis = 8_000;
const MAX_HEARD_MS: Millis = 300_000;

/// How long a message that is not accepted here, or that says that this node is not accepted, counts.
const FOREIGN_MS: Millis = 30_000;

/// What the server refuses is tried again after this time; what needs a new connection, after a longer one.
const RETRY_MS: Millis = 2_000;
const RECONNECT_MS: Millis = 30_000;

/// If the server says nothing for this long after that, it works again.
const GRANTED_MS: Millis = 1_500;

/// A node that was heard by a message of an accepted authenticator that is no old recording, and has not proven to be
/// alive.
#[derive(Clone, Copy, Debug)]
struct Heard {
    first: Millis,
    until: Millis,
}

/// Something the server refuses.
#[derive(Clone, Debug)]
struct Denied {
    /// The subject, or what the server said.
    subject: String,
    at: Millis,
    /// When it was tried again.
    tried: Option<Millis>,
}

/// What is known of those who may be there.
#[derive(Default)]
pub(crate) struct Search {
    /// Since when nothing has shown that there is somebody who may have a state.
    since: Millis,
    /// How often the server has said since then that nobody listens.
    unheard: u32,
    /// When that was counted last.
    unheard_at: Option<Millis>,
    /// Requests to whoever answers bootstraps and that nobody has answered, and whether the server has said of it that
    /// nobody listens.
    open: BTreeMap<u64, bool>,
    next_probe: Option<Millis>,
    /// The server has said that nobody listens, and nothing has shown since that somebody does.
    doubtful: bool,
    /// When a part of the bootstrap arrived last.
    progress: Option<Millis>,
    heard: BTreeMap<NodeId, Heard>,
    /// When a message arrived last whose issuer is not accepted here, or that has no proof where one is asked for.
    foreign: Option<Millis>,
    /// Who has said that it does not accept this node, and when.
    disowned: Option<(NodeId, Millis)>,
    denied: BTreeMap<Refused, Denied>,
    /// So many peers were known at some time as are asked for.
    enough: bool,
    /// The state of this node is that of nobody else.
    alone: bool,
    /// Somebody took the requests of the bootstrap, and did not answer.
    swallowed: bool,
    /// So many deltas of the state that this node took were refused for their stamps, and are still missing here.
    refused: Option<u64>,
}

impl Search {
    /// Listens anew: what was not heard before means nothing.
    pub fn begin(&mut self, now: Millis) {
        self.stop();
        self.silence(now);
        self.progress = None;
        self.doubtful = false;
        self.next_probe = Some(now + PROBE_MS);
    }

    /// The connection is lost.
    pub fn stop(&mut self) {
        self.open.clear();
        self.next_probe = None;
    }

    // --- who is heard

    /// Somebody was heard, or may be there: the time in which nobody is heard begins anew.
    pub fn silence(&mut self, now: Millis) {
        self.since = now;
        (self.unheard, self.unheard_at) = (0, None);
    }

    /// A node that has not proven to be alive was heard, and sends heartbeats this often.
    pub fn heard(&mut self, node: NodeId, interval: Millis, now: Millis) {
        if self.heard.len() >= MAX_HEARD && !self.heard.contains_key(&node) {
            return;
        }
        let lasts = (5 * interval.min(MAX_HEARD_MS)).clamp(MIN_HEARD_MS, MAX_HEARD_MS);
        let first = self.heard.get(&node).map_or(now, |heard| heard.first);
        let until = now + lasts;
        self.heard.insert(node, Heard { first, until });
    }

    /// A node has proven to be alive.
    pub fn is_verified(&mut self, node: NodeId) {
        self.heard.remove(&node);
    }

    pub fn expire(&mut self, now: Millis) {
        self.heard.retain(|_, heard| now < heard.until);
    }

    /// How many are heard that have not proven to be alive.
    pub fn unverified(&self) -> usize {
        self.heard.len()
    }

    /// Whether somebody was heard for `ms` and has not proven to be alive.
    pub fn hears_in_vain(&self, ms: Millis, now: Millis) -> bool {
        self.heard.values().any(|heard| now.saturating_sub(heard.first) >= ms)
    }

    /// A message was not accepted. Others are there then, but none whose state this node could have.
    pub fn heard_foreign(&mut self, now: Millis) {
        self.foreign = Some(now);
    }

    pub fn is_foreign(&self, now: Millis) -> bool {
        self.foreign.is_some_and(|at| now.saturating_sub(at) < FOREIGN_MS)
    }

    /// Somebody says that it does not accept this node.
    pub fn disowned(&mut self, by: NodeId, now: Millis) {
        self.disowned = Some((by, now));
    }

    pub fn disowned_by(&self, now: Millis) -> Option<NodeId> {
        let (by, at) = self.disowned?;
        (now.saturating_sub(at) < FOREIGN_MS).then_some(by)
    }

    /// So many peers are known, and so many are asked for.
    pub fn knows(&mut self, peers: usize, wanted: usize) {
        self.enough |= peers >= wanted;
    }

    /// Whether as many peers as are asked for were known at some time.
    pub fn has_known_enough(&self) -> bool {
        self.enough
    }

    // --- questions

    /// A request was sent to whoever answers bootstraps.
    pub fn asked(&mut self, request: u64) {
        if self.open.len() >= MAX_OPEN {
            self.open.pop_first();
        }
        self.open.insert(request, false);
    }

    /// Part of an answer to a request of the bootstrap has arrived: what the server says of it later is no longer
    /// of interest.
    pub fn answered(&mut self, request: u64, now: Millis) {
        self.open.remove(&request);
        self.progress = Some(now);
    }

    /// When a part of the bootstrap arrived last.
    pub fn progress(&self) -> Option<Millis> {
        self.progress
    }

    /// The server says that nobody listens where `request` was sent. Returns whether that was asked.
    pub fn unheard(&mut self, request: u64, now: Millis) -> bool {
        let Some(unheard) = self.open.get_mut(&request) else {
            return false;
        };
        self.doubtful = true;
        // What it says of several requests at one moment is one word.
        let since = self.unheard_at.map(|at| now.saturating_sub(at));
        if !std::mem::replace(unheard, true) && since.is_none_or(|since| since >= PROBE_MS) {
            self.unheard += 1;
            self.unheard_at = Some(now);
        }
        true
    }

    /// The requests that nobody has heard, as the server says. They count as asked no more.
    pub fn take_unheard(&mut self) -> Vec<u64> {
        let unheard = self
            .open
            .iter()
            .filter_map(|(request, unheard)| unheard.then_some(*request));
        let requests: Vec<u64> = unheard.collect();
        self.open.retain(|_, unheard| !*unheard);
        requests
    }

    /// Somebody has answered a question whether anybody is there. Returns whether it was one.
    pub fn probe_answered(&mut self, request: u64, now: Millis) -> bool {
        let asked = self.open.remove(&request).is_some();
        if asked {
            self.doubtful = false;
            self.silence(now);
        }
        asked
    }

    pub fn next_probe(&self) -> Option<Millis> {
        self.next_probe
    }

    /// Whether it is time to ask whether anybody is there. `answered` is whether somebody has answered something.
    pub fn probe_is_due(&mut self, answered: bool, now: Millis) -> bool {
        if self.next_probe.is_none_or(|at| now < at) {
            return false;
        }
        let pause = if answered { SLOW_PROBE_MS } else { PROBE_MS };
        self.next_probe = Some(now + pause);
        let recently = |at: Millis| now.saturating_sub(at) < SLOW_PROBE_MS;
        // As long as the server says nothing else, somebody has the requests.
        self.doubtful && !self.progress.is_some_and(recently)
    }

    // --- what follows

    /// Whether somebody is heard, or something keeps this node from hearing others.
    pub fn may_have_company(&self) -> bool {
        !self.heard.is_empty() || !self.denied.is_empty()
    }

    /// For how long nothing has shown that there is somebody who may have a state.
    pub fn quiet_ms(&self, now: Millis) -> Millis {
        now.saturating_sub(self.since)
    }

    /// Whether the server has said often enough that nobody listens.
    pub fn is_told(&self) -> bool {
        self.unheard >= MIN_UNHEARD
    }

    /// The state of this node is that of nobody else. If `swallowed`, somebody has taken its requests.
    pub fn conclude_alone(&mut self, swallowed: bool) {
        self.alone = true;
        self.swallowed = swallowed;
        self.stop();
    }

    pub fn is_alone(&self) -> bool {
        self.alone
    }

    /// Whether somebody took the requests of the bootstrap, and did not answer.
    pub fn is_swallowed(&self) -> bool {
        self.swallowed
    }

    /// The state of this node is one with that of a peer. Returns whether it was alone before.
    pub fn merged(&mut self) -> bool {
        self.refused = None;
        let was_alone = std::mem::take(&mut self.alone);
        self.swallowed &= !was_alone;
        was_alone
    }

    /// So many deltas of the state that this node took were refused for their stamps.
    pub fn set_refused(&mut self, deltas: Option<u64>) {
        self.refused = deltas;
    }

    pub fn refused(&self) -> u64 {
        self.refused.unwrap_or(0)
    }

    // --- what the server refuses

    pub fn deny(&mut self, what: Refused, subject: String, now: Millis) {
        let denied = Denied {
            subject,
            at: now,
            tried: None,
        };
        self.denied.insert(what, denied);
        self.silence(now);
    }

    /// A new connection is a new attempt at all that was refused.
    pub fn reconnected(&mut self, now: Millis) {
        self.denied.remove(&Refused::Connection);
        for denied in self.denied.values_mut() {
            denied.tried = Some(now);
        }
    }

    /// Why there is no connection, if the server has said so.
    pub fn denied_connection(&self) -> Option<&str> {
        let denied = self.denied.get(&Refused::Connection)?;
        Some(&denied.subject)
    }

    /// What the server refuses, and the subject or what it said.
    pub fn denied(&self) -> Option<(Refused, &str)> {
        let (what, denied) = self.denied.iter().next()?;
        Some((*what, &denied.subject))
    }

    /// What is to be tried again now. What the server refuses no longer is forgotten, and publishing bootstrap requests
    /// too if the node is `synced`: only the bootstrap needs it.
    pub fn due_attempts(&mut self, synced: bool, now: Millis) -> Vec<Refused> {
        self.denied.retain(|what, denied| {
            let moot = *what == Refused::Publish(Channel::Bootstrap) && synced;
            let granted = moot || denied.tried.is_some_and(|at| now >= at + GRANTED_MS);
            if granted {
                tracing::info!(subject = %denied.subject.escape_debug(), "the server refuses it no longer");
            }
            !granted
        });
        let pause = |what: &Refused| match what {
            Refused::Subscriptions => RECONNECT_MS,
            _ => RETRY_MS,
        };
        let due = |(what, denied): (&Refused, &mut Denied)| {
            let due = denied.tried.is_none() && now >= denied.at + pause(what);
            due.then(|| {
                denied.tried = Some(now);
                *what
            })
        };
        self.denied.iter_mut().filter_map(due).collect()
    }
}
