//! Slow links: what is asked for follows the rate at which it comes.

use kvcache_core::cache::Millis;
use kvcache_core::replica::{AckLevel, SyncState, Target};
use kvcache_core::wire::Kind;

use crate::net::{keyring, Link, Net, Sent, HEARTBEAT};

const ANSWERS: [Kind; 2] = [Kind::BootstrapDeltas, Kind::AnswerEnd];
const COMPARED: [Kind; 2] = [Kind::RangeSplits, Kind::Sketch];

/// Two nodes with so many keys of 100 bytes, and the bytes that a bootstrap of them takes.
fn filled(keys: usize) -> (Net, u64) {
    let mut net = Net::of(2);
    for n in 0..keys {
        net.set_silently(0, &format!("key{n:06}"), &"v".repeat(60));
    }
    net.wait_equal();
    net.run(3 * HEARTBEAT);
    let before = net.join(keyring(1, &[]));
    net.settle();
    let bytes = net.counters(before).replay_bytes_received;
    net.disconnect(before);
    net.run(10 * HEARTBEAT);
    (net, bytes)
}

/// An empty node joins behind `link`. Returns how long it took and how many bytes came.
fn join(net: &mut Net, link: Link) -> (Millis, u64) {
    let began = net.now;
    let node = net.nodes.len();
    net.link(node, link);
    net.join(keyring(1, &[]));
    while net.status(node).sync != SyncState::Synced || !net.equal() {
        net.run(20);
        assert!(net.now < began + 600_000, "{:?}", net.status(node));
    }
    let joined = (net.now - began, net.carried(node));
    net.disconnect(node);
    net.run(10 * HEARTBEAT);
    joined
}

#[test]
fn a_join_takes_what_its_link_takes_and_asks_for_everything_once() {
    let (mut net, bytes) = filled(20_000);
    assert!(bytes > 1_500_000, "{bytes}");
    // Bytes per millisecond, and milliseconds each way.
    for (rate, delay) in [
        (30, 0),
        (125, 0),
        (125, 150),
        (250, 20),
        (1_000, 1),
        (4_000, 10),
        (1_000, 150),
    ] {
        let (took, carried) = join(&mut net, Link::of(rate, delay));
        let least = bytes / rate;
        // To meet takes two ways there and back, and the window needs another one until it is large.
        assert!(
            took <= least * 12 / 10 + 6 * delay + HEARTBEAT / 2,
            "{rate} B/ms, {delay} ms each way: {took} ms instead of {least}"
        );
        assert!(
            carried * 10 <= bytes * 11 + 20_000,
            "{rate} B/ms, {delay} ms each way: {carried} bytes instead of {bytes}"
        );
    }
}

#[test]
fn peers_are_heard_all_the_time() {
    let (mut net, _) = filled(20_000);
    let node = net.nodes.len();
    net.link(node, Link::of(125, 10));
    net.join(keyring(1, &[]));
    let began = net.now;
    while net.status(node).sync != SyncState::Synced {
        net.run(100);
        let peers = net.status(node).peers.len();
        assert!(
            net.now < began + 2_500 || peers == 2,
            "{peers} peers after {} ms",
            net.now - began
        );
        assert!(net.now < began + 120_000, "{:?}", net.status(node));
    }
}

#[test]
fn a_bootstrap_goes_on_after_a_reconnect_with_what_is_left() {
    let (mut net, bytes) = filled(20_000);
    let node = net.nodes.len();
    net.link(node, Link::of(250, 10));
    net.join(keyring(1, &[]));
    for _ in 0..3 {
        net.run(bytes / 250 / 4);
        net.disconnect(node);
        // In most of the partitions that are here already, something changes.
        for n in 0..500 {
            net.set(0, &format!("key{:06}", n * 31), "changed");
        }
        net.run(HEARTBEAT);
        net.connect(node);
    }
    net.settle_within(60_000);
    // Each time what was under way is lost, and what has changed is repaired.
    let received = net.counters(node).replay_bytes_received;
    assert!(received * 10 <= bytes * 13, "{received} bytes instead of {bytes}");
}

