//! Nodes that are all there: what one does, the others show.

use std::time::Duration;

use anyhow::{ensure, Result};
use futures::future::try_join_all;
use serde_json::json;
use testkit::{eventually, Actor, NatsServer};

use crate::cluster::{Cluster, LIMIT};

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_reaches_every_node() {
    let server = testkit::server_or_skip!();
    let cluster = Cluster::start(&server, 3).await;
    let [a, b, c] = [cluster.kv(0), cluster.kv(1), cluster.kv(2)];

    a.set("text", "one").await.unwrap();
    a.set("deleted", "x").await.unwrap();
    b.increment("count", 40).await.unwrap();
    c.list_add("list", "first").await.unwrap();
    c.list_add("list", "second").await.unwrap();
    c.list_add("list", "first").await.unwrap();
    a.set_add("set", "red").await.unwrap();
    a.set_add("set", "").await.unwrap();
    b.list_add("cleared list", "x").await.unwrap();
    b.set_add("cleared set", "x").await.unwrap();
    b.set("becomes a list", "x").await.unwrap();
    assert_eq!(cluster.converge().await.keys, 8);
    cluster.expect_text("text", Some("one")).await;
    cluster.expect_text("count", Some("40")).await;
    cluster.expect_list("list", &["first", "second", "first"]).await;
    cluster.expect_set("set", &["", "red"]).await;

    // Each change of what another node has written.
    b.set("text", "two").await.unwrap();
    assert!(c.del("deleted").await.unwrap());
    assert_eq!(a.increment("count", 2).await.unwrap(), 42);
    assert!(a.list_del("list", "first").await.unwrap());
    assert_eq!(b.set_del("set", "").await.unwrap(), 1);
    assert!(c.list_clear("cleared list").await.unwrap());
    assert!(a.set_clear("cleared set").await.unwrap());
    assert!(c.del("becomes a list").await.unwrap());
    assert_eq!(c.list_add("becomes a list", "now").await.unwrap(), 1);
    assert_eq!(cluster.converge().await.keys, 5);
    cluster.expect_text("text", Some("two")).await;
    cluster.expect_text("deleted", None).await;
    cluster.expect_text("count", Some("42")).await;
    cluster.expect_list("list", &["second", "first"]).await;
    cluster.expect_set("set", &["red"]).await;
    cluster.expect_list("cleared list", &[]).await;
    cluster.expect_set("cleared set", &[]).await;
    cluster.expect_list("becomes a list", &["now"]).await;

    // The last removal removes the key everywhere.
    assert!(b.list_del("list", "second").await.unwrap() && b.list_del("list", "first").await.unwrap());
    assert_eq!(c.set_del("set", "red").await.unwrap(), 1);
    assert_eq!(cluster.converge().await.keys, 3);
    for key in ["list", "set"] {
        cluster
            .expect_everywhere(key, &false, |kv| async move { kv.contains(key).await })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_increments_on_all_nodes_add_up() {
    let server = testkit::server_or_skip!();
    let cluster = Cluster::start(&server, 3).await;
    let callers = (0..24).map(|caller: usize| {
        let kv = cluster.kv(caller % 3);
        async move {
            for number in 0..40 {
                kv.increment("count", 1).await?;
                kv.list_add("list", &format!("{caller}:{number}")).await?;
                kv.set_add("set", &format!("{}", number % 20)).await?;
            }
            anyhow::Ok(())
        }
    });
    try_join_all(callers).await.unwrap();
    cluster.converge().await;
    cluster.expect_text("count", Some("960")).await;

    let list = cluster.kv(0).list("list").await.unwrap();
    assert_eq!(list.len(), 960);
    for caller in 0..24 {
        let prefix = format!("{caller}:");
        let mine: Vec<_> = list
            .iter()
            .filter_map(|item| item.strip_prefix(&prefix)?.parse::<u32>().ok())
            .collect();
        assert_eq!(
            mine,
            (0..40).collect::<Vec<_>>(),
            "the items of caller {caller} in its own order"
        );
    }
    cluster
        .expect_everywhere("the list", &list, |kv| async move { kv.list("list").await })
        .await;
    let set = cluster.kv(0).set_query("set").await.unwrap();
    assert_eq!(set.len(), 20);
    cluster
        .expect_everywhere("the set", &set, |kv| async move { kv.set_query("set").await })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicting_writers_end_in_one_state() {
    let server = testkit::server_or_skip!();
    let cluster = Cluster::start(&server, 3).await;
    let callers = (0..12).map(|caller: usize| {
        let kv = cluster.kv(caller % 3);
        async move {
            let mut tally = [[0; 2]; 5];
            for number in 0..60 {
                let key = format!("contested {}", number % 3);
                let value = format!("{caller}:{number}");
                let kind = (caller + number) % 5;
                let written = match kind {
                    0 => kv.set(&key, &value).await,
                    1 => kv.list_add(&key, &value).await.map(drop),
                    2 => kv.set_add(&key, &value).await.map(drop),
                    3 => kv.increment(&key, 1).await.map(drop),
                    _ => kv.del(&key).await.map(drop),
                };
                tally[kind][usize::from(refused_for_its_type(written)?.is_none())] += 1;
            }
            anyhow::Ok(tally)
        }
    });
    let tallies = try_join_all(callers).await.unwrap();
    let sum = |kind: usize, refused: usize| tallies.iter().map(|tally| tally[kind][refused]).sum::<u32>();
    let [set, push, add, increment, delete] = [0, 1, 2, 3, 4].map(|kind| (sum(kind, 0), sum(kind, 1)));
    assert_eq!((set, delete), ((144, 0), (144, 0)), "these replace any type");
    for (what, (written, refused)) in [("ListAdd", push), ("SetAdd", add), ("Increment", increment)] {
        assert!(
            written > 0 && refused > 0,
            "{what}: {written} written, {refused} refused"
        );
    }
    cluster.converge().await;
    for number in 0..3 {
        let key = format!("contested {number}");
        let mut answers = Vec::new();
        for kv in cluster.kvs() {
            let text = refused_for_its_type(kv.get(&key).await).unwrap();
            let list = refused_for_its_type(kv.list(&key).await).unwrap();
            let set = refused_for_its_type(kv.set_query(&key).await).unwrap();
            answers.push((text, list, set));
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{key}: {answers:?}");
    }
}

/// What was answered; `None` for a call that another writer's type is in the way of. All else is an error.
fn refused_for_its_type<T>(answer: testkit::RpcResult<T>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error)
            if ["WRONGTYPE", "not an integer"]
                .iter()
                .any(|part| error.to_string().contains(part)) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_keys_disappear_on_all_nodes() {
    let server = testkit::server_or_skip!();
    let cluster = Cluster::start(&server, 3).await;
    cluster.kv(0).set_for("short", "x", 3).await.unwrap();
    cluster.kv(1).set_for("counter", "10", 3).await.unwrap();
    cluster.kv(2).set_for("long", "y", 10_000).await.unwrap();
    cluster.kv(0).set_for("kept", "z", 3).await.unwrap();
    let reading: Vec<_> = (1..3)
        .map(|node| wait_for_text(&cluster, node, "short", Some("x")))
        .collect();
    try_join_all(reading).await.unwrap();
    // A deadline that another node takes away.
    wait_for_text(&cluster, 1, "kept", Some("z")).await.unwrap();
    cluster.kv(1).set("kept", "for ever").await.unwrap();

    for node in 0..3 {
        wait_for_text(&cluster, node, "short", None).await.unwrap();
        wait_for_text(&cluster, node, "counter", None).await.unwrap();
    }
    // Readers see the end at once; the count follows when the sweep has given the memory back.
    for number in 0..3 {
        let status = eventually(LIMIT, || async {
            let status = cluster.nodes[number].provider.status().await?;
            ensure!(status.keys == 2, "{status}");
            Ok(())
        });
        status.await.unwrap();
    }
    cluster.converge().await;
    cluster.expect_text("long", Some("y")).await;
    cluster.expect_text("kept", Some("for ever")).await;

    // After the deadline every node counts from 0.
    try_join_all((0..3).map(|node| cluster.kv(node).increment("counter", 1)))
        .await
        .unwrap();
    cluster.converge().await;
    cluster.expect_text("counter", Some("3")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_travel_in_pieces() {
    let server = testkit::server_or_skip!(NatsServer::builder().jetstream());
    let mut cluster = Cluster::start(&server, 2).await;
    let large: Vec<String> = [1, 3]
        .iter()
        .map(|mebibytes| "0123456789abcdef".repeat(mebibytes << 16))
        .collect();
    cluster.kv(0).set("large", &large[0]).await.unwrap();
    cluster.kv(0).list_add("list", &large[1]).await.unwrap();
    cluster.kv(1).set_add("set", &large[0]).await.unwrap();
    cluster.converge().await;
    cluster.join(1).await;
    cluster.converge().await;
    for kv in cluster.kvs() {
        assert!(kv.get("large").await.unwrap().as_ref() == Some(&large[0]));
        assert!(kv.list("list").await.unwrap() == [large[1].clone()]);
        assert!(kv.set_query("set").await.unwrap() == [large[0].clone()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_small_max_payload_is_respected() {
    let rpc = testkit::server_or_skip!();
    let replication = NatsServer::builder()
        .config("max_payload: 16384")
        .start()
        .await
        .unwrap();
    let mut cluster = Cluster::new(&rpc).with_settings(json!({ "NATS_URL": replication.url() }));
    cluster.join(2).await;
    let values: Vec<String> = [16_000, 16_384, 17_000, 500_000]
        .iter()
        .map(|size| "x".repeat(*size))
        .collect();
    for (number, value) in values.iter().enumerate() {
        cluster
            .kv(number % 2)
            .set(&format!("value {number}"), value)
            .await
            .unwrap();
        cluster.kv(number % 2).list_add("list", value).await.unwrap();
    }
    let workload = cluster.fill(500).await;
    cluster.converge().await;
    cluster.join(1).await;
    cluster.converge().await;
    for (number, value) in values.iter().enumerate() {
        cluster.expect_text(&format!("value {number}"), Some(value)).await;
    }
    cluster.verify(&workload, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_replicate_apart() {
    let server = testkit::server_or_skip!();
    let mut cluster = Cluster::new(&server);
    let [one, other] = [Actor::new(), Actor::new()];
    for _ in 0..2 {
        let options = cluster.options().link(&cluster.actor);
        let options = options
            .link_with(&one, &[("NAMESPACE", "one")])
            .link_with(&other, &[("NAMESPACE", "other")]);
        let node = cluster.start_node(options).await.unwrap();
        cluster.nodes.push(node);
    }
    cluster.wait_peers().await;
    for (node, actor, value) in [(0, &one, "of one"), (1, &other, "of other")] {
        let kv = cluster.nodes[node].provider.keyvalue(actor).await.unwrap();
        kv.set("key", value).await.unwrap();
        kv.increment("count", 1).await.unwrap();
    }
    cluster.kv(0).set("key", "of all").await.unwrap();
    cluster.converge().await;
    for node in &cluster.nodes {
        for (actor, value) in [(&one, "of one"), (&other, "of other"), (&cluster.actor, "of all")] {
            let kv = node.provider.keyvalue(actor).await.unwrap();
            assert_eq!(kv.get("key").await.unwrap().as_deref(), Some(value));
        }
        assert_eq!(node.kv.get("count").await.unwrap(), None);
    }
}

async fn wait_for_text(cluster: &Cluster, node: usize, key: &str, expected: Option<&str>) -> Result<()> {
    eventually(LIMIT.min(Duration::from_secs(20)), || async {
        let found = cluster.kv(node).get(key).await?;
        ensure!(
            found.as_deref() == expected,
            "{key} on node {node} is {found:?}, expected {expected:?}"
        );
        Ok(())
    })
    .await
}
