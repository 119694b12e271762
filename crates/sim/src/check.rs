//! What has to be true when all is well again.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use kvcache_core::cache::{Cache, Delta, Digest, Key, Limits, Millis, NodeId, StateDelta};
use kvcache_core::replica::SyncState;
use rand::RngExt;

use crate::client::{checked_digest, deltas, seen, Seen, START};
use crate::clients::{counter, shared_key, SHARED_KEYS};
use crate::event::size;
use crate::node::Acknowledged;
use crate::world::World;

/// Virtual time in which everything has to be equal after the last fault.
const HEALING_MS: Millis = 60_000;

/// Where more than this part of all messages is lost, it takes twice as long: most answers lack a part.
const MUCH_LOSS: f64 = 0.5;

/// Clocks that are right again are known to be so after this time.
const NOTICED_MS: Millis = 20_000;

/// Virtual time after that in which there has to be a stretch of nothing but heartbeats.
const SETTLING_MS: Millis = 120_000;

/// One round of the sweep over all partitions.
const SWEEP_ROUND_MS: Millis = 12_800;

/// A few small messages pass the slowest link in this time.
const PASSING_MS: Millis = 200;

/// A newcomer may be welcomed by a heartbeat out of turn.
const EXTRA_BEATS: u64 = 3;

/// Exchanges after the last fault between any two nodes; more than there should be.
const REPAIRS_PER_PAIR: u64 = 10;

/// Nodes that have reason to do so compare this often.
const COMPARISON_MS: Millis = 1_000;

/// Those who refuse what others hold compare with them after so many intervals of heartbeats at the earliest.
const WITHHELD_BEATS: u64 = 10;

/// A request that carries the digests of all partitions, and the end of its answer.
const REQUEST_BYTES: u64 = 12_000;

/// Messages of a reconciliation that are small.
const MESSAGES_PER_REPAIR: u64 = 32;

impl World {
    /// Checks everything that has to hold after the last fault.
    pub(crate) fn check(&mut self) {
        let healed = self.now;
        // What is before slow links has to get through, and stamps from the future have to be the past's.
        let limit = healed + self.healing_ms() + self.forgetting_ms() + self.backlog_ms() + self.scenario.far_ms;
        if self.scenario.far_ms > 0 {
            self.new_keys_are_taken(healed + self.healing_ms() + self.backlog_ms());
        }
        self.wait_until_equal(limit);
        // They may have been equal by chance, with messages of a dead process still on their way to some. And a node
        // that heard nothing of a peer for long may be about to forget it, and takes no frames of it until it has
        // proven itself again: by then all have heard a heartbeat that was sent since all is well.
        let underway = self.scenario.max_delay_ms.max(self.scenario.queue_ms) + self.backlog_ms();
        self.run_until(self.now + self.scenario.heartbeat_interval_ms + underway);
        self.wait_until_equal(limit);
        self.outcome.healing_ms = self.now - healed;
        self.tell(|| "all nodes are equal".into());
        if self.scenario.tombstone_ttl_ms.is_none() {
            self.check_state();
        }
        let state = self.state_bytes();
        self.last_deletes();
        if self.scenario.far_ms > 0 {
            // To delete what all hold and was written far ahead takes a stamp that is as far ahead: refused until its
            // time.
            self.wait_until_equal(self.now + self.healing_ms() + self.backlog_ms() + self.scenario.far_ms);
        }
        self.wait_until_quiet();
        self.tell_nodes();
        self.check_state();
        for number in 0..SHARED_KEYS {
            let key = shared_key(number);
            let shown = seen(self.any_cache(), &key, self.later());
            assert_eq!(shown, Seen::Nothing, "{key:?}, which was deleted at the end");
        }
        self.check_effort(state.max(self.state_bytes()));
        if !self.engines.is_empty() {
            self.after_the_last_power_cut();
        }
    }