#[test]
fn an_answer_that_comes_late_is_taken_and_corrects_the_patience() {
    let (mut net, bytes) = filled(20_000);
    let node = net.nodes.len();
    // Something else is in front of the first answers for 20 s.
    let mut link = Link::of(125, 0);
    link.hold(net.now + 20_000);
    net.link(node, link);
    net.join(keyring(1, &[]));
    net.settle_within(600_000);
    let received = net.counters(node).replay_bytes_received;
    // What was asked for in vain comes as well: the first window, asked for again after 2, 4 and 8 s.
    let carried = net.carried(node);
    assert!(
        carried * 10 <= bytes * 11 + 10 * 4 * (80 << 10),
        "{carried} bytes instead of {bytes}"
    );
    assert!(
        received * 100 <= bytes * 105,
        "{received} bytes were taken instead of {bytes}"
    );
}

#[test]
fn what_is_under_way_on_a_link_that_becomes_slow_is_not_asked_for_again_and_again() {
    let (mut net, bytes) = filled(20_000);
    let node = net.nodes.len();
    net.link(node, Link::of(4_000, 50));
    net.join(keyring(1, &[]));
    net.run_until("the window is large", |net| {
        net.counters(node).replay_bytes_received > bytes / 4
    });
    // Each part of an answer now takes seconds.
    net.slow_down(node, 20);
    let began = net.now;
    net.settle_within(600_000);
    let (took, least) = (net.now - began, bytes / 20);
    assert!(took <= least * 12 / 10 + 2 * HEARTBEAT, "{took} ms instead of {least}");
    assert!(
        net.carried(node) <= bytes * 12 / 10,
        "{} bytes instead of {bytes}",
        net.carried(node)
    );
}

#[test]
fn an_answer_that_is_lost_is_asked_for_again() {
    let (mut net, bytes) = filled(20_000);
    let mut number = 0;
    net.drop_where(move |sent, to| {
        let part = sent.kind() == Kind::BootstrapDeltas && to == 3;
        number += usize::from(part);
        part && number % 20 == 0
    });
    let (took, carried) = join(&mut net, Link::of(250, 10));
    let least = bytes / 250;
    assert!(took <= 3 * least + 20_000, "{took} ms instead of {least}");
    assert!(carried <= bytes * 15 / 10, "{carried} bytes instead of {bytes}");
}

#[test]
fn a_burst_in_front_of_heartbeats_makes_nobody_silent_and_nothing_is_asked_for_again() {
    let mut net = Net::of(4);
    let node = 3;
    // Some seconds of heartbeats: what is late has to be known from what is not.
    net.run(5 * HEARTBEAT);
    net.link(node, Link::of(100, 10));
    let from = net.sent.len();
    for n in 0..2_000 {
        net.set(0, &format!("key{n:06}"), &"v".repeat(1_000));
        net.run(1);
    }
    let asked = net.counters(node).frames_asked;
    let began = net.now;
    while !net.equal() {
        net.run(100);
        assert_eq!(net.status(node).peers.len(), 3, "after {} ms", net.now - began);
        assert!(net.now < began + 40_000, "{:?}", net.status(node));
    }
    assert!(net.now - began > 10_000, "no queue");
    assert_eq!(net.counters(node).frames_asked, asked);
    assert_eq!(net.counters(0).frames_resent, 0);
    let bytes: usize = net.sent[from..].iter().map(|sent| sent.payload.len()).sum();
    assert!(
        net.carried(node) as usize <= bytes,
        "{} bytes instead of {bytes}",
        net.carried(node)
    );
    // A peer that goes now is noticed as before.
    net.run(30 * HEARTBEAT);
    net.disconnect(1);
    net.run(7 * HEARTBEAT);
    assert_eq!(net.status(node).peers.len(), 2);
}

