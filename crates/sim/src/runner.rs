//! Many runs, on several threads.

use std::cell::{Cell, RefCell};
use std::ops::{ControlFlow, Range};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::Once;
use std::thread;
use std::time::Duration;

use crate::outcome::Outcome;
use crate::scenario::Scenario;
use crate::world::World;

/// How often the caller of [`run_all`] is told how far it got, at least.
const REPORT: Duration = Duration::from_millis(200);

/// A run that found something wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// What is wrong, and where that was found.
    pub message: String,
}

/// The sum of many runs.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Runs that ended, well or not.
    pub runs: u64,
    /// Sum over those that ended well.
    pub outcome: Outcome,
    /// Those that did not.
    pub failures: Vec<Failure>,
}

thread_local! {
    /// Whether a panic of this thread is caught and told by [`play`].
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
    /// What it said.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps what caught panics say, instead of printing it in the middle of other output.
fn keep_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if CAUGHT.get() {
                let payload = panic.payload();
                let text = payload.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
                let text = text.unwrap_or("a panic without a text");
                let place = panic.location().map(ToString::to_string).unwrap_or_default();
                PANIC.set(format!("{text} ({place})"));
            } else {
                usual(panic);
            }
        }));
    });
}

/// One run, with its story on standard output if wanted.
pub fn play(scenario: Scenario, story: bool) -> Result<Outcome, Failure> {
    keep_panics();
    let seed = scenario.seed;
    CAUGHT.set(true);
    let run = panic::catch_unwind(AssertUnwindSafe(|| World::new(scenario, story).run()));
    CAUGHT.set(false);
    run.map_err(|_| Failure {
        seed,
        message: PANIC.take(),
    })
}

/// Runs all seeds on `jobs` threads. `report` hears a few times a second of the sum so far and of the seeds that are
/// being run, and may say that it is enough.
pub fn run_all(
    seeds: Range<u64>,
    jobs: usize,
    scenario: impl Fn(u64) -> Scenario + Sync,
    mut report: impl FnMut(&Totals, &[AtomicU64]) -> ControlFlow<()>,
) -> Totals {
    let (next, enough) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let running: Vec<AtomicU64> = (0..jobs.max(1)).map(|_| AtomicU64::new(u64::MAX)).collect();
    let mut totals = Totals::default();
    let (sender, results) = mpsc::channel();
    thread::scope(|scope| {
        for slot in &running {
            let (sender, next, enough, scenario) = (sender.clone(), &next, &enough, &scenario);
            scope.spawn(move || {
                while !enough.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    slot.store(seed, Ordering::Relaxed);
                    if sender.send(play(scenario(seed), false)).is_err() {
                        break;
                    }
                }
                slot.store(u64::MAX, Ordering::Relaxed);
            });
        }
        drop(sender);
        loop {
            match results.recv_timeout(REPORT) {
                Ok(result) => {
                    totals.add(result);
                    // What else has come meanwhile is counted before anything is told.
                    results.try_iter().for_each(|result| totals.add(result));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if report(&totals, &running).is_break() {
                enough.store(true, Ordering::Relaxed);
            }
        }
    });
    totals.failures.sort_by_key(|failure| failure.seed);
    totals
}

impl Totals {
    fn add(&mut self, result: Result<Outcome, Failure>) {
        self.runs += 1;
        match result {
            Ok(outcome) => self.outcome.add(&outcome),
            Err(failure) => self.failures.push(failure),
        }
    }
}
