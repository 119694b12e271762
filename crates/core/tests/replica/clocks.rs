//! Wall clocks that jump, and what is stamped in the future.

use kvcache_core::cache::{Millis, Time};
use kvcache_core::replica::{AckLevel, ClockFault, Input, Reason, SyncState, Target};
use kvcache_core::wire::{Kind, Message};

use crate::net::{keyring, Net, Sent, HEARTBEAT};

const DAY: i64 = 86_400_000;

/// Longer than it takes to be sure that a clock differs.
const LOOKS: Millis = 5 * HEARTBEAT;

fn set_and_send(net: &mut Net, node: usize, key: &str) {
    net.set(node, key, "value");
    net.run(20);
}

#[test]
fn a_host_whose_clock_jumped_ahead_and_back_writes_on_at_once() {
    for count in [2, 3] {
        let mut net = Net::of(count);
        net.set_clock(0, DAY);
        set_and_send(&mut net, 0, "ahead");
        assert_eq!(net.get(1, "ahead"), None);
        net.run(LOOKS);
        assert_eq!(
            net.status(0).clock,
            Some(ClockFault::Ahead(DAY as Millis)),
            "{count} nodes"
        );
        let told = net.status(0).reason;
        assert_eq!(told, Some(Reason::Clock(ClockFault::Ahead(DAY as Millis))));
        net.set_clock(0, 0);
        // Before the replica has noticed anything.
        set_and_send(&mut net, 0, "back");
        assert_eq!(net.get(1, "back").as_deref(), Some("value"), "{count} nodes");
        // And what was written before the jump, or by others.
        set_and_send(&mut net, 1, "other");
        assert_eq!(net.get(0, "other").as_deref(), Some("value"));
        for key in ["back", "other"] {
            net.delete(0, key);
            net.run(20);
            assert_eq!((net.get(0, key), net.get(1, key)), (None, None));
        }
        // What was written meanwhile is here, may be written again, and waits.
        net.set(0, "ahead", "again");
        net.run(LOOKS);
        assert_eq!(
            (net.get(0, "ahead").as_deref(), net.get(1, "ahead")),
            (Some("again"), None)
        );
        let Some(ClockFault::WasAhead { ahead_ms, refused_ms }) = net.status(0).clock else {
            panic!("{:?}", net.status(0).clock);
        };
        let skew = net.limits.max_clock_skew_ms;
        assert!(
            ahead_ms > DAY as Millis - 3 * LOOKS && refused_ms < ahead_ms - skew + 10,
            "{ahead_ms} {refused_ms}"
        );
        for other in 1..count {
            assert_eq!(net.status(other).clock, None, "{count} nodes");
        }
    }
}

#[test]
fn hosts_whose_clocks_were_ahead_together_come_back_together() {
    for count in [2, 3] {
        let mut net = Net::of(count);
        for node in 0..count {
            net.set_clock(node, DAY);
        }
        net.run(LOOKS);
        for node in 0..count {
            net.set(node, &format!("ahead {node}"), "value");
        }
        net.run(LOOKS);
        for node in 0..count {
            net.set_clock(node, 0);
        }
        net.run(LOOKS);
        set_and_send(&mut net, 0, "back");
        let newest = net.nodes[0].cache.clock().latest().millis();
        assert!(
            newest < net.clock().wall + net.limits.max_clock_skew_ms,
            "{count} nodes"
        );
        net.run(HEARTBEAT);
        assert!(net.equal());
    }
}

#[test]
fn a_host_of_three_whose_clock_is_behind_says_so_and_keeps_its_hybrid_clock() {
    let mut net = Net::of(3);
    set_and_send(&mut net, 0, "before");
    let hour = 3_600_000;
    let latest = net.nodes[0].cache.clock().latest();
    net.set_clock(0, -hour);
    set_and_send(&mut net, 0, "behind");
    assert!(net.nodes[0].cache.clock().latest() > latest);
    net.run(LOOKS);
    assert_eq!(net.status(0).clock, Some(ClockFault::Behind(hour as Millis)));
    assert_eq!((net.status(1).clock, net.status(2).clock), (None, None));
    assert_eq!(net.get(1, "behind").as_deref(), Some("value"));
    net.set_clock(0, 0);
    net.run(LOOKS);
    assert_eq!(net.status(0).clock, None);
    net.wait_equal();
}