/// Three nodes that keep many frames, the last of them behind a link.
fn three(link: Link) -> (Net, usize) {
    let mut net = Net::new();
    net.ring_bytes = 16 << 20;
    for _ in 0..3 {
        net.join(keyring(1, &[]));
    }
    net.settle();
    net.run(5 * HEARTBEAT);
    net.link(2, link);
    (net, 2)
}

/// Bytes of frames that were sent to all since message `from`.
fn written(net: &Net, from: usize) -> usize {
    let live = |sent: &&Sent| sent.to == Target::Deltas;
    let bytes = net.sent[from..].iter().filter(live).map(|sent| sent.payload.len());
    bytes.sum()
}

#[test]
fn what_a_connection_has_lost_is_asked_for_once_though_it_stands_behind_a_burst() {
    // Bytes per millisecond, and milliseconds each way.
    for (rate, delay) in [(100, 10), (250, 0), (250, 150)] {
        let (mut net, node) = three(Link::of(rate, delay));
        let half = 15 * rate as usize;
        let value = "v".repeat(1_000);
        let (from, began) = (net.sent.len(), net.now);
        for n in 0..half {
            net.set(0, &format!("key{n:06}"), &value);
        }
        net.run(500);
        let lost = net.queues(node)[0] * rate;
        net.disconnect(node);
        net.run(500);
        net.connect(node);
        for n in half..2 * half {
            net.set(0, &format!("key{n:06}"), &value);
        }
        while !net.equal() {
            net.run(100);
            assert!(net.now < began + 120_000, "{rate} B/ms: {:?}", net.status(node));
        }
        let bytes = written(&net, from);
        let (took, least) = (net.now - began, bytes as u64 / rate);
        let (carried, requests) = (net.carried(node) - lost, net.counters(node).frames_asked);
        let told = format!(
            "{rate} B/ms, {delay} ms each way: {took} ms instead of {least}, {carried} bytes instead of {bytes}, \
             {requests} requests, {} frames sent again",
            net.counters(0).frames_resent
        );
        println!("{told}");
        assert!(took <= least + requests * (2 * delay + 60) + 2 * HEARTBEAT, "{told}");
        assert!(carried as usize <= bytes * 11 / 10, "{told}");
        let compared = |sent: &&Sent| COMPARED.contains(&sent.kind());
        assert_eq!(net.sent[from..].iter().filter(compared).count(), 0, "{told}");
    }
}

/// The first answer comes in the middle of a burst, whose heartbeats come as if nothing was wrong, or late by little.
/// Nobody can know then whether it is lost, and it does not come twice, whenever that is.
#[test]
fn what_a_connection_has_lost_comes_once_though_its_queue_does_not_show() {
    let rate = 100;
    let value = "v".repeat(1_000);
    // So many milliseconds of the link are in front of it at once; the more the second number, the shorter the pauses
    // between what is written then; and where in an interval all this is.
    let cases = [
        (200, 4, 400),
        (800, 4, 600),
        (1_100, 4, 700),
        (1_300, 4, 100),
        (1_600, 4, 0),
        (2_000, 4, 0),
        (2_300, 4, 100),
        (3_000, 4, 0),
        (800, 7, 700),
        (1_800, 7, 700),
        (1_600, 2, 300),
        (2_800, 2, 300),
        (3_000, 2, 300),
    ];
    for (ahead, pause, phase) in cases {
        let (mut net, node) = three(Link::of(rate, 10));
        net.run(phase);
        let from = net.sent.len();
        for n in 0..1_500 {
            net.set(0, &format!("key{n:06}"), &value);
        }
        net.run(300);
        net.disconnect(node);
        net.run(HEARTBEAT);
        let began = net.now;
        net.connect(node);
        for n in 1_500..3_000 {
            net.set(0, &format!("key{n:06}"), &value);
            if n > 1_500 + ahead * rate / 1_000 {
                net.run(1 + n % 7 / pause);
            }
        }
        net.wait_equal();
        let took = net.now - began;
        // What came before the connection was lost is here already.
        let least = written(&net, from) as u64 / rate - 300;
        let (asked, again) = (net.counters(node).frames_asked, net.counters(0).frames_resent);
        let told = format!(
            "{ahead} ms ahead, {pause}, {phase}: {took} ms instead of {least}, {asked} requests, {again} frames sent again"
        );
        println!("{told}");
        assert!(took <= least + 300 && again <= 1_480, "{told}");
    }
}

