//! Every process is killed, and what was written is there again.

use std::time::Duration;

use anyhow::{ensure, Result};
use serde_json::json;
use testkit::eventually;

use crate::hosts::{pair, said, Hosts, LIMIT};

#[tokio::test]
async fn three_hosts_killed_at_once_come_back_with_everything() -> Result<()> {
    let Some(mut hosts) = Hosts::new(3, json!({})).await? else {
        return Ok(());
    };
    hosts.start_all().await?;
    let clients = [hosts.client(0).await?, hosts.client(1).await?, hosts.client(2).await?];
    for (n, client) in clients.iter().enumerate() {
        for key in 0..50 {
            client
                .set(&format!("{n}.{key}"), &format!("value {key}"))
                .await
                .map_err(said)?;
        }
        for _ in 0..10 {
            client.increment("counter", 3).await.map_err(said)?;
        }
        client.list_add("list", &format!("item {n}")).await.map_err(said)?;
        client.set_add("set", &format!("member {n}")).await.map_err(said)?;
        client.set_for(&format!("short {n}"), "value", 3).await.map_err(said)?;
        client
            .set_for(&format!("long {n}"), "value", 3_600)
            .await
            .map_err(said)?;
    }
    hosts.wait_equal().await?;
    clients[1].del("0.7").await.map_err(said)?;
    clients[2].set_del("set", "member 0").await.map_err(said)?;
    let before = hosts.wait_equal().await?;
    hosts.wait_flushed().await?;
    hosts.kill_all()?;
    // The deadline goes on.
    tokio::time::sleep(Duration::from_secs(3)).await;
    hosts.start_all().await?;
    for (n, client) in [hosts.client(0).await?, hosts.client(2).await?].iter().enumerate() {
        for key in [0, 49] {
            let value = client.get(&format!("1.{key}")).await.map_err(said)?;
            ensure!(value.as_deref() == Some(&*format!("value {key}")), "{n}: {value:?}");
        }
        ensure!(
            client.get("0.7").await.map_err(said)?.is_none(),
            "a deleted key is back"
        );
        ensure!(client.get("counter").await.map_err(said)?.as_deref() == Some("90"));
        ensure!(client.list("list").await.map_err(said)?.len() == 3);
        ensure!(client.set_query("set").await.map_err(said)? == ["member 1", "member 2"]);
        ensure!(
            client.get("short 1").await.map_err(said)?.is_none(),
            "past its deadline"
        );
        ensure!(client.get("long 1").await.map_err(said)?.is_some());
    }
    let after = hosts.wait_equal().await?;
    ensure!(after.keys <= before.keys, "{} keys became {}", before.keys, after.keys);
    ensure!(hosts.client(1).await?.increment("counter", 1).await.map_err(said)? == 91);
    Ok(())
}

#[tokio::test]
async fn what_was_acknowledged_as_stored_outlives_a_kill_at_any_time() -> Result<()> {
    // Nothing is written by the clock: only those who ask for it are stored.
    let settings = json!({ "ACK": "stored", "STORE_FLUSH_MS": 60_000 });
    let Some(mut hosts) = Hosts::new(1, settings).await? else {
        return Ok(());
    };
    let mut sum = 0;
    for round in 0..4 {
        hosts.start_all().await?;
        let client = hosts.client(0).await?;
        ensure!(client.increment("sum", 0).await.map_err(said)? == sum, "round {round}");
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let client = hosts.client(0);
                async move {
                    let client = client.await?;
                    let mut acknowledged = 0;
                    for n in 0..20 {
                        client
                            .set(&format!("{round}.{task}.{n}"), "value")
                            .await
                            .map_err(said)?;
                        client.increment("sum", 1).await.map_err(said)?;
                        acknowledged += 1;
                    }
                    anyhow::Ok(acknowledged)
                }
            })
            .collect();
        for acknowledged in futures::future::join_all(tasks).await {
            sum += acknowledged?;
        }
        hosts.kill_all()?;
    }
    hosts.start_all().await?;
    let client = hosts.client(0).await?;
    ensure!(client.increment("sum", 0).await.map_err(said)? == sum);
    for round in 0..4 {
        ensure!(client.get(&format!("{round}.7.19")).await.map_err(said)?.is_some());
    }
    Ok(())
}

#[tokio::test]
async fn a_host_that_was_away_takes_what_the_others_have_and_keeps_it() -> Result<()> {
    let Some(mut hosts) = Hosts::new(2, json!({})).await? else {
        return Ok(());
    };
    hosts.start_all().await?;
    let client = hosts.client(0).await?;
    for key in ["deleted", "changed", "kept"] {
        client.set(key, "old").await.map_err(said)?;
    }
    hosts.wait_equal().await?;
    hosts.wait_flushed().await?;
    hosts.providers[1].kill()?;
    client.del("deleted").await.map_err(said)?;
    client.set("changed", "new").await.map_err(said)?;
    hosts.providers[1] = hosts.start(1).await?;
    hosts.providers[1].wait_ready(LIMIT).await?;
    hosts.wait_equal().await?;
    hosts.wait_flushed().await?;
    // Alone, from what it has kept.
    hosts.kill_all()?;
    let mut alone = hosts.start(1).await?;
    alone.wait_ready(LIMIT).await?;
    let client = alone.keyvalue(&hosts.actor).await?;
    ensure!(client.get("deleted").await.map_err(said)?.is_none());
    ensure!(client.get("changed").await.map_err(said)?.as_deref() == Some("new"));
    ensure!(client.get("kept").await.map_err(said)?.as_deref() == Some("old"));
    Ok(())
}

#[tokio::test]
async fn a_stop_in_order_leaves_nothing_unwritten() -> Result<()> {
    let settings = json!({ "STORE_FLUSH_MS": 60_000 });
    let Some(mut hosts) = Hosts::new(1, settings).await? else {
        return Ok(());
    };
    hosts.start_all().await?;
    let client = hosts.client(0).await?;
    for n in 0..2_000 {
        client.set(&format!("key {n}"), "value").await.map_err(said)?;
    }
    hosts.providers[0].shutdown().await?;
    hosts.providers.clear();
    hosts.start_all().await?;
    let status = hosts.providers[0].status().await?;
    ensure!(status.keys == 2_000, "{status}");
    Ok(())
}

#[tokio::test]
async fn a_store_older_than_what_the_others_have_forgotten_yields_to_them() -> Result<()> {
    let settings = json!({ "TOMBSTONE_TTL_SECS": 10 });
    let Some(mut hosts) = Hosts::new(2, settings).await? else {
        return Ok(());
    };
    hosts.start_all().await?;
    let client = hosts.client(0).await?;
    client.set("deleted", "old").await.map_err(said)?;
    client.set("kept", "old").await.map_err(said)?;
    hosts.wait_equal().await?;
    hosts.wait_flushed().await?;
    hosts.providers[1].kill()?;
    client.del("deleted").await.map_err(said)?;
    // The deletion is forgotten, by the cache and by its store.
    let forgotten = Duration::from_secs(60);
    eventually(forgotten, || async {
        let records = pair(&hosts.providers[0].status().await?, "keys");
        ensure!(records == "1");
        Ok(())
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(25)).await;
    hosts.providers[1] = hosts.start(1).await?;
    hosts.providers[1].wait_ready(LIMIT).await?;
    hosts.wait_equal().await?;
    let back = hosts.client(1).await?;
    ensure!(
        back.get("deleted").await.map_err(said)?.is_none(),
        "a deletion that was forgotten is undone"
    );
    ensure!(back.get("kept").await.map_err(said)?.is_some());
    Ok(())
}
