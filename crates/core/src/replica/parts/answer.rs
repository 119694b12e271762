//! The answering side of bootstraps and comparisons. Keeps no state: a request says what it wants, the answer says how
//! far it got.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::held::{digest_of, split, symbols_of, Held};
use super::now::Now;
use super::sketch;
use super::task::Named;
use crate::cache::{Cache, Cursor, NodeId, Partition, Span};
use crate::wire::{
    self, AnswerEnd, BootstrapRequest, Chunk, Chunker, Compare, DigestRequest, Fetch, Message, Offer, Part, RangeSplit,
    RangeSplits, Reconcile, SketchRequest, Unknown, Want, MAX_BUDGET,
};

/// An answer that has become so long within a partition, or within spans of one partition, ends there.
const MOST_BYTES: usize = 2 * MAX_BUDGET;

/// Messages are not made shorter than this, however little is asked for.
const LEAST_BYTES: usize = 4 << 10;

/// So many components are picked out of a partition in one go.
const SELECTED_AT_ONCE: usize = 1_024;

/// Partitions with more keys than this, all together, are not sketched: the walk would hold up everything else.
const MAX_SKETCHED_KEYS: u64 = 1 << 20;

/// What a part of a split takes in a message, at most.
const SPAN_BYTES: usize = 40;

/// The messages of one answer, in order, without authenticators.
pub(crate) struct Answer<'a> {
    cache: &'a Cache,
    to: NodeId,
    request: u64,
    version: u8,
    max_bytes: usize,
    budget: usize,
    /// What the answer stands for, see [`AnswerEnd::seqs`].
    seqs: Vec<(NodeId, u64)>,
    sent: usize,
    messages: Vec<Vec<u8>>,
    held: Held<'a>,
    /// See [`AnswerEnd::rest`].
    rest: Option<Cursor>,
}

impl<'a> Answer<'a> {
    /// An answer to `request` of `to`, of about `budget` bytes, in messages of about `max_bytes` at most (a single
    /// larger delta stands alone).
    pub fn new(
        cache: &'a Cache,
        (to, request): (NodeId, u64),
        version: u8,
        (max_bytes, budget): (usize, u64),
        seqs: Vec<(NodeId, u64)>,
    ) -> Self {
        let budget = budget.clamp(1, MAX_BUDGET as u64) as usize;
        Answer {
            cache,
            to,
            request,
            version,
            // Whoever asks for little is on a slow link, and wants to see that something comes.
            max_bytes: max_bytes.min(budget.max(LEAST_BYTES)),
            budget,
            seqs,
            sent: 0,
            messages: Vec::new(),
            held: Held::of(cache),
            rest: None,
        }
    }

    /// What the partitions hold whose digests differ.
    pub fn partitions(mut self, request: &BootstrapRequest) -> Vec<Vec<u8>> {
        let mut chunker = Chunker::new(self.max_bytes);
        let mut splits = Vec::new();
        let mut next = request.from.0;
        let mut from = request.rest.unwrap_or_default();
        for theirs in &request.digests {
            let partition = Partition(next);
            if self.cache.digest(partition) != *theirs {
                match request.want {
                    Want::Deltas => self.rest = self.write_out(partition, from, &mut chunker),
                    Want::RangeSplits => self.split(Span::of(partition), &mut splits),
                }
            }
            if self.rest.is_some() {
                break;
            }
            next += 1;
            from = Cursor::default();
            if self.sent + chunker.pending() >= self.budget {
                break;
            }
        }
        self.chunk(chunker.finish());
        self.flush(&mut splits);
        self.finish(next.into())
    }

    /// The deltas of a partition, slice by slice. Returns where to go on if they are too many for this answer.
    fn write_out(&mut self, partition: Partition, from: Cursor, chunker: &mut Chunker) -> Option<Cursor> {
        let cache = self.cache;
        let mut rest = Some(from);
        while let Some(from) = rest {
            rest = cache.slice(partition, from, MAX_BUDGET, |delta| self.chunk(chunker.push(&delta)));
            if self.sent + chunker.pending() >= self.budget {
                break;
            }
        }
        rest
    }

    /// A sketch of the partitions whose digests differ, or how they split if that is likely to be less.
    pub fn digest_request(mut self, digest_request: &DigestRequest, now: Now) -> Vec<Vec<u8>> {
        let cache = self.cache;
        let differs = |(number, theirs): (u16, &u32)| {
            let partition = Partition(number);
            let ours = sketch::shortened(cache.digest(partition), digest_request.request);
            (ours != *theirs && !in_flux(cache, partition, digest_request.settled_ms, now)).then_some(partition)
        };
        let differing: Vec<_> = (digest_request.from.0..)
            .zip(&digest_request.digests)
            .filter_map(differs)
            .collect();
        let mut next = u64::from(digest_request.from.0) + digest_request.digests.len() as u64;
        if let Some(count) = self.symbols_for(&differing, digest_request.digests.len()) {
            self.sketch(differing, 0, count);
            return self.finish(next);
        }
        let mut splits = Vec::new();
        for partition in differing {
            self.split(Span::of(partition), &mut splits);
            if self.sent >= self.budget {
                next = u64::from(partition.0) + 1;
                break;
            }
        }
        self.flush(&mut splits);
        self.finish(next)
    }

