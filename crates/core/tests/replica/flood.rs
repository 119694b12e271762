//! What can be sent again as often as anybody likes: recordings, requests, messages of strangers.

use bytes::Bytes;
use kvcache_core::cache::{Millis, NodeId, Time};
use kvcache_core::replica::{AckLevel, Input, Keyring, Target};
use kvcache_core::wire::{Heartbeat, HeartbeatState, Kind, Message, VERSION};

use crate::net::{keyring, pair, Net, Sent, HEARTBEAT, START};

const REQUESTS: [Kind; 7] = [
    Kind::BootstrapRequest,
    Kind::Compare,
    Kind::Fetch,
    Kind::FramesRequest,
    Kind::DigestRequest,
    Kind::SketchRequest,
    Kind::Reconcile,
];
const ANSWERS: [Kind; 6] = [
    Kind::BootstrapDeltas,
    Kind::AnswerEnd,
    Kind::RangeSplits,
    Kind::Unknown,
    Kind::FramesGone,
    Kind::Sketch,
];

/// A heartbeat of a node that nobody has met, sent at `wall`.
fn heartbeat_of(node: u64, number: u64, wall: Millis, keyring: &Keyring) -> Bytes {
    let heartbeat = Message::Heartbeat(Heartbeat {
        number,
        seq: 0,
        digest: Default::default(),
        keys: 0,
        clock: Time::from_millis(wall),
        floor: Default::default(),
        contact: Default::default(),
        since: Default::default(),
        joined: Default::default(),
        listening: Default::default(),
        state: HeartbeatState::Synced,
        interval_ms: HEARTBEAT,
        wants_heartbeats: false,
        versions: (VERSION, VERSION),
        foreign: Vec::new(),
        room: None,
        hints: Vec::new(),
        store: 0,
    });
    keyring.authenticate(heartbeat.encode(VERSION, NodeId(node)), true)
}

/// Recordings of 4,200 nodes that are gone.
fn recordings() -> Vec<Bytes> {
    let keyring = keyring(1, &[]);
    // An hour old.
    (0..4_200)
        .map(|node| heartbeat_of(1_000_000 + node, 7, START - 3_600_000, &keyring))
        .collect()
}

fn sent_of_kind(net: &Net, from: usize, kinds: &[Kind]) -> usize {
    net.sent[from..]
        .iter()
        .filter(|sent| kinds.contains(&sent.kind()))
        .count()
}

#[test]
fn recordings_of_thousands_that_are_gone_keep_no_joiner_out() {
    let mut net = Net::of(2);
    let recordings = recordings();
    let mut flood = recordings.iter().cycle();
    let mut joiner = None;
    let began = net.sent.len();
    for step in 0..60 {
        for recording in flood.by_ref().take(210) {
            for node in 0..net.nodes.len() {
                net.input(node, Input::Message(recording.clone()));
            }
        }
        net.run(50);
        if step == 20 {
            joiner = Some((net.join(keyring(1, &[])), net.now));
        }
        if let Some((node, since)) = joiner {
            let met = net.status(node).peers.len() == 2 && (0..2).all(|place| net.status(place).peers.len() == 2);
            assert!(met || net.now - since <= 1_000, "met within a second, at step {step}");
        }
        assert!(
            (0..2).all(|place| !net.status(place).peers.is_empty()),
            "nobody is lost"
        );
    }
    // Each of three nodes: a burst, and so many a second.
    let hellos = sent_of_kind(&net, began, &[Kind::Hello]);
    assert!(hellos <= 3 * (400 + 4 * 200), "{hellos} challenges in 3 s");
    net.settle();
    let from = net.sent.len();
    for recording in &recordings {
        net.input(0, Input::Message(recording.clone()));
    }
    net.run(30 * HEARTBEAT);
    let again = sent_of_kind(&net, from, &[Kind::Hello]);
    assert!(again <= 4_200 * 4, "{again} challenges of those that have not answered");
}

