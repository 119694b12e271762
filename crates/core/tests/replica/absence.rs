//! Nodes that were away for longer than deletions are remembered, and counters of nodes that are gone for good.

use std::sync::Arc;

use kvcache_core::cache::{Cache, KeyHash, NodeId, Partition, Span, Time, PARTITIONS};
use kvcache_core::replica::{AckLevel, AckRequest, Input, Lineage, ReplicaConfig, Start, SyncState};
use kvcache_core::wire::Kind;

use crate::net::{keyring, name, Net, HEARTBEAT};

const TTL: u64 = 60_000;

fn forgetful(count: usize) -> Net {
    let mut net = Net::new();
    net.limits.tombstone_ttl_ms = TTL;
    for _ in 0..count {
        net.join(keyring(1, &[]));
    }
    net.settle();
    net
}

/// Lets `ms` pass while the nodes sweep as the provider does.
fn run_and_sweep(net: &mut Net, ms: u64) {
    for _ in 0..ms / (5 * HEARTBEAT) {
        net.run(5 * HEARTBEAT);
        for node in 0..net.nodes.len() {
            if !net.nodes[node].stopped {
                net.sweep(node);
            }
        }
    }
}

/// Waits until all nodes are in contact and equal; the key has to be gone from all of them.
fn all_end_without(net: &mut Net, key: &str) {
    net.settle();
    net.wait_equal();
    for node in 0..net.nodes.len() {
        assert_eq!(net.get(node, key), None, "on node {node}");
    }
}

#[test]
fn a_node_that_was_cut_off_for_too_long_takes_the_state_of_its_peers() {
    let mut net = forgetful(3);
    net.set(0, "deleted meanwhile", "value");
    net.set(0, "stays", "value");
    net.wait_equal();
    net.disconnect(2);
    net.delete(0, "deleted meanwhile");
    net.set(1, "made meanwhile", "value");
    net.set(1, "stays", "changed");
    run_and_sweep(&mut net, 3 * TTL);
    assert_eq!(net.nodes[0].cache.entries(), 2, "the deletion is forgotten");
    // Written just before it comes back: newer than anything forgotten.
    net.set(2, "fresh", "value");
    net.connect(2);
    net.settle();
    net.wait_equal();
    assert_eq!(net.counters(2).yields, 1);
    for node in 0..3 {
        assert_eq!(net.get(node, "deleted meanwhile"), None, "on node {node}");
        assert_eq!(
            net.get(node, "made meanwhile").as_deref(),
            Some("value"),
            "on node {node}"
        );
        assert_eq!(net.get(node, "stays").as_deref(), Some("changed"), "on node {node}");
        assert_eq!(net.get(node, "fresh").as_deref(), Some("value"), "on node {node}");
    }
}

/// What a store would keep of a node: its state and its lineage.
fn stored(net: &Net, node: usize) -> (Arc<Cache>, Lineage) {
    let (copy, wall) = (net.empty_cache(), net.clock().wall);
    for partition in (0..PARTITIONS as u16).map(Partition) {
        let load = |delta: kvcache_core::cache::Delta<&[u8]>| {
            copy.apply_all(&[delta], wall, |applied| assert!(applied.is_ok()));
        };
        net.nodes[node].cache.select(Span::of(partition), |_| true, load);
    }
    (copy, net.nodes[node].replica.lineage())
}

/// A state is stored, deletions of it are made and forgotten, and a new process comes up with it.
fn with_a_state_that_was_stored_long_ago(start: impl FnOnce(Lineage) -> Start) -> Net {
    let mut net = forgetful(3);
    net.set(0, "deleted meanwhile", "value");
    net.set(0, "stays", "value");
    net.wait_equal();
    let (cache, lineage) = stored(&net, 2);
    net.disconnect(2);
    net.delete(0, "deleted meanwhile");
    run_and_sweep(&mut net, 3 * TTL);
    assert_eq!(net.nodes[0].cache.entries(), 1, "the deletion is forgotten");
    let new = net.join_from(start(lineage), cache, keyring(1, &[]), ReplicaConfig::VERSIONS);
    assert_eq!(net.get(new, "deleted meanwhile").as_deref(), Some("value"));
    net.settle();
    net.wait_equal();
    for node in [0, 1, new] {
        assert_eq!(net.get(node, "stays").as_deref(), Some("value"), "on node {node}");
    }
    net
}

