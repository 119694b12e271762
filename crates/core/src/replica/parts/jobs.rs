//! What peers have asked for: requests that wait, and the answers to be made.

use std::collections::{BTreeMap, VecDeque};

use super::answer::Answer;
use super::now::Now;
use super::task::Named;
use crate::cache::{Cache, NodeId, Span};
use crate::wire::{Request, MAX_BUDGET};

/// Requests that wait to be answered, of one peer and in all. What is beyond is asked for again.
const MAX_WAITING: usize = 32;
const MAX_ALL_WAITING: usize = 1_024;

/// What peers have asked for and is not answered yet. One after the other is answered, of the peers in turn.
#[derive(Default)]
pub(crate) struct Jobs {
    waiting: BTreeMap<NodeId, VecDeque<Request>>,
    /// Those that wait, in the order in which they are answered.
    turns: VecDeque<NodeId>,
    count: usize,
    /// An answer is being made.
    busy: bool,
}

impl Jobs {
    pub fn add(&mut self, node: NodeId, request: Request) {
        let of_node = self.waiting.get(&node).map_or(0, VecDeque::len);
        if of_node >= MAX_WAITING || self.count >= MAX_ALL_WAITING {
            return;
        }
        if of_node == 0 {
            self.turns.push_back(node);
        }
        self.count += 1;
        self.waiting.entry(node).or_default().push_back(request);
    }

    /// The next one, if none is being answered.
    pub fn next(&mut self) -> Option<(NodeId, Request)> {
        if self.busy {
            return None;
        }
        let node = self.turns.pop_front()?;
        let requests = self.waiting.get_mut(&node)?;
        let request = requests.pop_front()?;
        self.count -= 1;
        match requests.is_empty() {
            true => {
                self.waiting.remove(&node);
            }
            false => self.turns.push_back(node),
        }
        Some((node, request))
    }

    pub fn begin(&mut self) {
        self.busy = true;
    }

    pub fn end(&mut self) {
        self.busy = false;
    }

    pub fn clear(&mut self) {
        self.waiting.clear();
        self.turns.clear();
        self.count = 0;
    }
}

/// An answer to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Job {
    node: NodeId,
    request: Request,
    version: u8,
    max_bytes: usize,
    seqs: Vec<(NodeId, u64)>,
    now: Now,
}

/// What a peer has that this node lacks, as its request shows.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) enum Lacking {
    #[default]
    Nothing,
    Spans(Vec<Span>),
    Named(Named),
}

/// An answer that was made.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Answered {
    pub(crate) node: NodeId,
    /// Without authenticators.
    pub(crate) messages: Vec<Vec<u8>>,
    pub(crate) lacking: Lacking,
}

impl Job {
    /// An answer of what the cache holds from now on, which has the effect of the frames in `seqs`.
    pub(crate) fn new(
        (node, request): (NodeId, Request),
        version: u8,
        max_bytes: usize,
        seqs: Vec<(NodeId, u64)>,
        now: Now,
    ) -> Self {
        Job {
            node,
            request,
            version,
            max_bytes,
            seqs,
            now,
        }
    }

    /// Makes the answer out of what the cache of this node holds.
    pub fn run(self, cache: &Cache) -> Answered {
        let to = (self.node, self.request.number());
        let sizes = (self.max_bytes, self.request.budget().unwrap_or(MAX_BUDGET as u64));
        let answer = Answer::new(cache, to, self.version, sizes, self.seqs);
        let (messages, lacking) = match &self.request {
            Request::Bootstrap(request) => (answer.partitions(request), Lacking::Nothing),
            Request::DigestRequest(digest_request) => {
                (answer.digest_request(digest_request, self.now), Lacking::Nothing)
            }
            Request::Symbols(request) => (answer.symbols(request), Lacking::Nothing),
            Request::Compare(compare) => (answer.compare(compare), Lacking::Nothing),
            Request::Fetch(fetch) => {
                let (messages, spans) = answer.fetch(fetch);
                (messages, Lacking::Spans(spans))
            }
            Request::Reconcile(reconcile) => {
                let (messages, named) = answer.reconcile(reconcile);
                (messages, named.map_or(Lacking::Nothing, Lacking::Named))
            }
            // Frames are not in the cache.
            Request::Frames(_) => (Vec::new(), Lacking::Nothing),
        };
        Answered {
            node: self.node,
            messages,
            lacking,
        }
    }
}
