//! Slow links: real processes behind a proxy that carries little.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::stream::TryStreamExt;
use serde_json::json;
use testkit::{eventually, Direction, FaultyProxy, NatsServer, ProviderOptions, SyncState};

use crate::cluster::{Cluster, Kv, Node, LIMIT};

const VALUE_BYTES: usize = 1_000;

/// Writes keys `from..to` with values of a kilobyte.
async fn write(kv: &Kv, from: usize, to: usize) {
    let value = "v".repeat(VALUE_BYTES);
    futures::stream::iter((from..to).map(Ok::<_, wasmbus_rpc::error::RpcError>))
        .try_for_each_concurrent(64, |number| {
            let value = &value;
            async move { kv.set(&format!("key{number:06}"), value).await }
        })
        .await
        .expect("the keys are written");
}

/// A link of so many bytes per second and milliseconds each way.
async fn link(server: &NatsServer, rate: u64, delay_ms: u64) -> FaultyProxy {
    let proxy = FaultyProxy::before(server).await.expect("a proxy");
    for direction in Direction::BOTH {
        proxy.limit(direction, rate);
        proxy.delay(direction, Duration::from_millis(delay_ms));
    }
    proxy
}

fn behind(cluster: &Cluster, proxy: &FaultyProxy) -> ProviderOptions {
    let settings = json!({ "NATS_URL": proxy.url(), "SYNC_TIMEOUT_SECS": 60 });
    cluster.options().config(settings).link(&cluster.actor)
}

/// A cluster of two nodes with so many keys of a kilobyte, and the bytes that a bootstrap of them takes.
async fn filled(server: &NatsServer, keys: usize) -> (Cluster, u64) {
    let mut cluster = Cluster::start(server, 1).await;
    write(cluster.kv(0), 0, keys).await;
    cluster.join(1).await;
    let status = cluster.converge().await;
    assert_eq!(status.keys, keys as u64);
    let bytes = cluster.nodes[1].provider.status().await.unwrap().pairs["replay_bytes"].parse();
    (cluster, bytes.unwrap())
}

/// Milliseconds from the connection until the node was synced, as it says itself.
async fn took_ms(node: &Node) -> u64 {
    // Health may be known before the line is: the log is written by a thread of its own.
    let line = node.provider.wait_for_log("synced keys=", LIMIT).await.unwrap();
    let took = line
        .split("took_ms=")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next());
    took.and_then(|took| took.parse().ok())
        .expect("a number of milliseconds")
}

fn expect_no_silence(cluster: &Cluster) {
    for node in &cluster.nodes {
        let lines = node.provider.log().matching("peer is silent");
        assert!(lines.is_empty(), "{lines:?}");
    }
}