#[test]
fn a_state_that_was_stored_long_ago_brings_nothing_back() {
    let net = with_a_state_that_was_stored_long_ago(Start::Loaded);
    assert_eq!(net.counters(3).yields, 1);
    for node in [0, 1, 3] {
        assert_eq!(net.get(node, "deleted meanwhile"), None, "on node {node}");
    }
    // That its lineage is what prevents it: without, the state counts as written here.
    let net = with_a_state_that_was_stored_long_ago(|_| Start::Empty);
    assert_eq!(net.get(0, "deleted meanwhile").as_deref(), Some("value"));
}

/// Two nodes that start at once, and of which one is gone before they have renewed their contact: it joined before the
/// other one, and was never in contact after that.
#[test]
fn a_state_that_was_stored_before_its_peer_had_joined_brings_nothing_back() {
    for joins_first in [0, 1] {
        let mut net = Net::new();
        net.limits.tombstone_ttl_ms = TTL;
        net.join(keyring(1, &[]));
        net.join(keyring(1, &[]));
        net.settle();
        net.set(0, "deleted meanwhile", "value");
        net.set(0, "stays", "value");
        net.wait_equal();
        let (cache, mut lineage) = stored(&net, 1);
        let peer = net.nodes[0].replica.lineage();
        lineage.last_contact = match joins_first {
            0 => lineage.last_contact.max(peer.joined_at),
            _ => Time(peer.joined_at.0 - 1),
        };
        lineage.joined_at = lineage.joined_at.min(lineage.last_contact);
        lineage.state_since = lineage.state_since.min(lineage.last_contact);
        net.disconnect(1);
        net.delete(0, "deleted meanwhile");
        run_and_sweep(&mut net, 3 * TTL);
        let new = net.join_from(Start::Loaded(lineage), cache, keyring(1, &[]), ReplicaConfig::VERSIONS);
        net.settle();
        net.wait_equal();
        for node in [0, new] {
            assert_eq!(
                net.get(node, "deleted meanwhile"),
                None,
                "{joins_first}: on node {node}"
            );
            assert_eq!(net.get(node, "stays").as_deref(), Some("value"), "on node {node}");
        }
        assert_eq!(net.counters(0).yields, 0, "the one that was there");
    }
}

#[test]
fn a_stored_state_is_the_truth_where_there_is_no_other() {
    let mut net = forgetful(1);
    net.set(0, "kept", "value");
    let (cache, lineage) = stored(&net, 0);
    net.disconnect(0);
    run_and_sweep(&mut net, 3 * TTL);
    let new = net.join_from(Start::Loaded(lineage), cache, keyring(1, &[]), ReplicaConfig::VERSIONS);
    net.settle();
    net.join(keyring(1, &[]));
    net.settle();
    net.wait_equal();
    assert_eq!(net.get(new + 1, "kept").as_deref(), Some("value"));
    assert_eq!(net.counters(new).yields, 0);
}

/// All were gone for longer than deletions are remembered. One begins with nothing and finds nobody, then one comes with
/// what was stored, and it depends on what is lost on the way which of them is in contact first.
#[test]
fn a_stored_state_is_not_lost_to_one_that_began_with_nothing() {
    for lost in 0..8 {
        let mut net = forgetful(1);
        net.set(0, "kept", "value");
        let lineage = net.nodes[0].replica.lineage();
        net.disconnect(0);
        run_and_sweep(&mut net, 3 * TTL);
        let empty = net.join(keyring(1, &[]));
        net.run(5 * HEARTBEAT);
        assert_eq!(net.status(empty).sync, SyncState::Alone);
        net.set(empty, "new", "value");
        run_and_sweep(&mut net, TTL / 10);
        let (cache, _) = stored(&net, 0);
        let loaded = net.join_from(Start::Loaded(lineage), cache, keyring(1, &[]), ReplicaConfig::VERSIONS);
        let mut left = lost;
        net.drop_where(move |sent, to| {
            let drops = left > 0 && to == loaded && matches!(sent.kind(), Kind::Welcome | Kind::Heartbeat);
            left -= usize::from(drops);
            drops
        });
        net.settle();
        net.drop_nothing();
        net.wait_equal();
        run_and_sweep(&mut net, TTL);
        net.wait_equal();
        for node in [empty, loaded] {
            for key in ["kept", "new"] {
                assert_eq!(
                    net.get(node, key).as_deref(),
                    Some("value"),
                    "{key} on {node}, {lost} lost"
                );
            }
            assert_eq!(net.counters(node).yields, 0, "{node}, {lost} lost");
        }
    }
}

