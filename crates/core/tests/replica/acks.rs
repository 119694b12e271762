//! Writes that wait for confirmations.

use bytes::Bytes;
use kvcache_core::replica::{AckLevel, AckRequest, Input, SyncState, Target};
use kvcache_core::wire::Kind;

use crate::net::{keyring, name, Net, HEARTBEAT};

#[test]
fn a_write_is_confirmed_by_as_many_as_were_asked_for() {
    let mut net = Net::of(3);
    for (id, wanted) in [(1, AckLevel::Peers(1)), (2, AckLevel::Peers(2)), (3, AckLevel::All)] {
        net.set_acked(0, "key", "value", id, wanted, 1_000);
        assert!(
            !net.nodes[0].acked.contains_key(&id),
            "{wanted:?} before anybody could answer"
        );
        net.run(5);
        assert_eq!(net.nodes[0].acked.get(&id), Some(&Ok(())), "{wanted:?}");
    }
    net.set_acked(0, "key", "value", 4, AckLevel::Peers(3), 1_000);
    net.run(999);
    assert!(!net.nodes[0].acked.contains_key(&4), "a third peer may come");
    net.run(10);
    let unconfirmed = net.nodes[0].acked[&4].clone().unwrap_err();
    assert_eq!((unconfirmed.confirmed, unconfirmed.missing), (2, vec![]));
}

#[test]
fn who_writes_to_a_store_with_others_says_so_with_the_next_heartbeat() {
    let mut net = Net::of(2);
    let told = |net: &Net| net.status(1).peers[0].store;
    assert_eq!(told(&net), 0);
    net.nodes[0].cache.set_shared_store(u64::MAX - 7);
    net.run(2 * HEARTBEAT);
    assert_eq!(told(&net), u64::MAX - 7);
    assert_eq!(net.status(0).peers[0].store, 0, "of the other one");
}

#[test]
fn what_all_have_confirmed_can_be_read_everywhere() {
    let mut net = Net::of(5);
    let mut seed = 1u64;
    // A fourth of everything is lost.
    net.drop_where(move |_, _| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed >> 62 == 0
    });
    for n in 0..100 {
        let (writer, value) = (n as usize % 5, n.to_string());
        net.set_acked(writer, "key", &value, n, AckLevel::All, 30_000);
        net.run_until("the write is confirmed", |net| net.nodes[writer].acked.contains_key(&n));
        assert_eq!(net.nodes[writer].acked[&n], Ok(()));
        for node in 0..5 {
            assert_eq!(net.get(node, "key"), Some(value.clone()), "on node {node} after {n}");
        }
    }
}

#[test]
fn a_lost_frame_is_sent_again_to_those_who_have_not_confirmed_it() {
    let mut net = Net::of(3);
    net.drop_where(|sent, to| to == 2 && sent.kind() == Kind::Frame && sent.to == Target::Deltas);
    net.set_acked(0, "key", "value", 1, AckLevel::All, 1_000);
    net.run(400);
    assert_eq!(net.nodes[0].acked.get(&1), Some(&Ok(())));
    assert_eq!(net.counters(0).frames_resent, 1);
}

#[test]
fn who_has_not_confirmed_in_time_is_named_and_the_write_stays() {
    let mut net = Net::of(3);
    net.stop(2);
    net.set_acked(0, "key", "value", 1, AckLevel::All, 1_500);
    net.run(1_600);
    let unconfirmed = net.nodes[0].acked[&1].clone().unwrap_err();
    assert_eq!(
        (unconfirmed.confirmed, unconfirmed.missing),
        (1, vec!["host2".to_owned()])
    );
    assert_eq!(net.get(0, "key").as_deref(), Some("value"));
    net.go_on(2);
    net.wait_equal();
}