/// The newest heartbeat that a node has sent.
fn last_heartbeat(net: &Net, node: usize) -> kvcache_core::wire::Heartbeat {
    let of_node = |sent: &&Sent| sent.from == node;
    let heartbeat = |sent: &Sent| match Message::borrow(&sent.payload.slice(..sent.payload.len() - 17)) {
        Ok(Message::Heartbeat(heartbeat)) => Some(heartbeat),
        _ => None,
    };
    net.sent
        .iter()
        .rev()
        .filter(of_node)
        .find_map(heartbeat)
        .expect("a heartbeat")
}

#[test]
fn what_a_host_tells_of_its_past_lies_in_the_past_once_its_clock_is_back() {
    let mut net = Net::of(2);
    // Connected, synced and in contact for the first time while its clock is ahead.
    net.set_clock(2, DAY);
    net.join(keyring(1, &[]));
    net.run(LOOKS);
    set_and_send(&mut net, 2, "ahead");
    let joined = net.clock().wall;
    net.run(60_000);
    let before = last_heartbeat(&net, 2);
    assert!(before.joined.millis() > net.clock().wall);
    net.set_clock(2, 0);
    net.run(LOOKS);
    let heartbeat = last_heartbeat(&net, 2);
    let present = Time::from_millis(net.clock().wall + 1);
    for time in [
        heartbeat.contact,
        heartbeat.joined,
        heartbeat.listening,
        heartbeat.since,
        heartbeat.clock,
        heartbeat.floor,
    ] {
        assert!(time < present, "{heartbeat:?}");
    }
    // When it joined, and no later.
    assert!(heartbeat.joined.millis() < joined, "{heartbeat:?}");
}

#[test]
fn nothing_is_forgotten_early_by_a_clock_ahead() {
    let mut net = Net::of(2);
    net.set(0, "key", "value");
    net.delete(0, "key");
    net.wait_equal();
    net.run(LOOKS);
    net.set_clock(0, 3 * DAY);
    net.run(LOOKS);
    net.sweep(0);
    assert_eq!(net.nodes[0].cache.entries(), 1);
    net.set_clock(0, 0);
    net.sweep(0);
    net.run(LOOKS);
    assert!(net.equal());
    assert_eq!(net.status(0).sync, SyncState::Synced);
}

/// Messages other than heartbeats sent since `from`, by all.
fn busy(net: &Net, from: usize) -> usize {
    net.sent[from..]
        .iter()
        .filter(|sent| sent.to != Target::Heartbeat)
        .count()
}

