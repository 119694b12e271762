//! Nodes that come later, and what happens around their bootstrap.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use anyhow::{ensure, Result};
use testkit::{eventually, SyncState};

use crate::cluster::{Cluster, Kv, Node, LIMIT};

#[tokio::test(flavor = "multi_thread")]
async fn a_late_joiner_gets_100_000_keys_of_all_types() {
    let server = testkit::server_or_skip!();
    let mut cluster = Cluster::start(&server, 1).await;
    let workload = cluster.fill(100_000).await;
    cluster.join(1).await;
    let status = cluster.converge().await;
    assert_eq!(status.keys, 100_000);
    cluster.verify(&workload, 97).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_nodes_that_start_at_the_same_moment_agree() {
    let server = testkit::server_or_skip!();
    // As the first of a lattice, and into one that has something to tell.
    for keys in [0, 2_000] {
        let mut cluster = Cluster::new(&server);
        let workload = if keys > 0 {
            cluster.join(1).await;
            Some(cluster.fill(keys).await)
        } else {
            None
        };
        cluster.join(5).await;
        let writes = cluster.nodes.iter().map(|node| node.kv.increment("count", 1));
        futures::future::try_join_all(writes).await.unwrap();
        let status = cluster.converge().await;
        assert_eq!(status.keys, keys as u64 + 1);
        cluster
            .expect_text("count", Some(&cluster.nodes.len().to_string()))
            .await;
        if let Some(workload) = workload {
            cluster.verify(&workload, 41).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_responder_killed_in_the_middle_of_a_bootstrap_is_replaced() {
    let server = testkit::server_or_skip!();
    const KEYS: usize = 8_000;
    let mut cluster = Cluster::start(&server, 2).await;
    let workload = cluster.fill(KEYS).await;
    cluster.converge().await;
    for attempt in 0.. {
        assert!(
            attempt < 10,
            "no joiner was caught in the middle of its bootstrap; the test needs more keys"
        );
        let mut joiner = start_without_waiting(&cluster).await;
        if !pause_in_bootstrap(&mut joiner, KEYS).await {
            continue;
        }
        let mut responder = cluster.nodes.remove(0);
        responder.provider.kill().unwrap();
        joiner.provider.resume().unwrap();
        joiner.provider.wait_ready(LIMIT).await.unwrap();
        joiner.provider.put_link(&cluster.actor, &[]).await.unwrap();
        joiner.provider.wait_linked(&cluster.actor, LIMIT).await.unwrap();
        cluster.nodes.push(joiner);
        break;
    }
    assert_eq!(cluster.converge().await.keys, KEYS as u64);
    cluster.verify(&workload, 53).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lattice_whose_only_responder_dies_in_a_bootstrap_still_serves() {
    let server = testkit::server_or_skip!();
    const KEYS: usize = 6_000;
    let mut cluster = Cluster::start(&server, 1).await;
    cluster.fill(KEYS).await;
    for attempt in 0.. {
        assert!(
            attempt < 10,
            "no joiner was caught in the middle of its bootstrap; the test needs more keys"
        );
        let mut joiner = start_without_waiting(&cluster).await;
        if !pause_in_bootstrap(&mut joiner, KEYS).await {
            continue;
        }
        let mut responder = cluster.nodes.remove(0);
        responder.provider.kill().unwrap();
        joiner.provider.resume().unwrap();
        // Nobody can complete it. Within the sync timeout (10 s) it serves what it has, and says how it stands.
        let served = |status: &testkit::Status| !matches!(status.sync, SyncState::Starting | SyncState::Syncing);
        joiner.provider.wait_status(LIMIT, served).await.unwrap();
        joiner.provider.put_link(&cluster.actor, &[]).await.unwrap();
        joiner.provider.wait_linked(&cluster.actor, LIMIT).await.unwrap();
        joiner.kv.set("after", "value").await.unwrap();
        cluster.nodes.push(joiner);
        break;
    }
    // And whoever comes now gets what there is.
    cluster.join(1).await;
    cluster.converge().await;
    cluster.expect_text("after", Some("value")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_during_a_bootstrap_are_not_lost() {
    let server = testkit::server_or_skip!();
    const KEYS: usize = 6_000;
    let mut cluster = Cluster::start(&server, 2).await;
    cluster.fill(KEYS).await;
    cluster.converge().await;

    let joined = AtomicBool::new(false);
    let total = AtomicI32::new(0);
    let writers = cluster
        .kvs()
        .into_iter()
        .enumerate()
        .map(|(writer, kv)| write_until(kv, writer, &joined, &total));
    let writing = futures::future::try_join_all(writers.collect::<Vec<_>>());
    let joining = async {
        let node = cluster.start_node(cluster.options().link(&cluster.actor)).await;
        joined.store(true, Ordering::SeqCst);
        node
    };
    let (written, node) = tokio::join!(writing, joining);
    written.unwrap();
    cluster.nodes.push(node.unwrap());
    cluster.wait_peers().await;
    cluster.converge().await;
    cluster
        .expect_text("during/count", Some(&total.load(Ordering::SeqCst).to_string()))
        .await;
    let list = cluster.kv(0).list("during/list").await.unwrap();
    assert_eq!(list.len(), total.load(Ordering::SeqCst) as usize);
    cluster
        .expect_everywhere("the list", &list, |kv| async move { kv.list("during/list").await })
        .await;
}

/// Writes new keys, and deletes and overwrites those that are being bootstrapped.
async fn write_until(kv: Kv, writer: usize, joined: &AtomicBool, total: &AtomicI32) -> Result<()> {
    let mut number = 0;
    while !joined.load(Ordering::SeqCst) || number < 20 {
        kv.increment("during/count", 1).await?;
        kv.list_add("during/list", &format!("{writer}:{number}")).await?;
        kv.set_add("during/set", &format!("{writer}:{number}")).await?;
        kv.set(&format!("key/{:012}", number * 8 + writer), "overwritten")
            .await?;
        kv.del(&format!("key/{:012}", number * 8 + 2 + writer)).await?;
        total.fetch_add(1, Ordering::SeqCst);
        number += 1;
    }
    ensure!(number < 6_000 / 8, "the joiner took too long");
    Ok(())
}

/// A node without links answers health requests while it is being bootstrapped.
async fn start_without_waiting(cluster: &Cluster) -> Node {
    let provider = cluster.lattice.start(cluster.options()).await.unwrap();
    let kv = provider.keyvalue(&cluster.actor).await.unwrap();
    Node { provider, kv }
}

/// Stops `joiner` when it has some of the keys but not all; false if it was faster than that.
async fn pause_in_bootstrap(joiner: &mut Node, keys: usize) -> bool {
    let caught = eventually(LIMIT, || async {
        let status = joiner.provider.status().await?;
        ensure!(
            status.keys > 0 || status.sync == SyncState::Synced,
            "nothing bootstrapped yet"
        );
        Ok(status)
    })
    .await
    .unwrap();
    if caught.keys >= keys as u64 || caught.sync == SyncState::Synced {
        return false;
    }
    joiner.provider.pause().unwrap();
    true
}
