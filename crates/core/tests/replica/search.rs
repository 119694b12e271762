//! What a node says of itself: alone only with patience, synced only with the state of a peer.

use bytes::Bytes;
use kvcache_core::cache::Millis;
use kvcache_core::replica::{AckLevel, Channel, Input, Reason, Refused, SyncState, Target};
use kvcache_core::wire::Kind;

use crate::net::{keyring, pair, Net, Sent, HEARTBEAT};

const ANSWERS: [Kind; 2] = [Kind::BootstrapDeltas, Kind::AnswerEnd];

/// How long a node may need to find that it is alone, and must at least.
const QUIET: std::ops::RangeInclusive<Millis> = 2_500..=3_000;

/// Lets time pass in small steps, with a look at each.
fn watch(net: &mut Net, ms: Millis, mut look: impl FnMut(&mut Net)) {
    for _ in 0..ms / 10 {
        net.run(10);
        look(net);
    }
}

fn state(net: &Net, node: usize) -> SyncState {
    net.status(node).sync
}

fn reason(net: &Net, node: usize) -> Reason {
    net.status(node).reason.expect("a reason")
}

/// What a write that all have to confirm comes to.
fn confirmed(net: &mut Net, node: usize, id: u64) -> bool {
    net.set_acked(node, "confirmed", "value", id, AckLevel::All, 500);
    net.run(600);
    net.nodes[node].acked[&id].is_ok()
}

#[test]
fn the_first_node_of_a_lattice_listens_for_some_time_before_it_says_so() {
    let mut net = Net::new();
    net.join(keyring(1, &[]));
    net.run(100);
    assert_eq!(
        state(&net, 0),
        SyncState::Starting,
        "one word of the server is not enough"
    );
    let took = 100 + net.run_until("it is alone", |net| state(net, 0) == SyncState::Alone);
    assert!(QUIET.contains(&took), "{took} ms");
    assert!(
        confirmed(&mut net, 0, 1),
        "all others have confirmed it: there are none"
    );
}

#[test]
fn a_server_that_finds_the_others_late_makes_no_second_first_node() {
    let mut net = Net::of(2);
    net.set(0, "key", "value");
    net.wait_equal();
    net.join_cut_off();
    watch(&mut net, 2_000, |net| assert!(!state(net, 2).is_whole()));
    net.drop_nothing();
    net.group_is_known(true);
    let took = net.run_until("it has their state", |net| state(net, 2) == SyncState::Synced);
    assert!(took <= 1_500, "{took} ms");
    assert_eq!(net.get(2, "key").as_deref(), Some("value"));
}

#[test]
fn a_node_that_hears_others_and_is_not_heard_never_says_that_it_is_alone_or_synced() {
    let mut net = Net::of(2);
    net.set(0, "key", "value");
    net.drop_where(|sent, _| sent.from == 2);
    // The server says that nobody listens all the while.
    net.group_is_known(false);
    net.join(keyring(1, &[]));
    watch(&mut net, 30_000, |net| {
        assert!(!state(net, 2).is_whole());
        assert!(!net.nodes[2].answers, "nor is its empty state handed out");
    });
    assert_eq!(state(&net, 2), SyncState::Unreachable);
    assert_eq!(reason(&net, 2), Reason::Unanswered { nodes: 2 });
    assert!(!confirmed(&mut net, 2, 1));
    assert_eq!(net.nodes[2].replica.current_until(), 0);
    net.drop_nothing();
    net.group_is_known(true);
    net.settle();
    assert_eq!(net.get(2, "key").as_deref(), Some("value"));
    assert!(confirmed(&mut net, 2, 2));
}

#[test]
fn a_lattice_whose_members_went_a_moment_ago_is_not_new() {
    let mut net = Net::of(1);
    net.set(0, "key", "value");
    net.drop_where(|sent, to| to == 1 && ANSWERS.contains(&sent.kind()));
    net.join(keyring(1, &[]));
    net.run(500);
    net.disconnect(0);
    watch(&mut net, 4 * HEARTBEAT, |net| assert!(!state(net, 1).is_whole()));
    // Then it is remembered no longer.
    net.run_until("it is alone", |net| state(net, 1) == SyncState::Alone);
}

