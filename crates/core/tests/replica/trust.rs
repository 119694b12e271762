//! Who may write: other seeds, forgeries, recordings, other versions.

use bytes::Bytes;
use kvcache_core::cache::{Cache, Limits, NodeId, Time};
use kvcache_core::replica::{Input, Keyring, ReplicaConfig, SyncState, Target};
use kvcache_core::wire::{Frame, Heartbeat, HeartbeatState, Kind, Message, VERSION};
use std::sync::Arc;

use crate::net::{keyring, pair, Net, Sent, HEARTBEAT};

/// Lengths of the parts of authenticators, see docs/PROTOCOL.md.
const TAG_BYTES: usize = 16;
const SIGNATURE_BYTES: usize = 64;

/// A network of two nodes of one seed and a third of another keyring.
fn with_stranger(stranger: Arc<Keyring>) -> Net {
    let mut net = Net::of(2);
    net.set(0, "key", "value");
    net.join(stranger);
    net.run(12 * HEARTBEAT);
    net.set(2, "key", "poison");
    net.set(2, "other", "poison");
    net.delete(2, "key");
    net.run(5 * HEARTBEAT);
    net
}

fn expect_apart(net: &Net) {
    for node in 0..2 {
        assert_eq!(net.get(node, "key").as_deref(), Some("value"));
        assert_eq!(net.get(node, "other"), None);
        assert_eq!(net.status(node).peers.len(), 1);
        assert!(net.counters(node).unauthenticated > 0);
    }
    assert_eq!(net.status(2).peers.len(), 0);
    assert_eq!(
        net.status(2).sync,
        SyncState::Isolated,
        "it is the first of its own cluster, and hears another"
    );
    assert_eq!(net.nodes[2].cache.keys(), 1);
}

#[test]
fn another_seed_changes_nothing_and_is_named() {
    let net = with_stranger(keyring(2, &[]));
    expect_apart(&net);
    for node in 0..2 {
        assert_eq!(net.status(node).foreign, [pair(2).public_key()]);
    }
    assert_eq!(net.status(2).foreign, [pair(1).public_key()]);
}

#[test]
fn a_node_without_authentication_changes_nothing() {
    expect_apart(&with_stranger(Arc::new(Keyring::disabled())));
}

#[test]
fn a_seed_that_only_one_side_lists_changes_nothing() {
    let net = with_stranger(keyring(2, &[1]));
    for node in 0..2 {
        assert_eq!(net.get(node, "key").as_deref(), Some("value"));
        assert_eq!(net.get(node, "other"), None);
    }
}

#[test]
fn issuers_that_list_each_other_replicate() {
    let mut net = Net::new();
    for (own, other) in [(1, 2), (2, 1), (1, 2)] {
        net.join(keyring(own, &[other]));
    }
    net.settle();
    for node in 0..3 {
        net.set(node, &format!("key{node}"), "value");
    }
    net.wait_equal();
    assert_eq!(net.nodes[0].cache.keys(), 3);
    net.set_silently(1, "missed", "value");
    net.wait_equal();
    assert!(net.status(0).foreign.is_empty());
}

#[test]
fn without_authentication_nodes_replicate_as_well() {
    let mut net = Net::new();
    for _ in 0..3 {
        net.join(Arc::new(Keyring::disabled()));
    }
    net.settle();
    net.set(0, "key", "value");
    net.wait_equal();
    assert_eq!(net.get(2, "key").as_deref(), Some("value"));
}

