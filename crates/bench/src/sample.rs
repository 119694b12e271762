//! Measuring in turns, and what can be said of the samples.

use std::time::{Duration, Instant};

/// Quantile `part` (0 to 1) of durations, in microseconds. Sorts them.
pub fn quantile_us(samples: &mut [Duration], part: f64) -> f64 {
    samples.sort_unstable();
    let place = (samples.len().saturating_sub(1) as f64 * part).round() as usize;
    samples.get(place).map_or(f64::NAN, |sample| sample.as_secs_f64() * 1e6)
}

/// Events per second: `count` of them in what `work` takes.
pub fn rate(count: usize, work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    count as f64 / started.elapsed().as_secs_f64()
}

/// Measures `ours` and `baseline` in turns, `runs` times each; the order changes with every turn, so that neither
/// always runs on what the other has left behind.
pub fn in_turns(runs: usize, mut ours: impl FnMut() -> f64, mut baseline: impl FnMut() -> f64) -> (Vec<f64>, Vec<f64>) {
    let (mut us, mut them) = (Vec::new(), Vec::new());
    for run in 0..runs {
        if run % 2 == 0 {
            us.push(ours());
            them.push(baseline());
        } else {
            them.push(baseline());
            us.push(ours());
        }
    }
    (us, them)
}
