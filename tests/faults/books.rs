//! What was asked for, what was acknowledged by which life, and what must therefore be there in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use testkit::RpcResult;

use crate::content::{is_refusal, Content, Print};
use crate::lab::Lab;

/// Violations that are kept; the first ones say it all.
const VIOLATIONS: usize = 20;

/// How a call ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Acknowledged.
    Done,
    /// Refused because of what the key holds; nothing has changed.
    Refused,
    /// No answer: it may have happened, or happen yet.
    Uncertain,
}

#[derive(Default)]
pub struct Books {
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    keys: BTreeSet<String>,
    own: BTreeMap<String, OwnKey>,
    counters: BTreeMap<String, BTreeMap<u32, Counted>>,
    tallies: BTreeMap<&'static str, Tally>,
    errors: BTreeMap<String, u64>,
    violations: Vec<String>,
    expiries_over: Option<Instant>,
}

/// A key that only one life writes, one call after the other. After a call without an answer it is left alone.
struct OwnKey {
    life: u32,
    settled: Content,
    /// What the call under way, or the one without an answer, makes of it.
    maybe: Option<Content>,
    /// Everything that was ever to be in it.
    tried: BTreeSet<Print>,
    /// Its content is computed and need not be anything that was tried.
    computed: bool,
}

/// Increments of one counter by one life.
#[derive(Clone, Copy, Default)]
struct Counted {
    acknowledged: i64,
    attempted: i64,
}

#[derive(Clone, Copy, Default)]
struct Tally {
    done: u64,
    refused: u64,
    uncertain: u64,
}

impl Books {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().expect("nobody panics with the books")
    }

    pub fn tally<T>(&self, operation: &'static str, answer: &RpcResult<T>) -> Outcome {
        let mut pages = self.pages();
        let tally = pages.tallies.entry(operation).or_default();
        match answer {
            Ok(_) => {
                tally.done += 1;
                Outcome::Done
            }
            Err(error) if is_refusal(error) => {
                tally.refused += 1;
                Outcome::Refused
            }
            Err(error) => {
                tally.uncertain += 1;
                *pages.errors.entry(error.to_string()).or_default() += 1;
                Outcome::Uncertain
            }
        }
    }

    /// A key that any node writes.
    pub fn shared_key(&self, key: &str) {
        let mut pages = self.pages();
        if !pages.keys.contains(key) {
            pages.keys.insert(key.to_owned());
        }
    }

    /// `life` is about to write its own key, which then holds `next`.
    pub fn trying(&self, key: &str, life: u32, next: Content, computed: bool) {
        let mut pages = self.pages();
        if !pages.own.contains_key(key) {
            pages.keys.insert(key.to_owned());
        }
        let own = pages.own.entry(key.to_owned()).or_insert_with(|| OwnKey {
            life,
            settled: Content::Nothing,
            maybe: None,
            tried: BTreeSet::new(),
            computed,
        });
        own.tried.extend(next.parts().iter().cloned());
        own.maybe = Some(next);
    }

    /// What was tried last is acknowledged.
    pub fn settle(&self, key: &str) {
        if let Some(own) = self.pages().own.get_mut(key) {
            if let Some(next) = own.maybe.take() {
                own.settled = next;
            }
        }
    }

    pub fn attempt(&self, counter: &str, life: u32, by: i64) {
        self.counted(counter, life, |counted| counted.attempted += by);
    }

    pub fn acknowledge(&self, counter: &str, life: u32, by: i64) {
        self.counted(counter, life, |counted| counted.acknowledged += by);
    }

    fn counted(&self, counter: &str, life: u32, change: impl FnOnce(&mut Counted)) {
        let mut pages = self.pages();
        change(
            pages
                .counters
                .entry(counter.to_owned())
                .or_default()
                .entry(life)
                .or_default(),
        );
    }

    /// Fails for operations of which not one was acknowledged: what is asked for in vain shows nothing.
    pub fn ensure_acknowledged(&self, operations: &[&str]) -> Result<()> {
        let pages = self.pages();
        let done = |operation: &&&str| pages.tallies.get(**operation).is_some_and(|tally| tally.done > 0);
        let in_vain: Vec<_> = operations.iter().filter(|operation| !done(operation)).collect();
        ensure!(in_vain.is_empty(), "not one of these was acknowledged: {in_vain:?}");
        Ok(())
    }

    /// Something was written that expires soon.
    pub fn expires_in(&self, time: Duration) {
        let over = Instant::now() + time;
        let mut pages = self.pages();
        pages.expiries_over = pages.expiries_over.max(Some(over));
    }

    /// When everything that was to expire soon has done so.
    pub fn expiries_over(&self) -> Option<Instant> {
        self.pages().expiries_over
    }

    pub fn violation(&self, what: impl fmt::Display) {
        let mut pages = self.pages();
        if pages.violations.len() < VIOLATIONS {
            pages.violations.push(what.to_string());
        }
    }

    pub fn violations(&self) -> Vec<String> {
        self.pages().violations.clone()
    }

    /// Every key that was ever written.
    pub fn keys(&self) -> Vec<String> {
        self.pages().keys.iter().cloned().collect()
    }

    /// Compares what all nodes hold with what must be there. Returns what was checked.
    pub fn check(&self, lab: &Lab, found: &BTreeMap<String, Content>) -> Checked {
        let survived: BTreeSet<u32> = lab
            .all_lives()
            .iter()
            .filter(|life| !life.is_killed())
            .map(|life| life.number)
            .collect();
        let mut checked = Checked::default();
        let mut violations = Vec::new();
        let pages = self.pages();
        for (key, own) in &pages.own {
            let content = &found[key];
            let survives = survived.contains(&own.life);
            let kind = match (survives, &own.maybe) {
                (true, None) => &mut checked.exact,
                (true, Some(_)) => &mut checked.one_of_two,
                (false, _) => &mut checked.of_the_dead,
            };
            *kind += 1;
            checked.kept += usize::from(survives && own.settled != Content::Nothing);
            let right = if survives {
                *content == own.settled || own.maybe.as_ref() == Some(content)
            } else {
                own.computed || content.parts().iter().all(|part| own.tried.contains(part))
            };
            if !right {
                let state = if survives { "survived" } else { "was killed" };
                let maybe = own
                    .maybe
                    .as_ref()
                    .map(|maybe| format!(" or {maybe}"))
                    .unwrap_or_default();
                violations.push(format!(
                    "{key} holds {content}, but life {} ({state}) left it with {}{maybe}",
                    own.life, own.settled
                ));
            }
        }
        for (counter, lives) in &pages.counters {
            let kept = lives.iter().filter(|(life, _)| survived.contains(life));
            let least: i64 = kept.map(|(_, counted)| counted.acknowledged).sum();
            let most: i64 = lives.values().map(|counted| counted.attempted).sum();
            let text = (least..=most).find(|number| found[counter] == Content::text(&number.to_string()));
            match text {
                Some(number) => {
                    checked.counted |= least > 0;
                    let told = format!("{counter}: {least} <= {number} <= {most}");
                    checked.counters.push(told);
                }
                None => violations.push(format!(
                    "{counter} holds {}, expected something from {least} to {most}",
                    found[counter]
                )),
            }
        }
        drop(pages);
        violations.iter().for_each(|violation| self.violation(violation));
        checked
    }
}

