//! Sets and gets per second on the thread of the caller, as the host calls its cache.

use std::time::{Duration, Instant};

use anyhow::{anyhow, Result};
use serde_json::json;
use wasmcloud_provider_core::CapabilityProvider;

use crate::answer;
use crate::plugin::{bind, to_bytes};

const AT_LEAST: Duration = Duration::from_secs(1);

/// Prints a line of JSON: `sets` and `gets` per second with so many keys there, and resident memory in kB.
pub fn run(plugin: Box<dyn CapabilityProvider>, keys: u64) -> Result<()> {
    bind(&*plugin)?;
    let sets: Vec<Vec<u8>> = (0..keys).map(set).collect::<Result<_>>()?;
    let gets: Vec<Vec<u8>> = (0..keys)
        .map(|key| to_bytes(&json!({ "key": name(key) })))
        .collect::<Result<_>>()?;
    for argument in &sets {
        call(&*plugin, "Set", argument)?;
    }
    let sets = rate(&*plugin, "Set", &sets)?;
    let gets = rate(&*plugin, "Get", &gets)?;
    answer(Ok(
        json!({ "keys": keys, "sets": sets, "gets": gets, "resident_kb": resident_kb()? }),
    ))?;
    plugin.stop();
    Ok(())
}

/// As long as a link of the host.
fn set(key: u64) -> Result<Vec<u8>> {
    to_bytes(&json!({ "key": name(key), "value": "v".repeat(200), "expires": 0 }))
}

fn name(key: u64) -> String {
    format!("wclc:link_{}", key)
}

fn rate(plugin: &dyn CapabilityProvider, operation: &str, arguments: &[Vec<u8>]) -> Result<f64> {
    let (start, mut calls) = (Instant::now(), 0_u64);
    while start.elapsed() < AT_LEAST {
        for argument in arguments {
            call(plugin, operation, argument)?;
            calls += 1;
            if calls % 256 == 0 && start.elapsed() >= AT_LEAST {
                break;
            }
        }
    }
    Ok((calls as f64 / start.elapsed().as_secs_f64()).round())
}

fn call(plugin: &dyn CapabilityProvider, operation: &str, argument: &[u8]) -> Result<()> {
    let answered = plugin.handle_call("system", operation, argument);
    answered.map(drop).map_err(|error| anyhow!("{}", error))
}

fn resident_kb() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap_or_default();
    Ok(line.split_whitespace().nth(1).unwrap_or("0").parse()?)
}