#[test]
fn a_peer_that_goes_is_no_longer_waited_for() {
    let mut net = Net::of(3);
    net.disconnect(2);
    net.set_acked(0, "key", "value", 1, AckLevel::All, 60_000);
    net.run(2 * HEARTBEAT);
    assert!(!net.nodes[0].acked.contains_key(&1), "it may only be slow");
    net.run(5 * HEARTBEAT);
    assert_eq!(net.nodes[0].acked.get(&1), Some(&Ok(())));
}

#[test]
fn nothing_is_confirmed_while_nats_is_away() {
    let mut net = Net::of(2);
    net.disconnect(0);
    net.set_acked(0, "key", "value", 1, AckLevel::All, 500);
    net.run(600);
    assert!(net.nodes[0].acked[&1].clone().unwrap_err().disconnected);
    net.set_acked(0, "key", "other", 2, AckLevel::All, 60_000);
    net.run(10 * HEARTBEAT);
    assert!(
        !net.nodes[0].acked.contains_key(&2),
        "nobody is there, but nobody can be seen either"
    );
    net.connect(0);
    net.run_until("it is confirmed", |net| net.nodes[0].acked.contains_key(&2));
    assert_eq!(
        (net.nodes[0].acked[&2].clone(), net.get(1, "key").as_deref()),
        (Ok(()), Some("other"))
    );
}

#[test]
fn a_write_that_a_peer_refuses_is_not_confirmed_by_it() {
    let mut net = Net::of(2);
    // The clock of the writer is further ahead than peers accept.
    let ahead = net.clock().wall + net.limits.max_clock_skew_ms + 60_000;
    let cache = &net.nodes[0].cache;
    let delta = cache.set(&name("key"), Bytes::from("value"), 0, ahead).unwrap();
    let acks = vec![AckRequest {
        id: 1,
        wanted: AckLevel::All,
        deadline: net.clock().mono + 1_000,
    }];
    let deltas = vec![delta];
    net.input(0, Input::Local { deltas, acks });
    net.run(1_010);
    assert!(net.counters(1).refused > 0);
    assert_eq!(net.get(1, "key"), None);
    let unconfirmed = net.nodes[0].acked[&1].clone().unwrap_err();
    assert_eq!(unconfirmed.confirmed, 0);
}

#[test]
fn all_of_nobody_is_confirmed_at_once() {
    let mut net = Net::new();
    net.join(keyring(1, &[]));
    net.settle();
    net.set_acked(0, "key", "value", 1, AckLevel::All, 1_000);
    assert_eq!(net.nodes[0].acked.get(&1), Some(&Ok(())));
}

#[test]
fn a_newcomer_is_synced_as_soon_as_all_know_it() {
    let mut net = Net::of(5);
    net.set(0, "key", "value");
    // They hear of it by its requests: its own challenges come before its answers to theirs.
    net.drop_where(|sent, _| sent.from == 5 && sent.to == Target::Heartbeat);
    net.join(keyring(1, &[]));
    let took = net.run_until("the newcomer is synced", |net| net.status(5).sync == SyncState::Synced);
    // Without the pause between challenges that is meant for lost ones.
    assert!(took <= 60, "took {took} ms");
    assert_eq!(net.get(5, "key").as_deref(), Some("value"));
}

#[test]
fn a_newcomer_answers_no_read_before_it_has_what_all_have_confirmed() {
    for delay in 0..40 {
        let mut net = Net::of(2);
        net.join(keyring(1, &[]));
        net.run(delay);
        net.set_acked(0, "key", "value", 1, AckLevel::All, 1_000);
        net.run_until("confirmed", |net| net.nodes[0].acked.contains_key(&1));
        assert_eq!(net.nodes[0].acked[&1], Ok(()));
        let synced = net.status(2).sync == SyncState::Synced;
        assert!(!synced || net.get(2, "key").is_some(), "joined {delay} ms before");
        net.wait_equal();
    }
}