    /// Each store holds the state of the nodes, if nothing is forgotten and it has kept what it was told.
    fn check_engines(&self, digest: Digest) {
        if self.scenario.tombstone_ttl_ms.is_some() {
            return;
        }
        for (number, engine) in self.engines.iter().enumerate().filter(|(_, engine)| !engine.has_lost) {
            let cache = Cache::new(NodeId(u64::MAX), Limits::default());
            for record in engine.synced() {
                let delta = record.delta().expect("written by a node");
                cache.apply(&delta, self.later()).expect("clocks are good enough");
            }
            assert_eq!(cache.root_digest(), digest, "what store {number} holds");
        }
    }

    /// All that nodes hold is in their stores, then all processes die: what they held is there again.
    fn after_the_last_power_cut(&mut self) {
        let limit = self.now + self.healing_ms();
        while !self.all_is_stored() {
            assert!(self.now < limit, "not all was stored after all was well for so long");
            self.run_until(self.now + 50);
        }
        self.sync_engines();
        let digest = self.any_cache().root_digest();
        self.check_engines(digest);
        self.power_fails();
        self.run_until(self.now + 10_000);
        let limit = self.now + self.healing_ms() + self.forgetting_ms() + self.backlog_ms();
        self.wait_until_equal(limit);
        self.check_state();
        // What an engine has lost that it had acknowledged is not written again before it is compared.
        let has_lost = self.engines.iter().any(|engine| engine.has_lost);
        if self.scenario.tombstone_ttl_ms.is_none() && !has_lost {
            assert_eq!(
                self.any_cache().root_digest(),
                digest,
                "the state of before the last power cut"
            );
        }
        for number in (0..SHARED_KEYS).filter(|_| !has_lost) {
            let key = shared_key(number);
            let shown = seen(self.any_cache(), &key, self.later());
            assert_eq!(
                shown,
                Seen::Nothing,
                "{key:?}, which was deleted before the last power cut"
            );
        }
    }

    /// Clocks are right again: what is written now is taken by all, whatever was written with a clock that was far
    /// ahead.
    fn new_keys_are_taken(&mut self, limit: Millis) {
        // By then all have heard that the clocks of the others are right as well.
        self.run_until(self.now + NOTICED_MS);
        let keys: Vec<(usize, Key)> = self
            .living()
            .map(|place| (place, Key::shared(format!("right again {place}").as_bytes())))
            .collect();
        for (place, key) in &keys {
            let now = self.clock(*place).wall;
            let delta = self.nodes[*place]
                .cache
                .set(key, "value", 0, now)
                .expect("a short value");
            self.outcome.writes += 1;
            self.written_bytes += size(&delta);
            self.nodes[*place].queue.push(delta);
            self.flush(*place);
        }
        let has = |world: &World, place: usize, key: &Key| {
            let now = world.clock(place).wall;
            world.nodes[place].cache.contains(key, now)
        };
        while !self
            .living()
            .all(|place| keys.iter().all(|(_, key)| has(self, place, key)))
        {
            if self.now >= limit {
                self.tell_nodes();
                panic!("what was written when all clocks were right again is not everywhere");
            }
            self.run_until(self.now + 50);
        }
    }

    fn healing_ms(&self) -> Millis {
        match self.scenario.loss > MUCH_LOSS {
            true => 2 * HEALING_MS,
            false => HEALING_MS,
        }
    }

    fn state_bytes(&self) -> u64 {
        deltas(self.any_cache()).iter().map(size).sum()
    }

    /// Repair takes no more than it should for a state of this size.
    fn check_effort(&self, state: u64) {
        let nodes = self.living().count() as u64;
        // While nodes forget deletions at different times, they have reason to compare.
        // What is from the future is asked for again when its time comes, part by part, and seldom before.
        let withheld = self.scenario.far_ms / (WITHHELD_BEATS * self.scenario.heartbeat_interval_ms);
        let per_pair = REPAIRS_PER_PAIR + self.forgetting_ms() / COMPARISON_MS + withheld;
        // What waited for a process that did nothing may be requests, which it then answers.
        let repairs = nodes * (nodes - 1) * per_pair + self.waiting;
        // Frames that are missing are sent again one by one, hardly ever more than one for each write.
        let (frames, frame_bytes) = (self.outcome.writes * nodes, self.written_bytes * nodes);
        let most_bytes = repairs * (REQUEST_BYTES + state) + frame_bytes;
        let most_messages =
            repairs * (2 * (REQUEST_BYTES + state) / self.max_payload as u64 + MESSAGES_PER_REPAIR) + frames;
        let (bytes, messages) = (self.outcome.repair_bytes, self.outcome.repair_messages);
        assert!(
            bytes <= most_bytes && messages <= most_messages,
            "{bytes} bytes of repair in {messages} messages, where {most_bytes} in {most_messages} are plenty for a \
             state of {state}"
        );
    }

