//! Reads whose answers are large: made by threads of their own.
//!
//! To collect, sort and write a million members takes half a second of processor time. On a worker of the runtime it
//! would keep whatever else waits for that worker from running: small calls, and replication, whose peers would take
//! this node for dead. So such reads wait here, a few at a time are made, by threads of a lower priority, and callers
//! take turns. A turn ends when the answer has left: to store 20 MB keeps a processor and the NATS server as busy as to
//! make them, and where all are stored at once, small calls wait for the processor.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use kvcache_core::cache::Millis;
use tokio::sync::oneshot;

use crate::time;

/// Reads of one caller that may wait, and of all.
const MAX_WAITING_OF_ONE: usize = 16;
const MAX_WAITING: usize = 256;
/// Of 20 steps down from the ordinary priority (`nice`).
const NICE: i32 = 10;

/// Why a read with a large answer is not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// As many wait as may.
    #[error(
        "this read has a large answer, and too many of its kind {0} are waiting already; ask for less at a time, or less \
         often"
    )]
    TooMany(&'static str),
    /// Its turn has not come while its caller waits.
    #[error(
        "this read has a large answer and waited for others of its kind for too long; ask for less at a time, or less \
         often"
    )]
    TooLate,
    /// It panicked.
    #[error("the read was given up; see the log of the provider")]
    GivenUp,
}

/// A read and the place its answer goes to.
type Job = Box<dyn FnOnce(Turn) + Send>;

/// The threads and what waits for them.
pub(super) struct LargeReads {
    shared: Arc<Shared>,
    patience_ms: Millis,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

/// Jobs by caller, and whose turn it is.
#[derive(Default)]
struct Waiting {
    jobs: HashMap<Arc<str>, VecDeque<Job>>,
    turns: VecDeque<Arc<str>>,
    count: usize,
    /// Reads that were begun and whose answers have not left yet.
    under_way: usize,
    closed: bool,
}

/// The turn of a read with a large answer. To be kept until the answer has left: it ends when this is dropped.
pub struct Turn(Arc<Shared>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.lock().under_way -= 1;
        self.0.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn push(&mut self, caller: &str, job: Job) -> Result<(), &'static str> {
        if self.count >= MAX_WAITING {
            return Err("of all callers together");
        }
        match self.jobs.get_mut(caller) {
            Some(jobs) if jobs.len() >= MAX_WAITING_OF_ONE => return Err("of this caller"),
            Some(jobs) => jobs.push_back(job),
            None => {
                let caller: Arc<str> = caller.into();
                self.turns.push_back(caller.clone());
                self.jobs.insert(caller, VecDeque::from([job]));
            }
        }
        self.count += 1;
        Ok(())
    }

    /// The next job of the caller whose turn it is.
    fn pop(&mut self) -> Option<Job> {
        let caller = self.turns.pop_front()?;
        let jobs = self.jobs.get_mut(&caller)?;
        let job = jobs.pop_front()?;
        self.count -= 1;
        if jobs.is_empty() {
            self.jobs.remove(&caller);
        } else {
            self.turns.push_back(caller);
        }
        Some(job)
    }
}

impl LargeReads {
    /// Starts the threads: one for two processors. `patience_ms` is how long callers wait for an answer. A thread that
    /// has nothing to do says so with `idle`.
    pub fn start(patience_ms: Millis, idle: fn()) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (processors / 2).max(1);
        for _ in 0..threads {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name("large reads".into())
                .spawn(move || work(&shared, threads, idle))?;
        }
        Ok(LargeReads { shared, patience_ms })
    }

    /// Makes a read for `caller` when its turn comes. Whoever answers keeps the turn until the answer has left.
    pub async fn make<T: Send + 'static>(
        &self,
        caller: &str,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(T, Turn), ReadError> {
        let (sender, answer) = oneshot::channel();
        let given_up_at = time::mono() + self.patience_ms;
        let job = Box::new(move |turn| {
            // After that nobody waits for the answer any more.
            let made = match time::mono() < given_up_at {
                true => Ok((read(), turn)),
                false => Err(ReadError::TooLate),
            };
            let _ = sender.send(made);
        });
        let pushed = self.shared.lock().push(caller, job);
        pushed.map_err(ReadError::TooMany)?;
        self.shared.changed.notify_one();
        answer.await.unwrap_or(Err(ReadError::GivenUp))
    }
}