#[test]
fn what_is_refused_shows_and_is_taken_as_soon_as_time_allows() {
    for first_bootstrap in [false, true] {
        let mut net = Net::new();
        net.limits.max_clock_skew_ms = 60_000;
        for _ in 0..if first_bootstrap { 2 } else { 3 } {
            net.join(keyring(1, &[]));
        }
        net.settle();
        net.set_clock(0, 600_000);
        for n in 0..5 {
            net.set(0, &format!("key {n}"), "value");
        }
        let until = net.now + 540_000;
        net.set_clock(0, 0);
        if first_bootstrap {
            // Whom NATS picks has nothing of it; so it is taken from the author.
            net.disconnect(1);
            net.join(keyring(1, &[]));
        }
        net.run(LOOKS);
        let status = net.status(2);
        assert_eq!(status.sync, SyncState::Refused, "{status:#?}");
        let Some(Reason::FromTheFuture { deltas: 5, hosts }) = status.reason else {
            panic!("{status:#?}");
        };
        assert_eq!(hosts[0], "host0");
        // All that is not from the future goes on as ever.
        set_and_send(&mut net, 0, "other");
        assert_eq!(net.get(2, "other").as_deref(), Some("value"));
        let (before, sent) = (net.counters(2).pulls, net.sent.len());
        net.run(300_000);
        assert!(
            net.counters(2).pulls - before <= 24,
            "{}",
            net.counters(2).pulls - before
        );
        assert!(busy(&net, sent) < 600, "{}", busy(&net, sent));
        assert_eq!(net.status(2).sync, SyncState::Refused);
        net.run(until - net.now - 2 * HEARTBEAT);
        // The author compares as well, once it knows that the others take it; they do not wait for that.
        net.drop_where(|sent, _| sent.from == 0 && sent.kind() == Kind::DigestRequest);
        assert_eq!(net.get(2, "key 0"), None);
        let took = net.run_until("it is taken", |net| net.get(2, "key 4").is_some());
        assert!(took <= 5 * HEARTBEAT, "{took} ms");
        net.run(2 * HEARTBEAT);
        assert!(net.equal());
        assert_eq!(net.status(2).sync, SyncState::Synced);
        assert_eq!(net.status(2).clock, None);
    }
}

/// One comparison shows each what it lacks, which is refused: asking for it leads to being asked, and so on.
#[test]
fn two_that_refuse_what_the_other_has_do_not_ask_each_other_for_ever() {
    for keys in [10, 100, 3_000] {
        let mut net = Net::of(2);
        for node in 0..2 {
            net.set_clock(node, DAY);
            for n in 0..keys {
                net.set_silently(node, &format!("ahead {node} {n}"), "value");
            }
            net.set_clock(node, 0);
        }
        // Counted while it runs: what never ends would not come to a check behind it.
        let (mut sent, most) = (0, 100 + keys / 4);
        net.drop_where(move |message, _| {
            sent += usize::from(message.to != Target::Heartbeat);
            assert!(sent < most, "{sent} messages about {keys} keys");
            false
        });
        net.run(120 * HEARTBEAT);
        assert!((0..2).all(|node| net.status(node).sync == SyncState::Refused));
    }
}

#[test]
fn a_real_difference_is_repaired_though_something_is_refused() {
    let mut net = Net::of(2);
    net.set_clock(0, DAY);
    net.set(0, "ahead", "value");
    net.set_clock(0, 0);
    net.run(LOOKS);
    assert_eq!(net.status(1).sync, SyncState::Refused);
    for node in 0..2 {
        net.set_silently(node, &format!("silent {node}"), "value");
    }
    net.run_until("both have both", |net| {
        (0..2).all(|node| net.get(node, "silent 0").is_some() && net.get(node, "silent 1").is_some())
    });
    // Whoever refuses is not of one state with others, until what it refuses is gone.
    net.input(0, Input::Leaving);
    net.disconnect(0);
    net.run(10 * HEARTBEAT);
    assert_ne!(net.status(1).sync, SyncState::Refused);
}

#[test]
fn a_frame_that_was_refused_is_never_confirmed_though_later_ones_are() {
    let mut net = Net::of(2);
    net.set_acked(0, "before", "value", 1, AckLevel::Peers(1), 3_000);
    net.run(20);
    net.set_clock(0, DAY);
    net.set_acked(0, "ahead", "value", 2, AckLevel::Peers(1), 8_000);
    net.run(20);
    net.set_clock(0, 0);
    for id in 3..23 {
        net.set_acked(0, "after", "value", id, AckLevel::Peers(1), 3_000);
        net.run(100);
        assert_eq!(net.nodes[0].acked.get(&id), Some(&Ok(())));
    }
    net.run(8_000);
    assert_eq!(net.nodes[0].acked[&1], Ok(()));
    assert!(net.nodes[0].acked[&2].is_err());
}