/// A node whose requests are taken by another one and not answered, and that hears nobody.
fn unanswered() -> Net {
    let mut net = Net::of(1);
    net.drop_where(|_, _| true);
    net.join(keyring(1, &[]));
    net
}

#[test]
fn a_single_word_of_the_server_makes_no_first_node() {
    let mut net = unanswered();
    net.run(10);
    let request = net.sent.iter().rev().find_map(|sent| match sent.to {
        Target::Bootstrap { request } if sent.from == 1 => Some(request),
        _ => None,
    });
    let request = request.expect("it asks whoever answers bootstraps");
    watch(&mut net, 9_000, |net| {
        // Nor does the same word again and again.
        net.input(1, Input::NoResponders { request });
        assert!(!net.nodes[1].answers);
    });
    net.drop_nothing();
    net.settle();
    assert!(net.equal());
}

#[test]
fn what_the_server_says_at_one_moment_is_one_word() {
    let mut net = unanswered();
    net.run(10);
    let requests: Vec<u64> = (net.sent.iter())
        .filter(|sent| sent.from == 1)
        .filter_map(|sent| match sent.to {
            Target::Bootstrap { request } => Some(request),
            _ => None,
        })
        .collect();
    assert!(
        requests.len() >= 4,
        "a bootstrap begins with {} requests",
        requests.len()
    );
    for request in requests {
        net.input(1, Input::NoResponders { request });
    }
    watch(&mut net, 9_000, |net| assert!(!net.nodes[1].answers));
    // Those who take its requests and answer none of them do not keep it waiting for ever.
    let took = net.run_until("it goes on without them", |net| net.nodes[1].answers);
    assert!(took <= 1_500, "{took} ms");
    assert_eq!(reason(&net, 1), Reason::Swallowed);
}

#[test]
fn words_of_the_server_about_what_was_not_asked_of_all_do_not_count() {
    let mut net = unanswered();
    watch(&mut net, 9_000, |net| {
        let request = net.now;
        net.input(1, Input::NoResponders { request });
        assert!(!net.nodes[1].answers);
    });
    net.drop_nothing();
    net.settle();
    assert!(net.equal());
}

#[test]
fn false_words_of_the_server_end_no_first_bootstrap() {
    let mut net = Net::of(2);
    for n in 0..200 {
        net.set(0, &format!("key {n}"), "value");
    }
    net.wait_equal();
    // They come with every message, before any answer.
    net.forge_no_responders = true;
    net.join(keyring(1, &[]));
    watch(&mut net, 10_000, |net| {
        assert!(!state(net, 2).is_whole() || net.equal());
    });
    assert_eq!(state(&net, 2), SyncState::Synced);
    assert_eq!(net.nodes[2].cache.keys(), 200);
}

#[test]
fn lost_ends_of_answers_delay_a_first_bootstrap_by_little_more_than_they_are_lost_for() {
    for keys in [0, 1, 200, 5_000] {
        for forged in [false, true] {
            let mut net = Net::of(2);
            for n in 0..keys {
                net.set_silently(0, &format!("key {n}"), "value");
            }
            net.wait_equal();
            net.forge_no_responders = forged;
            net.drop_where(|sent, to| to == 2 && sent.kind() == ANSWERS[1]);
            net.join(keyring(1, &[]));
            net.run(6_000);
            net.drop_nothing();
            let took = net.run_until("it is synced", |net| state(net, 2) == SyncState::Synced);
            println!("{keys} keys, forged {forged}: {took} ms");
            // What has been asked for in vain for 2 and 4 s is waited for for 8 s.
            assert!(took <= 8_500, "{keys} keys, forged {forged}: {took} ms");
        }
    }
}

#[test]
fn no_word_of_the_server_ends_what_was_asked_of_one_node() {
    let mut net = Net::of(2);
    net.set(0, "key", "value");
    net.wait_equal();
    net.set_silently(0, "missed", "value");
    let wait = |net: &mut Net, forged: bool| {
        let began = net.now;
        while !net.equal() {
            assert!(net.now < began + 20 * HEARTBEAT, "not repaired");
            // As soon as it is asked, and before the answer is there.
            net.forge_no_responders = forged;
            net.run(10);
        }
        net.now - began
    };
    let honest = wait(&mut net, false);
    net.set_silently(1, "missed there", "value");
    let forged = wait(&mut net, true);
    assert!(forged <= honest + 2 * HEARTBEAT, "{forged} ms instead of {honest}");
    assert_eq!(net.get(0, "missed there").as_deref(), Some("value"));
}