#[test]
fn a_process_that_was_stopped_for_too_long_takes_the_state_of_its_peers() {
    let mut net = forgetful(3);
    net.set(0, "deleted meanwhile", "value");
    net.wait_equal();
    net.stop(2);
    net.delete(0, "deleted meanwhile");
    net.drop_where(|_, to| to == 2);
    run_and_sweep(&mut net, 3 * TTL);
    net.drop_nothing();
    net.go_on(2);
    net.run(10 * HEARTBEAT);
    net.settle();
    assert_eq!(net.counters(2).yields, 1);
    for node in 0..3 {
        assert_eq!(net.get(node, "deleted meanwhile"), None, "on node {node}");
    }
    assert!(net.equal());
}

#[test]
fn a_node_that_was_alone_for_long_loses_nothing_to_a_newcomer() {
    let mut net = forgetful(1);
    net.set(0, "old", "value");
    run_and_sweep(&mut net, 5 * TTL);
    // NATS is away for a moment, in which another node comes up that finds nobody.
    net.disconnect(0);
    net.join(keyring(1, &[]));
    net.run(5 * HEARTBEAT);
    assert_eq!(net.status(1).sync, SyncState::Alone);
    net.set(1, "new", "value");
    net.sweep(1);
    net.connect(0);
    net.settle();
    net.wait_equal();
    for node in 0..2 {
        assert_eq!(net.get(node, "old").as_deref(), Some("value"), "on node {node}");
        assert_eq!(net.get(node, "new").as_deref(), Some("value"), "on node {node}");
    }
    assert_eq!(net.counters(0).yields, 0);
    // And a newcomer whose state is its own.
    run_and_sweep(&mut net, 2 * TTL);
    net.join(keyring(1, &[]));
    net.settle();
    net.wait_equal();
    assert_eq!(net.get(2, "old").as_deref(), Some("value"));
}

#[test]
fn a_node_that_was_alone_for_long_takes_nothing_from_a_state_it_never_met() {
    let mut net = forgetful(1);
    net.run(HEARTBEAT);
    net.set(0, "old", "value");
    net.disconnect(0);
    // It finds nobody: its state is its own.
    net.join(keyring(1, &[]));
    net.run(5 * HEARTBEAT);
    net.set(1, "new", "value");
    run_and_sweep(&mut net, 3 * TTL);
    net.connect(0);
    net.settle();
    net.wait_equal();
    for node in 0..2 {
        assert_eq!(net.get(node, "old").as_deref(), Some("value"), "on node {node}");
        assert_eq!(net.get(node, "new").as_deref(), Some("value"), "on node {node}");
        assert_eq!(net.counters(node).yields, 0, "on node {node}");
    }
}

#[test]
fn heartbeats_that_waited_for_a_stopped_process_are_no_contact() {
    let mut net = forgetful(3);
    net.set(0, "deleted meanwhile", "value");
    net.wait_equal();
    net.stop(2);
    net.delete(0, "deleted meanwhile");
    // Heartbeats wait for it, for frames there is no room.
    net.drop_where(|sent, to| to == 2 && sent.kind() == Kind::Frame);
    run_and_sweep(&mut net, 3 * TTL);
    net.drop_nothing();
    net.go_on(2);
    net.run(10 * HEARTBEAT);
    all_end_without(&mut net, "deleted meanwhile");
    assert_eq!(net.counters(2).yields, 1);
}

#[test]
fn a_node_that_hears_but_is_not_heard_is_out_of_contact() {
    let mut net = forgetful(3);
    net.set(0, "deleted meanwhile", "value");
    net.wait_equal();
    // It cannot ask for the frame that is lost to it.
    net.drop_where(|sent, to| sent.from == 2 || (to == 2 && sent.kind() == Kind::Frame));
    net.delete(0, "deleted meanwhile");
    run_and_sweep(&mut net, 3 * TTL);
    net.drop_nothing();
    net.run(10 * HEARTBEAT);
    all_end_without(&mut net, "deleted meanwhile");
    assert_eq!(net.counters(2).yields, 1);
}

