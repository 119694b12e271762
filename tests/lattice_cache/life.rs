//! Starting while others are away, stopping, and standing alone.

use std::time::Duration;

use anyhow::{ensure, Result};
use serde_json::json;
use testkit::{eventually, Actor, Lattice, NatsServer, ProviderOptions};

use crate::{link, linked, plugin_or_skip, wait_linked, Place, LIMIT};

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_starts_while_nats_is_away_catches_up() -> Result<()> {
    let Some(place) = Place::or_skip().await? else {
        return Ok(());
    };
    let Some(mut server) = NatsServer::builder().start_or_skip().await else {
        return Ok(());
    };
    let options = place
        .host()
        .setting("NATS_URL", server.url())
        .setting("SYNC_TIMEOUT_SECS", "1");
    let mut a = place.start(&options).await?;
    a.ask(link("Mof_a")).await?;
    server.kill()?;
    let mut b = place.start(&options).await?;
    b.ask(link("Mof_b")).await?;
    // The host itself takes an error for no links: what its log says is the truth.
    ensure!(linked(&mut b).await?.is_empty(), "of links that may be elsewhere");
    let log = b.log().text();
    ensure!(
        log.contains("SYNC_TIMEOUT_SECS") && log.contains("nobody listens there"),
        "{log}"
    );
    server.restart().await?;
    wait_linked(&mut b, &["Mof_a", "Mof_b"]).await?;
    wait_linked(&mut a, &["Mof_a", "Mof_b"]).await
}

