//! The bounded queue of commands between local writers and the replication task.
//!
//! While the task cannot keep up, or NATS is away, a newer command takes the place of an older one that it makes
//! superfluous; when that is not enough, writers wait.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::{DefaultHashBuilder, HashTable};
use tokio::sync::{oneshot, Notify};

use crate::cache::{Change, Command, Millis};
use crate::replica::{Ack, Unconfirmed};

/// What a queued command costs beside its key and value.
const COMMAND_BYTES: usize = 256;

/// Somebody who waits until a command is confirmed.
pub(super) struct Waiting {
    pub wanted: Ack,
    /// Until when, in milliseconds of the monotonic clock.
    pub deadline: Millis,
    pub answer: oneshot::Sender<Result<(), Unconfirmed>>,
}

/// A command on its way to the peers.
pub(super) struct Queued {
    pub command: Command,
    pub waiting: Vec<Waiting>,
    /// Of its key and slot.
    hash: u64,
}

/// Why a command was not queued, and the command.
enum Refused {
    Closed(Box<Queued>),
    Full(Box<Queued>),
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
    queued: VecDeque<Queued>,
    /// Number of the first of them; every command ever queued has one.
    first: u64,
    /// Numbers of the queued commands, by what they are about. Of several about the same, the newest.
    places: HashTable<u64>,
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

    /// Queues a command if there is room. Gives it back if not, or when replication has stopped.
    pub fn push_now(&self, command: Command) -> Result<(), Command> {
        self.try_push(self.queued(command, None))
            .map_err(|refused| match refused {
                Refused::Closed(queued) | Refused::Full(queued) => queued.command,
            })
    }

    fn queued(&self, command: Command, waiting: Option<Waiting>) -> Queued {
        Queued {
            hash: self.inner.hasher.hash_one((&command.key, command.slot())),
            waiting: waiting.into_iter().collect(),
            command,
        }
    }

    /// Queues a command; waits while the queue is full. Gives the command back when replication has stopped.
    pub async fn push(&self, command: Command, waiting: Option<Waiting>) -> Result<(), Command> {
        match self.try_push(self.queued(command, waiting)) {
            Ok(()) => Ok(()),
            Err(Refused::Closed(queued)) => Err(queued.command),
            Err(Refused::Full(queued)) => self.push_when_there_is_room(queued).await,
        }
    }

    async fn push_when_there_is_room(&self, mut queued: Box<Queued>) -> Result<(), Command> {
        loop {
            let room = self.inner.room.notified();
            tokio::pin!(room);
            // From here on a notification is not missed.
            room.as_mut().enable();
            match self.try_push(*queued) {
                Ok(()) => return Ok(()),
                Err(Refused::Closed(queued)) => return Err(queued.command),
                Err(Refused::Full(full)) => queued = full,
            }
            room.await;
        }
    }