#[test]
fn two_that_were_alone_are_synced_only_when_they_are_one() {
    let mut net = Net::new();
    net.drop_where(|_, _| true);
    net.group_is_known(false);
    for node in 0..2 {
        net.join(keyring(1, &[]));
        net.run_until("it is alone", |net| state(net, node) == SyncState::Alone);
        for n in 0..50 {
            net.set_silently(node, &format!("key {n} of {node}"), "value");
        }
    }
    net.group_is_known(true);
    let mut met = false;
    let mut look = |net: &mut Net| {
        for node in 0..2 {
            let status = net.status(node);
            met |= status.peers.len() == 1 && matches!(status.sync, SyncState::Syncing { .. });
            assert!(status.peers.is_empty() || status.sync != SyncState::Alone);
            assert!(status.sync != SyncState::Synced || net.nodes[node].cache.keys() == 100);
        }
    };
    // What the comparison brings takes its time.
    net.drop_where(|sent, _| [Kind::BootstrapDeltas, Kind::RangeSplits, Kind::Sketch].contains(&sent.kind()));
    watch(&mut net, 3 * HEARTBEAT, &mut look);
    net.drop_nothing();
    watch(&mut net, 10 * HEARTBEAT, &mut look);
    assert!(met, "it says that it has met another one");
    net.settle();
    assert!(net.equal());
}

#[test]
fn nodes_that_start_together_take_each_other_for_the_first_ones() {
    let mut net = Net::new();
    for _ in 0..5 {
        net.join(keyring(1, &[]));
    }
    let took = net.settle();
    assert!(took <= 6_000, "{took} ms");
}

#[test]
fn old_recordings_do_not_keep_a_node_from_finding_that_it_is_alone() {
    let recorded = |age: Millis| {
        let mut net = Net::of(2);
        let heartbeats: Vec<Bytes> = heartbeats(&net).collect();
        net.disconnect(0);
        net.disconnect(1);
        net.now += age;
        net.join(keyring(1, &[]));
        watch(&mut net, 20 * HEARTBEAT, |net| {
            if net.now % HEARTBEAT == 0 {
                for heartbeat in &heartbeats {
                    net.input(2, Input::Message(heartbeat.clone()));
                }
            }
        });
        net
    };
    let minutes = 60_000;
    assert_eq!(state(&recorded(16 * minutes), 2), SyncState::Alone);
}

fn heartbeats(net: &Net) -> impl Iterator<Item = Bytes> + '_ {
    let heartbeat = |sent: &&Sent| sent.to == Target::Heartbeat && sent.kind() == Kind::Heartbeat;
    net.sent.iter().filter(heartbeat).map(|sent| sent.payload.clone())
}

#[test]
fn what_the_server_refuses_is_said_tried_again_and_over_when_it_works() {
    for what in [
        Refused::Publish(Channel::Node),
        Refused::Publish(Channel::Heartbeat),
        Refused::Publish(Channel::Deltas),
        Refused::Subscribe(Channel::Node),
        Refused::Subscribe(Channel::Bootstrap),
        Refused::Subscriptions,
    ] {
        let refused = |net: &mut Net| {
            let subject = "some.subject".into();
            net.input(0, Input::Refused { what, subject });
        };
        for peers in 0..2 {
            let mut net = Net::of(1 + peers);
            refused(&mut net);
            assert_eq!(state(&net, 0), SyncState::Isolated, "{what:?}");
            let subject = "some.subject".to_owned();
            assert_eq!(reason(&net, 0), Reason::Denied { what, subject });
            assert!(!confirmed(&mut net, 0, 1), "{what:?}");
            // As long as the server refuses each attempt.
            watch(&mut net, 10 * HEARTBEAT, |net| {
                if net.now % 1_000 == 0 {
                    refused(net);
                }
                assert_eq!(state(net, 0), SyncState::Isolated, "{what:?}");
            });
            let attempts = net.nodes[0].subscribed_again.len();
            net.run_until("it works again", |net| state(net, 0).is_whole());
            let tried = net.nodes[0].subscribed_again.len() > attempts;
            assert_eq!(tried, !matches!(what, Refused::Publish(_)), "{what:?}");
            assert!(confirmed(&mut net, 0, 2), "{what:?}");
        }
        // Nor does a node begin with it that it is alone.
        let mut net = Net::new();
        net.join(keyring(1, &[]));
        refused(&mut net);
        watch(&mut net, 10_000, |net| {
            // Seldom enough to listen for long enough meanwhile.
            if net.now % 3_000 == 0 {
                refused(net);
            }
            assert!(!state(net, 0).is_whole(), "{what:?}");
            assert!(!net.nodes[0].answers, "{what:?}");
        });
    }
}