    /// The cache of a process that lives; all are equal in the end.
    fn any_cache(&self) -> &Cache {
        let place = self.living().next().expect("two at least");
        &self.nodes[place].cache
    }

    /// Until then nodes may differ because they forget deletions at different times.
    fn forgetting_ms(&self) -> Millis {
        let forgetting = |ttl: Millis| ttl + ttl / 12 + 2 * self.scenario.max_skew_ms + 2 * SWEEP_ROUND_MS;
        self.scenario.tombstone_ttl_ms.map_or(0, forgetting)
    }

    fn equal(&self) -> bool {
        let digest = self.any_cache().root_digest();
        self.living()
            .all(|place| self.nodes[place].cache.root_digest() == digest)
    }

    /// Whether every node is synced and counts all others as its peers.
    fn together(&self) -> bool {
        let ids: BTreeSet<NodeId> = self.living().map(|place| self.nodes[place].cache.node()).collect();
        self.living().all(|place| {
            let status = self.nodes[place].replica.status(self.clock(place));
            let mut known: BTreeSet<NodeId> = status.peers.iter().map(|peer| peer.node).collect();
            known.insert(self.nodes[place].cache.node());
            status.sync == SyncState::Synced && known == ids
        }) && self.all_stores_are_ready()
    }

    fn wait_until_equal(&mut self, limit: Millis) {
        while !self.equal() || !self.together() {
            if self.now >= limit {
                self.tell_nodes();
                panic!(
                    "the nodes are not equal after all was well for so long: {}",
                    self.digests()
                );
            }
            self.run_until(self.now + 50);
        }
    }

    fn digests(&self) -> String {
        let digests: Vec<String> = self
            .living()
            .map(|place| self.nodes[place].cache.root_digest().to_string())
            .collect();
        digests.join(", ")
    }

    /// A client deletes the shared keys: they have to be gone for good.
    fn last_deletes(&mut self) {
        let chosen = self.rng.random_range(0..self.living().count());
        let node = self.living().nth(chosen).expect("one of them");
        let now = self.clock(node).wall;
        for number in 0..SHARED_KEYS {
            let (_, delta) = self.nodes[node]
                .cache
                .delete(&shared_key(number), now)
                .expect("a short key");
            self.nodes[node].queue.push(delta);
        }
        self.flush(node);
        if self.scenario.tombstone_ttl_ms.is_none() && self.scenario.far_ms == 0 {
            // Nothing is lost any more, and no clock runs ahead: the frames do it, no repair is needed.
            // Each of the others may just be sending a message of repair to the same node.
            let others = self.living().count() as Millis;
            let passing = self
                .scenario
                .rate
                .map_or(0, |_| others * PASSING_MS + self.backlog_ms());
            self.run_until(self.now + self.scenario.max_delay_ms + 1 + passing);
            assert!(self.equal(), "writes without any fault arrive: {}", self.digests());
        }
    }

    /// Waits until nothing but heartbeats was sent for a while, and heartbeats no more often than they should.
    fn wait_until_quiet(&mut self) {
        let quiet = self.scenario.quiet_ms;
        let began = self.now + self.forgetting_ms();
        let limit = began + SETTLING_MS;
        // Deletions that are forgotten make traffic; all of them have to be forgotten before.
        self.run_until(began);
        let mut since = self.busy_at.max(began);
        loop {
            let (heartbeats, ticks) = (self.heartbeats, self.ticks);
            self.run_until(since + quiet);
            // Late, and seldom, a node folds the counters of those that are gone for good; the next heartbeats tell it.
            let folded = self.scenario.tombstone_ttl_ms.is_some() && !self.equal();
            if self.busy_at <= since && !folded {
                let nodes = self.living().count() as u64;
                let expected = nodes * (quiet / self.scenario.heartbeat_interval_ms + 1 + EXTRA_BEATS);
                let (heartbeats, ticks) = (self.heartbeats - heartbeats, self.ticks - ticks);
                assert!(
                    heartbeats <= expected,
                    "{heartbeats} heartbeats in {quiet} ms, at most {expected} make sense"
                );
                assert!(
                    ticks <= 4 * expected,
                    "{ticks} ticks in {quiet} ms for {heartbeats} heartbeats"
                );
                break;
            }
            since = if folded { self.now } else { self.busy_at };
            if self.now >= limit {
                self.tell_nodes();
                panic!("the nodes are equal, but go on sending: {}", self.digests());
            }
        }
        self.outcome.settling_ms = since - began;
        assert!(
            self.equal(),
            "the nodes were equal and are not any more: {}",
            self.digests()
        );
    }

