//! Garbage collection: the floor, the sweep, what a node forgets after a long absence, and folding.

use std::sync::atomic::Ordering;

use super::Cache;
use crate::cache::blob::Blob;
use crate::cache::component::Span;
use crate::cache::delta::Delta;
use crate::cache::fold::Fold;
use crate::cache::hash::{KeyHash, Partition, PARTITIONS};
use crate::cache::scalar::Moment;
use crate::cache::stamp::{Millis, NodeId, Time};
use crate::cache::state::State;

/// The floor moves in steps of this part of the tombstone lifetime, so that nodes mostly agree about it.
const FLOOR_STEPS: Millis = 24;

impl Cache {
    /// Deletions stamped before this time are forgotten.
    pub fn floor(&self) -> Time {
        self.floor.time()
    }

    /// Raises the floor to `floor` if that is higher: a peer has collected up to there.
    pub fn raise_floor(&self, floor: Time) {
        self.floor.raise(floor);
    }

    /// The state was kept elsewhere, by somebody who had forgotten deletions up to `floor`. For a while (1/24 of the time
    /// for which deletions are remembered) nothing more is forgotten by its age: others may come up from what they have
    /// kept, and what each of them has deleted has to be told before.
    pub fn loaded(&self, floor: Time, now: Millis) {
        let now = self.clock.now(now);
        self.floor.raise(floor);
        self.floor.keep_until(now + self.limits.tombstone_ttl_ms / FLOOR_STEPS);
    }

    /// Gives back memory of the next `partitions` partitions in turn: values past their deadline, and deletions older
    /// than the tombstone lifetime. Returns how many entries were dropped.
    pub fn sweep(&self, partitions: usize, now: Millis) -> usize {
        self.clock.mend(now);
        let ttl = self.limits.tombstone_ttl_ms;
        let newest = self.clock.now(now).saturating_add(self.limits.max_clock_skew_ms);
        let now = self.clock.certain(now);
        let step = (ttl / FLOOR_STEPS).max(1);
        let due = Time::from_millis(now.saturating_sub(ttl) / step * step);
        self.floor.lower(Time::from_millis(newest.saturating_sub(ttl)), due);
        if !self.floor.is_kept(now) {
            self.floor.raise(due);
        }
        (0..partitions.min(PARTITIONS))
            .map(|_| self.swept.fetch_add(1, Ordering::Relaxed) % PARTITIONS)
            .map(|partition| self.sweep_partition(Partition(partition as u16), now))
            .sum()
    }

    fn sweep_partition(&self, partition: Partition, now: Millis) -> usize {
        let floor = self.floor();
        let moment = Moment { now, floor };
        let due = |_: &[u8], state: State<'_>| state.is_due(moment);
        self.tables.change_all(partition, now, due, |key, state| {
            let swept = state.sweep(KeyHash::of(key), moment);
            (swept.delta, swept.forget)
        })
    }

    /// Drops components in the span, without a trace and as though they had never arrived: those whose hash `to_remove`
    /// accepts and which are stamped before `floor`. Returns how many were dropped. `to_remove` is called with the
    /// partition locked.
    ///
    /// This is for a node that was away for longer than deletions are remembered. What its peers lack of what it holds
    /// from before the floor they have deleted or replaced, and forgotten that they did; so it takes their state
    /// instead of bringing its own back. Merge what the peers hold first: a reset among that decides which counter
    /// entries are still good.
    ///
    /// A counter entry is cumulative, so additions from before the floor cannot be told from later ones. It goes
    /// as well when its newest addition is later than the floor, but its base lies before the floor and is not the
    /// horizon any more, nor fresh: its sum has been folded into a value, or deleted, where that cannot be seen any
    /// more. A dropped reset takes those with it that are on older bases than itself; those on it that stay, because
    /// the peers hold them, count in full here as they do there.
    pub fn forget(&self, span: Span, floor: Time, mut to_remove: impl FnMut(u64) -> bool, now: Millis) -> usize {
        let mut dropped = 0;
        let inside = |key: &[u8], _: State<'_>| span.elements(KeyHash::of(key)).is_some();
        self.tables.change_all(span.partition(), now, inside, |key, state| {
            let hash = KeyHash::of(key);
            let elements = span.elements(hash).expect("asked just before");
            let forgotten = state.forget(hash, &elements, floor, &mut to_remove);
            dropped += forgotten.dropped;
            (forgotten.delta, forgotten.blank)
        });
        dropped
    }

    /// Folds the counters of a partition that hold at least `at_least` entries of nodes that are gone, so that
    /// restarts do not make counters grow without bound. Returns the deltas for the peers; what a reader sees of a
    /// key does not change, here or anywhere.
    ///
    /// An entry can go when its newest addition is stamped before the floor and `may_add` does not accept its node.
    /// `may_add` has to accept every node that may have added something at or after the floor, heard of or not: all
    /// that are present, and all that have left since. This node itself is always accepted. It is called with the
    /// partition locked.
    ///
    /// The key is rewritten by a Put of the total it shows, stamped one tick above the newest entry that goes; a
    /// deadline that has not passed stays. Why that is safe:
    ///
    /// - The stamp lies below the floor, before which all nodes hold everything. So no reset and no component of
    ///   another type is covered that the author has not seen, and anything that is newer than the Put wins over it as
    ///   it would have won over the entries.
    /// - The Put is an *observed reset* (the term of Redis Active-Active): it carries what its total holds of each
    ///   entry that may go on. An entry with additions after the Put's stamp survives it and counts less that; one
    ///   without goes, its sum being in the total. One on a fresh base above the Put's stamp is not in the total.
    /// - Two nodes that fold write two Puts with stamps of their own. The newer one covers the older one, and holds the
    ///   total in full: its author had all that the older one is stamped above.
    ///
    /// Left alone are keys that show no integer, whose total leaves i64, or that hold entries on a reset which has yet
    /// to arrive. Entries from before a deadline that has passed do not count and are not folded: nobody makes new
    /// ones.
    pub fn fold(
        &self,
        partition: Partition,
        at_least: usize,
        now: Millis,
        may_add: impl Fn(NodeId) -> bool,
    ) -> Vec<Delta> {
        let fold = Fold {
            author: self.node(),
            now: self.clock.now(now),
            floor: self.floor(),
            at_least,
            may_add: &may_add,
        };
        let mut deltas = Vec::new();
        let foldable = |_: &[u8], state: State<'_>| matches!(state, State::Large(_));
        self.tables.change_all(partition, now, foldable, |key, state| {
            let Some(change) = state.fold(&fold) else {
                return (0, false);
            };
            let delta = state.apply(KeyHash::of(key), &change);
            let key = Blob::new(key);
            deltas.push(Delta { key, change });
            (delta, false)
        });
        deltas
    }
}