    /// How many symbols to send if `differing` of `all` partitions differ; `None` if splits are better.
    fn symbols_for(&self, differing: &[Partition], all: usize) -> Option<usize> {
        let keys: u64 = differing.iter().map(|partition| self.cache.keys_in(*partition)).sum();
        let differing = differing.len();
        if differing == 0 || 2 * differing > all.max(2) || keys > MAX_SKETCHED_KEYS {
            return None;
        }
        // As though each key that differs had been written anew: one component there and another one here.
        sketch::symbols_for(2.0 * sketch::spread_over(differing, all.max(2)))
    }

    /// Further symbols of a sketch.
    pub fn symbols(mut self, request: &SketchRequest) -> Vec<Vec<u8>> {
        self.sketch(request.partitions.clone(), request.first, request.count);
        self.finish(request.partitions.len() as u64)
    }

    fn sketch(&mut self, partitions: Vec<Partition>, first: usize, count: usize) {
        let symbols = symbols_of(self.cache, &partitions, first, count);
        self.message(&Message::Sketch(wire::Sketch {
            part: self.part(),
            partitions,
            first,
            symbols,
        }));
    }

    /// The deltas of what the requester wants, but for those that are older than what it offers at the same place.
    /// Also returns what it offers that is not older than what is here, once all is answered.
    pub fn reconcile(mut self, reconcile: &Reconcile) -> (Vec<Vec<u8>>, Option<Named>) {
        let (cache, of_request) = (self.cache, (self.to, self.request));
        let mut chunker = Chunker::new(self.max_bytes);
        let mut offers: BTreeMap<u64, &Offer> = reconcile.offers.iter().map(|offer| (offer.place, offer)).collect();
        let mut wanted: BTreeSet<u64> = reconcile.wanted.iter().copied().collect();
        let mut next = 0;
        for partition in &reconcile.partitions {
            if self.sent + chunker.pending() >= self.budget {
                break;
            }
            if wanted.is_empty() {
                next += 1;
                continue;
            }
            let (mut found, mut cut) = (Vec::new(), false);
            let is_wanted = |hash| wanted.contains(&hash);
            cache.select_components(Span::of(*partition), is_wanted, |component, delta| {
                cut |= self.sent + chunker.pending() >= MOST_BYTES;
                if cut {
                    return;
                }
                found.push(component.hash);
                let place = wire::place(of_request, *partition, &delta);
                let (ours, theirs) = (delta.newest().time, offers.get(&place).map(|offer| offer.time));
                if theirs.is_some_and(|theirs| theirs < ours) {
                    offers.remove(&place);
                }
                if theirs.is_none_or(|theirs| theirs <= ours) {
                    self.chunk(chunker.push(&delta));
                }
            });
            for hash in found {
                wanted.remove(&hash);
            }
            // Whoever asks again names what is still missing.
            if cut {
                break;
            }
            next += 1;
        }
        self.chunk(chunker.finish());
        let complete = next == reconcile.partitions.len();
        if complete && !wanted.is_empty() {
            self.unknown(&Vec::from_iter(wanted));
        }
        let lacking = (complete && !offers.is_empty()).then(|| {
            let partition = |place: &u64| wire::partition_of(*place);
            let mut partitions: Vec<Partition> = offers.keys().map(partition).collect();
            partitions.dedup();
            let wanted = offers.values().map(|offer| offer.hash).collect();
            Named::new(partitions, wanted, Vec::new())
        });
        (self.finish(next as u64), lacking)
    }

    /// How the spans split whose digests differ.
    pub fn compare(mut self, compare: &Compare) -> Vec<Vec<u8>> {
        let mut splits = Vec::new();
        let mut next = 0;
        for (span, theirs) in &compare.spans {
            next += 1;
            let ours = self.held.components(*span);
            if digest_of(ours) != *theirs {
                let split = split(*span, ours);
                self.push_split(split, &mut splits);
            }
            if self.sent >= self.budget {
                break;
            }
        }
        self.flush(&mut splits);
        self.finish(next)
    }

