//! Writes that wait until peers have confirmed them.

use std::time::{Duration, Instant};

use serde_json::json;
use testkit::NatsServer;

use crate::cluster::{Cluster, LIMIT};

#[tokio::test(flavor = "multi_thread")]
async fn what_all_have_confirmed_is_read_everywhere_at_once() {
    let server = testkit::server_or_skip!();
    // The time is long enough for a debug build beside other tests.
    let settings = json!({ "ACK": "all", "ACK_TIMEOUT_MS": 10_000 });
    let mut cluster = Cluster::new(&server).with_settings(settings);
    cluster.join(3).await;
    for n in 0..60 {
        let value = n.to_string();
        cluster.kv(n % 3).set("key", &value).await.unwrap();
        cluster.expect_text("key", Some(&value)).await;
        let sum = cluster.kv((n + 1) % 3).increment("counter", 1).await.unwrap();
        assert_eq!(sum, n as i32 + 1, "an increment sees all that were confirmed before");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_has_its_own_wish_and_the_error_says_what_is_missing() {
    let server = testkit::server_or_skip!();
    let mut cluster = Cluster::start(&server, 2).await;
    let strict = testkit::Actor::new();
    let values = [("ACK", "2"), ("ack_timeout_ms", "300")];
    cluster.nodes[0].provider.put_link(&strict, &values).await.unwrap();
    cluster.nodes[0].provider.wait_linked(&strict, LIMIT).await.unwrap();
    let kv = cluster.nodes[0].provider.keyvalue(&strict).await.unwrap();
    let started = Instant::now();
    let error = kv.set("key", "value").await.unwrap_err().to_string();
    assert!(started.elapsed() >= Duration::from_millis(300));
    for part in [
        "applied on this host",
        "300 ms",
        "ACK_TIMEOUT_MS",
        "only 1 peers",
        "ACK=2",
    ] {
        assert!(error.contains(part), "'{error}' lacks '{part}'");
    }
    // The write is there all the same, and other links do not wait.
    cluster.converge().await;
    cluster.expect_text("key", Some("value")).await;
    cluster.kv(0).set("key", "other").await.unwrap();
    for wrong in ["-1", "some", "1.5"] {
        let refused = testkit::Actor::new();
        cluster.nodes[0]
            .provider
            .put_link(&refused, &[("ACK", wrong)])
            .await
            .unwrap();
        let log = cluster.nodes[0]
            .provider
            .wait_for_log(&format!("found '{wrong}'"), LIMIT)
            .await
            .unwrap();
        assert!(
            log.contains("setting ACK in the link values: expected 0, a number of peers"),
            "{log}"
        );
    }
    cluster.join(1).await;
    kv.set("key", "two peers are there").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_frozen_answers_no_read_before_it_has_caught_up() {
    let server = testkit::server_or_skip!();
    let settings = json!({ "ACK": "all", "ACK_TIMEOUT_MS": 20_000 });
    let mut cluster = Cluster::new(&server).with_settings(settings);
    cluster.join(3).await;
    cluster.kv(0).set("key", "old").await.unwrap();
    cluster.nodes[2].provider.pause().unwrap();
    // It takes as long as it takes the others to count the frozen one as gone.
    cluster.kv(0).set("key", "new").await.unwrap();
    // The read waits in the frozen process.
    let kv = cluster.kv(2).clone();
    let read = tokio::spawn(async move { kv.get("key").await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!read.is_finished());
    cluster.nodes[2].provider.resume().unwrap();
    let read = read.await.unwrap().unwrap();
    assert_eq!(read.as_deref(), Some("new"));
    cluster.wait_peers().await;
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nats_is_away_nothing_is_confirmed_and_strict_reads_are_refused() {
    let rpc = testkit::server_or_skip!();
    let mut replication = NatsServer::start().await.unwrap();
    let settings = json!({ "NATS_URL": replication.url(), "ACK": "all", "ACK_TIMEOUT_MS": 1_000 });
    let mut cluster = Cluster::new(&rpc).with_settings(settings);
    cluster.join(2).await;
    cluster.kv(0).set("key", "value").await.unwrap();
    replication.kill().unwrap();
    let away = |status: &testkit::Status| status.sync == testkit::SyncState::Disconnected;
    cluster.nodes[0].provider.wait_status(LIMIT, away).await.unwrap();
    let error = cluster.kv(0).set("key", "alone").await.unwrap_err().to_string();
    assert!(
        error.contains("NATS is away") && error.contains("applied on this host"),
        "{error}"
    );
    let error = cluster.kv(0).get("key").await.unwrap_err().to_string();
    assert!(
        error.contains("out of contact with the lattice (disconnected)"),
        "{error}"
    );
    replication.restart().await.unwrap();
    cluster.wait_peers().await;
    cluster.converge().await;
    cluster.expect_text("key", Some("alone")).await;
}
