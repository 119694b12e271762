//! What pulls ask for, and why.

use crate::cache::{Cursor, NodeId, Partition, Span, Time};
use crate::wire::{RangeSplit, Sketch, Symbol};

/// Why a node pulls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// The bootstrap, from whichever synced peer NATS picks.
    Bootstrap,
    /// Frames of a peer are missing that it no longer keeps.
    Gap(NodeId),
    /// Frames of a peer that is gone are missing; this one may have them.
    Departed(NodeId),
    /// This node was alone and has met this one: their states become one.
    Meeting(NodeId),
    /// Digests differ although no frame is missing; only partitions at rest are compared.
    Difference(NodeId),
    /// What was refused of this peer may be taken by now.
    Withheld(NodeId),
    /// A peer that compares with this node holds what this one lacks.
    Reverse(NodeId),
    /// This node was away for longer than deletions are remembered: it takes the state of this peer, whose floor is
    /// given.
    Resync(NodeId, Time),
}

impl Purpose {
    pub fn peer(self) -> Option<NodeId> {
        match self {
            Purpose::Bootstrap => None,
            Purpose::Gap(node)
            | Purpose::Departed(node)
            | Purpose::Meeting(node)
            | Purpose::Difference(node)
            | Purpose::Withheld(node)
            | Purpose::Reverse(node)
            | Purpose::Resync(node, _) => Some(node),
        }
    }

    /// Whether partitions are compared by a digest request, with a sketch as the likely answer. The others need most of
    /// what they ask for, or have to be sure that nothing is left out by chance.
    pub fn sends_digests(self) -> bool {
        match self {
            Purpose::Gap(_)
            | Purpose::Departed(_)
            | Purpose::Meeting(_)
            | Purpose::Difference(_)
            | Purpose::Withheld(_) => true,
            Purpose::Bootstrap | Purpose::Reverse(_) | Purpose::Resync(..) => false,
        }
    }
}

/// A range of partitions, the end excluded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Range {
    pub from: u16,
    pub to: u16,
}

/// What is asked for in one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Task {
    /// The partitions whose digests differ.
    Partitions(Range),
    /// What is left of a partition that one node has answered in part.
    Rest(Rest),
    /// Further symbols of a sketch.
    Sketch(Sketched),
    /// Components that differ, by their hashes.
    Reconcile(Named),
    /// Spans known to differ, to be split further.
    Compare(Vec<Span>),
    /// Spans to be fetched, and (false) spans that the peer lacks altogether.
    Fetch(Vec<(Span, bool)>),
}

/// A partition that was too large for one answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rest {
    pub partition: Partition,
    /// Who has answered so far. Nobody else can go on from there.
    pub node: NodeId,
    pub from: Cursor,
}

/// What is known of a sketch that needs further symbols.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Sketched {
    pub partitions: Vec<Partition>,
    /// The symbols of the peer from index 0 on.
    pub theirs: Vec<Symbol>,
    /// How many to ask for.
    pub count: usize,
    /// How often further symbols have been asked for, this time included.
    pub round: u32,
}

/// Components by their hashes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Named {
    /// Where they are.
    pub partitions: Vec<Partition>,
    /// Those that the peer has and this node lacks.
    pub wanted: Vec<u64>,
    /// Those that this node has and the peer lacks.
    pub offered: Vec<u64>,
    /// So many of the partitions have been answered.
    pub done: usize,
}

impl Named {
    pub fn new(partitions: Vec<Partition>, wanted: Vec<u64>, offered: Vec<u64>) -> Self {
        Named {
            partitions,
            wanted,
            offered,
            done: 0,
        }
    }
}

impl Task {
    /// Whether a sketch answers the task, given whether it began as a digest request.
    pub fn wants(&self, sketch: &Sketch, sends_digests: bool) -> bool {
        match self {
            Task::Partitions(range) => {
                let inside = |partition: &Partition| (range.from..range.to).contains(&partition.0);
                sends_digests && sketch.first == 0 && sketch.partitions.iter().all(inside)
            }
            Task::Sketch(known) => sketch.first == known.theirs.len() && sketch.partitions == known.partitions,
            Task::Rest(_) | Task::Reconcile(_) | Task::Compare(_) | Task::Fetch(_) => false,
        }
    }

    /// The task to be asked of others, from its beginning.
    pub fn anew(self) -> Task {
        match self {
            Task::Rest(Rest { partition, .. }) => Task::Partitions(Range {
                from: partition.0,
                to: partition.0 + 1,
            }),
            task => task,
        }
    }

