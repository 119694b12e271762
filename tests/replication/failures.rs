//! Servers and nodes that go away and come back.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use testkit::{eventually, Actor, Lattice, NatsServer, ProviderOptions, SyncState};

use crate::cluster::{Cluster, Node, BINARY, LIMIT};

#[tokio::test(flavor = "multi_thread")]
async fn writes_while_the_replication_server_is_away_are_repaired() {
    let rpc = testkit::server_or_skip!();
    // Calls travel over a server of their own, so that there is somebody to write while the other is away.
    let mut replication = NatsServer::start().await.unwrap();
    let mut cluster = Cluster::new(&rpc).with_settings(json!({ "NATS_URL": replication.url() }));
    cluster.join(3).await;
    cluster.kv(0).set("before", "value").await.unwrap();
    cluster.kv(0).set("deleted", "value").await.unwrap();
    cluster.converge().await;

    replication.kill().unwrap();
    for node in &mut cluster.nodes {
        node.provider
            .wait_status(LIMIT, |status| status.sync == SyncState::Disconnected)
            .await
            .unwrap();
    }
    for (number, kv) in cluster.kvs().iter().enumerate() {
        kv.increment("count", 10 + number as i32).await.unwrap();
        kv.list_add("list", &number.to_string()).await.unwrap();
        kv.set_add("set", &number.to_string()).await.unwrap();
        for key in 0..200 {
            kv.set(&format!("away/{number}/{key}"), "value").await.unwrap();
        }
    }
    assert!(cluster.kv(2).del("deleted").await.unwrap());
    assert_eq!(
        cluster.kv(1).get("count").await.unwrap().as_deref(),
        Some("11"),
        "nothing has travelled"
    );

    replication.restart().await.unwrap();
    assert_eq!(cluster.converge().await.keys, 604);
    cluster.expect_text("count", Some("33")).await;
    cluster.expect_text("deleted", None).await;
    cluster.expect_set("set", &["0", "1", "2"]).await;
    let list = cluster.kv(0).list("list").await.unwrap();
    assert_eq!(list.len(), 3);
    cluster
        .expect_everywhere("the list", &list, |kv| async move { kv.list("list").await })
        .await;
    cluster.expect_text("away/2/199", Some("value")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lattice_survives_the_restart_of_its_server() {
    let mut server = testkit::server_or_skip!();
    let mut cluster = Cluster::start(&server, 3).await;
    cluster.kv(0).set("before", "value").await.unwrap();
    cluster.converge().await;
    for round in 0..2 {
        if round == 0 {
            server.kill().unwrap();
        } else {
            server.stop().await.unwrap();
        }
        server.restart().await.unwrap();
        cluster.wait_peers().await;
        for (number, kv) in cluster.kvs().iter().enumerate() {
            kv.set(&format!("after/{round}/{number}"), "value").await.unwrap();
        }
        cluster.converge().await;
        cluster.expect_text(&format!("after/{round}/1"), Some("value")).await;
        cluster.expect_text("before", Some("value")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_frozen_catches_up() {
    let server = testkit::server_or_skip!();
    let mut cluster = Cluster::start(&server, 3).await;
    cluster.kv(2).increment("count", 1).await.unwrap();
    cluster.kv(2).set("deleted meanwhile", "x").await.unwrap();
    cluster.converge().await;
    cluster.nodes[2].provider.pause().unwrap();
    let awake = [cluster.kv(0).clone(), cluster.kv(1).clone()];
    let workload = testkit::Workload::new(1_500);
    workload.write(&awake).await.unwrap();
    awake[0].increment("count", 1).await.unwrap();
    assert!(awake[1].del("deleted meanwhile").await.unwrap());
    // The others notice that it is gone before it comes back.
    cluster.nodes[0]
        .provider
        .wait_status(LIMIT, |status| status.peers == 1)
        .await
        .unwrap();
    cluster.nodes[2].provider.resume().unwrap();
    cluster.wait_peers().await;
    cluster.converge().await;
    cluster.expect_text("count", Some("2")).await;
    cluster.expect_text("deleted meanwhile", None).await;
    cluster.verify(&workload, 29).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_for_a_while_loses_nothing() {
    let rpc = testkit::server_or_skip!();
    let mut replication = NatsServer::start().await.unwrap();
    let mut cluster = Cluster::new(&rpc).with_settings(json!({ "NATS_URL": replication.url() }));
    cluster.join(2).await;
    replication.pause().unwrap();
    for kv in cluster.kvs() {
        for _ in 0..300 {
            kv.increment("count", 1).await.unwrap();
        }
    }
    replication.resume().unwrap();
    cluster.converge().await;
    cluster.expect_text("count", Some("600")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_shut_down_right_after_writes_loses_nothing() {
    let server = testkit::server_or_skip!();
    let mut cluster = Cluster::start(&server, 2).await;
    let workload = cluster.fill(100).await;
    let mut leaving = cluster.nodes.remove(0);
    let writes = (0..400).map(|number| {
        let kv = leaving.kv.clone();
        async move { kv.set(&format!("last/{number}"), &number.to_string()).await }
    });
    futures::future::try_join_all(writes).await.unwrap();
    let end = leaving.provider.shutdown().await.unwrap();
    assert!(end.success(), "{end}");
    eventually(LIMIT, || async {
        let status = cluster.nodes[0].provider.status().await?;
        ensure!(status.keys == 500, "{status}");
        Ok(())
    })
    .await
    .unwrap();
    for number in [0, 133, 399] {
        cluster
            .expect_text(&format!("last/{number}"), Some(&number.to_string()))
            .await;
    }
    cluster.verify(&workload, 1).await;
    // It leaves no ghost behind, and whoever takes its place gets all of it.
    cluster.nodes[0]
        .provider
        .wait_status(LIMIT, |status| status.peers == 0)
        .await
        .unwrap();
    cluster.join(1).await;
    assert_eq!(cluster.converge().await.keys, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replication_server_may_come_later_than_the_nodes() {
    let rpc = testkit::server_or_skip!();
    let mut replication = NatsServer::start().await.unwrap();
    replication.kill().unwrap();
    let settings = json!({ "NATS_URL": replication.url(), "SYNC_TIMEOUT_SECS": 1 });
    let mut cluster = Cluster::new(&rpc).with_settings(settings);
    for number in 0..2 {
        let mut provider = cluster
            .lattice
            .start(cluster.options().link(&cluster.actor))
            .await
            .unwrap();
        // The link waits for the first sync, but not for ever.
        provider.wait_healthy(LIMIT).await.unwrap();
        provider.wait_linked(&cluster.actor, LIMIT).await.unwrap();
        let kv = provider.keyvalue(&cluster.actor).await.unwrap();
        kv.increment("count", 1 + number).await.unwrap();
        // The limit of the link and that of the state pass in the same moment, and the state is told a little later.
        let without_server = [SyncState::Disconnected, SyncState::Unsynced];
        let told = provider.wait_status(LIMIT, |status| without_server.contains(&status.sync));
        told.await.unwrap();
        cluster.nodes.push(Node { provider, kv });
    }
    replication.restart().await.unwrap();
    cluster.wait_peers().await;
    cluster.converge().await;
    cluster.expect_text("count", Some("3")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_ends_in_order_while_the_replication_server_is_away_or_hangs() {
    let rpc = testkit::server_or_skip!();
    for hangs in [false, true] {
        let mut replication = NatsServer::start().await.unwrap();
        let mut cluster = Cluster::new(&rpc).with_settings(json!({ "NATS_URL": replication.url() }));
        cluster.join(1).await;
        if hangs {
            replication.pause().unwrap();
        } else {
            replication.kill().unwrap();
        }
        cluster.kv(0).set("key", "value").await.unwrap();
        let end = cluster.nodes[0].provider.shutdown().await.unwrap();
        assert!(end.success(), "server hangs: {hangs}: {end}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_replication_server_never_came_serves_and_ends_at_once() {
    let rpc = testkit::server_or_skip!();
    let lattice = Lattice::new(rpc.url());
    let actor = Actor::new();
    let settings = json!({ "NATS_URL": "nats://127.0.0.1:1", "SYNC_TIMEOUT_SECS": 1 });
    let options = ProviderOptions::new(BINARY).link(&actor).config(settings);
    let mut provider = lattice.start(options).await.unwrap();
    provider
        .wait_status(LIMIT, |status| status.sync == SyncState::Unsynced)
        .await
        .unwrap();
    let kv = provider.keyvalue(&actor).await.unwrap();
    kv.set("key", "value").await.unwrap();
    assert_eq!(kv.get("key").await.unwrap().as_deref(), Some("value"));
    assert!(provider.shutdown().await.unwrap().success());
    let log = provider.log().text();
    assert!(
        !log.contains("did not end within"),
        "it waited for a server that is not there:\n{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_gets_a_sigterm_right_after_writes_loses_nothing() {
    let server = testkit::server_or_skip!();
    let mut cluster = Cluster::start(&server, 2).await;
    let mut leaving = cluster.nodes.remove(0);
    let writes = (0..200).map(|number| {
        let kv = leaving.kv.clone();
        async move { kv.list_add("list", &number.to_string()).await }
    });
    futures::future::try_join_all(writes).await.unwrap();
    leaving.provider.terminate().unwrap();
    let end = leaving.provider.exit_status(LIMIT).await.unwrap();
    assert!(end.success(), "{end}");
    eventually(LIMIT, || async {
        let length = cluster.kv(0).list("list").await?.len();
        ensure!(length == 200, "{length} of 200 items have arrived");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_starts_again_with_the_same_key() {
    let server = testkit::server_or_skip!();
    let mut cluster = Cluster::start(&server, 2).await;
    for round in 1..=3 {
        cluster.kv(0).increment("count", 1).await.unwrap();
        cluster.kv(1).increment("count", 1).await.unwrap();
        cluster.converge().await;
        let mut dead = cluster.nodes.remove(1);
        dead.provider.kill().unwrap();
        cluster.kv(0).increment("count", 1).await.unwrap();
        let node = cluster.start_node(dead.provider.options().clone()).await.unwrap();
        cluster.nodes.push(node);
        cluster.converge().await;
        cluster.expect_text("count", Some(&(3 * round).to_string())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_replication_subjects_is_dropped() {
    let server = testkit::server_or_skip!(NatsServer::builder().monitoring());
    let mut cluster = Cluster::start(&server, 2).await;
    cluster.kv(0).set("key", "value").await.unwrap();
    let before = cluster.converge().await;

    let subjects: Vec<_> = server
        .subscriptions()
        .await
        .unwrap()
        .into_iter()
        .filter(|it| it.contains("kvcache"))
        .collect();
    assert!(!subjects.is_empty(), "the nodes subscribe to something");
    let connection = cluster.lattice.connection().await.unwrap();
    let pieces: [&[u8]; 8] = [
        b"",
        b"\0",
        b"\x01",
        b"garbage",
        b"\x01\xdf\xff\xff\xff\xff",
        b"\x01\xdd\xff\xff\xff\xff",
        b"\xff\xff",
        &[0x91; 9_000],
    ];
    for subject in &subjects {
        for piece in pieces {
            let subject = subject.replace(['*', '>'], "x");
            connection
                .publish_with_reply(subject, "nobody.listens".to_owned(), piece.to_vec().into())
                .await
                .unwrap();
        }
    }
    connection.flush().await.unwrap();

    // A write behind the garbage on the same connections proves that it has been read.
    cluster.kv(1).set("after", "value").await.unwrap();
    let after = cluster.converge().await;
    assert_eq!((after.keys, after.peers), (before.keys + 1, 1));
    cluster.expect_text("key", Some("value")).await;
    cluster.expect_text("after", Some("value")).await;
    for node in &mut cluster.nodes {
        assert!(
            node.provider.exit_status(Duration::ZERO).await.is_err(),
            "still running"
        );
        assert!(
            !node.provider.log().text().contains("panicked"),
            "{}",
            node.provider.log().text()
        );
    }
    cluster.join(1).await;
    cluster.converge().await;
}
