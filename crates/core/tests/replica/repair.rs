//! Missing frames, differences, and what repairing them costs.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use kvcache_core::cache::{Cache, KeyHash, NodeId, Partition, Span};
use kvcache_core::replica::{Input, Target};
use kvcache_core::wire::{FramesGone, Kind, Message, VERSION};

use crate::net::{keyring, name, Link, Net, HEARTBEAT};

pub fn count(net: &Net, from: usize, kind: Kind) -> usize {
    net.sent[from..].iter().filter(|sent| sent.kind() == kind).count()
}

#[test]
fn nodes_that_are_equal_send_heartbeats_of_216_bytes_and_nothing_else() {
    let mut net = Net::of(3);
    for n in 0..70_000 {
        net.set_silently(0, &format!("key{n}"), "value");
    }
    net.wait_equal();
    net.run(10 * HEARTBEAT);
    let from = net.sent.len();
    net.run(100 * HEARTBEAT);
    assert!(net.sent[from..].iter().all(|sent| sent.to == Target::Heartbeat));
    let longest = net.sent[from..].iter().map(|sent| sent.payload.len()).max();
    // The numbers of heartbeats and frames take up to 4 bytes more each, as long as they have 32 bits.
    assert!(longest.unwrap() + 2 * 4 <= 216, "{longest:?}");
}

#[test]
fn a_missing_frame_is_fetched_from_its_author_and_nothing_else_is() {
    let mut net = Net::of(3);
    for n in 0..50 {
        net.set(0, &format!("key{n}"), "value");
    }
    net.wait_equal();
    net.run(2 * HEARTBEAT);
    let mut lost = 0;
    net.drop_where(move |sent, to| {
        let frame = sent.kind() == Kind::Frame && sent.to == Target::Deltas && to == 1;
        lost += usize::from(frame);
        frame && lost % 3 == 1
    });
    let from = net.sent.len();
    for n in 0..10 {
        net.set(0, &format!("new{n}"), "value");
    }
    let took = net.wait_equal();
    assert!(took <= 2 * HEARTBEAT, "took {took} ms");
    // One for those in the middle, and one for the last, which only the next heartbeat announces.
    assert_eq!(count(&net, from, Kind::FramesRequest), 2);
    assert_eq!(net.counters(0).frames_resent, 4, "those that were lost");
    assert_eq!(count(&net, from, Kind::DigestRequest), 0);
}

#[test]
fn a_missing_frame_is_fetched_while_its_author_goes_on_writing() {
    let mut net = Net::of(2);
    let mut lost = 0;
    net.drop_where(move |sent, to| {
        let frame = sent.kind() == Kind::Frame && sent.to == Target::Deltas && to == 1;
        lost += usize::from(frame);
        frame && lost == 1
    });
    net.set(0, "lost", "value");
    for n in 0..100 {
        net.set(0, &format!("key{n}"), "value");
        net.run(10);
    }
    assert_eq!(net.get(1, "lost").as_deref(), Some("value"));
    assert_eq!(net.counters(0).frames_resent, 1);
}

#[test]
fn a_lost_last_frame_is_noticed_by_the_next_heartbeat() {
    let mut net = Net::of(2);
    net.drop_where(|sent, _| sent.kind() == Kind::Frame && sent.to == Target::Deltas);
    net.set(0, "key", "value");
    net.run(10);
    assert_eq!(net.get(1, "key"), None);
    let took = net.wait_equal();
    assert!(took <= HEARTBEAT + 500, "took {took} ms");
    assert_eq!(net.get(1, "key").as_deref(), Some("value"));
}

#[test]
fn frames_that_are_no_longer_kept_are_replaced_by_a_comparison() {
    let mut net = Net::new();
    net.ring_bytes = 4_000;
    for _ in 0..2 {
        net.join(keyring(1, &[]));
    }
    net.settle();
    for n in 0..5_000 {
        net.set(0, &format!("key{n}"), "value");
    }
    net.wait_equal();
    net.run(2 * HEARTBEAT);
    net.drop_where(|sent, to| to == 1 && sent.to == Target::Deltas);
    let from = net.sent.len();
    for n in 0..100 {
        net.set(0, &format!("key{n}"), "changed");
    }
    net.run(1);
    net.drop_nothing();
    let took = net.wait_equal();
    assert!(took <= 3 * HEARTBEAT, "took {took} ms");
    assert!(count(&net, from, Kind::Sketch) > 0);
    assert!(net.counters(1).replay_commands_received < 300, "{:?}", net.counters(1));
}