/// The classic plugin answers as an empty cache for ever.
#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_sync_no_answer_is_one_that_may_be_untrue() -> Result<()> {
    let Some(mut plugin) = plugin_or_skip()? else {
        return Ok(());
    };
    let Some(mut server) = NatsServer::builder().start_or_skip().await else {
        return Ok(());
    };
    let (lattice, actor) = (Lattice::new(server.url()), Actor::new());
    let options = ProviderOptions::new(env!("CARGO_BIN_EXE_nats-kvcache")).link(&actor);
    let provider = lattice.start_ready(options, LIMIT).await?;
    provider.keyvalue(&actor).await?.set_add("set", "of the peer").await?;
    server.kill()?;

    let (url, seed) = (server.url(), lattice.cluster_seed()?);
    let settings = [
        ("NATS_URL", &*url),
        ("LATTICE", lattice.prefix()),
        ("CLUSTER_SEED", &*seed),
        ("SYNC_TIMEOUT_SECS", "1"),
    ];
    plugin.bind("system", &settings).await?;
    let health = plugin.call("HealthRequest", json!({ "placeholder": true })).await?;
    ensure!(health["healthy"] == false, "{health}");
    for (op, args) in [
        ("Get", json!({ "key": "key" })),
        ("KeyExists", json!({ "key": "key" })),
        ("Range", json!({ "key": "list", "start": 0, "stop": -1 })),
        ("SetQuery", json!({ "key": "set" })),
        ("SetUnion", json!({ "keys": ["set"] })),
        ("SetIntersection", json!({ "keys": ["set"] })),
        ("Add", json!({ "key": "count", "value": 1 })),
    ] {
        let error = plugin
            .refused(json!({ "actor": "system", "op": op, "args": args }))
            .await?;
        ensure!(error.contains("other hosts"), "{op}: {error}");
    }
    // What is written here is here, and goes to the others later.
    plugin
        .call("Set", json!({ "key": "key", "value": "mine", "expires": 0 }))
        .await?;
    plugin.call("SetAdd", json!({ "key": "set", "value": "mine" })).await?;
    let got = plugin.call("Get", json!({ "key": "key" })).await?;
    ensure!(got == json!({ "exists": true, "value": "mine" }), "{got}");

    server.restart().await?;
    let deadline = std::time::Instant::now() + LIMIT;
    while let Err(error) = plugin.call("SetQuery", json!({ "key": "set" })).await {
        ensure!(std::time::Instant::now() < deadline, "{error:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let members = plugin.call("SetQuery", json!({ "key": "set" })).await?;
    ensure!(members == json!({ "values": ["mine", "of the peer"] }), "{members}");
    let health = plugin.call("HealthRequest", json!({ "placeholder": true })).await?;
    ensure!(health["healthy"] == true, "{health}");
    // Synced once, it answers from memory however long NATS is away.
    server.kill()?;
    let none = plugin.call("Get", json!({ "key": "no such key" })).await?;
    ensure!(none == json!({ "exists": false, "value": "" }), "{none}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_it_is_a_map_of_this_host() -> Result<()> {
    let Some(place) = Place::or_skip().await? else {
        return Ok(());
    };
    let mut host = place.start(&place.host()).await?;
    host.ask(link("Malone")).await?;
    ensure!(linked(&mut host).await? == ["Malone"]);
    let log = host.log().text();
    ensure!(
        log.contains("a plain map on this host") && !log.contains("subject="),
        "{log}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_store_the_links_of_a_host_outlive_it() -> Result<()> {
    let Some(place) = Place::or_skip().await? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let store = format!("file:{}", folder.path().join("store").display());
    let options = place.host().setting("STORE", &*store).setting("ACK", "stored");
    let mut host = place.start(&options).await?;
    host.ask(link("Mkept")).await?;
    host.kill()?;
    let mut again = place.start(&options).await?;
    wait_linked(&mut again, &["Mkept"]).await?;
    // Engines with clients of their own are not in the plugin.
    let mut refused = place.start(&place.host().setting("STORE", "redis://127.0.0.1")).await?;
    ensure!(linked(&mut refused).await?.is_empty());
    let log = refused.log().text();
    ensure!(
        log.contains("KVCACHE_STORE") && log.contains("begins with file:, jetstream:"),
        "{log}"
    );
    Ok(())
}

/// `Host::stop` has the plugin stopped on a thread that the end of the process can overtake.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_ends_says_goodbye() -> Result<()> {
    let Some(place) = Place::or_skip().await? else {
        return Ok(());
    };
    let Some(server) = NatsServer::builder().start_or_skip().await else {
        return Ok(());
    };
    // Who is silent counts as there for five of these.
    let heartbeats = ("REPLAY_HEARTBEAT_SECS", "60");
    let lattice = Lattice::new(server.url());
    let config = json!(std::collections::HashMap::from([heartbeats]));
    let options = ProviderOptions::new(env!("CARGO_BIN_EXE_nats-kvcache")).config(config);
    let provider = lattice.start_ready(options, LIMIT).await?;
    let options = place
        .host()
        .setting(heartbeats.0, heartbeats.1)
        .setting("NATS_URL", server.url())
        .setting("LATTICE", lattice.prefix())
        .setting("CLUSTER_SEED", lattice.cluster_seed()?);
    for ended in 1..=5 {
        let mut host = place.start(&options).await?;
        host.ask(link(&format!("M{ended}"))).await?;
        ensure!(host.end(LIMIT).await?.success(), "{}", host.log().text());
        eventually(LIMIT, || async {
            let status = provider.status().await?;
            ensure!(status.peers == 0 && status.keys == 1 + ended, "{status}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_sends_what_is_queued_and_ends_all_threads() -> Result<()> {
    let Some(mut plugin) = plugin_or_skip()? else {
        return Ok(());
    };
    let Some(server) = NatsServer::builder().start_or_skip().await else {
        return Ok(());
    };
    let (lattice, actor) = (Lattice::new(server.url()), Actor::new());
    let options = ProviderOptions::new(env!("CARGO_BIN_EXE_nats-kvcache")).link(&actor);
    let provider = lattice.start_ready(options, LIMIT).await?;
    let there = provider.keyvalue(&actor).await?;
    let error = plugin
        .refused(json!({ "actor": "system", "op": "Get", "args": { "key": "key" } }))
        .await?;
    ensure!(error.contains("BindActor"), "{error}");
    let before = plugin.threads()?;
    let (url, seed) = (server.url(), lattice.cluster_seed()?);
    let settings = [
        ("NATS_URL", &*url),
        ("LATTICE", lattice.prefix()),
        ("CLUSTER_SEED", &*seed),
    ];
    plugin.bind("system", &settings).await?;
    ensure!(
        plugin.threads()?.iter().any(|name| name == "kvcache"),
        "threads of its own"
    );
    for number in 0..500 {
        let set = json!({ "key": format!("key {number}"), "value": "v", "expires": 0 });
        plugin.send(&json!({ "actor": "system", "op": "Set", "args": set }))?;
    }
    plugin.send(&json!({ "stop": true }))?;
    for _ in 0..=500 {
        plugin.answer().await?;
    }
    // All that was queued has left, and the peer has been told.
    eventually(LIMIT, || async {
        let status = provider.status().await?;
        ensure!((status.keys, status.peers) == (500, 0), "{status}");
        Ok(())
    })
    .await?;
    ensure!(there.get("key 499").await?.as_deref() == Some("v"));
    eventually(LIMIT, || async {
        let now = plugin.threads()?;
        ensure!(now == before, "{now:?} instead of {before:?}");
        Ok(())
    })
    .await?;
    let error = plugin
        .refused(json!({ "actor": "system", "op": "Get", "args": { "key": "key 1" } }))
        .await?;
    ensure!(error.contains("stopped"), "{error}");
    Ok(())
}
