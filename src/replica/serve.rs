//! The answering side of a replay. Keeps no state: a request says what it wants, the answer says how far it got.

use bytes::Bytes;

use super::wire::{Chunk, Chunker, Message, ReplayEnd, ReplayRequest};
use super::Now;
use crate::cache::{Cache, Digest, Partition};

/// An answer ends after the partition with which it exceeds this many bytes.
const BUDGET_BYTES: usize = 1 << 20;

/// The messages that answer a request: the commands of the partitions whose digests differ, in messages of about
/// `max_bytes` at most (a single larger command stands alone), then the end.
pub(super) fn answer(cache: &Cache, request: &ReplayRequest, seq: u64, max_bytes: usize, now: Now) -> Vec<Bytes> {
    let mut answer = Answer {
        cache,
        request: request.request,
        sent: 0,
        messages: Vec::new(),
    };
    let mut chunker = Chunker::new(max_bytes);
    let mut next = request.from.0;
    let mut digest = 0u64;
    for theirs in &request.digests {
        let partition = Partition(next);
        let ours = cache.digest(partition);
        digest = digest.wrapping_add(ours.0);
        next += 1;
        if ours != *theirs && !in_flux(cache, partition, request.settled_ms, now) {
            cache.commands(partition, |command| answer.add(chunker.push(&command)));
        }
        if answer.sent + chunker.pending() >= BUDGET_BYTES {
            break;
        }
    }
    answer.add(chunker.finish());
    let mut messages = answer.messages;
    let end = ReplayEnd {
        node: cache.node(),
        request: request.request,
        seq,
        messages: messages.len() as u64,
        next,
        digest: Digest(digest),
    };
    messages.push(Message::ReplayEnd(end).encode());
    messages
}

/// Whether a partition changed within the last `settled_ms`. A clock that went back makes it look at rest, which costs
/// bytes but hides nothing.
fn in_flux(cache: &Cache, partition: Partition, settled_ms: u64, now: Now) -> bool {
    now.wall
        .checked_sub(cache.changed_at(partition))
        .is_some_and(|age| age < settled_ms)
}

struct Answer<'a> {
    cache: &'a Cache,
    request: u64,
    sent: usize,
    messages: Vec<Bytes>,
}

impl Answer<'_> {
    fn add(&mut self, chunk: Option<Chunk>) {
        if let Some(chunk) = chunk {
            self.sent += chunk.len();
            let clock = self.cache.clock().latest();
            let index = self.messages.len() as u64;
            self.messages
                .push(chunk.into_replay(self.cache.node(), self.request, index, clock));
        }
    }
}
