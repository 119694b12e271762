//! What the sections ask of Redis and Valkey.

use anyhow::{ensure, Context, Result};
use testkit::{redis_benchmark, RedisServer};

/// Writes `keys` keys as [`crate::node::filled`] does.
pub async fn fill(server: &RedisServer, keys: usize, value_bytes: usize, expires: u32) -> Result<()> {
    let expiry = if expires > 0 {
        format!(", 'EX', {expires}")
    } else {
        String::new()
    };
    // In portions: Lua keeps what it has made until its garbage is collected.
    for first in (0..keys).step_by(10_000) {
        let last = (first + 10_000).min(keys) - 1;
        let script = format!(
            "for i={first},{last} do redis.call('SET', string.format('%016d', i), string.rep('v', {value_bytes}){expiry}) end return 1"
        );
        server.command(&["EVAL", &script, "0"]).await?;
    }
    let held = server.command(&["DBSIZE"]).await?;
    ensure!(
        held.trim() == keys.to_string(),
        "it holds {held} keys instead of {keys}"
    );
    Ok(())
}

/// Sets per second of redis-benchmark with so many clients, each with so many requests under way, over 1,000,000 keys.
pub async fn sets_per_second(
    server: &RedisServer,
    clients: usize,
    under_way: usize,
    requests: usize,
    value_bytes: usize,
) -> Result<f64> {
    let output = tokio::process::Command::new(redis_benchmark()?)
        .args([
            "-p",
            &server.port().to_string(),
            "-t",
            "set",
            "-P",
            &under_way.to_string(),
            "-r",
            "1000000",
            "--csv",
        ])
        .args([
            "-n",
            &requests.to_string(),
            "-c",
            &clients.to_string(),
            "-d",
            &value_bytes.to_string(),
        ])
        .output()
        .await
        .context("redis-benchmark")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let rate = text
        .lines()
        .find_map(|line| line.strip_prefix("\"SET\",\"")?.split('"').next()?.parse().ok());
    rate.with_context(|| format!("redis-benchmark said '{text}'"))
}