#[test]
fn a_node_that_went_before_its_first_bootstrap_was_done_brings_nothing_back() {
    let mut net = forgetful(2);
    net.set(0, "deleted meanwhile", "value");
    net.wait_equal();
    // The answers arrive, but their ends do not.
    net.drop_where(|sent, to| to == 2 && sent.kind() == Kind::AnswerEnd);
    net.join(keyring(1, &[]));
    net.run(HEARTBEAT);
    assert_eq!(net.status(2).sync, SyncState::Syncing { percent: 0 });
    assert_eq!(net.get(2, "deleted meanwhile").as_deref(), Some("value"));
    net.disconnect(2);
    net.drop_nothing();
    net.delete(0, "deleted meanwhile");
    run_and_sweep(&mut net, 3 * TTL);
    net.connect(2);
    all_end_without(&mut net, "deleted meanwhile");
}

#[test]
fn a_node_that_went_before_anybody_was_synced_brings_nothing_back() {
    let mut net = forgetful(0);
    net.join(keyring(1, &[]));
    net.join(keyring(1, &[]));
    net.run(100);
    net.set(0, "deleted meanwhile", "value");
    net.run(10);
    assert_eq!(net.get(1, "deleted meanwhile").as_deref(), Some("value"));
    assert_eq!(net.status(0).sync, SyncState::Starting);
    net.disconnect(1);
    net.delete(0, "deleted meanwhile");
    run_and_sweep(&mut net, 3 * TTL);
    net.connect(1);
    all_end_without(&mut net, "deleted meanwhile");
}

#[test]
fn two_lonely_nodes_end_equal() {
    let mut net = forgetful(2);
    net.set(0, "both", "value");
    net.wait_equal();
    net.drop_where(|_, _| true);
    net.set(0, "deleted", "value");
    run_and_sweep(&mut net, 3 * TTL);
    net.set(0, "new of 0", "value");
    net.set(1, "new of 1", "value");
    net.drop_nothing();
    net.run(10 * HEARTBEAT);
    net.settle();
    net.wait_equal();
    assert_eq!(
        net.counters(0).yields + net.counters(1).yields,
        1,
        "one of the two resyncs"
    );
    for key in ["both", "new of 0", "new of 1"] {
        assert_eq!(net.get(0, key).as_deref(), Some("value"), "{key}");
    }
}

#[test]
fn a_frame_older_than_what_is_remembered_is_not_taken() {
    let mut net = forgetful(2);
    // Node 1 gets nothing of node 0 but heartbeats, and never what these say that it lacks: so the frame stays missing.
    net.drop_where(|sent, to| to == 1 && sent.kind() != Kind::Heartbeat);
    net.set_silently(0, "only there", "value");
    net.set(0, "key", "value");
    net.run(100);
    let late = net.sent.iter().rfind(|sent| sent.kind() == Kind::Frame);
    let late = late.expect("a frame").payload.clone();
    // The deletion is forgotten before the frame arrives.
    net.delete(1, "key");
    net.run(100);
    assert_eq!(net.get(0, "key"), None);
    run_and_sweep(&mut net, 3 * TTL);
    assert_eq!(net.nodes[1].cache.entries(), 0);
    let before = net.counters(1);
    net.input(1, Input::Message(late));
    let after = net.counters(1);
    assert_eq!(after.repeated, before.repeated, "it is one that has not arrived yet");
    assert_eq!(after.outdated, before.outdated + 1);
    assert_eq!(net.nodes[1].cache.entries(), 0);
    net.drop_nothing();
    net.run(5 * HEARTBEAT);
    all_end_without(&mut net, "key");
}

#[test]
fn a_new_frame_of_a_write_older_than_what_is_remembered_is_not_taken() {
    let mut net = forgetful(2);
    let author = net.empty_cache();
    let now = net.clock().wall;
    let delta = author.set(&name("key"), "value", 0, now).unwrap();
    run_and_sweep(&mut net, 3 * TTL);
    net.send(0, vec![delta]);
    net.run(10);
    assert_eq!(net.counters(1).outdated, 1);
    assert_eq!(net.nodes[1].cache.entries(), 0);
}