/// A node joins a cluster of so many kilobytes over a link of `rate` bytes per second.
async fn join(server: &NatsServer, kilobytes: usize, rate: u64, delay_ms: u64) {
    let (mut cluster, bytes) = filled(server, kilobytes).await;
    let proxy = link(server, rate, delay_ms).await;
    let node = cluster.start_node(behind(&cluster, &proxy)).await.unwrap();
    let (took, stats) = (took_ms(&node).await, proxy.stats());
    let pairs = node.provider.status().await.unwrap().pairs;
    let counted = ["replay_bytes", "repeated"].map(|name| format!("{name}={}", pairs[name]));
    cluster.nodes.push(node);
    cluster.converge().await;
    let least = 1_000 * bytes / rate;
    let told = format!(
        "{rate} B/s, {delay_ms} ms each way: {took} ms instead of {least}, {bytes} bytes, {stats:?}, {counted:?}"
    );
    println!("{told}");
    // To meet takes two ways there and back, and the window needs another one until it is large.
    assert!(took <= least * 12 / 10 + 6 * delay_ms + 1_000, "{told}");
    assert!(stats.bytes_to_client <= bytes * 11 / 10 + 20_000, "{told}");
    assert_eq!(stats.accepted, 1, "{told}");
    expect_no_silence(&cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_takes_what_its_link_takes() {
    let server = testkit::server_or_skip!();
    tokio::join!(
        join(&server, 600, 125_000, 0),
        join(&server, 3_000, 1_000_000, 0),
        join(&server, 3_000, 1_000_000, 150),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_goes_on_after_a_reconnect() {
    let server = testkit::server_or_skip!();
    let (mut cluster, bytes) = filled(&server, 2_000).await;
    let proxy = link(&server, 500_000, 0).await;
    let provider = cluster.lattice.start(behind(&cluster, &proxy)).await.unwrap();
    let kv = provider.keyvalue(&cluster.actor).await.unwrap();
    for part in 1..3 {
        eventually(LIMIT, || async {
            ensure!(proxy.stats().bytes_to_client > bytes * part / 3, "not that far yet");
            Ok(())
        })
        .await
        .unwrap();
        proxy.drop_connections().await.unwrap();
    }
    let mut node = Node { provider, kv };
    let synced = |status: &testkit::Status| status.sync == SyncState::Synced;
    node.provider.wait_status(LIMIT, synced).await.unwrap();
    cluster.nodes.push(node);
    cluster.converge().await;
    let stats = proxy.stats();
    // Each time what was under way and in front of the link is lost: a second of it at most.
    assert!(
        stats.bytes_to_client <= bytes * 11 / 10 + 2 * 500_000,
        "{bytes} bytes, {stats:?}"
    );
    assert_eq!(stats.accepted, 3, "{stats:?}");
}

/// One of three nodes is behind a link that carries little from the server or to it, and there comes more than that.
async fn burst(server: &NatsServer, rate: u64, kilobytes: usize, to_server: bool) {
    let mut cluster = Cluster::start(server, 2).await;
    let proxy = link(server, 0, 0).await;
    cluster
        .nodes
        .push(cluster.start_node(behind(&cluster, &proxy)).await.unwrap());
    cluster.wait_peers().await;
    let direction = if to_server {
        Direction::ToServer
    } else {
        Direction::ToClient
    };
    proxy.limit(direction, rate);
    let carried = || match direction {
        Direction::ToServer => proxy.stats().bytes_to_server,
        Direction::ToClient => proxy.stats().bytes_to_client,
    };
    let (before, began) = (carried(), Instant::now());
    write(cluster.kv(if to_server { 2 } else { 0 }), 0, kilobytes).await;
    let wrote = began.elapsed();
    cluster.converge().await;
    let (took, bytes) = (began.elapsed(), carried() - before);
    let least = Duration::from_secs_f64((kilobytes * VALUE_BYTES) as f64 / rate as f64);
    let told = format!(
        "{direction:?}: {took:?} instead of {least:?}, writing took {wrote:?}, {bytes} bytes, {:?}",
        proxy.stats()
    );
    println!("{told}");
    assert!(wrote < least, "no backlog: {told}");
    assert!(took <= least.mul_f64(1.3) + Duration::from_secs(3), "{told}");
    assert!(bytes as usize <= kilobytes * VALUE_BYTES * 13 / 10, "{told}");
    assert_eq!(proxy.stats().accepted, 1, "{told}");
    expect_no_silence(&cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_that_a_link_cannot_carry_away_at_once_leaves_once() {
    let server = testkit::server_or_skip!();
    burst(&server, 250_000, 3_000, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_that_a_link_cannot_carry_at_once_arrives_once() {
    let server = testkit::server_or_skip!();
    burst(&server, 250_000, 3_000, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_confirmed_by_a_node_that_is_being_filled_over_a_slow_link() {
    let server = testkit::server_or_skip!();
    let (mut cluster, _) = filled(&server, 3_000).await;
    let strict = testkit::Actor::new();
    let values = [("ACK", "all"), ("ACK_TIMEOUT_MS", "10000")];
    cluster.nodes[0].provider.put_link(&strict, &values).await.unwrap();
    cluster.nodes[0].provider.wait_linked(&strict, LIMIT).await.unwrap();
    let writer = cluster.nodes[0].provider.keyvalue(&strict).await.unwrap();
    let proxy = link(&server, 250_000, 10).await;
    let provider = cluster.lattice.start(behind(&cluster, &proxy)).await.unwrap();
    let kv = provider.keyvalue(&cluster.actor).await.unwrap();
    let mut node = Node { provider, kv };
    let met = |status: &testkit::Status| status.peers == 2;
    cluster.nodes[0].provider.wait_status(LIMIT, met).await.unwrap();
    let (mut longest, mut writes, mut percents) = (Duration::ZERO, 0, BTreeSet::new());
    while node.provider.log().matching("synced keys=").is_empty() {
        let began = Instant::now();
        writer.set("confirmed", &writes.to_string()).await.unwrap();
        longest = longest.max(began.elapsed());
        writes += 1;
        let status = node.provider.status().await.unwrap();
        percents.extend(status.pairs.get("percent").cloned());
    }
    println!("{writes} writes, {longest:?} at most, {percents:?}");
    // Each waits behind what was asked for, which is less than a second of the link.
    assert!(
        writes >= 10 && longest < Duration::from_secs(3),
        "{writes} writes, {longest:?}"
    );
    assert!(percents.len() >= 5, "it tells how far it is: {percents:?}");
    let synced = |status: &testkit::Status| status.sync == SyncState::Synced;
    node.provider.wait_status(LIMIT, synced).await.unwrap();
    cluster.nodes.push(node);
    cluster.converge().await;
    assert_eq!(proxy.stats().accepted, 1, "{:?}", proxy.stats());
    expect_no_silence(&cluster);
}

/// Half of a burst waits in front of the link when the connection is lost, and what waits is lost with it. The other
/// half comes meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_burst_has_lost_with_its_connection_is_fetched_at_the_pace_of_the_link() {
    let server = testkit::server_or_skip!();
    let (rate, kilobytes) = (100_000, 3_000);
    let mut cluster = Cluster::start(&server, 2).await;
    let proxy = link(&server, 0, 0).await;
    cluster
        .nodes
        .push(cluster.start_node(behind(&cluster, &proxy)).await.unwrap());
    cluster.wait_peers().await;
    proxy.limit(Direction::ToClient, rate);
    let (before, began) = (proxy.stats().bytes_to_client, Instant::now());
    write(cluster.kv(0), 0, kilobytes / 2).await;
    let carried = proxy.stats().bytes_to_client - before;
    proxy.drop_connections().await.unwrap();
    write(cluster.kv(0), kilobytes / 2, kilobytes).await;
    cluster.converge().await;
    let (took, stats) = (began.elapsed(), proxy.stats());
    let (bytes, all) = (stats.bytes_to_client - before, (kilobytes * VALUE_BYTES) as u64);
    let least = Duration::from_secs_f64(all as f64 / rate as f64);
    let repeated = cluster.nodes[2].provider.status().await.unwrap().pairs["repeated"].clone();
    let told = format!(
        "{took:?} instead of {least:?}, {bytes} bytes instead of {all}, {carried} when it was lost, {repeated} repeated, \
         {stats:?}"
    );
    println!("{told}");
    assert!(carried < all / 4, "nothing was lost: {told}");
    // Each value has a frame around it.
    assert!(took <= least.mul_f64(1.2) + Duration::from_secs(5), "{told}");
    assert!(bytes <= all * 12 / 10, "{told}");
}
