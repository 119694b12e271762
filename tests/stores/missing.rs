//! Stores that cannot be used, and what is said of them.

use std::fs;

use anyhow::{ensure, Result};
use serde_json::json;
use testkit::eventually;

use crate::hosts::{pair, Hosts, LIMIT};

/// Writes something over the file of a store.
fn damage(hosts: &Hosts, host: usize, change: impl Fn(&mut Vec<u8>)) -> Result<()> {
    for file in fs::read_dir(hosts.folder(host).join("store"))? {
        let path = file?.path();
        let mut bytes = fs::read(&path)?;
        change(&mut bytes);
        fs::write(&path, bytes)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_damaged_store_is_named_and_not_taken_for_an_empty_one() -> Result<()> {
    let Some(mut hosts) = Hosts::new(2, json!({ "SYNC_TIMEOUT_SECS": 1 })).await? else {
        return Ok(());
    };
    hosts.providers.push(hosts.start(0).await?);
    hosts.providers[0].wait_ready(LIMIT).await?;
    let client = hosts.client(0).await?;
    client
        .set("key", "value")
        .await
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    hosts.wait_flushed().await?;
    hosts.kill_all()?;
    damage(&hosts, 0, |bytes| bytes.fill(7))?;
    let alone = hosts.start(0).await?;
    let status = eventually(LIMIT, || async {
        let health = alone.health().await?;
        ensure!(!health.healthy, "healthy with a damaged store");
        let message = health.message.unwrap_or_default();
        ensure!(message.contains("store_state=\"missing: "), "{message}");
        Ok(message)
    })
    .await?;
    ensure!(
        status.contains("store") && status.contains(".redb"),
        "does not name the store: {status}"
    );
    let client = alone.keyvalue(&hosts.actor).await?;
    let error = eventually(LIMIT, || async {
        let answer = client.get("key").await;
        let error = answer.err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(
            error.contains("cannot be read") && error.contains("STORE_REQUIRED"),
            "{error:?}"
        );
        Ok(error)
    })
    .await?;
    ensure!(error.contains("nothing was changed"), "{error}");
    ensure!(
        client.set("key", "other").await.is_err(),
        "a write into a cache that is not there"
    );
    // With a host that has data, it answers.
    let other = hosts.start_with(1, None).await?;
    eventually(LIMIT, || async {
        ensure!(pair(&other.status().await?, "sync") == "synced");
        Ok(())
    })
    .await?;
    eventually(LIMIT, || async {
        client.get("key").await.map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn without_its_store_a_host_answers_where_it_is_told_to() -> Result<()> {
    let settings = json!({ "STORE_REQUIRED": "off" });
    let Some(hosts) = Hosts::new(1, settings).await? else {
        return Ok(());
    };
    fs::write(hosts.folder(0).join("store"), "a file where a folder is expected")?;
    let provider = hosts.start(0).await?;
    let client = provider.keyvalue(&hosts.actor).await?;
    eventually(LIMIT, || async {
        client
            .set("key", "value")
            .await
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(())
    })
    .await?;
    let health = provider.health().await?;
    ensure!(!health.healthy, "{health:?}");
    // When it can be used it takes what is there.
    fs::remove_file(hosts.folder(0).join("store"))?;
    eventually(LIMIT, || async {
        let status = provider.status().await?;
        ensure!(pair(&status, "store_state") == "ready", "{status}");
        Ok(())
    })
    .await?;
    eventually(LIMIT, || async {
        ensure!(pair(&provider.status().await?, "store_dirty") == "0");
        Ok(())
    })
    .await?;
    drop(provider);
    let provider = hosts.start(0).await?;
    let client = provider.keyvalue(&hosts.actor).await?;
    eventually(LIMIT, || async {
        let value = client.get("key").await.map_err(|error| anyhow::anyhow!("{error}"))?;
        ensure!(value.as_deref() == Some("value"), "{value:?}");
        Ok(())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn two_hosts_do_not_share_a_file() -> Result<()> {
    let Some(hosts) = Hosts::new(1, json!({})).await? else {
        return Ok(());
    };
    let mut first = hosts.start(0).await?;
    first.wait_ready(LIMIT).await?;
    let second = hosts.start(0).await?;
    let line = second
        .wait_for_log("each node needs a folder of its own", LIMIT)
        .await?;
    ensure!(line.contains("is in use by another process"), "{line}");
    Ok(())
}

#[tokio::test]
async fn settings_of_stores_are_refused_by_name() -> Result<()> {
    let Some(hosts) = Hosts::new(1, json!({})).await? else {
        return Ok(());
    };
    for (store, expected) in [
        ("postgres://somewhere", "begins with file:"),
        ("/var/lib", "no scheme"),
        ("file:", "file:/path/of/a/folder"),
        ("file:/x?y=1", "unknown parameter"),
        ("redis://:secret@host:0", "expected host:port"),
    ] {
        let mut provider = hosts.start_with(0, Some(store)).await?;
        let line = provider.wait_for_log("STORE", LIMIT).await?;
        ensure!(
            line.contains("setting STORE in config_json") && line.contains(expected),
            "{store}: {line}"
        );
        ensure!(!line.contains("secret"), "{line}");
        provider.exit_status(LIMIT).await?;
    }
    let Some(hosts) = Hosts::new(1, json!({ "ACK": "stored" })).await? else {
        return Ok(());
    };
    let provider = hosts.start_with(0, None).await?;
    let line = provider.wait_for_log("STORE", LIMIT).await?;
    ensure!(line.contains("expected with ACK=stored"), "{line}");
    Ok(())
}