#[test]
fn a_gap_whose_author_is_gone_is_filled_by_another() {
    let mut net = Net::of(3);
    net.drop_where(|sent, to| to == 1 && sent.from == 0 && sent.to == Target::Deltas);
    net.set(0, "key", "value");
    net.run(1);
    // Node 1 hears of the frame by a heartbeat, but before it has asked for it the author is gone.
    net.drop_where(|sent, _| sent.kind() == Kind::FramesRequest);
    net.run(HEARTBEAT + 50);
    net.disconnect(0);
    net.run_until("the others are equal", |net| net.get(1, "key").is_some());
}

#[test]
fn a_gap_whose_author_is_gone_is_filled_by_whoever_has_it_while_others_go_on_writing() {
    let add = |net: &mut Net, node: usize, member: String| {
        let now = net.clock().wall;
        let cache = &net.nodes[node].cache;
        let (_, delta) = cache.set_add(&name("set"), Bytes::from(member), now).unwrap();
        net.send(node, vec![delta]);
    };
    let has = |net: &Net, node: usize| {
        let members = net.nodes[node]
            .cache
            .set_members(&name("set"), net.clock().wall, usize::MAX)
            .unwrap();
        members.contains(&Bytes::from("lost"))
    };
    // Node 1 alone knows that there was a frame: nobody else looks for it, and finds it on behalf of node 1. And each
    // of the others differs from it in some way. Whichever has the frame, node 1 gets there by asking one after the
    // other.
    for candidate in 2..5 {
        let mut net = Net::of(5);
        net.drop_where(move |sent, to| match sent.kind() {
            Kind::Frame => sent.from == 0 && to != candidate,
            Kind::FramesRequest => true,
            _ => sent.from == 0 && to != 1,
        });
        add(&mut net, 0, "lost".to_owned());
        for other in 2..5 {
            let member = Bytes::from(format!("known to {other} alone"));
            let now = net.clock().wall;
            let added = net.nodes[other].cache.set_add(&name("set"), member, now);
            added.expect("a member that is not there");
        }
        net.run_until("the gap is noticed", |net| net.counters(1).frames_asked > 0);
        net.disconnect(0);
        // The partition never comes to rest, so a comparison that looks at partitions at rest does not find the member.
        for n in 0.. {
            add(&mut net, candidate, n.to_string());
            net.run(HEARTBEAT / 10);
            if has(&net, 1) {
                break;
            }
            assert!(n < 200, "not within 20 s from node {candidate}");
        }
    }
}

/// Nodes with equal caches of `keys` keys that know each other.
fn filled(nodes: usize, keys: usize) -> Net {
    let mut net = Net::new();
    let author = net.empty_cache();
    let now = net.clock().wall;
    let deltas: Vec<_> = (0..keys)
        .map(|n| {
            author
                .set(&name(&format!("key{n:013}")), Bytes::from_static(&[7; 16]), 0, now)
                .unwrap()
        })
        .collect();
    for node in 0..nodes {
        let cache: Arc<Cache> = if node == 0 { author.clone() } else { net.empty_cache() };
        deltas.iter().for_each(|delta| {
            cache.apply(delta, now).unwrap();
        });
        net.join_with(cache, keyring(1, &[]), kvcache_core::replica::ReplicaConfig::VERSIONS);
    }
    net.settle();
    net.run(2 * HEARTBEAT);
    net
}

/// What was sent from `from` on by kind: number of messages, bytes. And what the deltas in it take, which are payload.
fn costs(net: &Net, from: usize) -> (BTreeMap<Kind, (usize, usize)>, usize) {
    let mut kinds: BTreeMap<Kind, (usize, usize)> = BTreeMap::new();
    let mut payload = 0;
    for sent in net.sent[from..].iter().filter(|sent| sent.to != Target::Heartbeat) {
        let (messages, bytes) = kinds.entry(sent.kind()).or_default();
        *messages += 1;
        *bytes += sent.payload.len();
        if sent.kind() == Kind::BootstrapDeltas {
            let message = Message::decode(sent.payload.clone()).expect("a message before its authenticator");
            let Message::BootstrapDeltas(mut bootstrap) = message else {
                panic!()
            };
            let whole = Message::BootstrapDeltas(bootstrap.clone())
                .encode(VERSION, NodeId(0))
                .len();
            bootstrap.deltas.clear();
            payload += whole - Message::BootstrapDeltas(bootstrap).encode(VERSION, NodeId(0)).len();
        }
    }
    (kinds, payload)
}

