//! Settings out of the environment of a host.

use anyhow::{ensure, Result};
use serde_json::json;
use testkit::{NatsOperator, NatsServer};

use crate::{link, plugin_or_skip, Place, LIMIT};

const SEED: &str = "SCAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAHCK4QQA";

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_setting_makes_every_call_an_error_that_names_it() -> Result<()> {
    let Some(place) = Place::or_skip().await? else {
        return Ok(());
    };
    let options = place
        .host()
        .setting("SYNC_TIMEOUT_SECS", "soon")
        .setting("CLUSTER_SEED", "SUACSSNOTASEED")
        .setting("LATTIC", "default");
    // The host runs on: it does not look at the answer of its cache, and logs what becomes of a link.
    let mut host = place.start(&options).await?;
    host.ask(link("M")).await?;
    let error = host.log().wait_for("Failed to put link", LIMIT).await?;
    let log = host.log().text();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("does not run, and every call"))
        .collect();
    ensure!(lines.len() == 1, "{log}");
    for text in [&error, lines[0]] {
        for part in [
            "KVCACHE_SYNC_TIMEOUT_SECS",
            "0 to 3600",
            "'soon'",
            "KVCACHE_CLUSTER_SEED",
            "'SC...'",
        ] {
            ensure!(text.contains(part), "'{part}' is missing: {text}");
        }
    }
    ensure!(
        log.contains("KVCACHE_LATTIC") && log.contains("did you mean LATTICE?"),
        "{log}"
    );
    ensure!(!log.contains("SUACSSNOTASEED"), "a seed in the log: {log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn health_says_what_is_wrong_and_good_settings_put_it_right() -> Result<()> {
    let Some(mut plugin) = plugin_or_skip()? else {
        return Ok(());
    };
    for values in [
        &[("NATS_URL", "http://[bad")][..],
        &[("CLUSTER_ISSUERS", "CXXX"), ("CLUSTER_SEED", SEED)],
        &[("NATS_CREDS", "/no/such/file"), ("NATS_URL", "127.0.0.1:4222")],
        &[("FRAME_AUTH", "on")],
        &[("STATE_REPL_SUBJECT", "a.*")],
    ] {
        ensure!(plugin.bind("system", values).await.is_err(), "{values:?}");
        let health = plugin.call("HealthRequest", json!({ "placeholder": true })).await?;
        let message = health["message"].as_str().unwrap_or_default();
        ensure!(
            health["healthy"] == false && message.contains(values[0].0),
            "{values:?}: {health}"
        );
        for op in ["Get", "Set", "SetQuery"] {
            let error = plugin
                .refused(json!({ "actor": "system", "op": op, "args": { "key": "k" } }))
                .await?;
            ensure!(error.contains(values[0].0), "{op} {values:?}: {error}");
        }
    }
    plugin.bind("system", &[("NAMESPACE", "one")]).await?;
    let health = plugin.call("HealthRequest", json!({ "placeholder": true })).await?;
    ensure!(health["healthy"] == true, "{health}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn links_of_actors_have_namespaces_and_do_not_change_the_cache() -> Result<()> {
    let Some(mut plugin) = plugin_or_skip()? else {
        return Ok(());
    };
    plugin.bind("system", &[]).await?;
    plugin
        .bind("Mone", &[("NAMESPACE", "one"), ("__wasmcloud_issuer", "A")])
        .await?;
    plugin.bind("Mshared", &[]).await?;
    let set = json!({ "key": "key", "value": "of one", "expires": 0 });
    plugin.call_as("Mone", "Set", set).await?;
    for (actor, exists) in [("system", false), ("Mshared", false), ("Mone", true)] {
        let got = plugin.call_as(actor, "Get", json!({ "key": "key" })).await?;
        ensure!(got["exists"] == exists, "{actor}: {got}");
    }
    let error = plugin.bind("Mother", &[("NATS_URL", "nats://127.0.0.1:1")]).await;
    ensure!(error.is_err_and(|error| format!("{error:#}").contains("NATS_URL")));
    let get = |actor: &str| json!({ "actor": actor, "op": "Get", "args": { "key": "key" } });
    for actor in ["Mother", "Mnobody"] {
        let error = plugin.refused(get(actor)).await?;
        ensure!(error.contains("unlinked actor"), "{error}");
    }
    plugin
        .call("RemoveActor", json!({ "module": "Mone", "values": {} }))
        .await?;
    ensure!(plugin.refused(get("Mone")).await?.contains("unlinked actor"));
    ensure!(
        plugin.ask(get("Mshared")).await?["exists"] == false,
        "the others stay linked"
    );
    plugin.bind("Mone", &[("NAMESPACE", "one")]).await?;
    ensure!(plugin.ask(get("Mone")).await?["exists"] == true, "the data stays");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn authentication_is_on_with_a_seed_and_off_without_and_a_line_says_so() -> Result<()> {
    let Some(server) = NatsServer::builder().start_or_skip().await else {
        return Ok(());
    };
    let url = server.url();
    let servers = [("NATS_URL", &*url), ("SYNC_TIMEOUT_SECS", "5")];
    for (values, is_off) in [(&[][..], true), (&[("CLUSTER_SEED", SEED)], false)] {
        let Some(mut plugin) = plugin_or_skip()? else {
            return Ok(());
        };
        plugin.bind("system", &[&servers, values].concat()).await?;
        let log = plugin.log().text();
        let lines = log.lines().filter(|line| line.contains("not authenticated"));
        let lines: Vec<&str> = lines.collect();
        ensure!(lines.len() == usize::from(is_off), "{values:?}: {log}");
        ensure!(
            lines.iter().all(|line| line.contains("KVCACHE_CLUSTER_SEED")),
            "{lines:?}"
        );
        ensure!(!log.contains(SEED), "a seed in the log: {log}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_the_server_is_named_by_token_and_seed() -> Result<()> {
    let operator = NatsOperator::new();
    let builder = NatsServer::builder().config(operator.server_config()?);
    let Some(server) = builder.start_or_skip().await else {
        return Ok(());
    };
    let Some(mut plugin) = plugin_or_skip()? else {
        return Ok(());
    };
    let (url, user) = (server.url(), operator.user()?);
    let values = [
        ("NATS_URL", &*url),
        ("CLIENT_JWT", &*user.jwt),
        ("CLIENT_SEED", &*user.seed),
    ];
    plugin.bind("system", &values).await?;
    let none = plugin.call("Get", json!({ "key": "key" })).await?;
    ensure!(none["exists"] == false, "alone on its server: {none}");
    Ok(())
}