    fn try_push(&self, queued: Queued) -> Result<(), Refused> {
        let mut state = self.lock();
        let (empty, plenty) = (state.queued.is_empty(), state.bytes > self.inner.capacity / 2);
        state.push(queued, self.inner.capacity)?;
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
            if !self.lock().queued.is_empty() {
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

    /// Takes the oldest commands, `most` of them at most.
    pub fn take(&self, most: usize) -> Vec<Queued> {
        let mut state = self.lock();
        let count = state.queued.len().min(most);
        let taken: Vec<Queued> = (0..count).filter_map(|_| state.pop()).collect();
        drop(state);
        self.inner.room.notify_waiters();
        taken
    }

    /// Takes no more commands.
    pub fn close(&self) {
        self.lock().closed = true;
        self.inner.room.notify_waiters();
    }

    /// How many commands were never sent because a newer one made them superfluous.
    pub fn merged(&self) -> u64 {
        self.lock().merged
    }
}

impl State {
    fn push(&mut self, new: Queued, capacity: usize) -> Result<(), Refused> {
        if self.closed {
            return Err(Refused::Closed(Box::new(new)));
        }
        let (queued, first) = (&mut self.queued, self.first);
        let index = |number: u64| (number - first) as usize;
        let bytes = size(&new.command);
        let known = self.places.find_mut(new.hash, |&number| {
            about_the_same(&queued[index(number)].command, &new.command)
        });
        if let Some(place) = &known {
            let old = &mut queued[index(**place)];
            if new.command.supersedes(&old.command) {
                self.bytes = self.bytes + bytes - size(&old.command);
                old.command = new.command;
                old.waiting.extend(new.waiting);
                self.merged += 1;
                return Ok(());
            }
        }
        if self.bytes + bytes > capacity && !queued.is_empty() {
            return Err(Refused::Full(Box::new(new)));
        }
        self.bytes += bytes;
        let number = first + queued.len() as u64;
        let hash = new.hash;
        queued.push_back(new);
        match known {
            Some(place) => *place = number,
            None => {
                let hash_of = |&number: &u64| queued[index(number)].hash;
                self.places.insert_unique(hash, number, hash_of);
            }
        }
        Ok(())
    }

    fn pop(&mut self) -> Option<Queued> {
        let queued = self.queued.pop_front()?;
        self.bytes -= size(&queued.command);
        // Not there if a newer one about the same is queued.
        if let Ok(place) = self.places.find_entry(queued.hash, |&number| number == self.first) {
            place.remove();
        }
        self.first += 1;
        Some(queued)
    }
}

/// Whether the newer of both may say all that the older one says.
fn about_the_same(a: &Command, b: &Command) -> bool {
    a.key == b.key && a.slot() == b.slot()
}

fn size(command: &Command) -> usize {
    let value = match &command.change {
        Change::Put { value, seen, .. } => value.as_ref().map_or(0, |value| value.len()) + seen.len() * 64,
        Change::Delete { seen, .. } => seen.len() * 64,
        Change::ListPush { value, .. } => value.len(),
        Change::SetAdd { member, .. } | Change::SetRemove { member, .. } => member.len(),
        Change::Add { .. } | Change::ListRemove { .. } => 0,
    };
    command.key.len() + value + COMMAND_BYTES
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::cache::{Cache, Key, Limits, NodeId};

    const NOW: Millis = 1_700_000_000_000;

    fn set(cache: &Cache, key: &str, value: &str) -> Command {
        let value = Bytes::copy_from_slice(value.as_bytes());
        cache.set(&Key::shared(key.as_bytes()), value, 0, NOW).unwrap()
    }

    #[tokio::test]
    async fn newer_commands_take_the_place_of_older_ones() {
        let cache = Cache::new(NodeId(1), Limits::default());
        let queue = Queue::new(1 << 20);
        let counter = Key::shared(b"counter");
        for n in 0..100 {
            let command = set(&cache, if n % 2 == 0 { "even" } else { "odd" }, &n.to_string());
            queue.push(command, None).await.unwrap();
            let (_, command) = cache.increment(&counter, 1, NOW).unwrap();
            queue.push(command, None).await.unwrap();
        }
        let list = Key::shared(b"list");
        for n in 0..3 {
            queue
                .push(cache.list_push(&list, Bytes::from(n.to_string()), NOW).unwrap().1, None)
                .await
                .unwrap();
        }
        let taken = queue.take(usize::MAX);
        assert_eq!(taken.len(), 3 + 3, "one for each key, one for each item");
        assert_eq!(queue.merged(), 197);
        let other = Cache::new(NodeId(2), Limits::default());
        for queued in &taken {
            other.apply(&queued.command, NOW).unwrap();
        }
        assert_eq!(other.root_digest(), cache.root_digest());
        assert_eq!(queue.lock().bytes, 0);
        assert!(queue.lock().places.is_empty());
    }

    #[tokio::test]
    async fn a_full_queue_makes_writers_wait_but_not_for_what_is_queued_already() {
        let cache = Cache::new(NodeId(1), Limits::default());
        let queue = Queue::new(10 * COMMAND_BYTES);
        for n in 0..9 {
            queue.push(set(&cache, &format!("key{n}"), ""), None).await.unwrap();
        }
        queue.push(set(&cache, "key3", "x"), None).await.unwrap();
        let refused = set(&cache, "no room", "");
        assert_eq!(queue.push_now(refused.clone()), Err(refused));
        let waiting = tokio::spawn({
            let (queue, command) = (queue.clone(), set(&cache, "one more", ""));
            async move { queue.push(command, None).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert_eq!(queue.take(1).len(), 1);
        assert_eq!(waiting.await.unwrap(), Ok(()));
        queue.close();
        let late = set(&cache, "too late", "");
        assert_eq!(queue.push_now(late.clone()), Err(late.clone()));
        assert_eq!(queue.push(late.clone(), None).await, Err(late));
    }

    #[tokio::test]
    async fn a_command_larger_than_the_queue_passes_alone() {
        let cache = Cache::new(NodeId(1), Limits::default());
        let queue = Queue::new(10);
        let large = set(&cache, "key", "larger than ten bytes");
        queue.push(large, None).await.unwrap();
        assert_eq!(queue.take(10).len(), 1);
    }

    #[tokio::test]
    async fn whoever_waits_for_a_superseded_command_waits_for_the_newer_one() {
        let cache = Cache::new(NodeId(1), Limits::default());
        let queue = Queue::new(1 << 20);
        let mut answers = Vec::new();
        for value in ["1", "2"] {
            let (answer, receiver) = oneshot::channel();
            let waiting = Waiting {
                wanted: Ack::All,
                deadline: 0,
                answer,
            };
            queue.push(set(&cache, "key", value), Some(waiting)).await.unwrap();
            answers.push(receiver);
        }
        let taken = queue.take(10);
        assert_eq!((taken.len(), taken[0].waiting.len()), (1, 2));
    }
}
