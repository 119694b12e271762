//! What was in a store when a process died has to be there at the end, or something newer of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use kvcache_core::cache::{Cache, Key, KeyHash, Millis, Partition};

use crate::client::{seen, Seen};
use crate::node::Node;
use crate::world::World;

/// What a key held that one process alone wrote, after each write.
pub(crate) struct History {
    states: Vec<Seen>,
    /// Which of these is known to be stored, or something newer.
    stored: usize,
}

impl Default for History {
    fn default() -> Self {
        History {
            states: vec![Seen::Nothing],
            stored: 0,
        }
    }
}

impl History {
    /// What is wrong with what the key holds now.
    fn wrong(&self, shown: &Seen) -> Option<String> {
        let since = &self.states[self.stored..];
        let elements = since.iter().any(|state| matches!(state, Seen::List(_) | Seen::Set(_)));
        let is_right = match elements {
            // Elements are stored each for itself.
            true => {
                let shown = of(shown);
                let all = |item: &&Bytes| since.iter().all(|state| of(state).contains(item));
                let lasting = since.first().into_iter().flat_map(of).filter(all);
                lasting.into_iter().all(|item| shown.contains(item))
                    && shown
                        .iter()
                        .all(|item| since.iter().any(|state| of(state).contains(item)))
            }
            false => since.contains(shown),
        };
        (!is_right).then(|| format!("holds {shown:?}, and since it was stored it has held {since:?}"))
    }
}

fn of(state: &Seen) -> &[Bytes] {
    match state {
        Seen::List(items) | Seen::Set(items) => items,
        Seen::Nothing | Seen::Scalar(_) => &[],
    }
}

/// What a process wrote.
#[derive(Default)]
pub(crate) struct Books {
    keys: BTreeMap<Key, History>,
    /// Sum of its increments of the shared counter that are known to be stored.
    added: i64,
    /// What its store has acknowledged and not synced.
    unsynced: Vec<Covered>,
}

/// What is in the store when an operation is done.
#[derive(Clone)]
pub(crate) enum Covered {
    /// A key as it was after so many writes.
    Key(Key, usize),
    /// The shared counter.
    Added(i64),
}

impl Books {
    /// A key that this process alone writes holds this now.
    pub fn note(&mut self, key: &Key, holds: &Seen) {
        let history = self.keys.entry(key.clone()).or_default();
        history.states.push(holds.clone());
    }

    fn is_stored(&mut self, covered: Covered) {
        match covered {
            Covered::Key(key, writes) => {
                let stored = &mut self.keys.get_mut(&key).expect("a key of its own").stored;
                *stored = (*stored).max(writes);
            }
            Covered::Added(sum) => self.added = self.added.max(sum),
        }
    }

    fn wrong(&self, cache: &Cache, later: Millis) -> Option<String> {
        self.keys.iter().find_map(|(key, history)| {
            let wrong = history.wrong(&seen(cache, key, later))?;
            Some(format!("{key:?} of a process that is gone {wrong}"))
        })
    }
}

impl Node {
    /// What is known to be stored once all is written that has changed of these partitions.
    pub fn covers(&self, partitions: impl Iterator<Item = Partition>) -> Vec<Covered> {
        let partitions: Vec<Partition> = partitions.collect();
        let is_in = |key: &Key| partitions.contains(&Partition::of(KeyHash::of(key.as_bytes())));
        let keys = self.books.keys.iter().filter(|(key, _)| is_in(key));
        let mut covered: Vec<Covered> = keys
            .map(|(key, history)| Covered::Key(key.clone(), history.states.len() - 1))
            .collect();
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
