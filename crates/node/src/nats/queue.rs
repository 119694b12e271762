//! The bounded queue of deltas between local writers and the replication task.
//!
//! While the task cannot keep up, or NATS is away, a newer delta takes the place of an older one that it makes
//! superfluous; when that is not enough, writers wait.

use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::{DefaultHashBuilder, HashTable};
use tokio::sync::{oneshot, Notify};

use kvcache_core::cache::{Delta, Millis, StateDelta};
use kvcache_core::replica::{AckLevel, Unconfirmed};

/// What a queued delta costs beside its key and value.
const DELTA_BYTES: usize = 256;

/// An emptied queue has room for so many deltas at most.
const KEPT: usize = 1_024;

/// To clear the index takes as long as its capacity, to take entries out one by one as long as they are many: about
/// this many times longer for each.
const SPARSE: usize = 8;

/// Somebody who waits until a delta is confirmed.
pub(super) struct Waiting {
    pub wanted: AckLevel,
    /// Until when, in milliseconds of the monotonic clock.
    pub deadline: Millis,
    pub answer: oneshot::Sender<Result<(), Unconfirmed>>,
}

/// Deltas on their way to the peers, and whoever waits for one of them.
#[derive(Default)]
pub(super) struct Taken {
    pub deltas: Vec<Delta>,
    pub waiting: Vec<Waiting>,
}

/// A delta that was not queued, and why.
struct Refused {
    delta: Delta,
    waiting: Option<Waiting>,
    why: Why,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    Closed,
    Full,
}

/// Both ends of the queue. Clones share it.
#[derive(Clone)]
pub(super) struct Queue {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    capacity: usize,
    /// Seeded anew: keys come from outside, and nobody is to know which of them collide.
    hasher: DefaultHashBuilder,
    /// The queue is not empty any more, or it is as good as full.
    filled: Notify,
    room: Notify,
}

#[derive(Default)]
struct State {
    deltas: VecDeque<Delta>,
    /// Of the key and slot of each of them.
    hashes: VecDeque<u64>,
    /// Number of the first of them; every delta ever queued has one.
    first: u64,
    /// Numbers of the queued deltas, by what they are about. Of several about the same, the newest.
    places: HashTable<u64>,
    /// By the numbers of the deltas that are waited for.
    waiting: BTreeMap<u64, Vec<Waiting>>,
    bytes: usize,
    merged: u64,
    closed: bool,
}

