//! What was in a store when a process died has to be there at the end, or something newer of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use kvcache_core::cache::{Cache, Key, Millis};

use crate::client::{seen, Seen};

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
                // Of two items that are equal, one may have gone and the other not have come.
                let twice = |item: &&Bytes| {
                    since
                        .iter()
                        .any(|state| of(state).iter().filter(|other| other == item).count() > 1)
                };
                let lasting = since.first().into_iter().flat_map(of).filter(all);
                let lasting = lasting.filter(|item| !twice(item));
                lasting.into_iter().all(|item| shown.contains(item))
                    && shown
                        .iter()
                        .all(|item| since.iter().any(|state| of(state).contains(item)))
            }
            // A number is a value and what was added to it, each stored for itself.
            false => since.contains(shown) || since.len() > 1 && matches!(shown, Seen::Scalar(_)),
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
    pub added: i64,
    /// What its store has acknowledged and not synced.
    pub unsynced: Vec<Covered>,
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

    /// What is known to be stored of these keys once all is written that has changed of them.
    pub fn covers(&self, is_in: impl Fn(&Key) -> bool) -> Vec<Covered> {
        let keys = self.keys.iter().filter(|(key, _)| is_in(key));
        keys.map(|(key, history)| Covered::Key(key.clone(), history.states.len() - 1))
            .collect()
    }

    pub fn is_stored(&mut self, covered: Covered) {
        match covered {
            Covered::Key(key, writes) => {
                let stored = &mut self.keys.get_mut(&key).expect("a key of its own").stored;
                *stored = (*stored).max(writes);
            }
            Covered::Added(sum) => self.added = self.added.max(sum),
        }
    }

    pub fn wrong(&self, cache: &Cache, later: Millis) -> Option<String> {
        self.keys.iter().find_map(|(key, history)| {
            let wrong = history.wrong(&seen(cache, key, later))?;
            Some(format!("{key:?} of a process that is gone {wrong}"))
        })
    }
}