#[test]
fn ids_that_a_peer_invents_without_end_keep_no_joiner_out() {
    let mut net = Net::of(2);
    let keyring_of_all = keyring(1, &[]);
    let mut joiner = None;
    for step in 0..50u64 {
        for n in 0..100 {
            // With the right time, so that nothing tells them from a node that joins.
            let heartbeat = heartbeat_of(5_000_000 + step * 100 + n, 1, net.clock().wall, &keyring_of_all);
            for node in 0..net.nodes.len() {
                net.input(node, Input::Message(heartbeat.clone()));
            }
        }
        net.run(100);
        if step == 10 {
            joiner = Some((net.join(keyring(1, &[])), net.now));
        }
        if let Some((node, since)) = joiner {
            let met = net.status(node).peers.len() == 2;
            assert!(met || net.now - since <= 10_000, "met at step {step}");
        }
    }
    net.settle();
}

#[test]
fn a_challenge_counts_once() {
    let mut net = Net::of(2);
    net.run(3 * HEARTBEAT);
    let known = |sent: &&Sent| sent.kind() == Kind::Hello && sent.from == 0;
    let recorded: Vec<Bytes> = net.sent.iter().filter(known).map(|sent| sent.payload.clone()).collect();
    assert!(!recorded.is_empty());
    let now = net.clock().mono;
    assert!(net.nodes[1].replica.current_until() > now);
    let (from, repeated) = (net.sent.len(), net.counters(1).repeated);
    for _ in 0..100 {
        for hello in &recorded {
            net.input(1, Input::Message(hello.clone()));
            assert!(
                net.nodes[1].replica.current_until() > now,
                "a recording says that this node is not known"
            );
        }
    }
    assert_eq!(sent_of_kind(&net, from, &[Kind::Hello, Kind::Welcome]), 0);
    assert_eq!(net.counters(1).repeated - repeated, 100 * recorded.len() as u64);
}

/// A network in which all kinds of requests were made, and what they were.
fn asked_for_all() -> (Net, Vec<Sent>) {
    let mut net = Net::of(2);
    for n in 0..300 {
        net.set_silently(0, &format!("key{n}"), "value");
    }
    net.wait_equal();
    net.drop_where(|sent, _| sent.kind() == Kind::Frame);
    net.set(0, "missed", "value");
    net.drop_nothing();
    net.set(0, "other", "value");
    net.wait_equal();
    net.join(keyring(1, &[]));
    net.settle();
    net.wait_equal();
    let request = |sent: &&Sent| REQUESTS.contains(&sent.kind());
    let requests: Vec<Sent> = net.sent.iter().filter(request).cloned().collect();
    for kind in [Kind::BootstrapRequest, Kind::FramesRequest, Kind::DigestRequest] {
        assert!(requests.iter().any(|sent| sent.kind() == kind), "a {kind}");
    }
    (net, requests)
}

#[test]
fn a_request_counts_once() {
    let (mut net, requests) = asked_for_all();
    let answered = |net: &Net, sent: &Sent| {
        let to = match sent.to {
            Target::Node(node) => net.nodes.iter().position(|other| other.cache.node() == node),
            // The first one that answers.
            _ => Some(0),
        };
        to.expect("a node that is here")
    };
    let ask = |net: &mut Net| {
        for sent in &requests {
            net.input(answered(net, sent), Input::Message(sent.payload.clone()));
        }
    };
    // Some were made before there was anybody to answer: they count now, and no more.
    ask(&mut net);
    let from = net.sent.len();
    (0..20).for_each(|_| ask(&mut net));
    assert_eq!(sent_of_kind(&net, from, &ANSWERS), 0, "answers to recordings");
    assert_eq!(sent_of_kind(&net, from, &[Kind::Frame]), 0, "frames sent again");
}