#[test]
fn frames_that_were_asked_for_are_waited_for_as_long_as_answers_take() {
    let (mut net, _) = filled(3_000);
    let node = net.nodes.len();
    net.link(node, Link::of(50, 150));
    net.join(keyring(1, &[]));
    net.settle();
    net.run(3 * HEARTBEAT);
    let mut lost = 0;
    net.drop_where(move |sent, to| {
        let frame = sent.kind() == Kind::Frame && sent.to == Target::Deltas && to == node;
        lost += usize::from(frame);
        frame && lost <= 10
    });
    // Of 30 kB each: more than half a second of the link.
    for n in 0..10 {
        net.set(0, &format!("key{n:06}"), &"v".repeat(30_000));
    }
    net.set(0, "last", "value");
    let took = net.wait_equal();
    assert!(took <= 12_000, "{took} ms");
    assert_eq!(net.counters(0).frames_resent, 10);
}

#[test]
fn a_large_frame_that_was_asked_for_is_waited_for() {
    let (mut net, _) = filled(10_000);
    let node = net.nodes.len();
    net.link(node, Link::of(50, 10));
    net.join(keyring(1, &[]));
    net.settle();
    // More than half a second of the link. That there are frames of this size is known from one that arrives.
    let large = "v".repeat(30_000);
    net.set(0, "first", &large);
    net.run(8 * HEARTBEAT);
    let lose = |net: &mut Net, count: usize, value: &str| {
        let before = (net.counters(node).frames_asked, net.counters(0).frames_resent);
        net.drop_where(move |sent, to| to == node && sent.to == Target::Deltas);
        (0..count).for_each(|n| net.set(0, &format!("lost{n}"), value));
        net.drop_nothing();
        net.set(0, "last", "value");
        let took = net.wait_equal();
        assert!(took <= 7_000, "{took} ms");
        (
            net.counters(node).frames_asked - before.0,
            net.counters(0).frames_resent - before.1,
        )
    };
    // These come at once, one after the other: what follows is not known to take long.
    assert_eq!(lose(&mut net, 40, "small"), (1, 40));
    assert_eq!(lose(&mut net, 1, &large), (1, 1));
}

/// One value of many megabytes does not mean that every frame may take as long.
#[test]
fn a_huge_value_does_not_put_off_what_is_asked_for_later() {
    let (mut net, node) = three(Link::of(0, 1));
    net.set(0, "huge", &"v".repeat(8 << 20));
    net.wait_equal();
    let mut lost = (false, false);
    net.drop_where(move |sent, to| {
        let frame = sent.kind() == Kind::Frame && to == node && !std::mem::replace(&mut lost.0, true);
        let request = sent.kind() == Kind::FramesRequest && sent.from == node && !std::mem::replace(&mut lost.1, true);
        frame || request
    });
    net.set(0, "lost", "value");
    net.set(0, "last", "value");
    let took = net.wait_equal();
    assert!(took <= 4_000, "{took} ms");
    assert_eq!(net.counters(node).frames_asked, 2);
}

/// A node behind a link misses many frames of another one, which a third one has.
fn with_a_gap(link: Link, frames: usize) -> (Net, usize) {
    let (mut net, node) = three(link);
    net.drop_where(move |sent, to| to == node && sent.to == Target::Deltas);
    for n in 0..frames {
        net.set(0, &format!("key{n:06}"), &"v".repeat(5_000));
    }
    net.drop_nothing();
    (net, node)
}

