//! What is remembered of nodes so that recordings of their messages are known as such.

use std::collections::{BTreeMap, BTreeSet};

use crate::cache::{Millis, NodeId, Time};

/// Requests may overtake each other by so many.
const MAX_REORDERED: usize = 64;

/// A request is older than what a heartbeat of so long ago says: it is a recording.
const REQUEST_AGE_MS: Millis = 30_000;

/// Which requests of a node were taken. Each counts once, and none that it made long ago.
#[derive(Default, Debug)]
pub(crate) struct Taken {
    /// All up to this one count no more.
    old: u64,
    numbers: BTreeSet<u64>,
    /// A number that the node had reached at a time: those up to it are old when that is long ago.
    reached: (u64, Millis),
}

impl Taken {
    pub fn takes(&self, number: u64) -> bool {
        number > self.old && !self.numbers.contains(&number)
    }

    pub fn take(&mut self, number: u64) -> bool {
        let takes = self.takes(number);
        if takes {
            self.numbers.insert(number);
            if self.numbers.len() > MAX_REORDERED {
                self.old = self.numbers.pop_first().unwrap_or(self.old);
            }
        }
        takes
    }

    /// The node has used all numbers up to this one by now.
    pub fn reached(&mut self, number: u64, now: Millis) {
        if now.saturating_sub(self.reached.1) >= REQUEST_AGE_MS {
            self.old = self.old.max(self.reached.0);
            self.numbers = self.numbers.split_off(&(self.old + 1));
            self.reached = (number, now);
        }
    }
}

/// What a message tells about the time at which it was sent, which a recording cannot change.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Sent {
    /// A number that its sender never used before.
    pub number: Option<u64>,
    /// Its sender's clock, as far as it can be right; 0 if it does not say.
    pub clock: Time,
    /// It answers what was asked of late.
    pub asked: bool,
}

/// Nodes that are gone: when they went, and the newest number they had used.
#[derive(Debug)]
pub(crate) struct Memory {
    nodes: BTreeMap<NodeId, (Millis, u64)>,
    /// The one that went first, first.
    by_time: BTreeSet<(Millis, NodeId)>,
    most: usize,
}

impl Memory {
    pub fn of(most: usize) -> Self {
        Memory {
            nodes: BTreeMap::new(),
            by_time: BTreeSet::new(),
            most,
        }
    }

    pub fn get(&self, node: NodeId) -> Option<(Millis, u64)> {
        self.nodes.get(&node).copied()
    }

    pub fn remember(&mut self, node: NodeId, now: Millis, number: u64) {
        let number = self.forget(node).map_or(number, |(_, known)| known.max(number));
        if self.nodes.len() >= self.most {
            self.by_time
                .pop_first()
                .and_then(|(_, oldest)| self.nodes.remove(&oldest));
        }
        self.nodes.insert(node, (now, number));
        self.by_time.insert((now, node));
    }

    pub fn forget(&mut self, node: NodeId) -> Option<(Millis, u64)> {
        let (at, number) = self.nodes.remove(&node)?;
        self.by_time.remove(&(at, node));
        Some((at, number))
    }

    /// Forgets those who went at `until` or before.
    pub fn forget_until(&mut self, until: Millis) {
        while self.by_time.first().is_some_and(|(at, _)| *at <= until) {
            self.by_time.pop_first().and_then(|(_, node)| self.nodes.remove(&node));
        }
    }
}