#[test]
fn a_request_is_answered_only_to_who_is_alive_and_asked_of_late() {
    let (mut net, requests) = asked_for_all();
    // Those of node 2, which ends, are shown to one that has never met it.
    net.input(2, Input::Leaving);
    net.disconnect(2);
    net.run(HEARTBEAT);
    let fresh = net.join(keyring(1, &[]));
    net.settle();
    let from = net.sent.len();
    for sent in requests.iter().filter(|sent| sent.from == 2) {
        net.input(fresh, Input::Message(sent.payload.clone()));
    }
    net.run(9 * HEARTBEAT);
    let to_ghost = Target::Node(net.nodes[2].cache.node());
    let answers = net.sent[from..]
        .iter()
        .filter(|sent| sent.to == to_ghost && sent.kind() != Kind::Hello);
    assert_eq!(answers.count(), 0, "answers to a node that is gone");
    // Those of node 1, which lives, went to node 0; some time later they are worth nothing at any other node.
    net.run(70 * HEARTBEAT);
    let from = net.sent.len();
    for sent in requests.iter().filter(|sent| sent.from == 1) {
        net.input(fresh, Input::Message(sent.payload.clone()));
    }
    net.run(10);
    assert_eq!(sent_of_kind(&net, from, &ANSWERS), 0, "answers to old requests");
}

#[test]
fn what_a_joiner_asks_before_it_is_met_is_answered_when_it_is() {
    let mut net = Net::of(2);
    for n in 0..300 {
        net.set(0, &format!("key{n}"), "value");
    }
    net.wait_equal();
    let began = net.now;
    net.join(keyring(1, &[]));
    net.wait_equal();
    // Without a repetition, which would take a part of a second.
    assert!(net.now - began <= 60, "{} ms", net.now - began);
    let asked = net
        .sent
        .iter()
        .filter(|sent| sent.kind() == Kind::BootstrapRequest && sent.from == 2)
        .count();
    assert!(asked <= 8, "{asked} requests");
}

#[test]
fn a_backlog_is_not_silence() {
    for behind in [true, false] {
        let mut net = Net::of(2);
        net.run(2 * HEARTBEAT);
        net.drop_where(|_, to| to == 1);
        // The messages of node 0 wait in the inbox of node 1, which says so, or have not been sent.
        let since = net.clock().mono;
        net.nodes[1].replica.behind_since(behind.then_some(since));
        net.set_acked(1, "key", "value", 9, AckLevel::All, 20 * HEARTBEAT);
        net.run(10 * HEARTBEAT);
        let peers = net.status(1).peers.len();
        assert_eq!(peers, usize::from(behind), "behind: {behind}");
        assert_eq!(
            net.nodes[1].acked.contains_key(&9),
            !behind,
            "confirmed by nobody while one may be there"
        );
        let current = net.nodes[1].replica.current_until() > net.clock().mono;
        assert_eq!(current, !behind, "reads wait for a peer that is not heard");
        // Taken in, they show that it is there, or is not.
        net.nodes[1].replica.behind_since(None);
        net.run(HEARTBEAT);
        assert_eq!(net.status(1).peers.len(), 0);
    }
}

#[test]
fn invented_issuers_push_out_none_that_is_heard() {
    let mut net = Net::of(1);
    let invented: Vec<Bytes> = (10..110)
        .map(|byte| heartbeat_of(7, 1, START, &keyring(byte, &[])))
        .collect();
    let real = keyring(2, &[]);
    for second in 0..100u64 {
        net.input(0, Input::Message(heartbeat_of(9, second, net.clock().wall, &real)));
        for heartbeat in &invented {
            net.input(0, Input::Message(heartbeat.clone()));
        }
        net.run(HEARTBEAT);
        let foreign = net.status(0).foreign;
        assert!(foreign.len() <= 16, "{} issuers", foreign.len());
        assert!(foreign.contains(&pair(2).public_key()), "after {second} s");
    }
    // The last place changes hands: one that comes later is named as well, for a while.
    net.run(2 * HEARTBEAT);
    net.input(
        0,
        Input::Message(heartbeat_of(11, 1, net.clock().wall, &keyring(3, &[]))),
    );
    assert!(net.status(0).foreign.contains(&pair(3).public_key()));
    net.run(61 * HEARTBEAT);
    assert!(
        net.status(0).foreign.is_empty(),
        "of those that were not heard for a minute"
    );
}