#[test]
fn missing_frames_are_sent_at_the_pace_of_the_link() {
    // Bytes per millisecond, and milliseconds each way.
    for (rate, delay) in [(100, 10), (125, 0), (250, 0), (1_000, 1), (1_000, 50), (250, 150)] {
        let (mut net, node) = with_a_gap(Link::of(rate, delay), 600);
        let (from, began, mut longest) = (net.sent.len(), net.now, 0);
        while !net.equal() {
            net.run(10);
            longest = longest.max(net.queues(node)[0]);
            assert_eq!(
                net.status(node).peers.len(),
                2,
                "{rate} B/ms, after {} ms",
                net.now - began
            );
            assert!(net.now < began + 600_000, "{rate} B/ms: {:?}", net.status(node));
        }
        let (took, least) = (net.now - began, 600 * 5_000 / rate);
        let told = format!(
            "{rate} B/ms, {delay} ms each way: {took} ms instead of {least}, {} bytes, {longest} ms in the queue, {} requests",
            net.carried(node),
            net.counters(node).frames_asked
        );
        println!("{told}");
        // One request after the other: each waits for its way there and back.
        let requests = net.counters(node).frames_asked;
        assert!(requests <= 100, "{told}");
        assert!(
            took <= least * 11 / 10 + requests * (2 * delay + 60) + 2 * HEARTBEAT,
            "{told}"
        );
        assert!(net.carried(node) <= 600 * 5_000 * 11 / 10, "{told}");
        // The first one asks for as much as a link of a megabit carries in a second.
        assert!(longest <= (140 << 10) / rate + 1_000, "{told}");
        assert_eq!(net.counters(0).frames_resent, 600, "{told}");
        // Who compares with the node meanwhile finds nothing to compare.
        let compared = |sent: &&Sent| sent.from == node && COMPARED.contains(&sent.kind());
        assert_eq!(net.sent[from..].iter().filter(compared).count(), 0, "{told}");
    }
}

#[test]
fn a_slow_first_answer_is_doubted_with_one_request() {
    let (mut net, bytes) = filled(5_000);
    // The first part of an answer takes longer than the one that NATS has picked is trusted for.
    net.nodes[0].answers = false;
    net.link(1, Link::of(10, 0));
    // So is another one, whose answers take even longer.
    net.link(0, Link::of(4, 0));
    let from = net.sent.len();
    let node = net.join(keyring(1, &[]));
    net.run_until("something is answered", |net| {
        net.counters(node).replay_bytes_received > 0
    });
    let requests = net.sent[from..]
        .iter()
        .filter(|sent| sent.kind() == Kind::BootstrapRequest);
    let (of_all, of_one): (Vec<_>, Vec<_>) = requests.partition(|sent| matches!(sent.to, Target::Bootstrap { .. }));
    assert_eq!((of_all.len(), of_one.len()), (4, 1));
    net.settle_within(600_000);
    let answers = net.sent[from..].iter().filter(|sent| ANSWERS.contains(&sent.kind()));
    let sent: usize = answers.map(|sent| sent.payload.len()).sum();
    assert!(
        sent as u64 * 10 <= bytes * 11 + 50_000,
        "{sent} bytes instead of {bytes}"
    );
}

#[test]
fn no_answer_is_waited_for_longer_than_fifteen_seconds() {
    let (mut net, bytes) = filled(20_000);
    let node = net.nodes.len();
    net.link(node, Link::of(30, 0));
    net.join(keyring(1, &[]));
    net.run(bytes / 30 / 3);
    // Answers took seconds; now none comes, for long.
    net.drop_where(move |sent, to| to == node && ANSWERS.contains(&sent.kind()));
    net.run(100_000);
    net.drop_nothing();
    let before = net.counters(node).replay_bytes_received;
    let took = net.run_until("something arrives", |net| {
        net.counters(node).replay_bytes_received > before
    });
    assert!(took <= 17_000, "{took} ms");
}

