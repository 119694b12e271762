//! Nodes that were out of contact for longer than deletions are remembered, and what they may give up.

use kvcache_core::cache::Millis;

use crate::world::World;

/// So long two nodes have to have heard each other before one of them is away for long.
const ACQUAINTANCE_MS: Millis = 10_000;

/// So long a node that is back may need until the others have what it wrote: messages are lost, and it is not always at
/// the first attempt that it takes the state of another. Deletions among that age meanwhile.
const RECONCILE_MS: Millis = 10_000;

/// A node that is new among the synced is in contact when it has asked another how it stands and was answered, which
/// needs a heartbeat and perhaps another.
const ASKING_BEATS: Millis = 3;

impl World {
    /// A process starts: nobody has heard of it.
    pub(crate) fn is_new(&mut self, node: usize) {
        self.is_out_of_touch(node);
        let places = self.nodes.len();
        for other in 0..places {
            for pair in [node * places + other, other * places + node] {
                (self.heard[pair], self.met[pair]) = (0, 0);
            }
        }
    }

    /// A node takes a message in.
    pub(crate) fn hears(&mut self, node: usize, message: &[u8]) {
        let Some(author) = message.get(2..10).filter(|_| self.scenario.tombstone_ttl_ms.is_some()) else {
            return;
        };
        let is_author = |other: &usize| self.nodes[*other].cache.node().0.to_le_bytes() == author;
        let places = self.nodes.len();
        let from = (0..places).find(is_author);
        // Both are looked at in any case, so that it is known since when they are synced.
        let from = from.filter(|from| [*from, node].map(|place| self.may_be_in_contact(place)) == [true; 2]);
        if let Some(from) = from {
            let before = [node, from].map(|place| (place, self.was_away(place)));
            let (there, back) = (from * places + node, node * places + from);
            self.heard[there] = self.now;
            if self.heard[back] > 0 && self.met[there] == 0 {
                (self.met[there], self.met[back]) = (self.now, self.now);
            }
            for (place, away) in before {
                if away && !self.was_away(place) {
                    self.nodes[place].returned = Some(self.now);
                    self.may_forget(place);
                }
            }
        }
    }

    /// Whether nodes may now be away for long, `away` or any. If all others join while a node is away, deleted keys may
    /// come back (docs/GUARANTEES.md, "Deletions and long absence"). So each one that stays has to be synced and to
    /// have been in contact with another one for some time, if another one is there.
    pub(crate) fn may_be_away_for_long(&self, away: Option<usize>) -> bool {
        let places = self.nodes.len();
        let up = |place: &usize| self.nodes[*place].up;
        let others = |node: usize| (0..places).filter(up).filter(move |&other| other != node);
        let old = |met: Millis| met > 0 && self.now - met >= ACQUAINTANCE_MS;
        (0..places).filter(up).all(|node| {
            let alone = others(node).next().is_none();
            let acquainted = others(node).any(|other| old(self.met[node * places + other]));
            if self.is_synced(node) {
                alone || acquainted
            } else {
                away == Some(node)
            }
        })
    }

    /// Whether a node is synced, and has been for so long that it knows where others stand.
    fn may_be_in_contact(&mut self, node: usize) -> bool {
        let (now, synced) = (self.now, self.is_synced(node));
        let since = &mut self.nodes[node].synced_since;
        *since = synced.then_some(since.unwrap_or(now));
        since.is_some_and(|since| now - since >= ASKING_BEATS * self.scenario.heartbeat_interval_ms)
    }

    fn is_synced(&self, node: usize) -> bool {
        self.has_joined(node)
    }

    /// Whether a node and any other have not heard each other for about as long as deletions are remembered. Clocks
    /// that are off make that a little shorter.
    fn was_away(&self, node: usize) -> bool {
        let places = self.nodes.len();
        let both = |other: usize| self.heard[node * places + other].min(self.heard[other * places + node]);
        let contact = (0..places).map(both).fold(self.nodes[node].began, Millis::max);
        self.scenario
            .tombstone_ttl_ms
            .is_some_and(|ttl| self.now - contact > ttl * 3 / 4)
    }

    /// A node takes the state of another. It may give up what it wrote before the time from which deletions are
    /// remembered; nothing else, and only if it was out of contact for so long.
    pub(crate) fn give_up(&mut self, node: usize) {
        let ttl = self.scenario.tombstone_ttl_ms.expect("all remember everything");
        // It may not succeed at once.
        let returned = self.nodes[node].returned.is_some_and(|at| self.now - at < ttl);
        assert!(
            returned || self.was_away(node),
            "node {node} gives up what it wrote, but was in contact"
        );
        self.tell(|| format!("node {node} takes the state of another"));
        // What it has loaded may be older than what the others have forgotten.
        self.gave_up = true;
        self.nodes[node].acknowledged.added = 0;
        self.may_forget(node);
    }

    /// What a node that is back wrote, and the others may not have, goes back beyond the time from which deletions are
    /// remembered, or will before they have it.
    fn may_forget(&mut self, node: usize) {
        let ttl = self.scenario.tombstone_ttl_ms.unwrap_or(Millis::MAX);
        let forgotten = (self.now + RECONCILE_MS + 2 * self.scenario.max_skew_ms).saturating_sub(ttl);
        for own in self.nodes[node].acknowledged.keys.values_mut() {
            own.given_up |= own.since <= forgotten;
        }
    }
}
