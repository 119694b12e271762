//! Keys that are made for one partition, or for one position.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use kvcache_core::cache::{Cache, Key, KeyHash, NodeId};
use kvcache_core::replica::{ReplicaConfig, SyncState};
use kvcache_core::wire::{Kind, Message};

use crate::net::{keyring, Link, Net, HEARTBEAT};
use crate::repair::count;

/// What an answer may have, and a message more.
const MOST_BYTES: usize = (2 << 20) + (300 << 10);

/// Keys with one XXH3-64. In one of 32 bytes the second word is multiplied with the first after it was combined with a
/// constant: with that constant itself, whatever the first one is makes no difference.
fn colliding(n: u64) -> Key {
    let [_, free @ ..] = n.to_be_bytes();
    let constant = 0x1cad_21f7_2c81_017cu64.to_le_bytes();
    Key::shared(&[&free[..], &constant, b"0123456789abcdef"].concat())
}

/// Its tables are in an order of its own, as those of real processes are.
fn join(net: &mut Net) -> usize {
    let number = net.nodes.len() as u64 + 1;
    let node = NodeId(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let cache = Cache::with_secret(node, net.limits, [number, number * 7, number * 11, number * 13]);
    net.join_with(Arc::new(cache), keyring(1, &[]), ReplicaConfig::VERSIONS)
}

fn set_silently(net: &Net, node: usize, key: &Key, value: Vec<u8>) {
    let now = net.clock().wall;
    net.nodes[node]
        .cache
        .set(key, Bytes::from(value), 0, now)
        .expect("fits");
}

/// Bytes of deltas per answer, by who asked and the number of the request.
fn answers(net: &Net, from: usize) -> BTreeMap<(NodeId, u64), usize> {
    let mut answers = BTreeMap::new();
    for sent in net.sent[from..]
        .iter()
        .filter(|sent| sent.kind() == Kind::BootstrapDeltas)
    {
        let Ok(Message::BootstrapDeltas(bootstrap)) = Message::decode(sent.payload.clone()) else {
            panic!("not a message")
        };
        *answers.entry((bootstrap.part.to, bootstrap.part.request)).or_default() += sent.payload.len();
    }
    answers
}

fn bounded(net: &Net, from: usize) -> usize {
    let answers = answers(net, from);
    let most = answers.values().copied().max().unwrap_or(0);
    assert!(most <= MOST_BYTES, "an answer of {most} bytes");
    answers.len()
}

#[test]
fn they_collide() {
    let hashes: BTreeSet<u64> = (0..1_000).map(|n| KeyHash::of(colliding(n).as_bytes()).0).collect();
    assert_eq!(hashes.len(), 1);
}

#[test]
fn a_crowded_partition_is_bootstrapped_in_answers_of_bounded_size() {
    let mut net = Net::new();
    join(&mut net);
    net.settle();
    // 12 MB at one position, a set of 8 MB among them, and some keys elsewhere.
    let now = net.clock().wall;
    for n in 0..60_000 {
        set_silently(&net, 0, &colliding(n), vec![7; 150]);
    }
    for n in 0..4_000 {
        let member = Bytes::from(format!("{n:02000}"));
        net.nodes[0]
            .cache
            .set_add(&colliding(1 << 40), member, now)
            .expect("fits");
    }
    for n in 0..2_000 {
        net.set_silently(0, &format!("key{n}"), "value");
    }
    let from = net.sent.len();
    join(&mut net);
    net.settle();
    assert!(net.equal());
    let answers = bounded(&net, from);
    assert!((15..=60).contains(&answers), "{answers} answers");
    let received = net.counters(1).replay_commands_received;
    assert!(received <= 66_010, "{received} deltas, some of them more than once");
    assert_eq!(count(&net, from, Kind::DigestRequest), 0, "nothing was overlooked");
}

#[test]
fn a_crowded_partition_is_bootstrapped_though_the_responder_dies_and_others_write() {
    let mut net = Net::new();
    join(&mut net);
    net.settle();
    for n in 0..30_000 {
        set_silently(&net, 0, &colliding(n), vec![7; 200]);
    }
    join(&mut net);
    net.settle();
    net.link(2, Link::of(1_000, 5));
    let from = net.sent.len();
    join(&mut net);
    let began = net.now;
    let mut died = false;
    while net.status(2).sync != SyncState::Synced {
        net.run(20);
        assert!(net.now < began + 60_000, "{:?}", net.status(2));
        let now = net.clock().wall;
        let key = colliding((net.now * 7) % 40_000);
        let delta = net.nodes[1].cache.set(&key, Bytes::from("new"), 0, now).expect("fits");
        net.send(1, vec![delta]);
        if !died && net.counters(2).replay_bytes_received > 3_000_000 {
            died = true;
            net.disconnect(0);
        }
    }
    assert!(died);
    net.run(200);
    assert!(net.nodes[1].cache.root_digest() == net.nodes[2].cache.root_digest());
    // What only the one that died could go on with was begun anew.
    let received = net.counters(2).replay_commands_received;
    assert!((30_000..60_000).contains(&received), "{received} deltas");
    bounded(&net, from);
}

#[test]
fn what_differs_at_one_position_takes_one_reconcile() {
    let mut net = Net::new();
    join(&mut net);
    net.settle();
    for n in 0..500 {
        set_silently(&net, 0, &colliding(n), vec![1]);
    }
    join(&mut net);
    net.settle();
    net.run(3 * HEARTBEAT);
    for n in 0..100 {
        // Replaced on one side, and new ones on both.
        set_silently(&net, (n % 2) as usize, &colliding(n), vec![2]);
        set_silently(&net, 0, &colliding(1_000 + n), vec![3]);
        set_silently(&net, 1, &colliding(2_000 + n), vec![4]);
    }
    let from = net.sent.len();
    net.wait_equal();
    let received: u64 = (0..2).map(|node| net.counters(node).replay_commands_received).sum();
    let first_bootstrap = 500;
    assert_eq!(
        received - first_bootstrap,
        300,
        "each what it lacked, and nothing that was replaced"
    );
    assert_eq!(count(&net, from, Kind::Reconcile), 2, "there and back");
    assert_eq!(count(&net, from, Kind::RangeSplits), 0);
}

#[test]
fn what_differs_at_one_position_is_fetched_in_answers_of_bounded_size() {
    let mut net = Net::new();
    for _ in 0..2 {
        join(&mut net);
    }
    net.settle();
    for n in 0..20_000 {
        set_silently(&net, (n % 2) as usize, &colliding(n), vec![7; 600]);
    }
    let from = net.sent.len();
    net.wait_equal();
    assert!(count(&net, from, Kind::Compare) > 0);
    assert_eq!(count(&net, from, Kind::DigestRequest), 1, "one comparison finds all");
    assert!(bounded(&net, from) >= 6);
}
