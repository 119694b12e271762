//! What nodes say of themselves, and what they confirm, against what is so.
//!
//! The key that all only ever increment shows what a state holds: a node that has taken in the state of another one
//! shows at least the sum which that one had.

use kvcache_core::cache::{Cache, Key, Millis};
use kvcache_core::replica::{AckLevel, AckRequest, SyncState, Target};
use kvcache_core::wire::{self, Kind};
use rand::RngExt;

use crate::clients::counter;
use crate::event::{size, Sender};
use crate::node::{Heard, Waiting};
use crate::scenario::spread;
use crate::world::World;

/// A node that was heard so many intervals of heartbeats ago is known to be there.
const REMEMBERED_BEATS: Millis = 3;

/// Two nodes that have heard each other for so many intervals know each other.
const ACQUAINTED_BEATS: Millis = 10;

/// The key that one process increments for every write that it wants to be confirmed.
fn confirmed_key(life: u64) -> Key {
    Key::shared(format!("confirmed {life}").as_bytes())
}

/// The number that a key holds.
fn number(cache: &Cache, key: &Key, now: Millis) -> i64 {
    match cache.get(key, now) {
        Ok(Some(text)) => std::str::from_utf8(&text)
            .ok()
            .and_then(|text| text.parse().ok())
            .expect("a number"),
        _ => 0,
    }
}

impl World {
    /// Whether claims are checked. Where deletions are forgotten, a node may give up what it had.
    fn checks_claims(&self) -> bool {
        self.scenario.tombstone_ttl_ms.is_none()
    }

    /// Who sends now from a place.
    pub(crate) fn sender(&self, place: usize, to: Target, payload: &[u8]) -> Sender {
        let node = &self.nodes[place];
        let anybody_asks = self.nodes.iter().any(|node| node.up && !node.merged);
        let holds = (self.checks_claims() && anybody_asks && self.has_joined(place))
            .then(|| number(&node.cache, &counter(), self.clock(place).wall));
        Sender {
            place,
            life: node.life,
            holds,
            heartbeat: to == Target::Heartbeat,
            shows_life: matches!(to, Target::Heartbeat | Target::Deltas)
                || wire::kind_of(payload) == Some(Kind::Welcome),
            at: self.now,
        }
    }

    /// Whether a node has a state to give to others.
    pub(crate) fn has_joined(&self, place: usize) -> bool {
        self.nodes[place].replica.has_joined()
    }

    /// A message of another node arrives, and is no recording.
    pub(crate) fn was_sent(&mut self, to: usize, sender: Sender) {
        if sender.shows_life {
            self.touches(sender.place, to);
        }
        let now = self.now;
        let Some(heard) = self.heard_of(to, sender) else {
            return;
        };
        if sender.at > heard.newest {
            let heartbeat = sender.heartbeat.then_some((sender.at, now));
            (heard.newest, heard.heartbeat) = (sender.at, heartbeat.or(heard.heartbeat));
        }
    }

    /// A recording arrives. If it is faster than what it repeats, it is what the node hears.
    pub(crate) fn was_repeated(&mut self, to: usize, sender: Sender) {
        if sender.at >= self.nodes[to].replica_since {
            self.heard_of(to, sender);
        }
    }

    /// Takes note of what the sender of a message held, unless that does not matter any more.
    fn heard_of(&mut self, to: usize, sender: Sender) -> Option<&mut Heard> {
        let node = &mut self.nodes[to];
        let holds = sender.holds.filter(|_| !node.merged)?;
        let heard = &mut node.heard;
        let known = heard.iter().position(|heard| heard.life == sender.life);
        let place = known.unwrap_or_else(|| {
            heard.push(Heard {
                place: sender.place,
                life: sender.life,
                least: holds,
                heartbeat: None,
                newest: 0,
            });
            heard.len() - 1
        });
        let heard = &mut heard[place];
        heard.least = heard.least.min(holds);
        Some(heard)
    }

    /// A node has to get to know all others.
    pub(crate) fn is_out_of_touch(&mut self, node: usize) {
        let places = self.nodes.len();
        for other in 0..places {
            self.touch[node * places + other] = (0, 0);
            self.touch[other * places + node] = (0, 0);
        }
    }

    fn touches(&mut self, from: usize, to: usize) {
        let now = self.now;
        let longest = REMEMBERED_BEATS * self.scenario.heartbeat_interval_ms;
        let pair = from * self.nodes.len() + to;
        let (began, last) = &mut self.touch[pair];
        if *last == 0 || now - *last > longest {
            *began = now;
        }
        *last = now;
    }

    /// A node that says that it is synced has the state of at least one of those with a state that it has heard, as it
    /// was when they sent the first that arrived. One that says that it is alone has not heard a heartbeat of any of
    /// them lately.
    pub(crate) fn check_claims(&mut self, place: usize) {
        let node = &self.nodes[place];
        if node.merged || !node.active() || !self.checks_claims() {
            return;
        }
        match node.replica.sync_state(self.clock(place)) {
            SyncState::Synced => self.check_synced(place),
            SyncState::Alone => self.check_alone(place),
            _ => {}
        }
    }

