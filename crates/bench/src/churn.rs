//! Section 12: what is left of keys that were created and deleted.
//!
//! Measured in a process of its own, on a virtual clock: the cache takes the time as an argument, so three minutes of
//! churn take as long as their writes.

use std::process::Stdio;

use anyhow::{bail, ensure, Context, Result};
use kvcache_core::cache::{Cache, Limits, Millis, NodeId, PARTITIONS};
use kvcache_node::service::{SWEEP_INTERVAL, SWEEP_PARTITIONS};

use crate::live::resident;
use crate::node::key;
use crate::report::{median, Line, Series, Target};
use crate::table::grouped;
use crate::Arguments;

const SECTION: u8 = 12;

/// Distinct keys, and how many of them are created and deleted in a millisecond of the virtual clock.
const KEYS: usize = 10_000_000;
const KEYS_QUICK: usize = 2_000_000;
const PER_MS: usize = 50;

/// How long a deletion is remembered.
const TOMBSTONE_MS: Millis = 10_000;

const VALUE_BYTES: usize = 16;

/// How often a run says how it is.
const LOOKS: usize = 10;

/// Any time of a wall clock.
const BEGAN: Millis = 1_700_000_000_000;

/// Time that passes for the cache alone.
struct Clock {
    now: Millis,
    next_sweep: Millis,
    growth: kvcache_allocator::Growth,
}

impl Clock {
    /// A millisecond passes. Sweeps as the service does.
    fn advance(&mut self, cache: &Cache) {
        self.now += 1;
        if self.now >= self.next_sweep {
            self.next_sweep = self.now + SWEEP_INTERVAL.as_millis() as Millis;
            cache.sweep(SWEEP_PARTITIONS, self.now);
            self.growth.look(cache.keys());
        }
    }
}

/// Creates and deletes keys. Prints resident bytes and entries at the beginning, some times on the way, and when all
/// deletions are forgotten.
pub fn churn(keys: usize) -> Result<()> {
    let limits = Limits {
        tombstone_ttl_ms: TOMBSTONE_MS,
        ..Limits::default()
    };
    let cache = Cache::new(NodeId(1), limits);
    let mut clock = Clock {
        now: BEGAN,
        next_sweep: 0,
        growth: kvcache_allocator::Growth::default(),
    };
    let look = || println!("{} {}", resident(), cache.entries());
    look();
    for number in 0..keys {
        let value = format!("{number:0VALUE_BYTES$}");
        cache.set(&key(number), &*value, 0, clock.now)?;
        let (deleted, _) = cache.delete(&key(number), clock.now)?;
        ensure!(deleted, "a key that was just set is not there");
        if (number + 1) % PER_MS == 0 {
            clock.advance(&cache);
        }
        if (number + 1) % (keys / LOOKS) == 0 {
            look();
        }
    }
    let round = (PARTITIONS / SWEEP_PARTITIONS) as Millis * SWEEP_INTERVAL.as_millis() as Millis;
    for _ in 0..2 * TOMBSTONE_MS + round {
        clock.advance(&cache);
    }
    kvcache_allocator::give_back_now();
    look();
    Ok(())
}

/// What one run says, resident memory beyond what the empty process had.
struct Run {
    /// Megabytes and entries on the way.
    churning: Vec<(f64, f64)>,
    /// The same when all is forgotten.
    forgotten: (f64, f64),
}

impl Run {
    async fn of(keys: usize) -> Result<Self> {
        let output = tokio::process::Command::new(std::env::current_exe()?)
            .args(["churn", "--keys", &keys.to_string()])
            .stderr(Stdio::inherit())
            .output()
            .await?;
        ensure!(output.status.success(), "the churning process failed");
        let mut looks = Vec::new();
        for line in String::from_utf8(output.stdout)?.lines() {
            let (resident, entries) = line.split_once(' ').with_context(|| format!("cannot read {line:?}"))?;
            looks.push((resident.parse::<f64>()? / 1e6, entries.parse()?));
        }
        let [empty, churning @ .., forgotten] = &looks[..] else {
            bail!("the churning process said nothing");
        };
        ensure!(churning.len() == LOOKS, "the churning process said too little");
        let beyond = |look: &(f64, f64)| (look.0 - empty.0, look.1);
        Ok(Run {
            churning: churning.iter().map(beyond).collect(),
            forgotten: beyond(forgotten),
        })
    }

    fn most(&self, of: fn(&(f64, f64)) -> f64) -> f64 {
        self.churning.iter().map(of).fold(0.0, f64::max)
    }
}

/// Measures the section.
pub async fn lines(arguments: &Arguments) -> Result<(Vec<Line>, Vec<Series>)> {
    let keys = if arguments.quick { KEYS_QUICK } else { KEYS };
    let mut runs = Vec::new();
    for _ in 0..arguments.runs() {
        runs.push(Run::of(keys).await?);
    }
    let line = |what: &str, unit: &str, of: &dyn Fn(&Run) -> f64, target| {
        let what = format!("{} keys created and deleted: {what}", grouped(keys as f64));
        Line::alone(SECTION, what, unit, runs.iter().map(of).collect(), target)
    };
    let lines = vec![
        line(
            "memory beyond an empty process after a tenth of them",
            "MB",
            &|run| run.churning[0].0,
            Target::None,
        ),
        line("at most", "MB", &|run| run.most(|look| look.0), Target::None),
        line("after the last", "MB", &|run| run.churning[LOOKS - 1].0, Target::None),
        line(
            "when all deletions are forgotten",
            "MB",
            &|run| run.forgotten.0,
            Target::None,
        ),
        line(
            "deletions remembered at once, at most",
            "entries",
            &|run| run.most(|look| look.1),
            Target::None,
        ),
        line(
            "entries left when all deletions are forgotten",
            "entries",
            &|run| run.forgotten.1,
            Target::AtMost(0.0),
        ),
    ];
    let points = (0..LOOKS).filter_map(|look| {
        let samples: Vec<f64> = runs.iter().map(|run| run.churning[look].0).collect();
        Some(((keys / LOOKS * (look + 1)) as f64, median(&samples)?))
    });
    let series = Series {
        section: SECTION,
        name: "memory beyond an empty process".into(),
        size: "keys created and deleted".into(),
        unit: "MB".into(),
        points: points.collect(),
    };
    Ok((lines, vec![series]))
}