/// Makes 100 keys differ in one way after the other and checks what the reconciliation costs beside their deltas.
fn a_hundred_of(keys: usize) {
    let mut net = filled(2, keys);
    let key = |n: usize| format!("key{:013}", n * (keys / 100 - 27));
    let overwrite = |net: &Net, n: usize, node: usize| drop(net.set_silently(node, &key(n), "changed"));
    type StateDelta<'a> = Box<dyn Fn(&Net, usize) + 'a>;
    let changes: [(&str, StateDelta<'_>); 4] = [
        (
            "written anew on both sides",
            Box::new(|net, n| overwrite(net, n, n % 2)),
        ),
        ("written anew on one side", Box::new(|net, n| overwrite(net, n, 0))),
        (
            "written anew on the other side",
            Box::new(|net, n| overwrite(net, n, 1)),
        ),
        (
            "new on one side",
            Box::new(|net, n| drop(net.set_silently(0, &format!("new key {n:09}"), "0123456789"))),
        ),
    ];
    for (what, change) in changes {
        let (from, received) = (
            net.sent.len(),
            [0, 1].map(|node| net.counters(node).replay_commands_received),
        );
        (0..100).for_each(|n| change(&net, n));
        net.wait_equal();
        net.run(3 * HEARTBEAT);
        let (kinds, payload) = costs(&net, from);
        let bytes: usize = kinds.values().map(|(_, bytes)| bytes).sum();
        println!("100 of {keys} keys {what}: {bytes} bytes, {payload} of them deltas, by kind {kinds:?}");
        assert!(
            bytes - payload <= 16_000,
            "{what}: {bytes} bytes, {payload} of them deltas, by kind {kinds:?}"
        );
        // No delta that was replaced long ago travels as well.
        let received = [0, 1].map(|node| net.counters(node).replay_commands_received - received[node]);
        assert_eq!(received.iter().sum::<u64>(), 100, "{what}: {received:?}");
        // All partitions are asked for by one of the two, once: the reconciliation goes both ways.
        assert_eq!(count(&net, from, Kind::DigestRequest), 1, "{what}");
        assert_eq!(count(&net, from, Kind::RangeSplits), 0, "{what}");
    }
    assert_eq!((0..2).map(|node| net.counters(node).sketches).sum::<u64>(), 4);
}

#[test]
fn a_hundred_differences_cost_16_kilobytes_and_one_reconcile() {
    a_hundred_of(100_000);
}

#[test]
fn a_hundred_differences_among_a_million_keys_cost_no_more() {
    a_hundred_of(1_000_000);
}

#[test]
fn a_sketch_that_is_too_small_grows() {
    let mut net = Net::of(2);
    let (set, now) = (name("set"), net.clock().wall);
    for n in 0..5_000 {
        let member = Bytes::from(format!("member {n}"));
        let (_, delta) = net.nodes[0].cache.set_add(&set, member, now).unwrap();
        if n % 10 > 0 {
            net.nodes[1].cache.apply(&delta, now).unwrap();
        }
    }
    let from = net.sent.len();
    net.wait_equal();
    // One partition differs, which looks like one or two components.
    assert!((1..=3).contains(&count(&net, from, Kind::SketchRequest)));
    assert_eq!(count(&net, from, Kind::RangeSplits), 0);
    let (kinds, payload) = costs(&net, from);
    let bytes: usize = kinds.values().map(|(_, bytes)| bytes).sum();
    assert!(bytes - payload <= 4_400 + 500 * (2 * 14 + 24 + 8) + 2_000, "{kinds:?}");
}

#[test]
fn a_sketch_that_stays_too_small_is_given_up() {
    let mut net = Net::of(2);
    let (set, now) = (name("set"), net.clock().wall);
    for n in 0..20_000 {
        let member = Bytes::from(format!("member {n}"));
        net.nodes[n % 2].cache.set_add(&set, member, now).unwrap();
    }
    let from = net.sent.len();
    net.wait_equal();
    assert!(count(&net, from, Kind::Sketch) > 0 && count(&net, from, Kind::Compare) > 0);
}

#[test]
fn where_most_partitions_differ_they_are_split() {
    let mut net = filled(2, 2_000);
    let from = net.sent.len();
    for n in 0..2_000 {
        net.set_silently(0, &format!("new {n}"), "value");
    }
    net.wait_equal();
    assert_eq!(count(&net, from, Kind::Sketch), 0);
    assert!(count(&net, from, Kind::RangeSplits) > 0);
}

#[test]
fn one_difference_costs_hardly_more_than_the_digests() {
    let mut net = filled(2, 20_000);
    let from = net.sent.len();
    net.set_silently(0, "one more", "value");
    net.wait_equal();
    let bytes = net.repair_bytes(from);
    println!("one of 20,000 keys: {bytes} bytes");
    assert!(bytes <= 5_500, "{bytes} bytes");
}

#[test]
fn one_member_of_a_large_set_does_not_resend_the_set() {
    let mut net = Net::of(2);
    let set = name("set");
    let now = net.clock().wall;
    for n in 0..100_000 {
        let member = Bytes::from(format!("member {n}"));
        let (_, delta) = net.nodes[0].cache.set_add(&set, member, now).unwrap();
        net.nodes[1].cache.apply(&delta, now).unwrap();
    }
    net.run(2 * HEARTBEAT);
    for node in 0..2 {
        let from = net.sent.len();
        let member = Bytes::from(format!("the one of {node}"));
        net.nodes[node].cache.set_add(&set, member, now).unwrap();
        net.wait_equal();
        let bytes = net.repair_bytes(from);
        println!("one of 100,000 members: {bytes} bytes");
        assert!(bytes <= 5_500, "{bytes} bytes");
        net.run(2 * HEARTBEAT);
    }
}

#[test]
fn a_difference_is_found_wherever_it_lies_in_its_partition() {
    let author = Net::new().empty_cache();
    let set = name("set");
    for n in 0..10_000 {
        let member = Bytes::from(format!("member {n}"));
        author.set_add(&set, member, crate::net::START).unwrap();
    }
    let span = Span::of(Partition::of(KeyHash::of(set.as_bytes())));
    let components = author.components(span);
    for place in [0, components.len() / 2, components.len() - 1] {
        for (lacking, split) in [(0, false), (1, false), (0, true), (1, true)] {
            let mut net = Net::of(2);
            for node in 0..2 {
                let held = |hash| node != lacking || hash != components[place].hash;
                author.select(span, held, |delta| {
                    net.nodes[node].cache.apply(&delta, net.clock().wall).unwrap();
                });
            }
            assert!(!net.equal());
            if split {
                // Where most partitions differ, no sketch is made.
                (0..2_000).for_each(|n| drop(net.set_silently(0, &format!("other {n}"), "value")));
            }
            let from = net.sent.len();
            net.wait_equal();
            assert_eq!(count(&net, from, Kind::RangeSplits) > 0, split);
            // At once, and not by what follows when something was overlooked.
            assert_eq!(count(&net, from, Kind::Sketch) > 0, !split);
        }
    }
}

#[test]
fn what_takes_the_place_of_something_wanted_comes_as_well() {
    let mut net = Net::new();
    net.ring_bytes = 1;
    for _ in 0..2 {
        net.join(keyring(1, &[]));
    }
    net.settle();
    // The frame of a key is lost and no longer kept; and while node 1 repairs that, the key changes once more, in a way
    // that no frame tells of.
    net.drop_where(|sent, to| to == 1 && sent.to == Target::Deltas);
    net.set(0, "key", "first");
    net.set(0, "other", "value");
    net.run(1);
    let cache = net.nodes[0].cache.clone();
    net.drop_where(move |sent, _| {
        if sent.kind() == Kind::Reconcile {
            let now = crate::net::START + 60_000;
            cache
                .set(&name("key"), Bytes::from("second"), 0, now)
                .expect("a small value");
        }
        false
    });
    let pulls = net.counters(1).pulls;
    net.run_until("the gap is closed", |net| net.counters(1).pulls > pulls);
    assert_eq!(net.get(1, "key").as_deref(), Some("second"));
    assert_eq!(net.get(1, "other").as_deref(), Some("value"));
}

#[test]
fn many_members_of_a_large_set_are_repaired_in_a_few_rounds() {
    let mut net = Net::of(2);
    let set = name("set");
    let now = net.clock().wall;
    for n in 0..30_000 {
        let member = Bytes::from(format!("member {n}"));
        let (_, delta) = net.nodes[0].cache.set_add(&set, member, now).unwrap();
        net.nodes[1].cache.apply(&delta, now).unwrap();
    }
    net.run(2 * HEARTBEAT);
    let from = net.sent.len();
    for n in 0..1_000 {
        let member = Bytes::from(format!("new {n}"));
        net.nodes[n % 2].cache.set_add(&set, member, now).unwrap();
    }
    net.wait_equal();
    let bytes = net.repair_bytes(from);
    println!("1,000 of 30,000 members: {bytes} bytes");
    assert!(bytes <= 200_000, "{bytes} bytes");
}

#[test]
fn differences_of_all_types_are_found_on_both_sides() {
    let mut net = Net::of(2);
    let now = net.clock().wall;
    for node in 0..2 {
        let cache = net.nodes[node].cache.clone();
        for n in 0..300 {
            let key = name(&format!("key {}", n % 100));
            match (n + node) % 6 {
                0 => drop(cache.set(&key, Bytes::from("text"), 60, now)),
                1 => drop(cache.increment(&key, 5, now)),
                2 => drop(cache.list_push(&name("list"), Bytes::from(format!("{node} {n}")), now)),
                3 => drop(cache.set_add(&name("set"), Bytes::from(format!("{}", n % 50)), now)),
                4 => drop(cache.set_remove(&name("set"), Bytes::from(format!("{}", n % 30)), now)),
                _ => drop(cache.delete(&key, now).unwrap()),
            }
        }
    }
    net.wait_equal();
    assert_eq!(
        net.nodes[0].cache.recomputed_digest(),
        net.nodes[1].cache.recomputed_digest()
    );
    net.run(3 * HEARTBEAT);
    let from = net.sent.len();
    net.run(20 * HEARTBEAT);
    assert_eq!(
        net.repair_bytes(from),
        0,
        "equal nodes have nothing to say but heartbeats"
    );
}

#[test]
fn fifty_nodes_that_lose_their_server_repair_without_a_storm() {
    // What is written meanwhile waits in the queues of the nodes, or (the worst case) has found no room there.
    for (waits, most) in [(true, 2), (false, 6)] {
        let mut net = filled(50, 2_000);
        // The last frames of some nodes are lost with the connections.
        net.drop_where(|sent, _| sent.to == Target::Deltas);
        for node in 0..5 {
            net.set(node, &format!("last words of {node}"), "0123456789012345");
        }
        net.drop_nothing();
        for node in 0..50 {
            net.disconnect(node);
        }
        let mut waiting = Vec::new();
        for node in 0..50 {
            for n in 0..20 {
                let delta = net.set_silently(node, &format!("away {node} {n}"), "0123456789012345");
                waiting.push((node, delta));
            }
        }
        if !waits {
            for (node, delta) in std::mem::take(&mut waiting) {
                net.send(node, vec![delta]);
            }
        }
        net.run(3 * HEARTBEAT);
        let from = net.sent.len();
        for node in 0..50 {
            net.connect(node);
        }
        for (node, delta) in waiting {
            net.send(node, vec![delta]);
        }
        let took = net.wait_equal();
        net.run(10 * HEARTBEAT);
        let bytes = net.repair_bytes(from);
        // Every node lacks what the 49 others have written.
        let lacking = 50 * 49 * 20 * (7 + 12 + 16 + 24);
        let digests = 50 * 8 * 1_024;
        println!("50 nodes, waits {waits}: {bytes} bytes in {took} ms, {lacking} lacking, {digests} of digests");
        assert!(
            bytes <= most * (lacking + digests),
            "{bytes} bytes, where {lacking} are lacking"
        );
    }
}

#[test]
fn numbers_that_no_frame_has_are_asked_for_once() {
    let mut net = Net::of(6);
    for n in 0..200 {
        net.set(0, &format!("key{n}"), "value");
    }
    net.wait_equal();
    for node in 0..6 {
        net.link(node, Link::of(1_000, 75));
    }
    net.run(5 * HEARTBEAT);
    for node in 0..6 {
        net.disconnect(node);
    }
    for node in 0..6 {
        for n in 0..20 {
            net.set(node, &format!("away {node} {n}"), "value");
        }
    }
    let from = net.sent.len();
    for node in 0..6 {
        net.connect(node);
    }
    let took = net.wait_equal();
    net.run(5 * HEARTBEAT);
    let asked = count(&net, from, Kind::FramesRequest);
    println!("6 nodes, 300 ms there and back: equal after {took} ms, {asked} requests for frames");
    // Each asks each author once.
    assert!(asked <= 6 * 5, "{asked} requests");
    assert!(took <= 12 * HEARTBEAT, "{took} ms");
}

#[test]
fn a_late_word_about_an_earlier_gap_says_nothing_of_the_next() {
    let mut net = Net::of(2);
    net.set(0, "first", "value");
    net.wait_equal();
    net.run(2 * HEARTBEAT);
    // Nothing was asked for.
    let gone = FramesGone {
        to: net.nodes[1].cache.node(),
        oldest: 1,
    };
    let bytes = Message::FramesGone(gone).encode(VERSION, net.nodes[0].cache.node());
    let from = net.sent.len();
    net.drop_where(|sent, _| sent.kind() == Kind::Frame && sent.to == Target::Deltas);
    net.set(0, "lost", "value");
    net.drop_nothing();
    net.input(1, Input::Message(keyring(1, &[]).authenticate(bytes, false)));
    net.set(0, "last", "value");
    net.wait_equal();
    assert_eq!(net.counters(0).frames_resent, 1, "it is fetched from its author");
    assert_eq!(count(&net, from, Kind::DigestRequest), 0, "and nothing is compared");
}

#[test]
fn a_process_that_was_stopped_reconciles_at_once() {
    let mut net = Net::of(3);
    net.set(0, "before", "1");
    net.wait_equal();
    net.stop(2);
    // What is sent to it meanwhile is more than the server keeps.
    net.drop_where(|_, to| to == 2);
    for n in 0..100 {
        net.set(0, &format!("key{n}"), "value");
    }
    net.run(120 * HEARTBEAT);
    assert_eq!(net.status(0).peers.len(), 1, "the stopped one counts as gone");
    net.drop_nothing();
    net.go_on(2);
    let took = net.wait_equal();
    assert!(took <= HEARTBEAT, "took {took} ms");
    assert_eq!(net.counters(2).stops, 1);
    net.settle();
}

#[test]
fn a_notice_of_dropped_messages_leads_to_reconciliation_at_once() {
    let mut net = Net::of(2);
    net.run(HEARTBEAT / 2);
    net.drop_where(|_, to| to == 1);
    net.set(0, "key", "value");
    net.run(1);
    net.drop_nothing();
    net.input(1, kvcache_core::replica::Input::MessagesLost);
    let took = net.wait_equal();
    assert!(took <= 400, "took {took} ms");
}

#[test]
fn large_values_travel_in_pieces_that_fit() {
    let mut net = Net::new();
    net.max_payload = 64 << 10;
    net.ring_bytes = 16 << 20;
    for _ in 0..2 {
        net.join(keyring(1, &[]));
    }
    net.settle();
    let large = "x".repeat(1 << 20);
    net.set(0, "large", &large);
    net.wait_equal();
    // A lost piece makes the message incomplete; the frame is fetched once more.
    let mut pieces = 0;
    net.drop_where(move |sent, _| {
        pieces += usize::from(sent.kind() == Kind::Fragment);
        sent.kind() == Kind::Fragment && pieces == 3
    });
    net.set(0, "large", &large.replace('x', "y"));
    net.wait_equal();
    assert_eq!(net.get(1, "large"), Some("y".repeat(1 << 20)));
    // Through a comparison as well.
    net.drop_nothing();
    net.set_silently(0, "larger", &"z".repeat(2 << 20));
    net.wait_equal();
}

#[test]
fn messages_in_reverse_order_end_in_equal_nodes() {
    let mut net = Net::new();
    net.deliver_in_order(|waiting| waiting - 1);
    for _ in 0..3 {
        net.join(keyring(1, &[]));
    }
    net.settle();
    for n in 0..100 {
        net.set(n % 3, &format!("key{}", n % 10), &n.to_string());
    }
    net.wait_equal();
    for node in 0..3 {
        assert_eq!(net.get(node, "key9").as_deref(), Some("99"), "on node {node}");
    }
}