/// Writes at `writer` meanwhile, each of which all have to confirm within five seconds. Returns the longest time that
/// one took.
fn confirmed_until(net: &mut Net, writer: usize, done: impl Fn(&Net) -> bool) -> Millis {
    let (mut longest, mut id) = (0, 0);
    while !done(net) {
        id += 1;
        net.set_acked(writer, "confirmed", &id.to_string(), id, AckLevel::All, 5_000);
        let took = net.run_until("it is answered", |net| net.nodes[writer].acked.contains_key(&id));
        assert_eq!(net.nodes[writer].acked[&id], Ok(()), "write {id}");
        longest = longest.max(took);
        net.run(100);
    }
    assert!(id >= 5, "only {id} writes");
    longest
}

#[test]
fn writes_are_confirmed_while_a_node_behind_a_slow_link_is_filled() {
    for (rate, delay) in [(125, 0), (250, 20), (250, 150)] {
        let (mut net, _) = filled(20_000);
        let node = net.nodes.len();
        net.link(node, Link::of(rate, delay));
        net.join(keyring(1, &[]));
        net.run_until("it is a peer", |net| net.status(0).peers.len() == 2);
        let longest = confirmed_until(&mut net, 0, |net| net.status(node).sync == SyncState::Synced);
        println!("{rate} B/ms, {delay} ms each way: {longest} ms");
        assert!(
            longest <= 1_300 + 6 * delay,
            "{rate} B/ms, {delay} ms each way: {longest} ms"
        );
        assert_eq!(net.get(node, "confirmed"), net.get(0, "confirmed"));
    }
}

#[test]
fn writes_are_confirmed_while_a_node_behind_a_slow_link_fills_another() {
    let (mut net, _) = filled(20_000);
    net.link(0, Link::of(250, 20));
    net.nodes[1].answers = false;
    let node = net.join(keyring(1, &[]));
    net.run_until("it is a peer", |net| net.status(1).peers.len() == 2);
    let longest = confirmed_until(&mut net, 1, |net| net.status(node).sync == SyncState::Synced);
    println!("{longest} ms");
    assert!(longest <= 1_500, "{longest} ms");
}

#[test]
fn a_write_that_a_slow_link_does_not_carry_in_time_names_the_host_behind_it() {
    let (mut net, _) = filled(20_000);
    let node = net.nodes.len();
    net.link(node, Link::of(125, 10));
    net.join(keyring(1, &[]));
    net.run_until("it is a peer", |net| net.status(0).peers.len() == 2);
    net.set_acked(0, "key", "value", 1, AckLevel::All, 50);
    net.run(60);
    let unconfirmed = net.nodes[0].acked[&1].clone().unwrap_err();
    assert_eq!(
        (unconfirmed.confirmed, unconfirmed.missing),
        (1, vec![format!("host{node}")])
    );
    net.settle_within(60_000);
    assert_eq!(net.get(node, "key").as_deref(), Some("value"));
}

#[test]
fn a_long_way_costs_a_few_round_trips() {
    let (mut net, bytes) = filled(30_000);
    // Bytes per millisecond, 0 for any number, and round trips beside what the link takes: two to meet, then those
    // until the window is as large as what the way holds.
    for (rate, trips) in [(0, 5), (4_000, 4), (1_000, 3), (250, 3)] {
        let node = net.nodes.len();
        net.link(node, Link::of(rate, 150));
        let began = net.now;
        net.join(keyring(1, &[]));
        while net.status(node).sync != SyncState::Synced {
            net.run(1);
        }
        let (took, least) = (net.now - began, bytes.checked_div(rate).unwrap_or(0));
        let told = format!(
            "{rate} B/ms: {took} ms instead of {least}, {} bytes instead of {bytes}",
            net.carried(node)
        );
        println!("{told}");
        assert!(took <= least * 105 / 100 + trips * 300 + 20, "{told}");
        assert!(net.carried(node) * 100 <= bytes * 102 + 300_000, "{told}");
        net.disconnect(node);
        net.run(10 * HEARTBEAT);
    }
}