#[test]
fn text_is_no_version_of_this_protocol() {
    let mut net = Net::of(1);
    let confirmation = br#"{"stream":"EVERYTHING","seq":12345}"#;
    net.input(0, Input::Message(Bytes::from_static(confirmation)));
    let counters = net.counters(0);
    assert_eq!((counters.unknown_versions, counters.malformed), (0, 1));
    net.input(0, Input::Message(Bytes::from_static(b"\x03\x01 a later version")));
    assert_eq!(net.counters(0).unknown_versions, 1);
}

#[test]
fn signatures_of_another_issuer_are_checked_within_a_budget() {
    let mut net = Net::new();
    net.join(keyring(1, &[2]));
    net.join(keyring(2, &[1]));
    net.settle();
    net.set(1, "key", "value");
    net.wait_equal();
    // Recordings of a peer are known by their numbers, before anything is checked.
    let recorded: Vec<Bytes> = net
        .sent
        .iter()
        .filter(|sent| sent.from == 1)
        .map(|sent| sent.payload.clone())
        .collect();
    let before = net.counters(0);
    for message in &recorded {
        net.input(0, Input::Message(message.clone()));
    }
    let after = net.counters(0);
    assert_eq!(after.unauthenticated, before.unauthenticated);
    assert!(after.repeated > before.repeated);
    // Forged ones in the names of nodes that nobody knows: some are checked, the others are not.
    let other = keyring(2, &[]);
    for node in 0..5_000 {
        let mut heartbeat = heartbeat_of(1_000 + node, 1, net.clock().wall, &other).to_vec();
        let last = heartbeat.len() - 2;
        heartbeat[last] ^= 1;
        net.input(0, Input::Message(heartbeat.into()));
    }
    assert_eq!(net.counters(0).unauthenticated - after.unauthenticated, 5_000);
    net.run(2 * HEARTBEAT);
    net.set(1, "other", "value");
    net.wait_equal();
    assert_eq!(net.status(0).peers.len(), 1);
}

#[test]
fn strangers_that_swallow_the_first_bootstrap_delay_it_little() {
    let mut net = Net::of(3);
    for n in 0..20_000 {
        net.set_silently(0, &format!("key{n}"), "value");
    }
    net.wait_equal();
    net.run(3 * HEARTBEAT);
    net.drop_where(|sent, _| matches!(sent.to, Target::Bootstrap { .. }));
    let began = net.now;
    let joiner = net.join(keyring(1, &[]));
    net.wait_equal();
    assert!(net.now - began <= 400, "{} ms", net.now - began);
    assert_eq!(net.nodes[joiner].cache.keys(), 20_000);
}

#[test]
fn strangers_that_swallow_parts_of_the_first_bootstrap_delay_it_little() {
    for answered in 0..8 {
        let mut net = Net::of(3);
        for n in 0..20_000 {
            net.set_silently(0, &format!("key{n}"), "value");
        }
        net.wait_equal();
        net.run(3 * HEARTBEAT);
        let mut asked = 0;
        net.drop_where(move |sent, _| {
            let group = matches!(sent.to, Target::Bootstrap { .. });
            asked += usize::from(group);
            group && asked != answered + 1
        });
        let began = net.now;
        let joiner = net.join(keyring(1, &[]));
        net.wait_equal();
        let took = net.now - began;
        assert!(took <= 700, "request {answered} is answered: {took} ms");
        assert_eq!(net.nodes[joiner].cache.keys(), 20_000);
    }
}
