//! More than a node can take in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvcache_core::cache::{Cache, Limits};
use kvcache_node::service::Scope;
use kvcache_node::time;
use serde_json::json;
use testkit::eventually;

use crate::cluster::{Cluster, LIMIT};

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_peer_starves_no_reads_and_fills_no_memory() {
    let server = testkit::server_or_skip!();
    let mut cluster = Cluster::new(&server).with_settings(json!({ "INBOX_BYTES": 1 << 20, "RING_BYTES": 1 << 20 }));
    cluster.join(1).await;
    cluster.kv(0).set("read", "value").await.unwrap();
    // A node in this process, which writes faster than any client could.
    let cache = Arc::new(Cache::new(time::fresh_node_id(), Limits::default()));
    let writer = cluster
        .lattice
        .node(cache.clone(), cluster.lattice.nats_url())
        .await
        .unwrap();
    let before = cluster.nodes[0].provider.resident_bytes().unwrap();
    let flood = tokio::spawn({
        async move {
            let scope = Scope::shared("flood");
            let value = Bytes::from(vec![b'x'; 4_000]);
            // 300 MB in all, onto a hundred keys.
            for n in 0..75_000u32 {
                let key = format!("key{}", n % 100);
                writer.set(&scope, key.as_bytes(), value.clone(), 0).await.unwrap();
            }
            writer
        }
    });
    let (mut slowest, mut reads) = (Duration::ZERO, 0);
    while !flood.is_finished() {
        let started = Instant::now();
        assert_eq!(cluster.kv(0).get("read").await.unwrap().as_deref(), Some("value"));
        slowest = slowest.max(started.elapsed());
        reads += 1;
    }
    let writer = flood.await.unwrap();
    println!(
        "{reads} reads, the slowest took {slowest:?}; merged {}",
        writer.status().replication.unwrap().counters.commands_merged
    );
    assert!(
        reads > 20 && slowest < Duration::from_secs(2),
        "{reads} reads, the slowest took {slowest:?}"
    );
    let equal = eventually(LIMIT, || async {
        let (there, here) = (
            cluster.nodes[0].provider.status().await?,
            cache.root_digest().to_string(),
        );
        anyhow::ensure!(there.digest == here, "{there}, here {here}");
        Ok(())
    });
    equal.await.unwrap();
    let grown = cluster.nodes[0]
        .provider
        .resident_bytes()
        .unwrap()
        .saturating_sub(before);
    assert!(grown < 100 << 20, "the process grew by {grown} bytes");
    writer.stop().await;
}