#[test]
fn a_newcomer_is_synced_only_when_all_it_has_heard_of_wait_for_its_confirmations() {
    let mut net = Net::of(2);
    // Node 0 answers the bootstrap. Node 1 and the newcomer do not get to know each other.
    net.drop_where(|sent, to| sent.kind() == Kind::Hello && (sent.from.min(to), sent.from.max(to)) == (1, 2));
    net.join(keyring(1, &[]));
    net.run_until("the bootstrap is done", |net| net.counters(2).pulls == 1);
    net.set_acked(1, "key", "value", 1, AckLevel::All, 1_000);
    net.run_until("it is confirmed", |net| net.nodes[1].acked.contains_key(&1));
    assert_eq!((net.nodes[1].acked[&1].clone(), net.get(2, "key")), (Ok(()), None));
    assert!(net.status(2).sync.is_under_way());
    net.drop_nothing();
    net.run_until("the newcomer is synced", |net| net.status(2).sync == SyncState::Synced);
    assert_eq!(net.get(2, "key").as_deref(), Some("value"));
}

/// Whether reads may be answered that have to see everything confirmed.
fn is_current(net: &Net, node: usize) -> bool {
    net.nodes[node].replica.current_until() > net.clock().mono
}

#[test]
fn a_node_that_has_died_does_not_delay_a_newcomer() {
    let mut net = Net::of(3);
    net.set(0, "key", "value");
    net.disconnect(2);
    net.join(keyring(1, &[]));
    let took = net.run_until("the newcomer is synced", |net| net.status(3).sync == SyncState::Synced);
    assert!(took <= 200, "took {took} ms");
    assert_eq!(net.get(3, "key").as_deref(), Some("value"));
    // It cannot know that the node has died, and does not promise more than before.
    net.set_acked(3, "key", "other", 1, AckLevel::All, 10_000);
    let took = took + net.run_until("the newcomer is current", |net| is_current(net, 3));
    assert!((1_400..1_700).contains(&took), "took {took} ms");
    net.run(HEARTBEAT);
    assert_eq!(net.nodes[3].acked.get(&1), Some(&Ok(())));
}

#[test]
fn a_newcomer_is_current_only_when_those_know_it_that_it_has_not_waited_for() {
    for delay in (0..400).step_by(7) {
        let mut net = Net::of(3);
        net.set(0, "key", "old");
        net.wait_equal();
        // It lives, but does nothing for a while.
        net.stop(2);
        net.join(keyring(1, &[]));
        net.run(delay);
        // What it does first then is a write, which nodes that do not know the newcomer can confirm.
        net.set_acked(2, "key", "new", 1, AckLevel::All, 10_000);
        net.run(400 - delay);
        assert_eq!(net.status(3).sync, SyncState::Synced);
        assert!(!is_current(&net, 3));
        net.set_acked(3, "own", "value", 2, AckLevel::All, 10_000);
        net.run(100);
        assert!(!net.nodes[3].acked.contains_key(&2), "before all know it");
        net.go_on(2);
        for _ in 0..600 {
            assert!(
                !is_current(&net, 3) || net.get(3, "key").as_deref() == Some("new"),
                "written after {delay} ms, read at {}",
                net.now
            );
            assert!(!net.nodes[3].acked.contains_key(&2) || net.get(2, "own").is_some());
            net.run(1);
        }
        assert!(is_current(&net, 3));
        assert_eq!(net.nodes[2].acked.get(&1), Some(&Ok(())));
        assert_eq!(net.nodes[3].acked.get(&2), Some(&Ok(())));
    }
}

#[test]
fn who_takes_its_state_from_a_newcomer_waits_for_the_same_nodes() {
    let mut net = Net::of(2);
    net.stop(1);
    net.nodes[1].answers = false;
    net.join(keyring(1, &[]));
    net.run_until("it is synced", |net| net.status(2).sync == SyncState::Synced);
    net.input(0, Input::Leaving);
    net.disconnect(0);
    net.join(keyring(1, &[]));
    net.run_until("it is synced", |net| net.status(3).sync == SyncState::Synced);
    assert_eq!(net.counters(2).replays_served, 4);
    assert!(!is_current(&net, 3), "it has heard of a node that does not know it");
    net.set_silently(1, "key", "value");
    net.go_on(1);
    net.run_until("it is current", |net| is_current(net, 3));
    assert!(net.status(3).peers.len() >= 2);
}

