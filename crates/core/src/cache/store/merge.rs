//! Merging what peers have written.

use super::Cache;
use crate::cache::command::{Command, CommandError};
use crate::cache::stamp::{Millis, Time};
use crate::cache::table::Home;

/// Commands that are merged under one lock of a partition at most: others have to wait meanwhile.
const MAX_LOCKED: usize = 256;

/// Keys for which an empty table is made large enough at once, at most: commands may all be about one key.
const MAX_RESERVED: usize = 4_096;

impl Cache {
    /// Merges a command of a peer. Returns whether it changed anything.
    pub fn apply<B: AsRef<[u8]>>(&self, command: &Command<B>, now: Millis) -> Result<bool, CommandError> {
        let mut answer = Ok(false);
        self.apply_all(std::slice::from_ref(command), now, |applied| answer = applied);
        answer
    }

    /// Merges the commands of a message, in order. Answers for each as [`Cache::apply`] does.
    ///
    /// Of a large cache nearly every key is far away in memory. So the processor is asked for what later commands need
    /// while earlier ones are merged. Commands for one partition in a row, of which a replay consists, take its lock
    /// together, some hundred at a time. `answer` is called with the partition locked.
    pub fn apply_all<B: AsRef<[u8]>>(
        &self,
        commands: &[Command<B>],
        now: Millis,
        mut answer: impl FnMut(Result<bool, CommandError>),
    ) {
        let latest = Time::from_millis(now.saturating_add(self.limits.max_clock_skew_ms));
        let floor = self.floor();
        let homes: Vec<Home> = commands
            .iter()
            .map(|command| self.tables.home(command.key.as_ref()))
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
                for (command, home) in commands[batch.clone()].iter().zip(&homes[batch]) {
                    answer(command.check(latest).map(|()| {
                        self.clock.observe(command.newest().time);
                        // Of a deletion there is always a mark: a living counter may build upon it. One that is alone
                        // goes with the next sweep, and nobody hands it out.
                        let forgotten = command.removes_an_element() && command.newest().time < floor;
                        let key = command.key.as_ref();
                        let (_, changed) = locked.merge(
                            key,
                            *home,
                            now,
                            |_| command,
                            |command| Some((&command.change, forgotten)),
                        );
                        changed
                    }));
                }
            }
            done += run;
        }
    }
}