    /// All clocks have passed every deadline by then.
    fn later(&self) -> Millis {
        START + self.now + 3_600_000
    }

    fn check_state(&self) {
        let first = self.any_cache();
        let digest = checked_digest(first);
        let state = self.dump(first);
        for place in self.living().skip(1) {
            let cache = &self.nodes[place].cache;
            assert_eq!(checked_digest(cache), digest, "digest of node {place}");
            let other = self.dump(cache);
            if other != state {
                let differs = |(a, b): &(&Delta, &Delta)| a != b;
                let difference = state.iter().zip(&other).find(differs);
                panic!("node {place} has an equal digest, but another state: {difference:?}");
            }
        }
        let sum: i64 = match seen(first, &counter(), self.later()) {
            Seen::Nothing => 0,
            Seen::Scalar(text) => std::str::from_utf8(&text)
                .ok()
                .and_then(|text| text.parse().ok())
                .expect("a number"),
            other => panic!("the counter is {other:?}"),
        };
        let expected = self.expected_sum();
        assert!(
            expected.contains(&sum),
            "the counter is {sum}, of {expected:?} acknowledged"
        );
        for acknowledged in self.surviving() {
            for (key, own) in acknowledged.keys.iter().filter(|(_, own)| !own.given_up) {
                assert_eq!(
                    seen(first, key, self.later()),
                    own.holds,
                    "{key:?}, which one process alone wrote"
                );
            }
        }
        self.check_books(first, self.later());
    }

    /// The full state of a node. A value past its deadline counts as given back.
    fn dump(&self, cache: &Cache) -> Vec<Delta> {
        let later = self.later();
        let mut state = deltas(cache);
        for delta in &mut state {
            if let StateDelta::Put { value, expires_at, .. } = &mut delta.change {
                if expires_at.is_some_and(|deadline| deadline <= later) {
                    *value = value.given_back();
                }
            }
        }
        state
    }

    /// Nothing at all was lost on the way, nobody died before it could tell, and who was told is still there.
    fn gentle(&self) -> bool {
        let outcome = &self.outcome;
        outcome.lost + outcome.crashes + outcome.cuts + outcome.handovers == 0 && outcome.leaves <= 1
    }

    /// What all processes acknowledged whose writes have to be there.
    fn surviving(&self) -> impl Iterator<Item = &Acknowledged> {
        // Where there are stores, the books of those that left say it.
        let departed = self
            .departed
            .iter()
            .filter(|_| self.gentle() && self.engines.is_empty());
        self.nodes.iter().map(|node| &node.acknowledged).chain(departed)
    }

    /// The sums that the shared counter may have. Exactly one, if nobody died whose increments could have died too.
    fn expected_sum(&self) -> RangeInclusive<i64> {
        let survived: i64 = self.surviving().map(|acknowledged| acknowledged.added).sum();
        survived + self.added_and_stored()..=self.added
    }

    fn tell_nodes(&self) {
        for place in self.living() {
            let node = &self.nodes[place];
            let status = node.replica.status(self.clock(place));
            self.tell(|| {
                format!(
                    "node {place} {} {} digest {} floor {} peers {}: {}",
                    node.cache.node(),
                    status.sync,
                    node.cache.root_digest(),
                    node.cache.floor().millis(),
                    status.peers.len(),
                    status.counters
                )
            });
        }
    }
}
