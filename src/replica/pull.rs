//! The asking side of a replay: range after range with a small window, so that the responder keeps no state and one
//! that dies is replaced by any other for the next range.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::wire::ReplayEnd;
use crate::cache::{Millis, NodeId, PARTITIONS};

/// Requests under way at once.
const WINDOW: usize = 4;

/// A request without a word for this long is asked again.
const PATIENCE_MS: Millis = 2_000;

/// Failed requests after which a pull from one certain peer is given up.
const MAX_FAILURES: u32 = 4;

/// Why a node pulls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// The first replay, from whichever synced peer NATS picks.
    FirstReplay,
    /// Frames of a peer are missing.
    Gap(NodeId),
    /// Frames of a peer that is gone are missing; this one may have them.
    Orphan(NodeId),
    /// Digests differ although no frame is missing; only partitions at rest are compared.
    Difference(NodeId),
}

impl Purpose {
    pub fn peer(self) -> Option<NodeId> {
        match self {
            Purpose::FirstReplay => None,
            Purpose::Gap(node) | Purpose::Orphan(node) | Purpose::Difference(node) => Some(node),
        }
    }
}

/// A range of partitions, the end excluded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Range {
    pub from: u16,
    pub to: u16,
}

struct Lane {
    range: Range,
    /// Which parts of the answer have arrived.
    received: BTreeSet<u64>,
    /// The end, which may overtake them.
    end: Option<ReplayEnd>,
    deadline: Millis,
}

impl Lane {
    fn complete(&self) -> bool {
        self.end
            .as_ref()
            .is_some_and(|end| self.received.range(..end.messages).count() as u64 == end.messages)
    }
}

/// What became of a pull after an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    Running,
    Done,
    Failed,
}

pub(super) struct Pull {
    pub purpose: Purpose,
    todo: VecDeque<Range>,
    lanes: BTreeMap<u64, Lane>,
    failures: u32,
    /// Some responder has answered something.
    pub answered: bool,
    /// Per responder the oldest frame number its answers stand for.
    pub seqs: BTreeMap<NodeId, u64>,
}

impl Pull {
    pub fn new(purpose: Purpose) -> Self {
        let step = PARTITIONS / WINDOW;
        let range = |lane: usize| Range {
            from: (lane * step) as u16,
            to: ((lane + 1) * step) as u16,
        };
        Pull {
            purpose,
            todo: (0..WINDOW).map(range).collect(),
            lanes: BTreeMap::new(),
            failures: 0,
            answered: false,
            seqs: BTreeMap::new(),
        }
    }

    /// The next range to ask for, of `most` partitions at most, if the window has room. The caller sends it as
    /// `request`.
    pub fn next_request(&mut self, request: u64, most: u16, now: Millis) -> Option<Range> {
        if self.lanes.len() >= WINDOW {
            return None;
        }
        let mut range = self.todo.pop_front()?;
        if range.to - range.from > most {
            self.todo.push_front(Range {
                from: range.from + most,
                ..range
            });
            range.to = range.from + most;
        }
        self.lanes.insert(
            request,
            Lane {
                range,
                received: BTreeSet::new(),
                end: None,
                deadline: now + PATIENCE_MS,
            },
        );
        Some(range)
    }

    /// Part `index` of an answer has arrived.
    pub fn commands(&mut self, request: u64, index: u64, now: Millis) -> Progress {
        let Some(lane) = self.lanes.get_mut(&request) else {
            return Progress::Running;
        };
        lane.received.insert(index);
        lane.deadline = now + PATIENCE_MS;
        self.answered = true;
        self.close(request)
    }

    /// The end of an answer has arrived.
    pub fn end(&mut self, end: ReplayEnd) -> Progress {
        let request = end.request;
        let Some(lane) = self.lanes.get_mut(&request) else {
            return Progress::Running;
        };
        lane.end = Some(end);
        self.answered = true;
        self.close(request)
    }

    /// Closes a request when its whole answer is here. What is missing is waited for, then asked for again.
    fn close(&mut self, request: u64) -> Progress {
        if !self.lanes.get(&request).is_some_and(Lane::complete) {
            return Progress::Running;
        }
        let Some(Lane {
            range, end: Some(end), ..
        }) = self.lanes.remove(&request)
        else {
            return Progress::Running;
        };
        if end.next <= range.from {
            return self.failed(range);
        }
        self.seqs
            .entry(end.node)
            .and_modify(|seq| *seq = (*seq).min(end.seq))
            .or_insert(end.seq);
        if end.next < range.to {
            self.todo.push_front(Range {
                from: end.next,
                to: range.to,
            });
        }
        self.progress()
    }

    /// Whether the request is one of this pull that is under way.
    pub fn has_request(&self, request: u64) -> bool {
        self.lanes.contains_key(&request)
    }

    /// Asks again for what has not been answered in time.
    pub fn tick(&mut self, now: Millis) -> Progress {
        let late: Vec<u64> = self
            .lanes
            .iter()
            .filter(|(_, lane)| now >= lane.deadline)
            .map(|(request, _)| *request)
            .collect();
        for request in late {
            if let Some(lane) = self.lanes.remove(&request) {
                if self.failed(lane.range) == Progress::Failed {
                    return Progress::Failed;
                }
            }
        }
        self.progress()
    }

    fn failed(&mut self, range: Range) -> Progress {
        self.failures += 1;
        self.todo.push_back(range);
        if self.purpose.peer().is_some() && self.failures >= MAX_FAILURES {
            return Progress::Failed;
        }
        Progress::Running
    }

    fn progress(&self) -> Progress {
        if self.todo.is_empty() && self.lanes.is_empty() {
            Progress::Done
        } else {
            Progress::Running
        }
    }

    pub fn deadline(&self) -> Option<Millis> {
        self.lanes.values().map(|lane| lane.deadline).min()
    }
}
