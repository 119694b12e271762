//! Callers in a closed loop: each sends its next call when the last one is answered.

use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::caller::Caller;
use crate::value::VALUE;

/// How many keys are read and written.
pub const KEYS: u64 = 10_000;
/// Longest latency that is told apart, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;
/// Calls before the measured part of a slice: the provider last ran some slices ago, and the one before has deltas left
/// that it sends only now, as it gathers them for 50 ms.
pub const WARM_UP: Duration = Duration::from_millis(60);

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Get,
    Set,
}

impl Operation {
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
        }
    }

    async fn call(self, caller: &Caller, number: u64) -> Result<()> {
        let key = key(number);
        match self {
            Self::Set => caller.set(&key, VALUE).await,
            Self::Get => {
                let answer = caller.get(&key).await?;
                ensure!(
                    answer.exists && answer.value == VALUE,
                    "{key} does not hold what was set"
                );
                Ok(())
            }
        }
    }
}

/// One measured stretch of time.
pub struct Slice {
    /// Calls in the measured part.
    pub calls: u64,
    /// Calls per second.
    pub per_second: f64,
    /// 99 of 100 calls took at most this long, in microseconds.
    pub p99_us: f64,
}

/// Key number `number`, of 16 bytes.
fn key(number: u64) -> String {
    format!("key/{number:012}")
}

/// Writes all keys.
pub async fn fill(caller: &Caller) -> Result<()> {
    const WRITERS: u64 = 64;
    let mut writers = JoinSet::new();
    for first in 0..WRITERS {
        let caller = caller.clone();
        writers.spawn(async move {
            for number in (first..KEYS).step_by(WRITERS as usize) {
                Operation::Set.call(&caller, number).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer?.context("filling the cache")?;
    }
    Ok(())
}

/// `concurrency` callers, for `length` after the warm-up.
pub async fn slice(caller: &Caller, operation: Operation, concurrency: u64, length: Duration) -> Result<Slice> {
    let begin = Instant::now() + WARM_UP;
    let end = begin + length;
    let mut loops = JoinSet::new();
    for number in 0..concurrency {
        loops.spawn(call_until(caller.clone(), operation, Keys::of(number), begin, end));
    }
    let mut latencies = Histogram::new_with_max(LONGEST_NS, 3)?;
    while let Some(part) = loops.join_next().await {
        latencies.add(part??)?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    Ok(Slice {
        calls: latencies.len(),
        per_second: latencies.len() as f64 / seconds,
        p99_us: latencies.value_at_quantile(0.99) as f64 / 1e3,
    })
}

async fn call_until(
    caller: Caller,
    operation: Operation,
    mut keys: Keys,
    begin: Instant,
    end: Instant,
) -> Result<Histogram<u32>> {
    let mut latencies = Histogram::new_with_max(LONGEST_NS, 3)?;
    loop {
        let sent = Instant::now();
        if sent >= end {
            return Ok(latencies);
        }
        operation.call(&caller, keys.next()).await?;
        if sent >= begin {
            latencies.record(sent.elapsed().as_nanos() as u64)?;
        }
    }
}

/// The keys that one caller takes, in an order that looks random and is the same in every slice (xorshift).
struct Keys(u64);

impl Keys {
    fn of(caller: u64) -> Self {
        Self((caller + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % KEYS
    }
}