#[test]
fn a_forged_frame_or_heartbeat_of_a_peer_counts_for_nothing() {
    let mut net = Net::of(2);
    net.set(0, "key", "value");
    net.wait_equal();
    let victim = net.nodes[0].cache.node();
    let peers = net.status(1).peers;
    let frame = poison(&net, victim);
    let own = frame.encode(VERSION, victim);
    let clock = Time::from_millis(net.clock().wall + 1);
    let heartbeat = Message::Heartbeat(Heartbeat {
        number: u64::MAX,
        seq: u64::MAX,
        digest: Default::default(),
        keys: 0,
        clock,
        floor: clock,
        contact: clock,
        since: Default::default(),
        joined: Default::default(),
        listening: Default::default(),
        state: HeartbeatState::Leaving,
        interval_ms: 1,
        wants_heartbeats: false,
        versions: (VERSION, VERSION),
        foreign: Vec::new(),
        room: None,
        hints: Vec::new(),
        store: 0,
    });
    let strangers = [keyring(2, &[]), keyring(2, &[1])];
    // Of the same seed, for another cache.
    let elsewhere = Keyring::new(&pair(1).seed().expect("it has its seed"), &[], "other").expect("a valid seed");
    for message in [frame, heartbeat] {
        let bytes = message.encode(VERSION, victim);
        for authenticator in [
            vec![],
            vec![0],
            vec![1],
            [vec![7; 16], vec![1]].concat(),
            [vec![b'C'; 120], vec![2]].concat(),
        ] {
            expect_refused(&mut net, [bytes.clone(), authenticator].concat().into());
        }
        // Valid authenticators of other seeds and caches, with signature and without.
        for forger in strangers.iter().map(Arc::as_ref).chain([&elsewhere]) {
            for signed in [false, true] {
                expect_refused(&mut net, forger.authenticate(bytes.clone(), signed));
            }
        }
        // The peer's own authenticator, of something else that it has said.
        let tagged = |sent: &&Sent| sent.from == 0 && sent.payload.last() == Some(&1);
        let said = net.sent.iter().find(tagged).expect("its frame").payload.clone();
        let authenticator = &said[said.len() - TAG_BYTES - 1..];
        expect_refused(&mut net, [&bytes[..], authenticator].concat().into());
    }
    net.run(10);
    assert_eq!(net.get(1, "key").as_deref(), Some("value"));
    assert_eq!(net.status(1).peers.len(), peers.len());
    // The same frame counts when it is the peer's own, so nothing but its authenticator was against it.
    net.input(1, Input::Message(keyring(1, &[]).authenticate(own, false)));
    assert_eq!(net.get(1, "key").as_deref(), Some("poison"));
}

#[test]
fn a_forged_signature_of_an_accepted_issuer_counts_for_nothing() {
    let mut net = Net::new();
    for (own, other) in [(1, 2), (2, 1)] {
        net.join(keyring(own, &[other]));
    }
    net.settle();
    net.set(0, "key", "value");
    net.wait_equal();
    let victim = net.nodes[0].cache.node();
    let bytes = poison(&net, victim).encode(VERSION, victim);
    let signed = keyring(1, &[2]).authenticate(bytes.clone(), true);
    for place in [0, SIGNATURE_BYTES / 2, SIGNATURE_BYTES - 1] {
        let mut forged = signed.to_vec();
        forged[signed.len() - 1 - SIGNATURE_BYTES + place] ^= 1;
        expect_refused(&mut net, forged.into());
    }
    // A signature of another seed under the accepted issuer's name.
    let (mut forged, stranger) = (signed.to_vec(), keyring(3, &[]).authenticate(bytes, true));
    let signature = signed.len() - 1 - SIGNATURE_BYTES..signed.len() - 1;
    forged[signature.clone()].copy_from_slice(&stranger[signature]);
    expect_refused(&mut net, forged.into());
    net.run(10);
    assert_eq!(net.get(1, "key").as_deref(), Some("value"));
    net.input(1, Input::Message(signed));
    assert_eq!(net.get(1, "key").as_deref(), Some("poison"));
}

/// Hands a message to node 1, which does not believe it.
fn expect_refused(net: &mut Net, message: Bytes) {
    let before = net.counters(1).unauthenticated;
    net.input(1, Input::Message(message));
    assert_eq!(net.counters(1).unauthenticated, before + 1);
}

/// The second frame of `author`, which sets the key anew.
fn poison(net: &Net, author: NodeId) -> Message {
    let cache = Cache::new(author, Limits::default());
    let poison = Bytes::from("poison");
    let set = cache.set(&crate::net::name("key"), poison, 0, net.clock().wall + 1);
    Message::Frame(Frame {
        seq: 2,
        wants_ack: false,
        clock: cache.clock().latest(),
        deltas: vec![set.expect("within all limits")],
    })
}

