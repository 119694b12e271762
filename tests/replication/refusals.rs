//! Servers that refuse what replication needs.

use serde_json::json;
use testkit::{eventually, Actor, NatsServer, Status, SyncState};

use crate::cluster::{Cluster, LIMIT};

/// Two hosts replicate over a server of such a configuration. Both have to say that they are isolated and why, and to
/// refuse what others would have to confirm.
async fn expect_isolated(configuration: &str, why: &str) {
    let rpc = testkit::server_or_skip!();
    let replication = NatsServer::builder().config(configuration).start().await.unwrap();
    let mut cluster = Cluster::new(&rpc).with_settings(json!({ "NATS_URL": replication.url() }));
    for _ in 0..2 {
        let mut provider = cluster
            .lattice
            .start(cluster.options().link(&cluster.actor))
            .await
            .unwrap();
        let isolated = |status: &Status| status.sync == SyncState::Isolated;
        let status = provider.wait_status(LIMIT, isolated).await.unwrap();
        let reason = status.reason.unwrap_or_default();
        assert!(reason.contains(why), "{reason}");
        assert!(!provider.health().await.unwrap().healthy);
        let kv = provider.keyvalue(&cluster.actor).await.unwrap();
        cluster.nodes.push(crate::cluster::Node { provider, kv });
    }
    let strict = Actor::new();
    let provider = &mut cluster.nodes[0].provider;
    provider.put_link(&strict, &[("ACK", "all")]).await.unwrap();
    let kv = provider.keyvalue(&strict).await.unwrap();
    let refused = eventually(LIMIT, || async {
        let read = kv.get("strict").await;
        anyhow::ensure!(read.is_err(), "reads under ACK=all are refused");
        Ok(())
    });
    refused.await.unwrap();
    let error = kv.set("strict", "value").await.unwrap_err().to_string();
    assert!(
        error.contains("isolated") && error.contains("nothing was changed"),
        "{error}"
    );
    // Others are served.
    cluster.kv(0).set("key", "value").await.unwrap();
    assert_eq!(cluster.kv(0).get("strict").await.unwrap(), None);
    assert_eq!(cluster.kv(0).get("key").await.unwrap().as_deref(), Some("value"));
}

fn permissions(text: &str) -> String {
    format!(
        "authorization {{ users: [ {{ user: host, password: secret, permissions: {{ {text} }} }} ] }}\n\
         no_auth_user: host"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_may_not_publish_to_each_other_say_so() {
    let configuration = permissions(r#"publish: { deny: ["lattice.*.kvcache.*.node.>"] }"#);
    expect_isolated(&configuration, "publishing to lattice.").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_may_not_listen_say_so() {
    let configuration = permissions(r#"subscribe: { deny: ["lattice.*.kvcache.*.node.>"] }"#);
    expect_isolated(&configuration, "subscribing to lattice.").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_may_do_nothing_say_so() {
    let configuration = permissions(r#"publish: { deny: [">"] }, subscribe: { deny: [">"] }"#);
    expect_isolated(&configuration, "is refused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_may_not_make_enough_subscriptions_say_so() {
    expect_isolated("max_subscriptions: 2", "maximum subscriptions exceeded").await;
}
