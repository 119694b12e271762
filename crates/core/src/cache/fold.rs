//! Folding: the counter entries of processes that are gone become part of the value they add up to.
//!
//! Every process start is a node of its own with entries of its own, so without this a counter would grow by one entry
//! with each restart of a process that adds to it. [`super::Cache::fold`] says what it relies on; here is the
//! arithmetic.
//!
//! A fold is a reset stamped just above the newest entry it does away with, with the total its author shows. By the
//! rule of the observed reset, an entry that survives it counts less what the author had seen of it. So at a node that
//! has the same entries as the author the total stays what it was, and at one where an entry has grown meanwhile the
//! total is that much larger, as it was before. An entry on a base that is newer than the reset ([`Base::fresh`]) goes
//! on counting in full, and is no part of the total.

use std::collections::BTreeMap;

use super::add_entry::{AddEntry, SeenAdd};
use super::blob::Blob;
use super::delta::{StateDelta, Value};
use super::horizon::{Base, Horizon};
use super::scalar::{parse_integer, Moment, Reading, Scalar};
use super::stamp::{Millis, NodeId, Stamp, Time};

/// When to fold, and whose entries.
pub(super) struct Fold<'a> {
    /// The author of the reset.
    pub author: NodeId,
    pub now: Millis,
    /// All nodes hold everything stamped before this time.
    pub floor: Time,
    /// With fewer entries of gone nodes a counter is left alone.
    pub at_least: usize,
    /// Whether a node may have added anything at or after the floor, or may yet do so.
    pub may_add: &'a dyn Fn(NodeId) -> bool,
}

impl Fold<'_> {
    fn adds(&self, node: NodeId) -> bool {
        node == self.author || (self.may_add)(node)
    }

    /// An entry that nobody will change any more, and that every node holds. The reset is stamped one tick above the
    /// newest of these, and has to lie below the floor itself.
    fn is_gone(&self, entry: &AddEntry) -> bool {
        entry.last.time.0 + 1 < self.floor.0 && !self.adds(entry.node)
    }

    /// The reset that folds a counter, if it is time for that.
    pub fn of(&self, scalar: &Scalar, horizon: Horizon) -> Option<StateDelta> {
        // A reset that these entries build upon is not here: nothing certain is known about the total.
        let unknown = |entry: &AddEntry| entry.base.horizon() > horizon && !entry.base.is_fresh();
        if scalar.adds.len() < self.at_least || scalar.adds.iter().any(unknown) {
            return None;
        }
        let reading = self.reading(scalar, horizon);
        let gone = |entry: &&AddEntry| self.is_gone(entry) && scalar.counted(entry, reading).is_some();
        if scalar.adds.iter().filter(gone).count() < self.at_least {
            return None;
        }
        let newest = scalar.adds.iter().filter(gone).map(|entry| entry.last).max()?;
        // Not the stamp of that entry itself: two nodes that fold the same entries may have seen different sums of
        // those that go on, and equal stamps have to mean equal content.
        let at = Stamp {
            time: Time(newest.time.0 + 1),
            node: self.author,
        };
        if at <= horizon.stamp {
            return None;
        }
        let start = match scalar.bytes().filter(|_| !reading.expired) {
            Some(text) => parse_integer(text)?,
            None => 0,
        };
        let total = scalar
            .adds
            .iter()
            .filter(|entry| entry.base.stamp < at)
            .filter_map(|entry| scalar.counted(entry, reading))
            .fold(i128::from(start), |total, counted| total + counted);
        let total = i64::try_from(total).ok()?;
        Some(StateDelta::Put {
            at,
            value: Value::Held(Blob::from(&*total.to_string())),
            // What is added after the deadline has none.
            expires_at: scalar.expires_at.filter(|_| !reading.expired),
            seen: self.seen(scalar, horizon, at),
        })
    }

    fn reading(&self, scalar: &Scalar, horizon: Horizon) -> Reading {
        let (now, floor) = (self.now, self.floor);
        scalar.reading(horizon, Moment { now, floor })
    }

    /// What the total holds of entries of which some node may have, or come to have, a version stamped after `at`. In
    /// the order of nodes and bases.
    fn seen(&self, scalar: &Scalar, horizon: Horizon, at: Stamp) -> Vec<SeenAdd> {
        let reading = self.reading(scalar, horizon);
        let left = self.left(scalar);
        let left = |node: NodeId, base: Base| left.get(&node).is_some_and(|later| base < *later);
        let below = scalar.adds.iter().filter(|entry| entry.base.stamp < at);
        let held = below.filter_map(|entry| {
            let (node, base) = (entry.node, entry.base);
            let outlived = entry.last <= at && (!self.adds(node) && self.is_gone(entry) || left(node, base));
            let sum = match scalar.counted(entry, reading) {
                Some(_) => entry.sum,
                None => scalar.seen_sum(node, base),
            };
            (!outlived && sum != 0).then_some(SeenAdd { node, base, sum })
        });
        // Entries that were dropped here because an earlier reset covers them, but whose node may have gone on before
        // that reset reached it.
        let dropped = scalar.seen.iter().filter(|seen| {
            let held = scalar.adds.contains(seen.node, seen.base);
            !held && self.adds(seen.node) && !left(seen.node, seen.base)
        });
        let mut seen: Vec<SeenAdd> = held.chain(dropped.copied()).collect();
        seen.sort_unstable_by_key(|seen| (seen.node, seen.base));
        seen
    }

    /// Per node the newest base on which it has added before the floor: it is known to have stopped adding on earlier
    /// ones. All it ever added there is stamped before the floor, and every node holds that.
    fn left(&self, scalar: &Scalar) -> BTreeMap<NodeId, Base> {
        let before_floor = scalar.adds.iter().filter(|entry| entry.last.time < self.floor);
        // Sorted by base within a node: the last one stays.
        before_floor.map(|entry| (entry.node, entry.base)).collect()
    }
}