#[test]
fn recordings_change_nothing_at_any_later_time() {
    let mut net = Net::new();
    net.limits.tombstone_ttl_ms = 60_000;
    for _ in 0..3 {
        net.join(keyring(1, &[]));
    }
    net.settle();
    for n in 0..30 {
        net.set(n % 3, &format!("key{n}"), "old");
        net.run(10);
    }
    // Some of it goes by bootstraps and comparisons.
    net.set_silently(0, "silent", "old");
    net.run(5 * HEARTBEAT);
    net.join(keyring(1, &[]));
    net.settle();
    for n in 0..30 {
        net.delete(n % 3, &format!("key{n}"));
    }
    net.delete(0, "silent");
    net.set(1, "key that stays", "new");
    net.wait_equal();
    // Node 2 ends; all deletions are forgotten.
    net.input(2, Input::Leaving);
    net.disconnect(2);
    for _ in 0..60 {
        net.run(3 * HEARTBEAT);
        for node in 0..4 {
            net.sweep(node);
        }
    }
    net.settle();
    let entries = net.nodes[0].cache.entries();
    assert_eq!(entries, 1, "nothing is remembered of what was deleted");
    let digest = net.nodes[0].cache.root_digest();
    let recorded: Vec<Sent> = net.sent.clone();
    println!("{} messages played again", recorded.len());
    let fresh = net.join(keyring(1, &[]));
    net.settle();
    for round in 0..3 {
        let order: Box<dyn Iterator<Item = &Sent>> = match round {
            0 => Box::new(recorded.iter()),
            1 => Box::new(recorded.iter().rev()),
            _ => Box::new(recorded.iter().step_by(7)),
        };
        for (n, sent) in order.enumerate() {
            for node in [0, 1, 3, fresh] {
                net.input(node, Input::Message(sent.payload.clone()));
            }
            if n % 50 == 0 {
                net.run(100);
            }
        }
        net.run(10 * HEARTBEAT);
        for node in [0, 1, 3, fresh] {
            assert_eq!(net.nodes[node].cache.entries(), 1, "round {round}, node {node}");
            assert_eq!(
                net.nodes[node].cache.root_digest(),
                digest,
                "round {round}, node {node}"
            );
            assert_eq!(
                net.status(node).peers.len(),
                3,
                "no ghost among the peers of node {node}"
            );
        }
    }
}

#[test]
fn recordings_keep_nobody_alive() {
    let mut net = Net::of(2);
    net.set(0, "key", "value");
    net.run(3 * HEARTBEAT);
    let recorded: Vec<Sent> = net.sent.iter().filter(|sent| sent.from == 0).cloned().collect();
    net.disconnect(0);
    for _ in 0..20 {
        for sent in &recorded {
            net.input(1, Input::Message(sent.payload.clone()));
        }
        net.run(HEARTBEAT / 2);
    }
    assert_eq!(net.status(1).peers.len(), 0);
}

#[test]
fn who_does_not_prove_to_be_alive_is_soon_forgotten() {
    let mut net = Net::of(2);
    net.run(2 * HEARTBEAT);
    net.input(1, Input::Leaving);
    net.disconnect(1);
    net.run(HEARTBEAT);
    let ghost = net.nodes[1].cache.node();
    let recorded: Vec<Sent> = net.sent.iter().filter(|sent| sent.from == 1).cloned().collect();
    // One that has met it knows that its recordings are old; one that joins now does not.
    let fresh = net.join(keyring(1, &[]));
    net.settle();
    let challenges = |net: &Net, from: usize| {
        let challenge = |sent: &&Sent| sent.kind() == Kind::Hello && sent.to == Target::Node(ghost);
        net.sent[from..].iter().filter(challenge).count()
    };
    let from = net.sent.len();
    for sent in &recorded {
        net.input(0, Input::Message(sent.payload.clone()));
    }
    net.run(9 * HEARTBEAT);
    assert_eq!(challenges(&net, from), 0, "of a node that was met and went");
    for sent in &recorded {
        net.input(fresh, Input::Message(sent.payload.clone()));
    }
    net.run(9 * HEARTBEAT);
    let asked = challenges(&net, from);
    assert!((10..=21).contains(&asked), "challenged {asked} times");
    let from = net.sent.len();
    net.run(60 * HEARTBEAT);
    assert_eq!(challenges(&net, from), 0, "of a node that is known no more");
    // What is heard of it once more is no news.
    for sent in &recorded {
        net.input(fresh, Input::Message(sent.payload.clone()));
    }
    net.run(9 * HEARTBEAT);
    assert_eq!(challenges(&net, from), 0, "of a node that has not answered");
}

#[test]
fn a_recorded_welcome_proves_nothing() {
    let mut net = Net::of(3);
    net.run(2 * HEARTBEAT);
    net.input(2, Input::Leaving);
    net.disconnect(2);
    net.run(HEARTBEAT);
    let recorded: Vec<Sent> = net.sent.iter().filter(|sent| sent.from == 2).cloned().collect();
    for node in 0..2 {
        for sent in &recorded {
            net.input(node, Input::Message(sent.payload.clone()));
            // Not even for a moment.
            assert_eq!(net.status(node).peers.len(), 1, "at node {node}");
        }
    }
    // Nor to one that has never met it, and challenges it in vain.
    let fresh = net.join(keyring(1, &[]));
    net.settle();
    for sent in &recorded {
        net.input(fresh, Input::Message(sent.payload.clone()));
        assert_eq!(net.status(fresh).peers.len(), 2, "at one that joins");
    }
}