#[test]
fn a_write_older_than_what_is_remembered_is_confirmed_only_when_a_comparison_has_brought_it() {
    let mut net = forgetful(2);
    let author = net.empty_cache();
    let old = author.set(&name("old"), "value", 0, net.clock().wall).unwrap();
    run_and_sweep(&mut net, 3 * TTL);
    net.nodes[0].cache.apply(&old, net.clock().wall).unwrap();
    let ask = AckRequest {
        id: 1,
        wanted: AckLevel::All,
        deadline: net.clock().mono + 20_000,
    };
    net.input(
        0,
        Input::Local {
            deltas: vec![old],
            acks: vec![ask],
        },
    );
    net.set_acked(0, "new", "value", 2, AckLevel::All, 20_000);
    net.run(10);
    assert_eq!(net.counters(1).outdated, 1);
    assert_eq!(
        net.nodes[0].acked.get(&2),
        Some(&Ok(())),
        "what follows is confirmed by itself"
    );
    assert_eq!((net.get(1, "old"), net.nodes[0].acked.get(&1)), (None, None));
    net.run_until("it is confirmed", |net| net.nodes[0].acked.contains_key(&1));
    assert_eq!(net.nodes[0].acked[&1], Ok(()));
    assert_eq!(net.get(1, "old").as_deref(), Some("value"));
}

#[test]
fn counters_do_not_grow_with_restarts() {
    let mut net = forgetful(2);
    let mut total = 0;
    for restart in 0..60 {
        let node = net.join(keyring(1, &[]));
        net.settle();
        let now = net.clock().wall;
        let (_, delta) = net.nodes[node].cache.increment(&name("counter"), 3, now).unwrap();
        net.send(node, vec![delta]);
        total += 3;
        net.run(10);
        net.input(node, Input::Leaving);
        net.disconnect(node);
        run_and_sweep(&mut net, 5 * HEARTBEAT);
        if restart % 10 == 9 {
            // Long enough to forget who is gone, and for a look at every partition.
            run_and_sweep(&mut net, 2 * TTL + 140 * HEARTBEAT);
        }
    }
    net.wait_equal();
    for node in 0..2 {
        assert_eq!(net.get(node, "counter"), Some(total.to_string()));
        let mut deltas = 0;
        for partition in kvcache_core::cache::Partition::all() {
            net.nodes[node].cache.deltas(partition, |_| deltas += 1);
        }
        assert!(deltas <= 20, "{deltas} components of one counter on node {node}");
    }
    assert!(net.counters(0).folded + net.counters(1).folded > 0);
}

#[test]
fn a_newcomer_does_not_take_those_it_has_never_heard_for_gone() {
    let mut net = forgetful(0);
    // One of the keys that are looked at first.
    let first = |key: &String| Partition::of(KeyHash::of(name(key).as_bytes())).0 < 8;
    let counter = (0..).map(|n| format!("counter {n}")).find(first).unwrap();
    let (key, now) = (name(&counter), net.clock().wall);
    let (newcomer, absent) = (net.empty_cache(), Arc::new(Cache::new(NodeId(u64::MAX), net.limits)));
    // Twenty nodes that are gone and one that comes back have added long ago.
    for node in 1..=20 {
        let author = Cache::new(NodeId(node), net.limits);
        let (_, delta) = author.increment(&key, 1, now - 3 * TTL).unwrap();
        newcomer.apply(&delta, now).unwrap();
        absent.apply(&delta, now).unwrap();
    }
    let (_, delta) = absent.increment(&key, 5, now - 3 * TTL).unwrap();
    newcomer.apply(&delta, now).unwrap();
    net.join_with(newcomer, keyring(1, &[]), ReplicaConfig::VERSIONS);
    net.sweep(0);
    net.settle();
    net.run(3 * HEARTBEAT);
    absent.increment(&key, 5, net.clock().wall).unwrap();
    net.join_with(absent, keyring(1, &[]), ReplicaConfig::VERSIONS);
    net.settle();
    net.wait_equal();
    assert_eq!(net.get(0, &counter).as_deref(), Some("30"));
    // When the newcomer has watched for long enough it folds, and knows by then who may go on adding.
    run_and_sweep(&mut net, TTL + 10 * HEARTBEAT);
    net.wait_equal();
    assert_eq!(net.counters(0).folded, 1);
    for node in 0..2 {
        assert_eq!(net.get(node, &counter).as_deref(), Some("30"), "on node {node}");
    }
}

