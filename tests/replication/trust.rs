//! Hosts of other clusters, and clients without a seed.

use futures::StreamExt;
use serde_json::json;
use testkit::{eventually, Lattice, NatsServer};

use crate::cluster::{Cluster, LIMIT};

/// Two clusters of one node each in the same lattice.
fn two_clusters(server: &NatsServer) -> (Cluster, Cluster) {
    let (one, mut two) = (Cluster::new(server), Cluster::new(server));
    two.lattice = Lattice::new(server.url()).with_prefix(one.lattice.prefix());
    (one, two)
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_of_another_cluster_seed_are_named_and_share_nothing() {
    let server = testkit::server_or_skip!();
    let (mut one, mut two) = two_clusters(&server);
    one.join(2).await;
    one.kv(0).set("key", "one").await.unwrap();
    let mut provider = two.lattice.start(two.options().link(&two.actor)).await.unwrap();
    // It serves, and says that it is not the only one there.
    let isolated = |status: &testkit::Status| status.sync == testkit::SyncState::Isolated;
    provider.wait_status(LIMIT, isolated).await.unwrap();
    let kv = provider.keyvalue(&two.actor).await.unwrap();
    two.nodes.push(crate::cluster::Node { provider, kv });
    two.kv(0).set("key", "two").await.unwrap();
    for (here, there) in [(&one, &two), (&two, &one)] {
        let issuer = there.lattice.issuer();
        for node in &here.nodes {
            let line = node.provider.wait_for_log("is not accepted here", LIMIT).await.unwrap();
            assert!(line.contains(&issuer) && line.contains("cluster_issuers"), "{line}");
            // What is told may be a little older than what is logged.
            let told = eventually(LIMIT, || async {
                let status = node.provider.status().await?;
                anyhow::ensure!(status.pairs.get("foreign") == Some(&issuer), "{status}");
                Ok(())
            });
            told.await.unwrap();
            assert_eq!(
                node.provider.log().matching("is not accepted here").len(),
                1,
                "named once"
            );
        }
    }
    one.expect_text("key", Some("one")).await;
    two.expect_text("key", Some("two")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_that_list_each_other_replicate() {
    let server = testkit::server_or_skip!();
    let (mut one, mut two) = two_clusters(&server);
    let lattices = (one.lattice.clone(), two.lattice.clone());
    one.lattice = lattices.0.clone().accepting(&lattices.1);
    two.lattice = lattices.1.clone().accepting(&lattices.0);
    one.join(1).await;
    one.kv(0).set("before", "one").await.unwrap();
    let node = two.start_node(two.options().link(&two.actor)).await.unwrap();
    two.nodes.push(node);
    two.kv(0).set("after", "two").await.unwrap();
    let both = [one.kv(0).clone(), two.kv(0).clone()];
    for kv in &both {
        for (key, value) in [("before", "one"), ("after", "two")] {
            let arrives = eventually(LIMIT, || async {
                let found = kv.get(key).await?;
                anyhow::ensure!(found.as_deref() == Some(value), "{key} is {found:?}");
                Ok(())
            });
            arrives.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_authentication_clusters_mix_and_say_so() {
    let server = testkit::server_or_skip!();
    let (mut one, mut two) = two_clusters(&server);
    for cluster in [&mut one, &mut two] {
        cluster.settings = Some(json!({ "FRAME_AUTH": "off" }));
    }
    one.join(1).await;
    one.kv(0).set("key", "value").await.unwrap();
    let node = two.start_node(two.options().link(&two.actor)).await.unwrap();
    assert_eq!(node.kv.get("key").await.unwrap().as_deref(), Some("value"));
    node.provider.wait_for_log("FRAME_AUTH=off", LIMIT).await.unwrap();
}

/// Everything that goes over the replication subjects is recorded by a client without a seed and sent again: to the
/// same nodes, and to nodes that were started later.
#[tokio::test(flavor = "multi_thread")]
async fn recordings_and_forgeries_of_a_client_without_the_seed_change_nothing() {
    let server = testkit::server_or_skip!();
    let mut cluster = Cluster::start(&server, 2).await;
    let client = cluster.lattice.connection().await.unwrap();
    let root = format!("lattice.{}.kvcache.>", cluster.lattice.prefix());
    let mut tap = client.subscribe(root).await.unwrap();
    client.flush().await.unwrap();
    for n in 0..20 {
        cluster.kv(n % 2).set(&format!("key{n}"), "old").await.unwrap();
    }
    cluster.converge().await;
    cluster.join(1).await;
    for n in 0..20 {
        cluster.kv(n % 2).set(&format!("key{n}"), "new").await.unwrap();
    }
    let before = cluster.converge().await;
    let mut recorded = Vec::new();
    while let Ok(Some(message)) = tokio::time::timeout(std::time::Duration::from_millis(300), tap.next()).await {
        recorded.push((message.subject.to_string(), message.payload.to_vec()));
        if recorded.len() >= 2_000 {
            break;
        }
    }
    assert!(recorded.len() > 20, "{} messages recorded", recorded.len());
    let (first, second) = (
        cluster.nodes[0].provider.status().await.unwrap(),
        cluster.nodes[1].provider.status().await.unwrap(),
    );
    for (subject, payload) in &recorded {
        client.publish(subject.clone(), payload.clone().into()).await.unwrap();
        // To each node directly, whoever it was for, and with a byte changed.
        for status in [&first, &second] {
            let node = format!(
                "lattice.{}.kvcache.default.node.{}",
                cluster.lattice.prefix(),
                status.node
            );
            client.publish(node.clone(), payload.clone().into()).await.unwrap();
            let mut changed = payload.clone();
            let middle = changed.len() / 2;
            changed[middle] ^= 1;
            client.publish(node, changed.into()).await.unwrap();
        }
    }
    client.flush().await.unwrap();
    // A node that joins now hears recordings of everybody.
    cluster.join(1).await;
    let after = cluster.converge().await;
    assert_eq!((before.digest, before.keys), (after.digest, after.keys));
    assert_eq!(after.peers, 3, "no recording became a peer");
    for n in 0..20 {
        cluster.expect_text(&format!("key{n}"), Some("new")).await;
    }
}