#[test]
fn a_recorded_welcome_of_a_peer_unsettles_nobody() {
    let mut net = Net::of(2);
    net.run(2 * HEARTBEAT);
    // Made when neither knew the other, they say so.
    let welcome = |sent: &&Sent| sent.kind() == Kind::Welcome && sent.from == 1;
    let recorded: Vec<Bytes> = net
        .sent
        .iter()
        .filter(welcome)
        .map(|sent| sent.payload.clone())
        .collect();
    assert!(!recorded.is_empty());
    let now = net.clock().mono;
    for welcome in recorded {
        net.input(0, Input::Message(welcome));
        assert!(net.nodes[0].replica.current_until() > now);
    }
}

#[test]
fn an_answer_to_one_node_is_no_answer_to_another() {
    let mut net = Net::of(2);
    net.set(0, "key", "old");
    net.wait_equal();
    net.join(keyring(1, &[]));
    // What node 0 or 1 answered to node 2 is shown to others while they wait for answers of their own.
    net.settle();
    let answers: Vec<Bytes> = net
        .sent
        .iter()
        .filter(|sent| [Kind::BootstrapDeltas, Kind::AnswerEnd].contains(&sent.kind()))
        .map(|sent| sent.payload.clone())
        .collect();
    assert!(!answers.is_empty());
    net.delete(0, "key");
    net.wait_equal();
    let before = net.counters(1).repeated;
    for answer in &answers {
        net.input(1, Input::Message(answer.clone()));
    }
    assert!(net.counters(1).repeated > before);
    assert_eq!(net.get(1, "key"), None);
}

#[test]
fn versions_apart_run_side_by_side_without_damage() {
    let mut net = Net::of(2);
    let cache = net.empty_cache();
    let later = net.join_with(cache, keyring(1, &[]), (VERSION + 2, VERSION + 2));
    net.run(12 * HEARTBEAT);
    net.set(0, "key", "old version");
    net.set(later, "key", "new version");
    net.run(5 * HEARTBEAT);
    assert_eq!(net.get(1, "key").as_deref(), Some("old version"));
    assert_eq!(net.get(later, "key").as_deref(), Some("new version"));
    for node in 0..2 {
        assert_eq!(net.status(node).peers.len(), 1);
        assert!(net.counters(node).unknown_versions > 0);
        assert_eq!(net.counters(node).malformed, 0);
    }
    // Real servers tell the groups of two versions apart; here its request is taken by one who cannot read it.
    assert_eq!(net.status(later).sync, SyncState::Unreachable);
}

#[test]
fn nodes_of_nearby_versions_speak_the_one_all_understand() {
    let mut net = Net::of(2);
    let cache = net.empty_cache();
    let later = net.join_with(cache, keyring(1, &[]), (VERSION, VERSION + 1));
    net.settle();
    net.set(later, "key", "value");
    net.set(0, "other", "value");
    net.wait_equal();
    assert_eq!(net.nodes[0].cache.keys(), 2);
    assert_eq!(net.counters(0).unknown_versions, 0);
    // When the last old one has gone, the newer version is spoken.
    for node in 0..2 {
        net.input(node, Input::Leaving);
        net.disconnect(node);
    }
    let cache = net.empty_cache();
    net.join_with(cache, keyring(1, &[]), (VERSION, VERSION + 1));
    net.settle();
    let from = net.sent.len();
    net.set(later, "key", "newer");
    net.wait_equal();
    assert!(net.sent[from..]
        .iter()
        .any(|sent| sent.kind() == Kind::Frame && sent.payload[0] == VERSION + 1));
}

#[test]
fn a_message_of_version_1_is_ignored() {
    let mut net = Net::of(2);
    let versions = ReplicaConfig::VERSIONS;
    assert_eq!(versions, (2, 2), "what is tested here");
    // A heartbeat as release 0.1.0 sent it: version 1, kind 5, an array of ten.
    let heartbeat = [
        &[1, 5, 0x9a, 1, 0xa5][..],
        b"NHOST",
        &[0xa5],
        b"0.1.0",
        &[1, 2, 3, 4, 5, 1, 0xcd, 3, 0xe8],
    ]
    .concat();
    net.input(0, Input::Message(heartbeat.into()));
    net.run(HEARTBEAT);
    assert_eq!(net.counters(0).unknown_versions, 1);
    assert_eq!(net.status(0).peers.len(), 1);
}

#[test]
fn hosts_with_long_names_are_peers() {
    let mut net = Net::new();
    // A character of two bytes lies across the bound.
    net.host = format!("a{}", "\u{e4}".repeat(500));
    for _ in 0..2 {
        net.join(keyring(1, &[]));
    }
    net.settle();
    let status = net.status(0);
    assert_eq!(status.peers[0].host.len(), 255);
    assert!(net.host.starts_with(&status.peers[0].host));
}