    /// Whether only this node can answer.
    pub fn is_for(&self, node: NodeId) -> bool {
        matches!(self, Task::Rest(rest) if rest.node == node)
    }

    /// Whether a split of this span answers the task.
    pub fn covers(&self, span: Span) -> bool {
        match self {
            Task::Partitions(range) => {
                let partition = span.partition();
                (range.from..range.to).contains(&partition.0) && span == Span::of(partition)
            }
            Task::Compare(spans) => spans.contains(&span),
            Task::Rest(_) | Task::Sketch(_) | Task::Reconcile(_) | Task::Fetch(_) => false,
        }
    }
}

/// The tasks that follow from how a peer splits what differs.
pub(crate) struct FollowUp {
    /// Spans of one request together ask and answer about this many bytes.
    most: usize,
    compare: Vec<Span>,
    fetch: Vec<(Span, bool)>,
    weight: usize,
    tasks: Vec<Task>,
}

/// Spans of one request together ask and answer about this many bytes at least and at most.
const MIN_TASK_WEIGHT: usize = 32 << 10;
const TASK_WEIGHT: usize = 128 << 10;

/// What one span costs in a request or answer, about.
const SPAN_WEIGHT: usize = 1 << 10;

/// What a component costs whose delta has to be sent, about.
const DELTA_WEIGHT: usize = 96;

/// A span with at most so many components on both sides is fetched by naming them.
const MAX_NAMED: u64 = 192;

impl FollowUp {
    /// Tasks of about `budget` bytes each, unless that is little or much.
    pub fn of(budget: usize) -> Self {
        FollowUp {
            most: budget.clamp(MIN_TASK_WEIGHT, TASK_WEIGHT),
            compare: Vec::new(),
            fetch: Vec::new(),
            weight: 0,
            tasks: Vec::new(),
        }
    }

    /// A span to be split further.
    pub fn compare(&mut self, span: Span) {
        self.compare.push(span);
        if self.compare.len() * SPAN_WEIGHT >= self.most {
            self.tasks.push(Task::Compare(std::mem::take(&mut self.compare)));
        }
    }

    /// A span in which digests differ; `here` and `there` are the numbers of components. `final_` if splitting it again
    /// would give the same span.
    pub fn differs(&mut self, span: Span, here: u64, there: u64, final_: bool) {
        if there == 0 {
            self.fetch(span, false, SPAN_WEIGHT);
        } else if here == 0 {
            self.fetch(span, true, (there as usize).saturating_mul(DELTA_WEIGHT));
        } else if final_ || here.saturating_add(there) <= MAX_NAMED {
            // `there` is what the peer says, and may be any number.
            let named = here.saturating_add(there) as usize;
            self.fetch(span, true, named.saturating_mul(8).saturating_add(SPAN_WEIGHT));
        } else {
            self.compare(span);
        }
    }

    /// A span to be fetched, or offered.
    pub fn fetch(&mut self, span: Span, wanted: bool, weight: usize) {
        self.fetch.push((span, wanted));
        self.weight = self.weight.saturating_add(weight);
        if self.weight >= self.most {
            self.weight = 0;
            self.tasks.push(Task::Fetch(std::mem::take(&mut self.fetch)));
        }
    }

    pub fn tasks(mut self) -> Vec<Task> {
        if !self.compare.is_empty() {
            self.tasks.push(Task::Compare(self.compare));
        }
        if !self.fetch.is_empty() {
            self.tasks.push(Task::Fetch(self.fetch));
        }
        self.tasks
    }
}

/// A split that leaves its span whole.
pub(crate) fn is_whole(split: &RangeSplit) -> bool {
    split.parts.len() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_counts_may_be_any_number() {
        let whole = Span::of(Partition(3));
        for (here, there) in [(1, u64::MAX), (0, u64::MAX), (u64::MAX, u64::MAX), (u64::MAX, 1)] {
            for last in [false, true] {
                let mut follow = FollowUp::of(1 << 20);
                // Twice: weights are added up.
                follow.differs(whole, here, there, last);
                follow.differs(whole, here, there, last);
                let spans = |task: &Task| match task {
                    Task::Compare(spans) => spans.len(),
                    Task::Fetch(spans) => spans.len(),
                    _ => 0,
                };
                assert_eq!(follow.tasks().iter().map(spans).sum::<usize>(), 2);
            }
        }
    }
}
