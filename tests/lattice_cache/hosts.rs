//! Hosts beside each other.

use anyhow::{ensure, Result};
use serde_json::json;
use testkit::{eventually, Actor, Lattice, NatsServer, ProviderOptions};

use crate::{link, linked, wait_linked, Place, CONTRACT, LIMIT};

#[tokio::test(flavor = "multi_thread")]
async fn every_host_ends_with_all_links_claims_and_references() -> Result<()> {
    let Some(place) = Place::or_skip().await? else {
        return Ok(());
    };
    let Some(mut server) = NatsServer::builder().start_or_skip().await else {
        return Ok(());
    };
    let options = place.host().rpc(&server.url()).setting("NATS_URL", server.url());
    let mut a = place.start(&options).await?;
    a.ask(link("Mbefore")).await?;
    let started = a.ask(json!({ "do": "start_actor" })).await?;
    let reference = place.registry.reference("actor:1.0");
    let registry = place.registry.address();
    let pushed = json!({ "do": "push_actor", "reference": reference, "registry": registry });
    let pulled = a.ask(pushed).await?;
    a.ask(json!({ "do": "start_actor_from", "reference": reference }))
        .await?;

    let mut b = place.start(&options).await?;
    ensure!(
        linked(&mut b).await? == ["Mbefore"],
        "a late host knows every link before it answers"
    );
    let claims = b.ask(json!({ "do": "claims" })).await?;
    for actor in [&started, &pulled] {
        ensure!(
            claims.as_array().is_some_and(|all| all.contains(actor)),
            "{actor} in {claims}"
        );
    }
    let references = b.ask(json!({ "do": "oci" })).await?;
    ensure!(references == json!({ &reference: pulled }), "{references}");

    b.ask(link("Mbeside")).await?;
    wait_linked(&mut a, &["Mbefore", "Mbeside"]).await?;
    a.ask(json!({ "do": "remove_link", "actor": "Mbefore", "contract": CONTRACT }))
        .await?;
    wait_linked(&mut b, &["Mbeside"]).await?;

    a.kill()?;
    b.ask(link("Mwhile_a_is_dead")).await?;
    let mut a = place.start(&options).await?;
    ensure!(
        linked(&mut a).await? == ["Mbeside", "Mwhile_a_is_dead"],
        "it starts empty and has all"
    );

    server.kill()?;
    a.ask(link("Mwhile_nats_is_away")).await?;
    b.ask(link("Mas_well")).await?;
    ensure!(
        linked(&mut b).await?.len() == 3,
        "what is there is answered without NATS"
    );
    server.restart().await?;
    let all = ["Mas_well", "Mbeside", "Mwhile_a_is_dead", "Mwhile_nats_is_away"];
    wait_linked(&mut a, &all).await?;
    wait_linked(&mut b, &all).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_links_in_a_row_arrive() -> Result<()> {
    let Some(place) = Place::or_skip().await? else {
        return Ok(());
    };
    let Some(server) = NatsServer::builder().start_or_skip().await else {
        return Ok(());
    };
    let options = place.host().rpc(&server.url()).setting("NATS_URL", server.url());
    let [mut a, mut b] = [place.start(&options).await?, place.start(&options).await?];
    let links = json!({ "do": "set_links", "count": 1_000, "contract": CONTRACT, "provider": crate::PROVIDER });
    a.ask(links).await?;
    let deadline = std::time::Instant::now() + LIMIT;
    loop {
        let count = b.ask(json!({ "do": "count_links" })).await?;
        if count == 1_000 {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < deadline, "{count} of 1000 links");
    }
}

/// What a wasmbus host of the same lattice shares: one lattice, one link name, one cluster seed.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_of_a_wasmbus_host_is_in_the_same_cache() -> Result<()> {
    let Some(place) = Place::or_skip().await? else {
        return Ok(());
    };
    let Some(server) = NatsServer::builder().start_or_skip().await else {
        return Ok(());
    };
    let (lattice, actor) = (Lattice::new(server.url()), Actor::new());
    let options = ProviderOptions::new(env!("CARGO_BIN_EXE_nats-kvcache")).link(&actor);
    let provider = lattice.start_ready(options, LIMIT).await?;
    let there = provider.keyvalue(&actor).await?;
    there.set("of the provider", "1").await?;

    let options = place
        .host()
        .setting("NATS_URL", server.url())
        .setting("LATTICE", lattice.prefix())
        .setting("CLUSTER_SEED", lattice.cluster_seed()?);
    let mut host = place.start(&options).await?;
    host.ask(link("Mshared")).await?;
    eventually(LIMIT, || async {
        let links = there.set_query("wclc:links").await?;
        ensure!(links.len() == 1, "{links:?}");
        let shown = there.get(&format!("wclc:link_{}", links[0])).await?.unwrap_or_default();
        ensure!(shown.contains("Mshared"), "{shown}");
        // And it changes what the host sees.
        there.del(&format!("wclc:link_{}", links[0])).await?;
        Ok(())
    })
    .await?;
    wait_linked(&mut host, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_of_both_generations_add_up() -> Result<()> {
    let Some(mut plugin) = crate::plugin_or_skip()? else {
        return Ok(());
    };
    let Some(server) = NatsServer::builder().start_or_skip().await else {
        return Ok(());
    };
    let (lattice, actor) = (Lattice::new(server.url()), Actor::new());
    // Subjects are what has to be the same, not the lattice.
    let subjects = [
        ("STATE_REPL_SUBJECT", "shared.state"),
        ("REPLAY_REQ_SUBJECT", "shared.replay"),
    ];
    let config = json!(std::collections::HashMap::from(subjects));
    let options = ProviderOptions::new(env!("CARGO_BIN_EXE_nats-kvcache"))
        .link(&actor)
        .config(config);
    let provider = lattice.start_ready(options, LIMIT).await?;
    let there = provider.keyvalue(&actor).await?;
    let (url, seed) = (server.url(), lattice.cluster_seed()?);
    let settings = [&[("NATS_URL", &*url), ("CLUSTER_SEED", &*seed)], &subjects[..]].concat();
    plugin.bind("system", &settings).await?;
    for _ in 0..50 {
        let (here, there) = tokio::join!(
            plugin.call("Add", json!({ "key": "count", "value": 1 })),
            there.increment("count", 100)
        );
        here?;
        there?;
    }
    eventually(LIMIT, || async {
        let count = there.get("count").await?;
        ensure!(count.as_deref() == Some("5050"), "{count:?}");
        Ok(())
    })
    .await?;
    let deadline = std::time::Instant::now() + LIMIT;
    loop {
        let count = plugin.call("Get", json!({ "key": "count" })).await?;
        if count["value"] == "5050" {
            break;
        }
        ensure!(std::time::Instant::now() < deadline, "{count}");
    }
    let sum = plugin.call("Add", json!({ "key": "count", "value": -50 })).await?;
    ensure!(sum == json!({ "value": 5000 }), "{sum}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_uses_the_cache_as_a_provider_of_its_host() -> Result<()> {
    let Some(place) = Place::or_skip().await? else {
        return Ok(());
    };
    // Neither cache replicates: what the actor writes is not among the host's own keys.
    let mut host = place.start(&place.host()).await?;
    host.ask(json!({ "do": "start_provider", "reference": place.reference }))
        .await?;
    let references = host.ask(json!({ "do": "oci" })).await?;
    let provider = references[&place.reference].as_str().unwrap_or_default().to_owned();
    let actor = host.ask(json!({ "do": "start_actor" })).await?;
    let call = |op: &str, args| json!({ "do": "call", "actor": actor, "op": op, "args": args });

    let error = host.refused(call("Get", json!({ "key": "key" }))).await?;
    ensure!(error.contains("failure"), "{error}");
    let values = json!({ "NAMESPACE": "its own" });
    host.ask(json!({ "do": "set_link", "actor": actor, "contract": CONTRACT, "provider": provider, "values": values }))
        .await?;
    let set = host
        .ask(call("Set", json!({ "key": "key", "value": "value", "expires": 0 })))
        .await?;
    ensure!(set == json!({ "value": "value" }), "{set}");
    let got = host.ask(call("Get", json!({ "key": "key" }))).await?;
    ensure!(got == json!({ "exists": true, "value": "value" }), "{got}");
    let error = host
        .refused(call("Range", json!({ "key": "key", "start": 0, "stop": -1 })))
        .await?;
    ensure!(error.contains("WRONGTYPE"), "{error}");
    Ok(())
}
