//! What this node asks of its peers: the requests of its pulls.

use std::collections::BTreeSet;

use crate::cache::{NodeId, Partition, Span, PARTITIONS};
use crate::replica::io::Target;
use crate::replica::machine::Replica;
use crate::replica::parts::held::{digest_of, Held};
use crate::replica::parts::now::Now;
use crate::replica::parts::peer::Peer;
use crate::replica::parts::pull::Pull;
use crate::replica::parts::pulls::NextRequest;
use crate::replica::parts::sketch;
use crate::replica::parts::task::{Named, Purpose, Range, Rest, Sketched, Task};
use crate::wire::{
    self, BootstrapRequest, Compare, DigestRequest, Fetch, Holding, Message, Offer, Reconcile, SketchRequest, Want,
};

/// Least bytes asked for in a reconciliation.
const RECONCILE_BYTES: u64 = 256 << 10;

impl Replica {
    /// Sends requests while the windows have room.
    pub(crate) fn send_requests(&mut self, now: Now) {
        if !self.connected {
            return;
        }
        while let Some((request, next)) = self.next_request(now) {
            let NextRequest {
                purpose,
                doubtful,
                task,
                budget,
            } = next;
            let peer = match &task {
                Task::Rest(rest) => Some(rest.node),
                _ => purpose.peer(),
            };
            let message = self.request(purpose, request, task, budget as u64);
            let to = match peer {
                Some(node) => Target::Node(node),
                // One that is known to be there, should those that NATS picks not answer.
                None => match self.known_to_answer().filter(|_| doubtful) {
                    Some(node) => Target::Node(node),
                    None => Target::Bootstrap { request },
                },
            };
            if let Target::Bootstrap { request } = to {
                self.search.asked(request);
            }
            self.send(to, &message);
        }
    }

    /// A synced peer: the one that has answered a bootstrap, if one has.
    fn known_to_answer(&self) -> Option<NodeId> {
        let answers = self.pulls.own().and_then(Pull::answers);
        let answers = answers.filter(|node| self.peers.get(*node).is_some_and(Peer::synced));
        answers.or_else(|| self.peers.synced().next().map(|(node, _)| node))
    }

    /// The next request that is to be sent, with its number.
    fn next_request(&mut self, now: Now) -> Option<(u64, NextRequest)> {
        if self.pulls.is_empty() {
            return None;
        }
        // The fragments of a larger request could reach different peers of the replay group.
        let most = (self.outbox.max_content() / 8).clamp(1, PARTITIONS) as u16;
        let under_way = self.under_way();
        let request = self.outbox.id() + 1;
        let next = self.pulls.next_request(request, most, under_way, now.mono)?;
        Some((self.outbox.fresh_id(), next))
    }

    /// Bytes that were asked for and are still to come.
    pub(crate) fn under_way(&self) -> usize {
        self.pulls.under_way() + self.peers.under_way()
    }

    fn request(&self, purpose: Purpose, request: u64, task: Task, budget: u64) -> Message {
        match task {
            Task::Partitions(Range { from, to }) if purpose.sends_digests() => Message::DigestRequest(DigestRequest {
                request,
                from: Partition(from),
                digests: (from..to)
                    .map(|partition| sketch::shortened(self.cache.digest(Partition(partition)), request))
                    .collect(),
                settled_ms: match purpose {
                    Purpose::Difference(_) => self.config.heartbeat_interval_ms,
                    _ => 0,
                },
                budget,
            }),
            Task::Sketch(Sketched {
                partitions,
                theirs,
                count,
                ..
            }) => Message::SketchRequest(SketchRequest {
                request,
                partitions,
                first: theirs.len(),
                count,
            }),
            Task::Reconcile(named) => Message::Reconcile(self.reconcile(request, &named, budget)),
            Task::Partitions(Range { from, to }) => Message::BootstrapRequest(BootstrapRequest {
                request,
                from: Partition(from),
                digests: (from..to)
                    .map(|partition| self.cache.digest(Partition(partition)))
                    .collect(),
                want: match purpose {
                    Purpose::Bootstrap => Want::Deltas,
                    _ => Want::RangeSplits,
                },
                budget,
                rest: None,
            }),
            Task::Rest(Rest { partition, from, .. }) => Message::BootstrapRequest(BootstrapRequest {
                request,
                from: partition,
                digests: vec![self.cache.digest(partition)],
                want: Want::Deltas,
                budget,
                rest: Some(from),
            }),
            Task::Compare(spans) => {
                let mut held = Held::of(&self.cache);
                let digest = |span: Span| (span, digest_of(held.components(span)));
                Message::Compare(Compare {
                    request,
                    spans: spans.into_iter().map(digest).collect(),
                    budget,
                })
            }
            Task::Fetch(spans) => {
                let mut held = Held::of(&self.cache);
                let mut hashes = |span| held.components(span).iter().map(|component| component.hash).collect();
                let holding = |(span, wanted): (Span, bool)| Holding {
                    span,
                    hashes: wanted.then(|| hashes(span)),
                };
                Message::Fetch(Fetch {
                    request,
                    resyncs: matches!(purpose, Purpose::Resync(..)),
                    holdings: spans.into_iter().map(holding).collect(),
                    budget,
                })
            }
        }
    }

    /// Asks for what is still missing here, and offers what is still here.
    fn reconcile(&self, request: u64, named: &Named, budget: u64) -> Reconcile {
        let mut wanted: BTreeSet<u64> = named.wanted.iter().copied().collect();
        let offered: BTreeSet<u64> = named.offered.iter().copied().collect();
        let of_request = (self.cache.node(), request);
        let mut offers = Vec::new();
        for partition in &named.partitions {
            let is_offered = |hash| {
                wanted.remove(&hash);
                offered.contains(&hash)
            };
            self.cache
                .select_components(Span::of(*partition), is_offered, |component, delta| {
                    offers.push(Offer {
                        hash: component.hash,
                        place: wire::place(of_request, *partition, &delta),
                        time: delta.newest().time,
                    });
                });
        }
        Reconcile {
            request,
            partitions: named.partitions[named.done..].to_vec(),
            wanted: wanted.into_iter().collect(),
            offers,
            // Each further request would repeat the offers.
            budget: budget.max(RECONCILE_BYTES),
        }
    }
}