impl Queue {
    /// A queue of about `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        Queue {
            inner: Arc::new(Inner {
                state: Mutex::default(),
                capacity,
                hasher: DefaultHashBuilder::default(),
                filled: Notify::new(),
                room: Notify::new(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can panic half-way through a change.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a delta if there is room. Gives it back if not, or when replication has stopped.
    pub fn push_now(&self, delta: Delta) -> Result<(), Delta> {
        self.try_push(delta, None).map_err(|refused| refused.delta)
    }

    /// Queues a delta; waits while the queue is full. Gives the delta back when replication has stopped.
    pub async fn push(&self, delta: Delta, waiting: Option<Waiting>) -> Result<(), Delta> {
        match self.try_push(delta, waiting) {
            Ok(()) => Ok(()),
            Err(refused) => self.push_when_there_is_room(refused).await,
        }
    }

    async fn push_when_there_is_room(&self, mut refused: Box<Refused>) -> Result<(), Delta> {
        loop {
            if refused.why == Why::Closed {
                return Err(refused.delta);
            }
            let room = self.inner.room.notified();
            tokio::pin!(room);
            // From here on a notification is not missed.
            room.as_mut().enable();
            match self.try_push(refused.delta, refused.waiting) {
                Ok(()) => return Ok(()),
                Err(again) => refused = again,
            }
            if refused.why == Why::Full {
                room.await;
            }
        }
    }

    fn try_push(&self, delta: Delta, waiting: Option<Waiting>) -> Result<(), Box<Refused>> {
        let hash = self.inner.hasher.hash_one((&delta.key, delta.slot()));
        let mut state = self.lock();
        let (empty, plenty) = (state.deltas.is_empty(), state.bytes > self.inner.capacity / 2);
        state.push(delta, hash, waiting, self.inner.capacity)?;
        let wake = empty || (!plenty && state.bytes > self.inner.capacity / 2);
        drop(state);
        // Whoever is awake looks by himself, and waking is not for nothing.
        if wake {
            self.inner.filled.notify_one();
        }
        Ok(())
    }

    /// Waits until something is queued.
    pub async fn filled(&self) {
        loop {
            let filled = self.inner.filled.notified();
            if !self.lock().deltas.is_empty() {
                return;
            }
            filled.await;
        }
    }

    /// Waits until the queue is as good as full.
    pub async fn full(&self) {
        loop {
            let filled = self.inner.filled.notified();
            if self.lock().bytes > self.inner.capacity / 2 {
                return;
            }
            filled.await;
        }
    }

    /// Takes the oldest deltas, `most` of them at most.
    pub fn take(&self, most: usize) -> Taken {
        let taken = self.lock().take(most);
        self.inner.room.notify_waiters();
        taken
    }

    /// Takes no more deltas.
    pub fn close(&self) {
        self.lock().closed = true;
        self.inner.room.notify_waiters();
    }

    /// How many deltas were never sent because a newer one made them superfluous.
    pub fn merged(&self) -> u64 {
        self.lock().merged
    }
}

impl State {
    fn push(&mut self, delta: Delta, hash: u64, waiting: Option<Waiting>, capacity: usize) -> Result<(), Box<Refused>> {
        let refused = |delta, waiting, why| Err(Box::new(Refused { delta, waiting, why }));
        if self.closed {
            return refused(delta, waiting, Why::Closed);
        }
        let (deltas, hashes, first) = (&mut self.deltas, &mut self.hashes, self.first);
        let index = |number: u64| (number - first) as usize;
        let bytes = size(&delta);
        let known = self
            .places
            .find_mut(hash, |&number| about_the_same(&deltas[index(number)], &delta));
        if let Some(place) = &known {
            let old = &mut deltas[index(**place)];
            if delta.supersedes(old) {
                self.bytes = self.bytes + bytes - size(old);
                *old = delta;
                if let Some(waiting) = waiting {
                    self.waiting.entry(**place).or_default().push(waiting);
                }
                self.merged += 1;
                return Ok(());
            }
        }
        if self.bytes + bytes > capacity && !deltas.is_empty() {
            return refused(delta, waiting, Why::Full);
        }
        self.bytes += bytes;
        let number = first + deltas.len() as u64;
        deltas.push_back(delta);
        hashes.push_back(hash);
        if let Some(waiting) = waiting {
            self.waiting.insert(number, vec![waiting]);
        }
        match known {
            Some(place) => *place = number,
            None => {
                self.places.insert_unique(hash, number, |&number| hashes[index(number)]);
            }
        }
        Ok(())
    }

    fn take(&mut self, most: usize) -> Taken {
        let count = self.deltas.len().min(most);
        if count == 0 {
            return Taken::default();
        }
        let end = self.first + count as u64;
        let later = self.waiting.split_off(&end);
        let waiting = std::mem::replace(&mut self.waiting, later);
        let deltas = if count == self.deltas.len() {
            self.bytes = 0;
            // As large a one again, so that the next deltas find one that they fit into, in memory just used.
            let next = VecDeque::with_capacity(count.min(KEPT));
            std::mem::replace(&mut self.deltas, next).into()
        } else {
            let deltas: Vec<Delta> = self.deltas.drain(..count).collect();
            self.bytes -= deltas.iter().map(size).sum::<usize>();
            deltas
        };
        self.forget_places(count);
        self.first = end;
        Taken {
            deltas,
            waiting: waiting.into_values().flatten().collect(),
        }
    }

    /// Takes the numbers of the first `count` deltas out of the index.
    fn forget_places(&mut self, count: usize) {
        if count == self.hashes.len() && count >= self.places.capacity() / SPARSE {
            self.places.clear();
            self.hashes.clear();
            return;
        }
        for (number, hash) in (self.first..).zip(self.hashes.drain(..count)) {
            // Not there if a newer one about the same is queued.
            if let Ok(place) = self.places.find_entry(hash, |&known| known == number) {
                place.remove();
            }
        }
    }
}

/// Whether the newer of both may say all that the older one says.
fn about_the_same(a: &Delta, b: &Delta) -> bool {
    a.key == b.key && a.slot() == b.slot()
}

fn size(delta: &Delta) -> usize {
    let value = match &delta.change {
        StateDelta::Put { value, seen, .. } => value.bytes().map_or(0, <[u8]>::len) + seen.len() * 64,
        StateDelta::Delete { seen, .. } => seen.len() * 64,
        StateDelta::ListPush { value, .. } => value.len(),
        StateDelta::SetAdd { member, .. } | StateDelta::SetRemove { member, .. } => member.len(),
        StateDelta::Add { .. } | StateDelta::ListRemove { .. } => 0,
    };
    delta.key.len() + value + DELTA_BYTES
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use kvcache_core::cache::{Cache, Key, Limits, NodeId};

    const NOW: Millis = 1_700_000_000_000;

    fn set(cache: &Cache, key: &str, value: &str) -> Delta {
        let value = Bytes::copy_from_slice(value.as_bytes());
        cache.set(&Key::shared(key.as_bytes()), value, 0, NOW).unwrap()
    }

    #[tokio::test]
    async fn newer_deltas_take_the_place_of_older_ones() {
        let cache = Cache::new(NodeId(1), Limits::default());
        let queue = Queue::new(1 << 20);
        let counter = Key::shared(b"counter");
        for n in 0..100 {
            let delta = set(&cache, if n % 2 == 0 { "even" } else { "odd" }, &n.to_string());
            queue.push(delta, None).await.unwrap();
            let (_, delta) = cache.increment(&counter, 1, NOW).unwrap();
            queue.push(delta, None).await.unwrap();
        }
        let list = Key::shared(b"list");
        for n in 0..3 {
            queue
                .push(cache.list_push(&list, Bytes::from(n.to_string()), NOW).unwrap().1, None)
                .await
                .unwrap();
        }
        let taken = queue.take(usize::MAX);
        assert_eq!(taken.deltas.len(), 3 + 3, "one for each key, one for each item");
        assert_eq!(queue.merged(), 197);
        let other = Cache::new(NodeId(2), Limits::default());
        for delta in &taken.deltas {
            other.apply(delta, NOW).unwrap();
        }
        assert_eq!(other.root_digest(), cache.root_digest());
        assert_eq!(queue.lock().bytes, 0);
        assert!(queue.lock().places.is_empty());
    }

    #[test]
    fn what_is_taken_in_parts_is_all_there_in_order_with_whoever_waits_for_it() {
        let cache = Cache::new(NodeId(1), Limits::default());
        let queue = Queue::new(1 << 20);
        let push = |key: &str, deadline| {
            let (answer, _) = oneshot::channel();
            let waiting = Waiting {
                wanted: AckLevel::All,
                deadline,
                answer,
            };
            assert!(queue.try_push(set(&cache, key, ""), Some(waiting)).is_ok());
        };
        let take = |most| {
            let Taken { deltas, waiting } = queue.take(most);
            let keys: Vec<String> = deltas
                .iter()
                .map(|delta| String::from_utf8_lossy(&delta.key[1..]).into())
                .collect();
            let deadlines: Vec<Millis> = waiting.iter().map(|waiting| waiting.deadline).collect();
            (keys.join(" "), deadlines)
        };
        for (deadline, key) in (0..).zip(["a", "b", "c", "d", "e"]) {
            push(key, deadline);
        }
        assert_eq!(take(2), ("a b".into(), vec![0, 1]));
        push("d", 5);
        push("a", 6);
        assert_eq!(take(2), ("c d".into(), vec![2, 3, 5]));
        push("a", 7);
        push("c", 8);
        assert_eq!(take(2), ("e a".into(), vec![4, 6, 7]));
        assert_eq!(take(2), ("c".into(), vec![8]));
        assert_eq!(take(2), (String::new(), vec![]));
        assert_eq!(queue.merged(), 2);
        let state = queue.lock();
        assert_eq!((state.bytes, state.places.len(), state.hashes.len()), (0, 0, 0));
        assert_eq!((state.first, state.waiting.len()), (7, 0));
    }

    #[test]
    fn a_queue_that_was_long_forgets_what_it_held() {
        let cache = Cache::new(NodeId(1), Limits::default());
        let queue = Queue::new(1 << 20);
        let push = |number: usize| assert_eq!(queue.push_now(set(&cache, &number.to_string(), "")), Ok(()));
        (0..1_000).for_each(push);
        assert_eq!(queue.take(usize::MAX).deltas.len(), 1_000);
        // The index is still as large as it was, and all of the queue is taken each time.
        for number in [1, 1, 2] {
            push(number);
            assert!(queue.lock().places.capacity() / SPARSE > 1);
            assert_eq!(queue.take(usize::MAX).deltas.len(), 1);
            assert!(queue.lock().places.is_empty() && queue.lock().hashes.is_empty());
        }
        assert_eq!(queue.merged(), 0);
    }

    #[tokio::test]
    async fn a_full_queue_makes_writers_wait_but_not_for_what_is_queued_already() {
        let cache = Cache::new(NodeId(1), Limits::default());
        let queue = Queue::new(10 * DELTA_BYTES);
        for n in 0..9 {
            queue.push(set(&cache, &format!("key{n}"), ""), None).await.unwrap();
        }
        queue.push(set(&cache, "key3", "x"), None).await.unwrap();
        let refused = set(&cache, "no room", "");
        assert_eq!(queue.push_now(refused.clone()), Err(refused));
        let waiting = tokio::spawn({
            let (queue, delta) = (queue.clone(), set(&cache, "one more", ""));
            async move { queue.push(delta, None).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert_eq!(queue.take(1).deltas.len(), 1);
        assert_eq!(waiting.await.unwrap(), Ok(()));
        queue.close();
        let late = set(&cache, "too late", "");
        assert_eq!(queue.push_now(late.clone()), Err(late.clone()));
        assert_eq!(queue.push(late.clone(), None).await, Err(late));
    }

    #[tokio::test]
    async fn a_delta_larger_than_the_queue_passes_alone() {
        let cache = Cache::new(NodeId(1), Limits::default());
        let queue = Queue::new(10);
        let large = set(&cache, "key", "larger than ten bytes");
        queue.push(large, None).await.unwrap();
        assert_eq!(queue.take(10).deltas.len(), 1);
    }

    #[tokio::test]
    async fn whoever_waits_for_a_superseded_delta_waits_for_the_newer_one() {
        let cache = Cache::new(NodeId(1), Limits::default());
        let queue = Queue::new(1 << 20);
        let mut answers = Vec::new();
        for value in ["1", "2"] {
            let (answer, receiver) = oneshot::channel();
            let waiting = Waiting {
                wanted: AckLevel::All,
                deadline: 0,
                answer,
            };
            queue.push(set(&cache, "key", value), Some(waiting)).await.unwrap();
            answers.push(receiver);
        }
        let taken = queue.take(10);
        assert_eq!((taken.deltas.len(), taken.waiting.len()), (1, 2));
    }
}