/// How many keys of one owner were compared with what.
#[derive(Default)]
pub struct Checked {
    exact: usize,
    one_of_two: usize,
    of_the_dead: usize,
    /// Keys that survivors wrote, with something in them.
    kept: usize,
    counters: Vec<String>,
    /// Survivors have added to a counter.
    counted: bool,
}

impl Checked {
    /// Fails if there was nothing that could have been lost.
    pub fn ensure_telling(&self) -> Result<()> {
        ensure!(
            self.exact > 0,
            "no key of a survivor had to hold exactly what was acknowledged"
        );
        ensure!(self.kept > 0, "no key of a survivor had to hold anything");
        ensure!(self.counted, "no survivor has counted anything");
        Ok(())
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "keys of one writer: {} hold exactly what was acknowledged last, {} that or the call without an answer, \
             {} of killed processes\n  counters: {}",
            self.exact,
            self.one_of_two,
            self.of_the_dead,
            self.counters.join(", ")
        )
    }
}

/// Operations and errors.
impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pages = self.pages();
        let mut sum = Tally::default();
        for tally in pages.tallies.values() {
            sum.done += tally.done;
            sum.refused += tally.refused;
            sum.uncertain += tally.uncertain;
        }
        write!(
            f,
            "{} operations acknowledged, {} refused (other type), {} without an answer",
            sum.done, sum.refused, sum.uncertain
        )?;
        for (operation, tally) in &pages.tallies {
            write!(
                f,
                "\n  {operation:<10} {:>7} {:>5} {:>5}",
                tally.done, tally.refused, tally.uncertain
            )?;
        }
        for (error, count) in &pages.errors {
            write!(f, "\n  {count} times: {error}")?;
        }
        Ok(())
    }
}
