//! Waiting for a condition, with a limit.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{anyhow, Result};

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Polls `condition` until it is `Ok` or `limit` has passed; the error then carries the last reason.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let mut calls = 0;
/// let answer = testkit::eventually(std::time::Duration::from_secs(1), || {
///     calls += 1;
///     let ready = calls == 3;
///     async move { if ready { Ok(42) } else { anyhow::bail!("not yet") } }
/// });
/// assert_eq!(answer.await.unwrap(), 42);
/// # })
/// ```
pub async fn eventually<T, F, Fut>(limit: Duration, condition: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    poll(limit, LONGEST_PAUSE, condition).await
}

/// As [`eventually`], but asks every `pause`: for those who measure how long it takes.
pub async fn promptly<T, F, Fut>(pause: Duration, limit: Duration, condition: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    poll(limit, pause, condition).await
}

async fn poll<T, F, Fut>(limit: Duration, longest: Duration, mut condition: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + limit;
    let mut pause = FIRST_PAUSE.min(longest);
    loop {
        let last = match condition().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            return Err(anyhow!("not within {limit:?}: {last:#}"));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}