#[test]
fn a_process_that_was_stopped_still_makes_its_subscription_again() {
    let mut net = Net::of(2);
    let what = Refused::Subscribe(Channel::Node);
    let subject = "some.subject".into();
    net.input(0, Input::Refused { what, subject });
    net.run(HEARTBEAT);
    net.stop(0);
    net.run(10 * HEARTBEAT);
    net.go_on(0);
    net.run_until("it works again", |net| state(net, 0).is_whole());
    assert_eq!(net.nodes[0].subscribed_again, [what]);
}

#[test]
fn where_a_number_of_peers_is_asked_for_fewer_are_neither_alone_nor_synced() {
    let mut net = Net::new();
    net.min_peers = 2;
    net.join(keyring(1, &[]));
    watch(&mut net, 15_000, |net| assert!(!state(net, 0).is_whole()));
    assert_eq!(state(&net, 0), SyncState::Unsynced);
    assert_eq!(reason(&net, 0), Reason::TooFewPeers { known: 0, wanted: 2 });
    net.join(keyring(1, &[]));
    watch(&mut net, 5_000, |net| {
        assert!(!state(net, 0).is_whole() && !state(net, 1).is_whole())
    });
    net.join(keyring(1, &[]));
    net.settle();
    // They were there once; that one goes changes nothing.
    net.input(2, Input::Leaving);
    net.disconnect(2);
    net.run(10 * HEARTBEAT);
    assert_eq!(state(&net, 0), SyncState::Synced);
}

#[test]
fn a_host_that_is_listed_on_one_side_only_says_so_on_both() {
    let mut net = Net::of(2);
    net.join(keyring(2, &[1]));
    net.run(12 * HEARTBEAT);
    assert_eq!(state(&net, 2), SyncState::Isolated);
    let disowned = [0, 1].map(|by| Reason::Disowned {
        by: net.nodes[by].cache.node(),
    });
    assert!(disowned.contains(&reason(&net, 2)), "{:?}", reason(&net, 2));
    assert_eq!(net.status(0).foreign, [pair(2).public_key()]);
    assert!(!confirmed(&mut net, 2, 1));
}

#[test]
fn a_first_node_that_hears_another_cluster_serves_and_says_so() {
    let mut net = Net::of(1);
    net.join(keyring(2, &[]));
    net.run(12 * HEARTBEAT);
    for (node, other) in [(0, 2), (1, 1)] {
        assert_eq!(state(&net, node), SyncState::Isolated);
        let issuer = pair(other).public_key();
        assert_eq!(reason(&net, node), Reason::ForeignIssuers { issuers: vec![issuer] });
        assert!(net.nodes[node].replica.has_joined());
    }
    net.disconnect(1);
    net.run_until("it is alone", |net| state(net, 0) == SyncState::Alone);
}

#[test]
fn a_first_bootstrap_of_which_something_was_refused_is_not_done() {
    let mut net = Net::of(1);
    let day = 86_400_000;
    for n in 0..5 {
        let (key, later) = (crate::net::name(&format!("key {n}")), net.clock().wall + day);
        net.nodes[0].cache.set(&key, "value", 0, later).unwrap();
    }
    net.join(keyring(1, &[]));
    watch(&mut net, 20 * HEARTBEAT, |net| assert!(!state(net, 1).is_whole()));
    assert_eq!(state(&net, 1), SyncState::Refused);
    assert!(
        matches!(reason(&net, 1), Reason::FromTheFuture { .. }),
        "{:?}",
        reason(&net, 1)
    );
    assert!(!confirmed(&mut net, 1, 1));
}
