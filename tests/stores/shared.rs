//! Engines that all hosts of a lattice share.

use std::time::Duration;

use anyhow::{ensure, Result};
use serde_json::json;
use testkit::{eventually, CassandraServer, ConsulServer, RedisKind, RedisServer};

use crate::hosts::{pair, said, Hosts, LIMIT};

/// Two hosts on one store: killed at once, they come back with everything.
async fn hosts_come_back_from(url: &str) -> Result<()> {
    let Some(mut hosts) = Hosts::new(2, json!({})).await? else {
        return Ok(());
    };
    hosts.share(url);
    hosts.start_all().await?;
    let client = hosts.client(0).await?;
    for n in 0..300 {
        client
            .set(&format!("key {n}"), &format!("value {n}"))
            .await
            .map_err(said)?;
    }
    for n in 0..20 {
        hosts.client(n % 2).await?.increment("counter", 1).await.map_err(said)?;
        client.list_add("list", &format!("{n}")).await.map_err(said)?;
    }
    client.del("key 7").await.map_err(said)?;
    client.list_del("list", "3").await.map_err(said)?;
    let before = hosts.wait_equal().await?;
    // Each has written its share.
    hosts.wait_flushed().await?;
    hosts.kill_all()?;
    hosts.start_all().await?;
    let after = hosts.wait_equal().await?;
    ensure!(after.digest == before.digest, "{before} became {after}");
    let client = hosts.client(1).await?;
    ensure!(client.get("counter").await.map_err(said)?.as_deref() == Some("20"));
    ensure!(client.get("key 7").await.map_err(said)?.is_none());
    ensure!(client.list("list").await.map_err(said)?.len() == 19);
    // One that goes leaves its share to the other.
    hosts.providers.pop().expect("two").kill()?;
    let client = hosts.client(0).await?;
    for n in 0..100 {
        client.set(&format!("later {n}"), "value").await.map_err(said)?;
    }
    eventually(LIMIT, || async {
        let status = hosts.providers[0].status().await?;
        ensure!(pair(&status, "store_dirty") == "0" && status.peers == 0, "{status}");
        Ok(())
    })
    .await?;
    hosts.kill_all()?;
    let mut alone = hosts.start(0).await?;
    let status = alone.wait_ready(LIMIT).await?;
    ensure!(status.keys == before.keys + 100, "{status}");
    Ok(())
}

/// Two hosts that do not hear each other, with one store: both think that all of it is theirs, and lose nothing of each
/// other.
async fn hosts_that_do_not_hear_each_other_lose_nothing(url: &str) -> Result<()> {
    let Some(mut hosts) = Hosts::new(2, json!({})).await? else {
        return Ok(());
    };
    hosts.share(url);
    hosts.apart = true;
    for host in 0..2 {
        let mut provider = hosts.start(host).await?;
        provider.wait_ready(LIMIT).await?;
        hosts.providers.push(provider);
    }
    let clients = [hosts.client(0).await?, hosts.client(1).await?];
    for round in 0..5 {
        for (n, client) in clients.iter().enumerate() {
            client.set("both", &format!("{round} of {n}")).await.map_err(said)?;
            client
                .set(&format!("own {n}"), &round.to_string())
                .await
                .map_err(said)?;
            client.increment("counter", 1).await.map_err(said)?;
            client.set_add("set", &format!("{round} of {n}")).await.map_err(said)?;
            client
                .list_add("list", &format!("{round} of {n}"))
                .await
                .map_err(said)?;
        }
        hosts.wait_flushed().await?;
    }
    hosts.kill_all()?;
    hosts.apart = false;
    let mut one = hosts.start(0).await?;
    one.wait_ready(LIMIT).await?;
    let client = one.keyvalue(&hosts.actor).await?;
    ensure!(
        client.get("both").await.map_err(said)?.as_deref() == Some("4 of 1"),
        "the newest of both"
    );
    for n in 0..2 {
        ensure!(
            client.get(&format!("own {n}")).await.map_err(said)?.as_deref() == Some("4"),
            "own {n}"
        );
    }
    ensure!(
        client.get("counter").await.map_err(said)?.as_deref() == Some("10"),
        "increments of both"
    );
    ensure!(client.set_query("set").await.map_err(said)?.len() == 10);
    ensure!(client.list("list").await.map_err(said)?.len() == 10);
    Ok(())
}

async fn suite(url: &str) -> Result<()> {
    hosts_come_back_from(url).await?;
    hosts_that_do_not_hear_each_other_lose_nothing(url).await
}

async fn redis_keeps(kind: RedisKind) -> Result<()> {
    if let Err(missing) = kind.find() {
        testkit::skip_test(&missing.to_string());
        return Ok(());
    }
    let server = RedisServer::start_persistent(kind, &["--requirepass", "secret"]).await?;
    suite(&format!("redis://:secret@{}/1", server.address())).await
}

