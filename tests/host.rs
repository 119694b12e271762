//! What a host and the actors it speaks for may and may not do with a provider process: start, links, refused calls,
//! health, shutdown, unusable settings.

// Tests wait and measure in real time; the clock rule of clippy.toml is for the provider's core.
#![allow(clippy::disallowed_methods)]

use std::path::Path;
use std::time::Duration;

use serde_json::{json, Value};
use testkit::{
    encode_host_data, eventually, run_to_end, Actor, Forgery, Lattice, NatsOperator, NatsServer, ProviderOptions,
    ProviderProcess, SyncState, TEST_HOST_ID,
};
use wasmbus_rpc::common::serialize;
use wasmbus_rpc::core::HostData;

const BINARY: &str = env!("CARGO_BIN_EXE_nats-kvcache");
const LIMIT: Duration = Duration::from_secs(30);
/// Valid keys of a kind the SDK takes for broken, one in 65,536: a cluster seed and a cluster key.
const UNREADABLE_CLUSTER_SEED: &str = "SCAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAHCK4QQA";
const UNREADABLE_CLUSTER_KEY: &str = "CDTGKYW4YYZYZ723V5RXGAL5BVILJ4C73FB56XUPMFFRPDKG3WNH2EHG";
/// A provider that cannot start says so within this time.
const GIVES_UP_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn caps_are_named_to_who_reaches_them_and_health_tells_of_them() {
    let server = testkit::server_or_skip!();
    let [bounded, other] = [Actor::new(), Actor::new()];
    let lattice = Lattice::new(server.url());
    let caps = [
        ("NAMESPACE", "own"),
        ("NAMESPACE_MAX_KEYS", "3"),
        ("MAX_COLLECTION_ITEMS", "2"),
    ];
    let options = ProviderOptions::new(BINARY)
        .config(json!({ "MAX_MEMORY_BYTES": 1 << 20 }))
        .link_with(&bounded, &caps)
        .link(&other);
    let provider = lattice.start_ready(options, LIMIT).await.unwrap();
    let kv = provider.keyvalue(&bounded).await.unwrap();
    for n in 0..2 {
        kv.set(&format!("key {n}"), "value").await.unwrap();
        kv.list_add("list", "item").await.unwrap();
    }
    let error = kv.set("one more", "value").await.unwrap_err().to_string();
    assert!(
        error.contains("NAMESPACE_MAX_KEYS=3") && error.contains("nothing was changed"),
        "{error}"
    );
    let error = kv.list_add("list", "item").await.unwrap_err().to_string();
    assert!(error.contains("MAX_COLLECTION_ITEMS=2"), "{error}");
    assert!(kv.del("key 0").await.unwrap());
    assert_eq!(kv.set_add("set", "member").await.unwrap(), 1);

    let kv = provider.keyvalue(&other).await.unwrap();
    let value = "v".repeat(100_000);
    let mut refused = None;
    for n in 0..20 {
        match kv.set(&format!("key {n}"), &value).await {
            Ok(()) => {}
            Err(error) => refused = refused.or(Some((n, error.to_string()))),
        }
    }
    let (stored, error) = refused.expect("20 values of 100 kB do not fit into 1 MiB");
    assert!((8..11).contains(&stored), "{stored}");
    assert!(error.contains("MAX_MEMORY_BYTES=1048576"), "{error}");
    let health = provider.health().await.unwrap();
    let message = health.message.unwrap_or_default();
    assert!(health.healthy && message.contains("memory_limit=1048576"), "{message}");
    assert!(!message.contains("full=0"), "{message}");

    // A link that somebody puts cannot allow itself more than the provider does.
    let options = ProviderOptions::new(BINARY).config(json!({ "NAMESPACE_MAX_BYTES": 10_000 }));
    let provider = Lattice::new(server.url()).start_ready(options, LIMIT).await.unwrap();
    provider
        .put_link(&other, &[("NAMESPACE_MAX_BYTES", "20000")])
        .await
        .unwrap();
    let line = provider.wait_for_log("NAMESPACE_MAX_BYTES", LIMIT).await.unwrap();
    assert!(line.contains("no more than config_json allows"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_calls_stay_refused() {
    let server = testkit::server_or_skip!();
    let actor = Actor::new();
    let lattice = Lattice::new(server.url());
    let provider = lattice
        .start_ready(ProviderOptions::new(BINARY).link(&actor), LIMIT)
        .await
        .unwrap();
    let kv = provider.keyvalue(&actor).await.unwrap();
    kv.set("key", "value").await.unwrap();

    let attempts = [
        ("KeyValue.Get", serialize(&"key").unwrap()),
        ("KeyValue.ListClear", serialize(&"key").unwrap()),
        (
            "KeyValue.Increment",
            serialize(&json!({ "key": "count", "value": 1 })).unwrap(),
        ),
        (
            "KeyValue.Set",
            serialize(&json!({ "key": "key", "value": "forged" })).unwrap(),
        ),
    ];
    for forgery in Forgery::ALL {
        for (method, argument) in &attempts {
            let answer = kv.transport().call_forged(method, argument, forgery).await;
            assert!(answer.is_err(), "{method} with {forgery:?}: {answer:?}");
        }
    }
    for garbage in [
        &b""[..],
        b"\xc1",
        b"{}",
        b"\x00\x01\x02\x03",
        &[0xdf, 0xff, 0xff, 0xff, 0xff],
        &[0x91; 4096],
    ] {
        let answer = kv.transport().send_garbage(garbage).await;
        assert!(answer.is_err(), "{garbage:?}: {answer:?}");
    }
    assert_eq!(
        kv.get("key").await.unwrap().as_deref(),
        Some("value"),
        "nothing changed"
    );
    assert!(!kv.contains("count").await.unwrap());

    let stranger = provider.keyvalue(&Actor::new()).await.unwrap();
    assert!(stranger
        .get("key")
        .await
        .unwrap_err()
        .to_string()
        .contains("unlinked actor"));
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_put_twice_deleted_and_put_again() {
    let server = testkit::server_or_skip!();
    for host_id in [None, Some(TEST_HOST_ID)] {
        let mut options = ProviderOptions::new(BINARY);
        if let Some(host_id) = host_id {
            options = options.host_id(host_id);
        }
        let provider = Lattice::new(server.url()).start_ready(options, LIMIT).await.unwrap();
        let [one, other] = [Actor::new(), Actor::new()];
        provider.wait_unlinked(&one, LIMIT).await.unwrap();

        provider.put_link(&one, &[]).await.unwrap();
        provider.put_link(&one, &[]).await.unwrap();
        provider.wait_linked(&one, LIMIT).await.unwrap();
        let kv = provider.keyvalue(&one).await.unwrap();
        kv.set("key", "value").await.unwrap();

        provider.put_link(&other, &[]).await.unwrap();
        provider.wait_linked(&other, LIMIT).await.unwrap();
        let shared = provider.keyvalue(&other).await.unwrap();
        assert_eq!(
            shared.get("key").await.unwrap().as_deref(),
            Some("value"),
            "linked actors share the data"
        );

        provider.delete_link(&one).await.unwrap();
        provider.wait_unlinked(&one, LIMIT).await.unwrap();
        assert_eq!(
            shared.increment("count", 1).await.unwrap(),
            1,
            "the end of a link is of no concern to another"
        );

        provider.put_link(&one, &[]).await.unwrap();
        provider.wait_linked(&one, LIMIT).await.unwrap();
        assert_eq!(
            kv.get("key").await.unwrap().as_deref(),
            Some("value"),
            "data outlives the link"
        );

        provider.delete_link(&one).await.unwrap();
        provider.delete_link(&other).await.unwrap();
        provider.wait_unlinked(&other, LIMIT).await.unwrap();
        assert_eq!(
            provider.status().await.unwrap().keys,
            2,
            "without any link it stays up and keeps its data"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_a_keyspace_of_its_own() {
    let server = testkit::server_or_skip!();
    let [common, one, same, other] = std::array::from_fn(|_| Actor::new());
    let options = ProviderOptions::new(BINARY)
        .link(&common)
        .link_with(&one, &[("NAMESPACE", "one")])
        .link_with(&same, &[("namespace", "one")]);
    let provider = Lattice::new(server.url()).start_ready(options, LIMIT).await.unwrap();
    provider.put_link(&other, &[("NAMESPACE", "other")]).await.unwrap();
    provider.wait_linked(&other, LIMIT).await.unwrap();

    let actors = [("common", &common), ("one", &one), ("other", &other)];
    for (name, actor) in actors {
        let kv = provider.keyvalue(actor).await.unwrap();
        assert!(!kv.contains("key").await.unwrap(), "{name}");
        kv.set("key", name).await.unwrap();
        assert_eq!(kv.list_add("list", name).await.unwrap(), 1, "{name}");
        assert_eq!(kv.set_add("set", name).await.unwrap(), 1, "{name}");
    }
    for (name, actor) in actors {
        let kv = provider.keyvalue(actor).await.unwrap();
        assert_eq!(kv.get("key").await.unwrap().as_deref(), Some(name));
        assert_eq!(kv.set_union(&["set", "missing"]).await.unwrap(), [name]);
    }
    let kv = provider.keyvalue(&same).await.unwrap();
    assert_eq!(
        kv.get("key").await.unwrap().as_deref(),
        Some("one"),
        "names of settings do not depend on their case"
    );
    assert!(kv.del("key").await.unwrap());
    assert_eq!(
        provider
            .keyvalue(&common)
            .await
            .unwrap()
            .get("key")
            .await
            .unwrap()
            .as_deref(),
        Some("common")
    );

    provider.delete_link(&other).await.unwrap();
    provider.wait_unlinked(&other, LIMIT).await.unwrap();
    provider.put_link(&other, &[]).await.unwrap();
    provider.wait_linked(&other, LIMIT).await.unwrap();
    let moved = provider.keyvalue(&other).await.unwrap();
    assert_eq!(
        moved.get("key").await.unwrap().as_deref(),
        Some("common"),
        "a link put again counts with its new values"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_shutdown_as_a_host_asks() {
    let server = testkit::server_or_skip!();
    for (settings, sync) in [
        (json!({}), SyncState::Alone),
        (json!({ "REPLICATION": "off" }), SyncState::Standalone),
    ] {
        let actor = Actor::new();
        let options = ProviderOptions::new(BINARY).link(&actor).config(settings.clone());
        let mut provider = Lattice::new(server.url()).start_ready(options, LIMIT).await.unwrap();
        let kv = provider.keyvalue(&actor).await.unwrap();
        for key in ["a", "b", "c"] {
            kv.set(key, "value").await.unwrap();
        }
        kv.del("c").await.unwrap();
        let status = provider.status().await.unwrap();
        assert_eq!(
            (status.keys, status.peers, status.sync),
            (2, 0, sync),
            "{settings}: {status:?}"
        );
        assert!(provider.resident_bytes().unwrap() > 0);

        let end = provider.shutdown().await.unwrap();
        assert!(end.success(), "{settings}: {end}; its log:\n{}", provider.log().text());
        assert!(!provider.log().text().contains("panicked"), "{}", provider.log().text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_come_as_numbers_and_texts_in_any_case() {
    let server = testkit::server_or_skip!();
    for settings in [
        json!({ "REPLICATION": "off", "SYNC_TIMEOUT_SECS": 3, "TOMBSTONE_TTL_SECS": "60" }),
        json!({ "replication": "OFF", "sync_timeout_secs": "3", "Tombstone_Ttl_Secs": 60 }),
        json!({ "Replication": false }),
    ] {
        let options = ProviderOptions::new(BINARY).config(settings.clone());
        let mut provider = Lattice::new(server.url()).start(options).await.unwrap();
        let status = provider
            .wait_healthy(LIMIT)
            .await
            .unwrap_or_else(|error| panic!("{settings}: {error:#}"));
        assert_eq!(status.sync, SyncState::Standalone, "{settings}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_of_a_lattice_with_user_jwt_replicate() {
    let operator = NatsOperator::new();
    let trust = operator.server_config().unwrap();
    let server = testkit::server_or_skip!(NatsServer::builder().config(trust));
    let lattice = Lattice::new(server.url()).with_user(operator.user().unwrap());
    let actor = Actor::new();
    let other_user = operator.user().unwrap();
    let by_setting = json!({ "CLIENT_JWT": other_user.jwt, "CLIENT_SEED": other_user.seed, "NATS_URL": server.url() });
    let mut first = lattice
        .start_ready(ProviderOptions::new(BINARY).link(&actor), LIMIT)
        .await
        .unwrap();
    let options = ProviderOptions::new(BINARY).link(&actor).config(by_setting);
    let mut second = lattice.start_ready(options, LIMIT).await.unwrap();
    first.wait_status(LIMIT, |status| status.peers == 1).await.unwrap();

    expect_replication(&first, &second, &actor).await;
    for (provider, secret) in [
        (&mut first, lattice.cluster_seed().unwrap()),
        (&mut second, other_user.seed),
    ] {
        assert!(!provider.log().text().contains(&secret), "a seed in the log");
    }
    second.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_the_sdk_takes_for_broken_work() {
    let server = testkit::server_or_skip!();
    let lattice = Lattice::new(server.url());
    let actor = Actor::new();
    let start = || {
        let options = ProviderOptions::new(BINARY).link(&actor).adjust(|data| {
            data.invocation_seed = UNREADABLE_CLUSTER_SEED.to_owned();
            data.cluster_issuers.push(UNREADABLE_CLUSTER_KEY.to_owned());
        });
        lattice.start_ready(options, LIMIT)
    };
    let first = start().await.unwrap();
    let second = start().await.unwrap();
    expect_replication(&first, &second, &actor).await;
    let log = first.log().text();
    assert!(!log.contains(UNREADABLE_CLUSTER_SEED), "a seed in the log");
    assert!(
        !log.contains(UNREADABLE_CLUSTER_KEY),
        "it is a key as any other:\n{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_in_a_link_of_the_host_data_count_as_in_the_classic_provider() {
    let rpc = testkit::server_or_skip!();
    let replication = NatsServer::builder().monitoring().start().await.unwrap();
    let url = replication.url();
    let lattice = Lattice::new(rpc.url());
    let [actor, other, contradicting] = std::array::from_fn(|_| Actor::new());
    let options = || {
        ProviderOptions::new(BINARY)
            .link_with(&actor, &[("nats_url", &url)])
            .link_with(&contradicting, &[("NATS_URL", "nats://127.0.0.1:1")])
    };
    let mut first = lattice.start_ready(options(), LIMIT).await.unwrap();
    let mut second = lattice.start_ready(options(), LIMIT).await.unwrap();
    for provider in [&mut first, &mut second] {
        provider
            .wait_status(LIMIT, |status| status.peers == 1 && status.sync == SyncState::Synced)
            .await
            .unwrap();
        // The first link decides, and one that says otherwise is refused.
        provider.wait_unlinked(&contradicting, LIMIT).await.unwrap();
        provider.wait_for_log("NATS_URL", LIMIT).await.unwrap();
    }
    assert_eq!(replication.monitor("/varz").await.unwrap()["connections"], 2);
    expect_replication(&second, &first, &actor).await;

    // Removing one link of several, even the one with the settings, must not end replication.
    second.put_link(&other, &[("NATS_URL", &url)]).await.unwrap();
    second.wait_linked(&other, LIMIT).await.unwrap();
    second.delete_link(&actor).await.unwrap();
    second.wait_unlinked(&actor, LIMIT).await.unwrap();
    second
        .keyvalue(&other)
        .await
        .unwrap()
        .set("key", "other")
        .await
        .unwrap();
    let reader = first.keyvalue(&actor).await.unwrap();
    eventually(LIMIT, || async {
        anyhow::ensure!(reader.get("key").await?.as_deref() == Some("other"), "not replicated");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn user_and_password_in_the_address_are_used_and_not_shown() {
    let rpc = testkit::server_or_skip!();
    let access = "authorization { user: kv, password: not_to_be_shown }";
    let replication = NatsServer::builder().config(access).start().await.unwrap();
    let url = format!("nats://kv:not_to_be_shown@127.0.0.1:{}", replication.port());
    let options = || {
        ProviderOptions::new(BINARY)
            .config(json!({ "NATS_URL": url }))
            .log_level("debug")
    };
    let lattice = Lattice::new(rpc.url());
    let [mut first, mut second] = [
        lattice.start(options()).await.unwrap(),
        lattice.start(options()).await.unwrap(),
    ];
    for provider in [&mut first, &mut second] {
        let seen = provider
            .wait_status(LIMIT, |status| status.peers == 1 && status.sync == SyncState::Synced)
            .await;
        seen.unwrap();
        let log = provider.log().text();
        assert!(!log.contains("not_to_be_shown"), "a password in the log:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_host_data_ends_the_process_with_a_message() {
    let lattice = Lattice::new("nats://127.0.0.1:1");
    let seed = lattice.cluster_seed().unwrap();
    let truncated = {
        let line = encode_host_data(&lattice.host_data(&ProviderOptions::new(BINARY)).unwrap()).unwrap();
        line[..line.len() / 2].to_owned() + "\n"
    };
    let wrong_type = encode_line(&json!({ "host_id": 5, "invocation_seed": seed }).to_string());
    for (what, input) in [
        ("nothing", String::new()),
        ("an empty line", "\n".to_owned()),
        ("no base64", "this is not host data!\n".to_owned()),
        ("base64 of no JSON", encode_line("hello")),
        ("base64 of other JSON", encode_line("[1, 2]")),
        ("JSON with fields of another type", wrong_type),
        ("host data cut short", truncated),
    ] {
        let (status, output) = run_to_end(Path::new(BINARY), input.as_bytes(), GIVES_UP_WITHIN)
            .await
            .unwrap();
        assert!(!status.success(), "{what}: {status}; its output:\n{output}");
        assert!(
            output.to_lowercase().contains("host data"),
            "{what}: the message names host data:\n{output}"
        );
        assert!(!output.contains("panicked"), "{what}: {output}");
        assert!(!output.contains(&seed), "{what}: a seed in the output:\n{output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_settings_end_the_process_and_are_named() {
    let bad_seed = "SUACSSNOTASEEDATALLBUTLONGENOUGHTOLOOKLIKEONEXXXXXXXXXXXX";
    let some_jwt = "eyJ0eXAiOiJKV1QifQ.e30.AAAA";
    let settings: Vec<(&str, Value)> = vec![
        ("REPLICATION", json!({ "REPLICATION": "maybe" })),
        ("REPLICATION", json!({ "replication": 7 })),
        ("SYNC_TIMEOUT_SECS", json!({ "SYNC_TIMEOUT_SECS": "soon" })),
        ("SYNC_TIMEOUT_SECS", json!({ "SYNC_TIMEOUT_SECS": -1 })),
        ("SYNC_TIMEOUT_SECS", json!({ "SYNC_TIMEOUT_SECS": [1] })),
        ("TOMBSTONE_TTL_SECS", json!({ "TOMBSTONE_TTL_SECS": "1.5.2" })),
        (
            "TOMBSTONE_TTL_SECS",
            json!({ "TOMBSTONE_TTL_SECS": "99999999999999999999999" }),
        ),
        ("REPLAY_HEARTBEAT_SECS", json!({ "REPLAY_HEARTBEAT_SECS": "x" })),
        ("NATS_URL", json!({ "NATS_URL": "http://[broken" })),
        ("STATE_REPL_SUBJECT", json!({ "STATE_REPL_SUBJECT": "two words" })),
        ("STATE_REPL_SUBJECT", json!({ "STATE_REPL_SUBJECT": "a..b" })),
        ("REPLAY_REQ_SUBJECT", json!({ "REPLAY_REQ_SUBJECT": "wild.>" })),
        ("REPLAY_REQ_SUBJECT", json!({ "REPLAY_REQ_SUBJECT": "wild.*.card" })),
        (
            "CLIENT_SEED",
            json!({ "CLIENT_JWT": some_jwt, "CLIENT_SEED": bad_seed }),
        ),
        ("CLIENT_SEED", json!({ "CLIENT_JWT": some_jwt })),
    ];
    let texts = settings.into_iter().map(|(name, value)| (name, value.to_string()));
    let no_objects =
        ["not json", "[1, 2]", "\"text\"", "{\"REPLICATION\": "].map(|text| ("config_json", text.to_owned()));
    for (name, text) in texts.chain(no_objects) {
        expect_refusal(name, &text, bad_seed, |data| data.config_json = Some(text.clone())).await;
    }

    expect_refusal("invocation_seed", "malformed", bad_seed, |data| {
        data.invocation_seed = bad_seed.to_owned()
    })
    .await;
    expect_refusal("invocation_seed", "empty", bad_seed, |data| {
        data.invocation_seed.clear()
    })
    .await;
    expect_refusal("lattice_rpc_user_seed", "malformed", bad_seed, |data| {
        data.lattice_rpc_user_jwt = some_jwt.to_owned();
        data.lattice_rpc_user_seed = bad_seed.to_owned();
    })
    .await;
    expect_refusal("lattice_rpc_url", "malformed", bad_seed, |data| {
        data.lattice_rpc_url = "nats://:x:y".to_owned()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_with_unusable_values_is_denied_and_says_why() {
    let server = testkit::server_or_skip!();
    let [good, bad] = [Actor::new(), Actor::new()];
    let options = ProviderOptions::new(BINARY).link(&good);
    let provider = Lattice::new(server.url()).start_ready(options, LIMIT).await.unwrap();
    provider.put_link(&bad, &[("SYNC_TIMEOUT_SECS", "soon")]).await.unwrap();
    provider.wait_for_log("SYNC_TIMEOUT_SECS", LIMIT).await.unwrap();
    provider.wait_unlinked(&bad, LIMIT).await.unwrap();
    provider.wait_linked(&good, LIMIT).await.unwrap();
}

/// Writes at one provider and waits until it can be read at the other.
async fn expect_replication(writer: &ProviderProcess, reader: &ProviderProcess, actor: &Actor) {
    writer.keyvalue(actor).await.unwrap().set("key", "value").await.unwrap();
    let reader = reader.keyvalue(actor).await.unwrap();
    eventually(LIMIT, || async {
        anyhow::ensure!(reader.get("key").await?.as_deref() == Some("value"), "not replicated");
        Ok(())
    })
    .await
    .unwrap();
}

/// Starts the binary with host data spoiled by `spoil` and expects a prompt end that names `setting`.
async fn expect_refusal(setting: &str, what: &str, secret: &str, spoil: impl FnOnce(&mut HostData)) {
    // Nothing listens on port 1: what is wrong with the settings has to be told without a server.
    let lattice = Lattice::new("nats://127.0.0.1:1");
    let mut data = lattice.host_data(&ProviderOptions::new(BINARY)).unwrap();
    spoil(&mut data);
    let input = encode_host_data(&data).unwrap();
    let (status, output) = run_to_end(Path::new(BINARY), input.as_bytes(), GIVES_UP_WITHIN)
        .await
        .unwrap();
    assert!(!status.success(), "{setting} {what}: {status}; its output:\n{output}");
    assert!(output.contains(setting), "{setting} {what} is not named:\n{output}");
    assert!(!output.contains("panicked"), "{setting} {what}:\n{output}");
    for secret in [secret.to_owned(), lattice.cluster_seed().unwrap()] {
        assert!(
            !output.contains(&secret),
            "{setting} {what}: a seed in the output:\n{output}"
        );
    }
}

fn encode_line(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text) + "\n"
}