impl Drop for LargeReads {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

/// Takes turns, of which `most` may be taken at a time.
fn work(shared: &Arc<Shared>, most: usize, idle: fn()) {
    // Without the permission to be nice the threads have the ordinary priority.
    let _ = rustix::process::setpriority_process(None, NICE);
    while let Some(job) = next(shared, most) {
        let turn = Turn(shared.clone());
        // What it panicked about is in the log; the next one is another's.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(turn)));
        if shared.lock().count == 0 {
            idle();
        }
    }
}

/// The next job once a turn is free; none after the end.
fn next(shared: &Shared, most: usize) -> Option<Job> {
    let has_to_wait = |waiting: &mut Waiting| (waiting.count == 0 || waiting.under_way >= most) && !waiting.closed;
    let waiting = shared.changed.wait_while(shared.lock(), has_to_wait);
    let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
    let job = waiting.pop()?;
    waiting.under_way += 1;
    Some(job)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &'static str, made: &Arc<Mutex<Vec<&'static str>>>) -> Job {
        let made = made.clone();
        Box::new(move |_| made.lock().unwrap().push(name))
    }

    fn turn() -> Turn {
        let shared = Arc::new(Shared::default());
        shared.lock().under_way = 1;
        Turn(shared)
    }

    #[test]
    fn callers_take_turns() {
        let made = Arc::default();
        let mut waiting = Waiting::default();
        for name in ["a1", "a2", "a3"] {
            waiting.push("a", job(name, &made)).unwrap();
        }
        waiting.push("b", job("b1", &made)).unwrap();
        while let Some(job) = waiting.pop() {
            job(turn());
        }
        assert_eq!(*made.lock().unwrap(), ["a1", "b1", "a2", "a3"]);
        assert!(waiting.jobs.is_empty() && waiting.turns.is_empty() && waiting.count == 0);
    }

    #[test]
    fn what_waits_is_bounded_for_one_and_for_all() {
        let made = Arc::default();
        let mut waiting = Waiting::default();
        for _ in 0..MAX_WAITING_OF_ONE {
            waiting.push("a", job("a", &made)).unwrap();
        }
        assert!(waiting.push("a", job("a", &made)).is_err());
        for caller in 0..MAX_WAITING - MAX_WAITING_OF_ONE {
            waiting.push(&caller.to_string(), job("b", &made)).unwrap();
        }
        assert!(waiting.push("another", job("c", &made)).is_err());
        waiting.pop().unwrap()(turn());
        assert!(waiting.push("another", job("c", &made)).is_ok());
    }

    #[tokio::test]
    async fn a_read_that_panics_is_an_error_and_the_next_one_is_made() {
        let reads = LargeReads::start(2_000, || {}).unwrap();
        let panicked = reads.make("a", || -> () { panic!("on purpose") }).await;
        assert!(panicked.is_err());
        assert_eq!(reads.make("a", || 7).await.unwrap().0, 7);
    }

    #[tokio::test]
    async fn a_turn_lasts_until_the_answer_has_left() {
        let reads = LargeReads::start(2_000, || {}).unwrap();
        let threads = std::thread::available_parallelism().map_or(1, usize::from) / 2;
        let mut turns = Vec::new();
        for _ in 0..threads.max(1) {
            turns.push(reads.make("a", || ()).await.unwrap());
        }
        let mut next = Box::pin(reads.make("b", || 7));
        let limit = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(limit, &mut next).await.is_err());
        turns.pop();
        assert_eq!(next.await.unwrap().0, 7);
    }
}
