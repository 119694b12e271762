//! What a client of the NATS account, without any seed, can send to the subjects of a provider (`wasmbus.rpc.>`):
//! links, which nobody signs, calls that it has recorded, and calls that claim to be large.

use std::time::{Duration, Instant};

use serde_json::json;
use testkit::{eventually, Actor, Lattice, NatsServer, ProviderOptions, SyncState};
use wasmbus_rpc::async_nats::jetstream;
use wasmbus_rpc::common::{deserialize, serialize};
use wasmbus_rpc::core::Invocation;

use crate::ALONE;

const BINARY: &str = env!("CARGO_BIN_EXE_nats-kvcache");
const LIMIT: Duration = Duration::from_secs(30);
const MB: u64 = 1_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn links_put_at_run_time_cannot_change_the_process() {
    let _alone = ALONE.lock().await;
    let server = testkit::server_or_skip!();
    let strangers = NatsServer::builder().monitoring().start().await.unwrap();
    let url = strangers.url();
    let connections = || async { strangers.monitor("/varz").await.unwrap()["total_connections"].clone() };
    let before = connections().await;
    let lattice = Lattice::new(server.url());
    let actor = Actor::new();
    for config in [json!({}), json!({ "FRAME_AUTH": "on", "ACK": 1 })] {
        let options = || ProviderOptions::new(BINARY).link(&actor).config(config.clone());
        let mut first = lattice.start_ready(options(), LIMIT).await.unwrap();
        let mut second = lattice.start_ready(options(), LIMIT).await.unwrap();
        for provider in [&mut first, &mut second] {
            provider.wait_status(LIMIT, |status| status.peers == 1).await.unwrap();
        }
        let seed = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
        let attacks: [&[(&str, &str)]; 10] = [
            &[("FRAME_AUTH", "off")],
            &[("frame_auth", "no"), ("NAMESPACE", "n")],
            &[("NATS_URL", &url)],
            &[("NATS_URL", &url), ("CLIENT_JWT", "x"), ("CLIENT_SEED", seed)],
            &[("REPLICATION", "off")],
            &[("STATE_REPL_SUBJECT", "elsewhere")],
            &[("SYNC_TIMEOUT_SECS", "3600")],
            &[("QUEUE_BYTES", "65536")],
            &[("MAX_VALUE_BYTES", "1")],
            &[("MAX_ANSWER_BYTES", "1024")],
        ];
        for values in attacks {
            let attacker = Actor::new();
            first.put_link(&attacker, values).await.unwrap();
            // Refused by name, with what to do.
            let refused = first
                .wait_for_log(&format!("actor=\"{}\"", attacker.id()), LIMIT)
                .await
                .unwrap();
            let setting = values[0].0.to_uppercase();
            let said = refused.contains(&setting) && refused.contains("config_json");
            assert!(said || setting.starts_with("CLIENT"), "{values:?}: {refused}");
            first.wait_unlinked(&attacker, LIMIT).await.unwrap();
        }
        let weaker = Actor::new();
        first.put_link(&weaker, &[("ACK", "0")]).await.unwrap();
        // What says nothing else than what is in force is as good as nothing.
        let harmless = Actor::new();
        let values = [("FRAME_AUTH", "true"), ("REPLICATION", "yes"), ("NAMESPACE", "own")];
        first.put_link(&harmless, &values).await.unwrap();
        first.wait_linked(&harmless, LIMIT).await.unwrap();
        if config["ACK"].is_null() {
            first.wait_linked(&weaker, LIMIT).await.unwrap();
        } else {
            first.wait_unlinked(&weaker, LIMIT).await.unwrap();
        }

        // Nothing has changed: both replicate where they did, and nobody has been told anything.
        let status = first.status().await.unwrap();
        assert_eq!((status.sync, status.peers), (SyncState::Synced, 1), "{status:?}");
        first.keyvalue(&actor).await.unwrap().set("key", "value").await.unwrap();
        let reader = second.keyvalue(&actor).await.unwrap();
        eventually(LIMIT, || async {
            anyhow::ensure!(reader.get("key").await?.as_deref() == Some("value"), "not replicated");
            Ok(())
        })
        .await
        .unwrap();
        assert!(
            !first.log().text().contains("FRAME_AUTH=off:"),
            "authentication was switched off"
        );
        for provider in [&mut first, &mut second] {
            provider.shutdown().await.unwrap();
        }
    }
    assert_eq!(
        connections().await,
        before,
        "somebody has connected to the stranger's server"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn links_of_the_host_data_neither_switch_authentication_off_nor_see_credentials() {
    let _alone = ALONE.lock().await;
    let server = testkit::server_or_skip!();
    let strangers = NatsServer::builder().monitoring().start().await.unwrap();
    let url = strangers.url();
    let connections = || async { strangers.monitor("/varz").await.unwrap()["total_connections"].clone() };
    let before = connections().await;
    let seed = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    let own = json!({ "CLIENT_JWT": "eyJ0eXAiOiJKV1QifQ.e30.AAAA", "CLIENT_SEED": seed });
    let attacks = [
        ("FRAME_AUTH", json!({}), ("FRAME_AUTH", "off")),
        ("FRAME_AUTH", json!({ "FRAME_AUTH": "on" }), ("FRAME_AUTH", "off")),
        (
            "NATS_URL",
            json!({ "NATS_URL": server.url() }),
            ("NATS_URL", url.as_str()),
        ),
        ("NATS_URL", own, ("NATS_URL", url.as_str())),
    ];
    for (setting, config, value) in attacks {
        let [good, bad] = [Actor::new(), Actor::new()];
        let options = ProviderOptions::new(BINARY)
            .link_with(&bad, &[value])
            .link(&good)
            .config(config.clone());
        let provider = Lattice::new(server.url()).start_ready(options, LIMIT).await.unwrap();
        let log = provider
            .wait_for_log("link of the host data refused", LIMIT)
            .await
            .unwrap();
        assert!(log.contains(setting), "{config} {value:?}: {log}");
        provider.wait_unlinked(&bad, LIMIT).await.unwrap();
        provider.wait_linked(&good, LIMIT).await.unwrap();
        assert!(!provider.log().text().contains("FRAME_AUTH=off:"), "{config} {value:?}");
    }
    assert_eq!(
        connections().await,
        before,
        "somebody has connected to the stranger's server"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_there_is_not_moved_by_a_message() {
    let _alone = ALONE.lock().await;
    let server = testkit::server_or_skip!();
    let actor = Actor::new();
    let options = ProviderOptions::new(BINARY).link_with(&actor, &[("NAMESPACE", "own")]);
    let provider = Lattice::new(server.url()).start_ready(options, LIMIT).await.unwrap();
    let kv = provider.keyvalue(&actor).await.unwrap();
    kv.set("key", "value").await.unwrap();
    provider.put_link(&actor, &[("NAMESPACE", "other")]).await.unwrap();
    provider.wait_for_log("delete the link first", LIMIT).await.unwrap();
    assert_eq!(kv.get("key").await.unwrap().as_deref(), Some("value"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_call_counts_once() {
    let _alone = ALONE.lock().await;
    let server = testkit::server_or_skip!();
    let actor = Actor::new();
    let lattice = Lattice::new(server.url());
    let provider = lattice
        .start_ready(ProviderOptions::new(BINARY).link(&actor), LIMIT)
        .await
        .unwrap();
    let kv = provider.keyvalue(&actor).await.unwrap();
    let stranger = lattice.connection().await.unwrap();
    let call = |method: &str, argument| {
        kv.transport()
            .invocation(method, &serialize(&argument).unwrap())
            .unwrap()
    };
    let increment = call("KeyValue.Increment", json!({ "key": "count", "value": 1 }));
    let read = call("KeyValue.Get", json!("count"));

    let answer = |recording: Vec<u8>| {
        let (stranger, subject) = (stranger.clone(), kv.transport().subject());
        async move { testkit::answer_in(&stranger.request(subject, recording.into()).await.unwrap().payload) }
    };
    answer(increment.clone())
        .await
        .expect("the first time it is the call itself");
    answer(read.clone())
        .await
        .expect("the first time it is the call itself");
    for attempt in 0..1_000 {
        // The id beside the claims is not signed.
        let mut recording: Invocation = deserialize(&increment).unwrap();
        recording.id = format!("{attempt}");
        let recording = serialize(&recording).unwrap();
        stranger
            .publish(kv.transport().subject(), recording.into())
            .await
            .unwrap();
    }
    for recording in [increment, read] {
        let refused = answer(recording).await.unwrap_err().to_string();
        assert!(refused.contains("counts once"), "{refused}");
    }
    assert_eq!(kv.increment("count", 0).await.unwrap(), 1, "counted more than once");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_arguments_are_fetched_for_those_who_may_call_and_within_bounds() {
    let _alone = ALONE.lock().await;
    let server = testkit::server_or_skip!(NatsServer::builder().jetstream());
    let actor = Actor::new();
    let lattice = Lattice::new(server.url());
    let provider = lattice
        .start_ready(
            ProviderOptions::new(BINARY)
                .link(&actor)
                .config(json!({ "MAX_VALUE_BYTES": 4 << 20 })),
            LIMIT,
        )
        .await
        .unwrap();
    let kv = provider.keyvalue(&actor).await.unwrap();
    let value = "v".repeat(2 << 20);
    kv.set("large", &value).await.unwrap();
    assert_eq!(kv.get("large").await.unwrap(), Some(value), "in chunks, both ways");

    let stranger = lattice.connection().await.unwrap();
    let store = jetstream::new(stranger.clone())
        .get_object_store(lattice.prefix())
        .await
        .unwrap();
    let body = vec![7; 40 << 20];
    store.put("planted", &mut &body[..]).await.unwrap();
    let before = provider.resident_bytes().unwrap();
    let planted = |claims: Option<&str>, length: u64| {
        let signed = kv
            .transport()
            .invocation("KeyValue.Get", &serialize(&"key").unwrap())
            .unwrap();
        let mut invocation: Invocation = deserialize(&signed).unwrap();
        invocation.id = "planted".into();
        invocation.msg.clear();
        invocation.content_length = Some(length);
        if let Some(claims) = claims {
            invocation.encoded_claims = claims.into();
        }
        serialize(&invocation).unwrap()
    };
    for (what, call, expected) in [
        ("no claims", planted(Some(""), 40 << 20), "claims"),
        ("other claims", planted(Some("e30.e30.AAAA"), 40 << 20), "claims"),
        (
            "a signed call beyond the bound",
            planted(None, 40 << 20),
            "MAX_VALUE_BYTES",
        ),
        (
            "a signed call that says little",
            planted(None, 1 << 20),
            "another object",
        ),
        (
            "a signed call that says everything",
            planted(None, u64::MAX),
            "MAX_VALUE_BYTES",
        ),
    ] {
        for _ in 0..8 {
            let answer = stranger
                .request(kv.transport().subject(), call.clone().into())
                .await
                .unwrap();
            let refused = testkit::answer_in(&answer.payload).unwrap_err().to_string();
            assert!(refused.contains(expected), "{what}: {refused}");
        }
    }
    assert!(!store.info("planted").await.unwrap().deleted, "it was fetched");
    let grown = provider.resident_bytes().unwrap().saturating_sub(before);
    assert!(grown < 20 * MB, "grown by {grown} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_links_are_not_kept_and_names_of_theirs_do_not_fill_the_log() {
    let _alone = ALONE.lock().await;
    let server = testkit::server_or_skip!();
    let actor = Actor::new();
    let provider = Lattice::new(server.url())
        .start_ready(ProviderOptions::new(BINARY).link(&actor), LIMIT)
        .await
        .unwrap();
    let before = provider.resident_bytes().unwrap();
    let large = "x".repeat(15_000);
    let too_large = "x".repeat(900_000);
    let names: Vec<String> = (0..400).map(|number| format!("SETTING_OF_SOMEBODY_{number}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "x")).collect();
    // In waves, since of what comes faster than it is read a part is dropped.
    for _ in 0..10 {
        let last = Actor::new();
        for _ in 0..20 {
            provider.put_link(&Actor::new(), &many).await.unwrap();
            provider
                .put_link(&Actor::new(), &[("LARGE", &too_large)])
                .await
                .unwrap();
        }
        for _ in 0..100 {
            provider.put_link(&Actor::new(), &[("LARGE", &large)]).await.unwrap();
        }
        provider.put_link(&last, &[("LARGE", &large)]).await.unwrap();
        provider.wait_linked(&last, LIMIT).await.unwrap();
    }
    provider
        .put_link(&Actor::with_id("M".repeat(10_000)), &[])
        .await
        .unwrap();
    provider.wait_for_log("actor_id", LIMIT).await.unwrap();
    // What has come all at once is given back when the process falls idle.
    eventually(LIMIT, || async {
        let grown = provider.resident_bytes()?.saturating_sub(before);
        anyhow::ensure!(
            grown < 20 * MB,
            "15 MB of values, and 180 MB of larger ones, have left {grown} bytes"
        );
        Ok(())
    })
    .await
    .unwrap();
    let log = provider.log().text().len() as u64;
    assert!(log < MB, "{log} bytes of log");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_links_do_not_slow_calls() {
    let _alone = ALONE.lock().await;
    let server = testkit::server_or_skip!();
    const CALLS: u32 = 200;
    let mut times = Vec::new();
    for links in [0, 10_000] {
        let actor = Actor::new();
        let mut options = ProviderOptions::new(BINARY).link(&actor);
        for number in 0..links {
            options = options.link_with(
                &Actor::with_id(format!("M{number:055}")),
                &[("NAMESPACE", "one of many")],
            );
        }
        let provider = Lattice::new(server.url()).start_ready(options, LIMIT).await.unwrap();
        let kv = provider.keyvalue(&actor).await.unwrap();
        kv.set("key", "value").await.unwrap();
        let started = Instant::now();
        for _ in 0..CALLS {
            kv.get("key").await.unwrap();
        }
        times.push(started.elapsed() / CALLS);
    }
    println!(
        "a call takes {:?} beside one link, {:?} beside 10,000",
        times[0], times[1]
    );
    assert!(times[1] < 3 * times[0] + Duration::from_millis(1), "{times:?}");
}
