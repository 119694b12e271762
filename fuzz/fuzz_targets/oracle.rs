//! Any writes at three caches, which hear of each other in any order, some more than once: in the end all are equal and
//! show what the model of the merge rules shows.
#![no_main]

use kvcache_core::cache::{Cache, Delta, Limits, Millis, NodeId, Time};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/core/tests/model/mod.rs"]
#[allow(dead_code)]
mod model;
mod support;

use support::{checked_digest, deltas, keys, perform, seen, write, START};

const CACHES: usize = 3;
const MOST_STEPS: usize = 100;

/// What has happened.
struct History {
    caches: Vec<Cache>,
    /// All that was written, in the order in which it was.
    deltas: Vec<Delta>,
    now: Millis,
}

impl History {
    fn new() -> Self {
        let cache = |number| Cache::new(NodeId(number as u64 + 1), Limits::default());
        Self {
            caches: (0..CACHES).map(cache).collect(),
            deltas: Vec::new(),
            now: START,
        }
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let cache = &self.caches[input.choose_index(CACHES)?];
        match input.int_in_range(0..=5)? {
            0..=2 => {
                self.now += input.int_in_range(0..=50)?;
                let (key, write) = (input.choose_index(2)?, write(input, false)?);
                // A write that is refused, for the type of the key, is none.
                let delta = perform(cache, &keys()[key], &write, self.now).ok().flatten();
                self.deltas.extend(delta);
            }
            3..=4 if !self.deltas.is_empty() => {
                let delta = input.choose(&self.deltas)?;
                cache.apply(delta, self.now).expect("an honest delta");
            }
            // It forgets deletions, of which there are none that old.
            _ => cache.raise_floor(Time::from_millis(START - 1)),
        }
        Ok(())
    }

    /// All deltas in any order.
    fn shuffled(&self, input: &mut Unstructured<'_>) -> Vec<&Delta> {
        let mut left: Vec<&Delta> = self.deltas.iter().collect();
        let mut shuffled = Vec::with_capacity(left.len());
        while !left.is_empty() {
            // When the input ends, the rest is in order.
            let next = input.choose_index(left.len()).unwrap_or(0);
            shuffled.push(left.remove(next));
        }
        shuffled
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    let mut history = History::new();
    for _ in 0..MOST_STEPS {
        if input.is_empty() || history.step(&mut input).is_err() {
            break;
        }
    }
    for cache in &history.caches {
        for delta in history.shuffled(&mut input) {
            cache.apply(delta, history.now).expect("an honest delta");
        }
    }
    let [first, others @ ..] = &history.caches[..] else {
        return;
    };
    for other in others {
        assert_eq!(checked_digest(other), checked_digest(first));
        assert_eq!(deltas(other), deltas(first));
    }
    for key in keys() {
        let of_key = history
            .deltas
            .iter()
            .filter(|delta| *delta.key == *key.as_bytes());
        let state = model::join_all(of_key);
        assert_eq!(seen(first, &key, history.now), model::seen(&state), "{key:?}");
    }
});