#[test]
fn a_newcomer_is_synced_only_when_no_frame_is_missing() {
    let mut net = Net::of(2);
    // A frame of node 1 reaches neither node 0, which answers the bootstrap, nor the newcomer.
    net.drop_where(|sent, _| sent.kind() == Kind::Frame || sent.kind() == Kind::FramesRequest);
    net.set(1, "key", "value");
    net.join(keyring(1, &[]));
    net.run_until("the bootstrap is done", |net| net.counters(2).pulls == 1);
    net.run(HEARTBEAT);
    assert_eq!(
        (net.get(2, "key"), net.status(2).sync),
        (None, SyncState::Syncing { percent: 100 })
    );
    net.drop_nothing();
    net.run_until("the newcomer is synced", |net| net.status(2).sync == SyncState::Synced);
    assert_eq!(net.get(2, "key").as_deref(), Some("value"));
}

#[test]
fn a_comparison_of_partitions_at_rest_confirms_no_frame() {
    for delay in (0..4 * HEARTBEAT).step_by(100) {
        let mut net = Net::of(2);
        net.set_silently(0, "missed", "value");
        // The first sending of the frame is lost. Some time during these delays a comparison is made before the second.
        net.drop_where(|sent, _| sent.kind() == Kind::Frame && sent.to == Target::Deltas);
        net.run(delay);
        net.set_acked(0, "key", "value", 1, AckLevel::All, 10_000);
        net.run_until("confirmed", |net| net.nodes[0].acked.contains_key(&1));
        assert_eq!(net.nodes[0].acked[&1], Ok(()));
        assert_eq!(net.get(1, "key").as_deref(), Some("value"), "written after {delay} ms");
    }
}

#[test]
fn a_node_that_was_out_of_contact_knows_that_it_is_not_current() {
    let mut net = Net::of(2);
    let current = |net: &Net| net.nodes[1].replica.current_until() > net.clock().mono;
    assert!(current(&net));
    net.stop(1);
    net.run(4 * HEARTBEAT);
    assert!(!current(&net), "peers may already do without it");
    net.go_on(1);
    net.run(HEARTBEAT);
    assert!(current(&net));
    net.disconnect(1);
    assert!(!current(&net));
}

#[test]
fn what_waited_for_a_stopped_node_does_not_make_it_current() {
    let mut net = Net::of(3);
    net.set(0, "key", "old");
    net.wait_equal();
    net.stop(2);
    // Heartbeats of the others wait for it, then it counts as gone, and they confirm without it.
    net.run(3 * HEARTBEAT);
    net.drop_where(|_, to| to == 2);
    net.set_acked(0, "key", "new", 1, AckLevel::All, 60_000);
    net.run_until("the write is confirmed", |net| net.nodes[0].acked.contains_key(&1));
    net.go_on(2);
    let current = |net: &Net| net.nodes[2].replica.current_until() > net.clock().mono;
    for step in 0..3_000 {
        if step == 500 {
            net.drop_nothing();
        }
        assert!(
            !current(&net) || net.get(2, "key").as_deref() == Some("new"),
            "at {}",
            net.now
        );
        net.run(1);
    }
    assert!(current(&net));
}

#[test]
fn a_write_that_waits_while_nats_is_away_keeps_nobody_awake() {
    let mut net = Net::of(2);
    net.drop_where(|_, to| to == 1);
    net.set_acked(0, "key", "value", 1, AckLevel::All, 5_000);
    let deadline = net.clock().mono + 5_000;
    net.disconnect(0);
    net.run(1_000);
    // It is long due to be sent again, which is of no use now.
    assert_eq!(net.nodes[0].replica.poll_timeout(), deadline);
    net.run(4_001);
    assert!(net.nodes[0].acked[&1].is_err());
}
