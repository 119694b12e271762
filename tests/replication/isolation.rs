//! What must not replicate.

use serde_json::json;
use testkit::{Lattice, NatsServer, ProviderOptions, SyncState};

use crate::cluster::{Cluster, Node, BINARY, LIMIT};

#[tokio::test(flavor = "multi_thread")]
async fn lattices_and_link_names_never_mix() {
    let server = testkit::server_or_skip!();
    // The last two would share their subjects if names were put together without escaping.
    let unique = Lattice::new(server.url()).prefix().to_owned();
    let places = [
        (format!("{unique}-one"), "default".to_owned()),
        (format!("{unique}-two"), "default".to_owned()),
        (format!("{unique}-one"), "other".to_owned()),
        (format!("{unique}.kvcache.a"), "b".to_owned()),
        (unique, "a.kvcache.b".to_owned()),
    ];
    let mut clusters = Vec::new();
    for (prefix, link_name) in &places {
        let mut cluster = Cluster::new(&server);
        cluster.lattice = cluster.lattice.clone().with_prefix(prefix);
        for _ in 0..2 {
            let options = cluster.options().link_name(link_name).link(&cluster.actor);
            cluster.nodes.push(cluster.start_node(options).await.unwrap());
        }
        clusters.push(cluster);
    }
    for (number, cluster) in clusters.iter_mut().enumerate() {
        cluster.kv(number % 2).set("key", &number.to_string()).await.unwrap();
        cluster.kv(0).increment("count", 1).await.unwrap();
        cluster.kv(1).increment("count", 1).await.unwrap();
        for own in 0..=number {
            cluster.kv(0).set(&format!("own {own}"), "x").await.unwrap();
        }
    }
    for (number, cluster) in clusters.iter_mut().enumerate() {
        // Heartbeats and writes of this place have arrived; those of the others went over the same server before.
        cluster.wait_peers().await;
        let status = cluster.converge().await;
        assert_eq!(status.keys, 3 + number as u64, "place {:?}", places[number]);
        cluster.expect_text("key", Some(&number.to_string())).await;
        cluster.expect_text("count", Some("2")).await;
    }
    for (number, cluster) in clusters.iter().enumerate() {
        let status = cluster.converge().await;
        assert_eq!(
            (status.keys, status.peers),
            (3 + number as u64, 1),
            "place {:?}, later",
            places[number]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subjects_of_ones_own_make_a_group_of_its_own() {
    let server = testkit::server_or_skip!(NatsServer::builder().monitoring());
    let unique = Lattice::new(server.url()).prefix().to_owned();
    let (deltas, bootstrap) = (format!("{unique}.changes"), format!("{unique}.bootstraps"));
    let mut usual = Cluster::new(&server);
    usual.join(2).await;
    let settings = json!({ "STATE_REPL_SUBJECT": deltas, "REPLAY_REQ_SUBJECT": bootstrap });
    let mut own = Cluster {
        lattice: usual.lattice.clone(),
        ..Cluster::new(&server).with_settings(settings)
    };
    own.join(2).await;
    usual.kv(0).set("key", "usual").await.unwrap();
    own.kv(0).set("key", "own").await.unwrap();
    own.kv(1).set("only here", "x").await.unwrap();
    own.join(1).await;
    for (cluster, keys, value) in [(&usual, 1, "usual"), (&own, 2, "own")] {
        let status = cluster.converge().await;
        assert_eq!(
            (status.keys, status.peers),
            (keys, cluster.nodes.len() as u64 - 1),
            "{value}"
        );
        cluster.expect_text("key", Some(value)).await;
    }
    let subjects = server.subscriptions().await.unwrap();
    for subject in [deltas, bootstrap] {
        assert!(subjects.contains(&subject), "{subject} is not among {subjects:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn standalone_is_a_plain_map_without_replication() {
    let server = testkit::server_or_skip!(NatsServer::builder().monitoring());
    let cluster = Cluster::new(&server).with_settings(json!({ "REPLICATION": "off" }));
    let mut alone = Vec::new();
    for _ in 0..2 {
        alone.push(
            cluster
                .start_node(cluster.options().link(&cluster.actor))
                .await
                .unwrap(),
        );
    }
    for Node { provider, kv } in &alone {
        assert_eq!(kv.increment("count", 1).await.unwrap(), 1);
        kv.list_add("list", "item").await.unwrap();
        let status = provider.status().await.unwrap();
        assert_eq!(
            (status.sync, status.keys, status.peers),
            (SyncState::Standalone, 2, 0),
            "{status}"
        );
    }
    let replication = |subjects: Vec<String>| -> Vec<String> {
        subjects
            .into_iter()
            .filter(|subject| !subject.starts_with("wasmbus.rpc.") && !subject.starts_with("_INBOX"))
            .collect()
    };
    let subjects = replication(server.subscriptions().await.unwrap());
    assert!(subjects.is_empty(), "a standalone node subscribes to {subjects:?}");
    let connections = server.monitor("/varz").await.unwrap()["connections"].as_u64().unwrap();
    assert_eq!(connections, 3, "one of each provider for its calls, one of the test");

    // The same look at a node that does replicate finds something: the check above is not blind.
    let options = ProviderOptions::new(BINARY).link(&cluster.actor);
    let mut node = cluster.start_node(options).await.unwrap();
    assert!(!replication(server.subscriptions().await.unwrap()).is_empty());
    node.provider
        .wait_status(LIMIT, |status| status.keys == 0 && status.peers == 0)
        .await
        .unwrap();
}