    /// The deltas that the requester lacks. Also returns the spans in which it has something that this node lacks.
    pub fn fetch(mut self, fetch: &Fetch) -> (Vec<Vec<u8>>, Vec<Span>) {
        let mut chunker = Chunker::new(self.max_bytes);
        let mut lacking = Vec::new();
        let mut unknown = Vec::new();
        // What of the current partition has to be sent: it is gone through once for many spans.
        let (mut current, mut wanted) = (None, HashSet::new());
        // So many spans have been looked at, and so many are answered: whoever asks again names what has arrived.
        let (mut next, mut done, mut cut) = (0, Done::default(), false);
        for holding in &fetch.holdings {
            let partition = holding.span.partition();
            if current.is_some_and(|current| current != partition) || wanted.len() >= SELECTED_AT_ONCE {
                cut = !self.select(current, &mut wanted, &mut chunker);
                if cut {
                    break;
                }
                done = Done {
                    spans: next,
                    lacking: lacking.len(),
                    unknown: unknown.len(),
                };
            }
            current = Some(partition);
            if self.sent + chunker.pending() >= self.budget {
                break;
            }
            next += 1;
            let Some(theirs) = &holding.hashes else {
                lacking.push(holding.span);
                continue;
            };
            let ours = self.held.components(holding.span);
            let ours: HashSet<u64> = ours.iter().map(|component| component.hash).collect();
            let before = unknown.len();
            unknown.extend(theirs.iter().filter(|hash| !ours.contains(hash)));
            if unknown.len() > before {
                lacking.push(holding.span);
            }
            let theirs: HashSet<u64> = theirs.iter().copied().collect();
            wanted.extend(ours.difference(&theirs));
        }
        if cut || !self.select(current, &mut wanted, &mut chunker) {
            next = done.spans;
            lacking.truncate(done.lacking);
            unknown.truncate(done.unknown);
        }
        self.chunk(chunker.finish());
        if fetch.resyncs {
            lacking.clear();
            self.unknown(&unknown);
        }
        (self.finish(next), lacking)
    }

    /// Writes out the wanted components of a partition. Returns whether there was room for all of them.
    fn select(&mut self, partition: Option<Partition>, wanted: &mut HashSet<u64>, chunker: &mut Chunker) -> bool {
        let wanted = std::mem::take(wanted);
        let mut cut = false;
        if let Some(partition) = partition.filter(|_| !wanted.is_empty()) {
            let cache = self.cache;
            cache.select(
                Span::of(partition),
                |hash| wanted.contains(&hash),
                |delta| {
                    cut |= self.sent + chunker.pending() >= MOST_BYTES;
                    if !cut {
                        self.chunk(chunker.push(&delta));
                    }
                },
            );
        }
        !cut
    }

    fn part(&self) -> Part {
        Part {
            to: self.to,
            request: self.request,
            index: self.messages.len() as u64,
        }
    }

    fn chunk(&mut self, chunk: Option<Chunk>) {
        if let Some(chunk) = chunk {
            self.sent += chunk.len();
            let clock = self.cache.clock().latest();
            let message = chunk.into_bootstrap(self.version, self.cache.node(), self.part(), clock);
            self.messages.push(message);
        }
    }

    fn split(&mut self, span: Span, splits: &mut Vec<RangeSplit>) {
        let split = split(span, &self.cache.components(span));
        self.push_split(split, splits);
    }

    fn push_split(&mut self, split: RangeSplit, splits: &mut Vec<RangeSplit>) {
        let bytes = |splits: &[RangeSplit]| {
            splits
                .iter()
                .map(|split| (split.parts.len() + 2) * SPAN_BYTES)
                .sum::<usize>()
        };
        if bytes(splits) + bytes(std::slice::from_ref(&split)) > self.max_bytes {
            self.flush(splits);
        }
        splits.push(split);
    }

    fn flush(&mut self, splits: &mut Vec<RangeSplit>) {
        if !splits.is_empty() {
            let splits = std::mem::take(splits);
            self.message(&Message::RangeSplits(RangeSplits {
                part: self.part(),
                splits,
            }));
        }
    }

    fn unknown(&mut self, hashes: &[u64]) {
        for hashes in hashes.chunks((self.max_bytes / 8).max(1)) {
            self.message(&Message::Unknown(Unknown {
                part: self.part(),
                hashes: hashes.to_vec(),
            }));
        }
    }

    fn message(&mut self, message: &Message) {
        let bytes = message.encode(self.version, self.cache.node());
        self.sent += bytes.len();
        self.messages.push(bytes);
    }

    fn finish(mut self, next: u64) -> Vec<Vec<u8>> {
        let end = AnswerEnd {
            to: self.to,
            request: self.request,
            parts: self.messages.len() as u64,
            next,
            rest: self.rest,
            seqs: std::mem::take(&mut self.seqs),
        };
        self.message(&Message::AnswerEnd(end));
        self.messages
    }
}

/// What of a [`Fetch`] is answered.
#[derive(Default)]
struct Done {
    spans: u64,
    lacking: usize,
    unknown: usize,
}

/// Whether a partition changed within the last `settled_ms`. A clock that went back makes it look at rest, which costs
/// bytes but hides nothing.
fn in_flux(cache: &Cache, partition: Partition, settled_ms: u64, now: Now) -> bool {
    now.wall
        .checked_sub(cache.changed_at(partition))
        .is_some_and(|age| age < settled_ms)
}