#[test]
fn a_node_whose_first_bootstrap_took_too_long_takes_the_state_of_its_peers() {
    let mut net = Net::new();
    net.limits.tombstone_ttl_ms = TTL;
    // It connects before the others, so their state began later. It hears that they are there, but what it asks for
    // does not come.
    net.drop_where(|sent, to| sent.from == 0 || to == 0 && sent.kind() != Kind::Heartbeat);
    let late = net.join(keyring(1, &[]));
    net.run(50);
    for _ in 0..2 {
        net.join(keyring(1, &[]));
    }
    net.run_until("the others are synced", |net| {
        (1..3).all(|node| net.status(node).sync == SyncState::Synced)
    });
    net.drop_where(|sent, to| to == 0 && [Kind::BootstrapDeltas, Kind::AnswerEnd].contains(&sent.kind()));
    net.run_until("it counts the others as peers", |net| net.status(0).peers.len() == 2);
    net.set(1, "deleted meanwhile", "value");
    net.set(1, "stays", "value");
    net.run(HEARTBEAT);
    assert_eq!(net.get(late, "deleted meanwhile").as_deref(), Some("value"));
    assert_ne!(net.status(late).sync, SyncState::Synced);
    net.disconnect(late);
    net.delete(1, "deleted meanwhile");
    run_and_sweep(&mut net, 3 * TTL);
    assert_eq!(net.nodes[1].cache.entries(), 1, "the deletion is forgotten");
    net.set(late, "fresh", "value");
    net.drop_nothing();
    net.connect(late);
    all_end_without(&mut net, "deleted meanwhile");
    assert_eq!(net.counters(late).yields, 1);
    for node in 0..3 {
        assert_eq!(net.get(node, "stays").as_deref(), Some("value"), "on node {node}");
        assert_eq!(net.get(node, "fresh").as_deref(), Some("value"), "on node {node}");
    }
}

#[test]
fn what_is_older_than_the_state_of_its_peers_stays() {
    let mut net = Net::new();
    net.limits.tombstone_ttl_ms = TTL;
    // It hears the others at last, long after they have begun without it.
    net.drop_where(|sent, to| sent.from == 0 || to == 0);
    let late = net.join(keyring(1, &[]));
    net.set(late, "old", "value");
    net.disconnect(late);
    net.run(50);
    for _ in 0..2 {
        net.join(keyring(1, &[]));
    }
    net.run_until("the others are synced", |net| {
        (1..3).all(|node| net.status(node).sync == SyncState::Synced)
    });
    run_and_sweep(&mut net, 3 * TTL);
    net.drop_nothing();
    net.connect(late);
    // It has all that there is: it is in contact from the first moment on, and brings nothing back if it goes again.
    net.run_until("it is synced", |net| net.status(late).sync == SyncState::Synced);
    let (contact, now) = (net.nodes[late].replica.lineage().last_contact, net.clock().wall);
    assert!(contact.millis() + HEARTBEAT > now, "{contact:?} at {now}");
    net.settle();
    net.wait_equal();
    assert_eq!(net.counters(late).yields, 0);
    for node in 0..3 {
        assert_eq!(net.get(node, "old").as_deref(), Some("value"), "on node {node}");
    }
}

#[test]
fn a_node_that_went_while_it_settled_brings_nothing_back() {
    let mut net = forgetful(2);
    net.set(0, "deleted meanwhile", "value");
    net.wait_equal();
    // It has the state of one of the others, and waits for the other one to answer.
    let late = net.nodes.len();
    net.drop_where(move |sent, to| {
        [sent.from, to].contains(&late) && [sent.from, to].contains(&1) && sent.kind() != Kind::Heartbeat
    });
    net.join(keyring(1, &[]));
    net.run_until("it has taken the state in", |net| {
        net.get(late, "deleted meanwhile").is_some() && net.status(late).peers.len() == 1
    });
    net.disconnect(late);
    // Nothing wakes it while it has no connection.
    net.nodes[late].stopped = true;
    net.drop_nothing();
    net.delete(0, "deleted meanwhile");
    run_and_sweep(&mut net, 3 * TTL);
    assert_eq!(net.nodes[0].cache.entries(), 0, "the deletion is forgotten");
    // What it was told by the others is as old as its state.
    net.nodes[late].stopped = false;
    net.connect(late);
    all_end_without(&mut net, "deleted meanwhile");
    assert_eq!(net.counters(late).yields, 1);
}
