//! A peer with the seed that errs.

use std::time::Duration;

use kvcache_core::wire::{Fragment, Message};
use kvcache_node::time;
use serde_json::json;

use crate::stranger::{authenticated, heartbeat, Lab};
use crate::ALONE;

#[tokio::test(flavor = "multi_thread")]
async fn pieces_of_messages_that_never_end_keep_nothing_but_themselves() {
    let _alone = ALONE.lock().await;
    let name = "pieces_of_messages_that_never_end_keep_nothing_but_themselves";
    let server = testkit::server_or_skip!();
    let lab = Lab::start(&server, json!({}), 1).await;
    let (keyring, node) = (lab.keyring(), lab.subjects.node(lab.id(0).await));
    let before = lab.nodes[0].0.resident_bytes().unwrap();
    // Each piece is read together with what comes around it, 64 KB of garbage.
    for id in 0..10_000 {
        let piece = Message::Fragment(Fragment {
            id,
            index: 0,
            total: 2,
            bytes: vec![7; 200].into(),
        });
        lab.stranger
            .publish(node.clone(), authenticated(&keyring, 1_234, &piece).into())
            .await
            .unwrap();
        lab.stranger
            .publish(node.clone(), vec![0; 64 << 10].into())
            .await
            .unwrap();
        if id % 50 == 0 {
            lab.stranger.flush().await.unwrap();
        }
    }
    let taken = testkit::eventually(Duration::from_secs(30), || async {
        let malformed = lab.nodes[0].0.status().await?.pairs["unknown_versions"].clone();
        let refused = lab.nodes[0].0.status().await?.pairs["malformed"].clone();
        anyhow::ensure!(
            refused.parse::<u64>()? + malformed.parse::<u64>()? >= 9_000,
            "{refused} {malformed}"
        );
        Ok(())
    });
    taken.await.unwrap();
    let grown = lab.nodes[0].0.resident_bytes().unwrap().saturating_sub(before);
    println!("{name}: grew by {} MB", grown / 1_000_000);
    assert!(grown < 150 << 20, "grew by {grown} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_invented_ids_do_not_end_replication() {
    let _alone = ALONE.lock().await;
    let name = "thousands_of_invented_ids_do_not_end_replication";
    let server = testkit::server_or_skip!();
    let mut lab = Lab::start(&server, json!({ "ACK": "all", "ACK_TIMEOUT_MS": 10_000 }), 2).await;
    let keyring = lab.keyring();
    // With the right time, so that nothing tells them from hosts that join.
    let invented = |n: u64| authenticated(&keyring, 9_000_000 + n, &heartbeat(9_000_000 + n, 1, time::wall()));
    let heartbeats = (0..6_000).map(|n| (lab.subjects.beat(), invented(n))).collect();
    let flood = lab.flood(heartbeats, 3_000);
    let took = lab.confirmed(Duration::from_secs(4)).await;
    println!("{name}: a confirmed write and a read took {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    let joined = lab.join().await;
    println!("{name}: a third host joined in {joined:?}");
    drop(flood);
    for (provider, _) in &lab.nodes {
        assert_eq!(provider.status().await.unwrap().peers, 2);
    }
}