    fn check_synced(&mut self, place: usize) {
        let node = &self.nodes[place];
        let least = node.heard.iter().map(|heard| heard.least).min();
        let holds = number(&node.cache, &counter(), self.clock(place).wall);
        assert!(
            least.is_some_and(|least| holds >= least),
            "node {place} says that it is synced and holds a sum of {holds}, but the nodes with a state that it has \
             heard held {:?}",
            node.heard
        );
        self.nodes[place].merged = true;
        self.outcome.merged += 1;
    }

    fn check_alone(&self, place: usize) {
        // Heartbeats that waited until they were old are no evidence, nor are those with times that are far off.
        if self.scenario.max_clock_skew_ms.is_some() {
            return;
        }
        let memory = REMEMBERED_BEATS * self.scenario.heartbeat_interval_ms;
        let is_there = |heard: &&Heard| {
            let there = &self.nodes[heard.place];
            // The replica that was there before has said that it leaves, perhaps in this heartbeat, and the one that
            // was here before may have heard the heartbeat.
            let since = (there.replica_since, self.nodes[place].replica_since);
            let counts = |(sent, arrived)| sent > since.0 && arrived > since.1 && self.now - arrived < memory;
            let lately = heard.heartbeat.is_some_and(counts);
            there.life == heard.life && there.up && lately
        };
        let heard: Vec<&Heard> = self.nodes[place].heard.iter().filter(is_there).collect();
        assert!(
            heard.is_empty(),
            "node {place} says that it is alone, but has heard {heard:?}"
        );
    }

    // --- confirmations

    /// A client writes at a node, and waits until others have it.
    pub(crate) fn write_to_be_confirmed(&mut self, place: usize) {
        if !self.checks_claims() {
            return;
        }
        let now = self.clock(place);
        let node = &mut self.nodes[place];
        let incremented = node.cache.increment(&confirmed_key(node.life), 1, now.wall);
        let (value, delta) = incremented.expect("nobody else writes to the key");
        self.outcome.writes += 1;
        self.written_bytes += size(&delta);
        self.to_confirm += 1;
        let wanted = match self.rng.random_range(0..10) {
            0..7 => AckLevel::All,
            7 | 8 => AckLevel::Peers(1),
            _ => AckLevel::Peers(2),
        };
        let request = AckRequest {
            id: self.to_confirm,
            wanted,
            deadline: now.mono + spread(&mut self.rng, 50, 5_000),
        };
        let node = &mut self.nodes[place];
        node.queue.push(delta);
        node.asked.push(request);
        let waiting = Waiting {
            wanted,
            value,
            at: self.now,
        };
        node.waiting.insert(request.id, waiting);
    }

    /// Two nodes have heard each other all the time since then, at least as often as they have to in order not to
    /// forget each other, and for some time before.
    fn in_touch_since(&self, one: usize, other: usize, since: Millis) -> bool {
        let heartbeat = self.scenario.heartbeat_interval_ms;
        let places = self.nodes.len();
        [one * places + other, other * places + one].into_iter().all(|pair| {
            let (began, last) = self.touch[pair];
            last > 0 && began + ACQUAINTED_BEATS * heartbeat <= since && self.now - last <= REMEMBERED_BEATS * heartbeat
        })
    }

    /// A node confirms a write. `All`: whoever is in touch with it and says of itself that it has everything which
    /// others have confirmed has it. A number: so many hold it.
    pub(crate) fn confirms(&mut self, place: usize, id: u64) {
        let Waiting { wanted, value, at } = self.nodes[place].waiting.remove(&id).expect("a write that waits");
        let key = confirmed_key(self.nodes[place].life);
        self.outcome.confirmed += 1;
        let others = (0..self.nodes.len()).filter(|&other| other != place && self.nodes[other].up);
        let has = |other: usize| number(&self.nodes[other].cache, &key, self.clock(other).wall) >= value;
        match wanted {
            AckLevel::All => {
                let state = self.nodes[place].replica.sync_state(self.clock(place));
                assert!(
                    state.is_whole(),
                    "node {place} confirms a write for all, but says that it is {state}"
                );
                for other in others.filter(|&other| self.nodes[other].active() && self.in_touch_since(place, other, at))
                {
                    let current = self.nodes[other].replica.current_until() > self.now;
                    assert!(
                        !current || has(other),
                        "node {place} confirms its write {value} of {at} ms for all, but node {other} does not have it \
                         and says that it is current"
                    );
                }
            }
            AckLevel::Peers(peers) if self.outcome.crashes + self.outcome.leaves == 0 => {
                let holders = others.filter(|&other| has(other)).count();
                assert!(
                    holders >= peers as usize,
                    "node {place} confirms its write {value} for {peers}, but {holders} have it"
                );
            }
            AckLevel::Peers(_) | AckLevel::Local => {}
        }
    }
}
