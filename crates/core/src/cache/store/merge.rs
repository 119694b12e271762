//! Merging what peers have written.

use super::Cache;
use crate::cache::delta::{Delta, DeltaError};
use crate::cache::stamp::{Millis, Time};
use crate::cache::table::Home;

/// Deltas that are merged under one lock of a partition at most: others have to wait meanwhile.
const MAX_LOCKED: usize = 256;

/// Keys for which an empty table is made large enough at once, at most: deltas may all be about one key.
const MAX_RESERVED: usize = 4_096;

impl Cache {
    /// Merges a delta of a peer. Returns whether it changed anything.
    pub fn apply<B: AsRef<[u8]>>(&self, delta: &Delta<B>, now: Millis) -> Result<bool, DeltaError> {
        let mut answer = Ok(false);
        self.apply_all(std::slice::from_ref(delta), now, |applied| answer = applied);
        answer
    }

    /// Merges the deltas of a message, in order. Answers for each as [`Cache::apply`] does.
    ///
    /// Of a large cache nearly every key is far away in memory. So the processor is asked for what later deltas need
    /// while earlier ones are merged. Deltas for one partition in a row, of which a bootstrap consists, take its lock
    /// together, some hundred at a time. `answer` is called with the partition locked.
    pub fn apply_all<B: AsRef<[u8]>>(
        &self,
        deltas: &[Delta<B>],
        now: Millis,
        mut answer: impl FnMut(Result<bool, DeltaError>),
    ) {
        let latest = Time::from_millis(now.saturating_add(self.limits.max_clock_skew_ms));
        let floor = self.floor();
        let homes: Vec<Home> = deltas
            .iter()
            .map(|delta| self.tables.home(delta.key.as_ref()))
            .collect();
        let mut fetched = 0;
        let mut done = 0;
        while let Some(&Home { partition, .. }) = homes.get(done) {
            let here = |home: &&Home| home.partition == partition;
            let run = homes[done..].iter().take_while(here).count();
            self.tables.fetch_ahead(&homes, done, &mut fetched);
            for first in (done..done + run).step_by(MAX_LOCKED) {
                let batch = first..(first + MAX_LOCKED).min(done + run);
                let mut locked = self.tables.lock(partition);
                if run > 1 {
                    locked.expect(run.min(MAX_RESERVED));
                }
                for (delta, home) in deltas[batch.clone()].iter().zip(&homes[batch]) {
                    answer(delta.check(latest).map(|()| {
                        self.clock.observe(delta.newest().time);
                        // Of a deletion there is always a mark: a living counter may build upon it. One that is alone
                        // goes with the next sweep, and nobody hands it out.
                        let forgotten = delta.removes_an_element() && delta.newest().time < floor;
                        let key = delta.key.as_ref();
                        let (_, changed) =
                            locked.merge(key, *home, now, |_| delta, |delta| Some((&delta.change, forgotten)));
                        changed
                    }));
                }
            }
            done += run;
        }
    }
}