/// The store holds a live key, and never hears of its deletion: that is forgotten before the store is back.
#[tokio::test]
async fn a_deletion_that_was_forgotten_while_the_store_was_away_stays_one() -> Result<()> {
    if let Err(missing) = RedisKind::Redis.find() {
        testkit::skip_test(&missing.to_string());
        return Ok(());
    }
    let mut server = RedisServer::start_persistent(RedisKind::Redis, &[]).await?;
    let Some(mut hosts) = Hosts::new(1, json!({ "TOMBSTONE_TTL_SECS": 10 })).await? else {
        return Ok(());
    };
    hosts.share(&format!("redis://{}", server.address()));
    hosts.start_all().await?;
    let client = hosts.client(0).await?;
    client.set("deleted", "old").await.map_err(said)?;
    client.set("kept", "old").await.map_err(said)?;
    hosts.wait_flushed().await?;
    server.kill()?;
    client.del("deleted").await.map_err(said)?;
    // A deletion is not seen to be forgotten from outside. It is 10 s old then, and the sweep takes 13 s for a round.
    tokio::time::sleep(Duration::from_secs(30)).await;
    client.set("kept", "new").await.map_err(said)?;
    server.restart().await?;
    eventually(Duration::from_secs(90), || async {
        let status = hosts.providers[0].status().await?;
        ensure!(
            pair(&status, "store_dirty") == "0" && pair(&status, "store_state") == "ready",
            "{status}"
        );
        ensure!(pair(&status, "store_audits").parse::<u64>()? >= 1_024, "{status}");
        Ok(())
    })
    .await?;
    ensure!(
        client.get("deleted").await.map_err(said)?.is_none(),
        "the store has brought it back"
    );
    hosts.kill_all()?;
    hosts.start_all().await?;
    let client = hosts.client(0).await?;
    ensure!(
        client.get("deleted").await.map_err(said)?.is_none(),
        "it is back after a start"
    );
    ensure!(client.get("kept").await.map_err(said)?.as_deref() == Some("new"));
    Ok(())
}

/// What a host without the store would write if it had it, the others write.
#[tokio::test]
async fn hosts_that_do_not_write_to_a_store_leave_nothing_out() -> Result<()> {
    if let Err(missing) = RedisKind::Redis.find() {
        testkit::skip_test(&missing.to_string());
        return Ok(());
    }
    let servers = [
        RedisServer::start_persistent(RedisKind::Redis, &[]).await?,
        RedisServer::start_persistent(RedisKind::Redis, &[]).await?,
    ];
    let urls = servers.each_ref().map(|server| format!("redis://{}", server.address()));
    let Some(mut hosts) = Hosts::new(5, json!({})).await? else {
        return Ok(());
    };
    let file = hosts.store(3);
    // Two write to the first, and one each to the second, to a file and to nothing.
    let stores = [Some(&*urls[0]), Some(&*urls[0]), Some(&*urls[1]), Some(&*file), None];
    for (host, store) in stores.into_iter().enumerate() {
        let mut provider = hosts.start_with(host, store).await?;
        provider.wait_ready(LIMIT).await?;
        hosts.providers.push(provider);
    }
    hosts.wait_equal().await?;
    let client = hosts.client(0).await?;
    for n in 0..300 {
        client.set(&format!("key {n}"), "value").await.map_err(said)?;
    }
    let before = hosts.wait_equal().await?;
    for (provider, sharing) in hosts.providers.iter().zip(["2", "2", "1", "1"]) {
        eventually(LIMIT, || async {
            let status = provider.status().await?;
            let (dirty, together) = (pair(&status, "store_dirty"), pair(&status, "store_hosts"));
            ensure!(
                (&*dirty, &*together) == ("0", sharing),
                "store_dirty={dirty} store_hosts={together}"
            );
            Ok(())
        })
        .await?;
    }
    hosts.kill_all()?;
    for (host, store) in stores.into_iter().enumerate().skip(1).take(3) {
        let mut alone = hosts.start_with(host, store).await?;
        let status = alone.wait_ready(LIMIT).await?;
        ensure!(
            (status.keys, &status.digest) == (before.keys, &before.digest),
            "{store:?}: {before} became {status}"
        );
        alone.kill()?;
    }
    Ok(())
}

#[tokio::test]
async fn redis_keeps_what_hosts_hold() -> Result<()> {
    redis_keeps(RedisKind::Redis).await
}

#[tokio::test]
async fn valkey_keeps_what_hosts_hold() -> Result<()> {
    redis_keeps(RedisKind::Valkey).await
}

/// The NATS of the lattice.
#[tokio::test]
async fn jetstream_keeps_what_hosts_hold() -> Result<()> {
    suite("jetstream:kvcache").await
}

#[tokio::test]
async fn consul_keeps_what_hosts_hold() -> Result<()> {
    if let Err(missing) = ConsulServer::find() {
        testkit::skip_test(&missing.to_string());
        return Ok(());
    }
    let server = ConsulServer::start().await?;
    suite(&format!("consul://{}/tests", server.address())).await
}

#[tokio::test]
async fn cassandra_keeps_what_hosts_hold() -> Result<()> {
    if let Err(missing) = CassandraServer::find() {
        testkit::skip_test(&missing.to_string());
        return Ok(());
    }
    let server = CassandraServer::start().await?;
    let parameters = "replication_factor=1&consistency=ONE";
    suite(&format!("cassandra://{}/tests?{parameters}", server.address())).await
}
