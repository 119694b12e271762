//! Raw NATS, the baseline of some figures.

use anyhow::{Context, Result};
use async_nats::{Client, Subscriber};
use bytes::Bytes;
use futures::StreamExt;

use crate::node::LIMIT;

/// A subscription that the server knows of. `flush` only writes it to the socket: what another connection publishes at
/// once may be there before it.
pub async fn subscribed(client: &Client, subject: &'static str) -> Result<Subscriber> {
    let mut subscription = client.subscribe(subject).await?;
    client.publish(subject, Bytes::new()).await?;
    let echo = tokio::time::timeout(LIMIT, subscription.next()).await;
    echo.ok().flatten().context("a subscription does not hear itself")?;
    Ok(subscription)
}
