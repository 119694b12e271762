//! Processor time of another process.

use anyhow::{Context, Result};

/// Seconds that all threads of a process have run so far, in user and kernel mode. Counts in nanoseconds, where the
/// ticks of `/proc/PID/stat` would be too coarse for a slice.
pub fn seconds_of(pid: u32) -> Result<f64> {
    let folder = format!("/proc/{pid}/task");
    let mut nanoseconds = 0;
    for thread in std::fs::read_dir(&folder).with_context(|| folder.clone())? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        let first = text.split_whitespace().next().context("an empty schedstat")?;
        nanoseconds += first.parse::<u64>().context("schedstat")?;
    }
    Ok(nanoseconds as f64 / 1e9)
}
