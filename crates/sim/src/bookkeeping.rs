//! When the books of processes are written, and checked.

use kvcache_core::cache::{Cache, Key, KeyHash, Millis, Partition};

use crate::books::Covered;
use crate::node::Node;
use crate::world::World;

impl Node {
    /// What is known to be stored once all is written that has changed of these partitions.
    pub fn covers(&self, partitions: impl Iterator<Item = Partition>) -> Vec<Covered> {
        let partitions: Vec<Partition> = partitions.collect();
        let is_in = |key: &Key| partitions.contains(&Partition::of(KeyHash::of(key.as_bytes())));
        let mut covered = self.books.covers(is_in);
        if is_in(&crate::clients::counter()) {
            covered.push(Covered::Added(self.acknowledged.added));
        }
        covered
    }
}

impl World {
    /// The store of a node has acknowledged something.
    pub(crate) fn are_stored(&mut self, node: usize, covered: Vec<Covered>) {
        let books = &mut self.nodes[node].books;
        match self.scenario.sync_ms {
            0 => covered.into_iter().for_each(|covered| books.is_stored(covered)),
            _ => books.unsynced.extend(covered),
        }
    }

    /// Engines make durable what they have acknowledged.
    pub(crate) fn sync_engines(&mut self) {
        self.engines.iter_mut().for_each(|engine| engine.sync());
        for node in &mut self.nodes {
            let books = &mut node.books;
            let covered = std::mem::take(&mut books.unsynced);
            covered.into_iter().for_each(|covered| books.is_stored(covered));
        }
    }

    /// What was acknowledged and not synced may be lost.
    pub(crate) fn forget_unsynced(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.books.unsynced.clear());
    }

    /// A process is gone: what it had stored has to outlive it.
    pub(crate) fn close_books(&mut self, node: usize) {
        let books = std::mem::take(&mut self.nodes[node].books);
        self.closed.push(books);
    }

    /// Sum of increments that were stored by processes that are gone.
    pub(crate) fn added_and_stored(&self) -> i64 {
        match self.gave_up {
            true => 0,
            false => self.closed.iter().map(|books| books.added).sum(),
        }
    }

    /// What was stored is there, and nothing that never was.
    pub(crate) fn check_books(&self, cache: &Cache, later: Millis) {
        let closed = self.closed.iter().filter(|_| !self.gave_up);
        let wrong = closed.into_iter().find_map(|books| books.wrong(cache, later));
        assert_eq!(wrong, None);
    }
}
