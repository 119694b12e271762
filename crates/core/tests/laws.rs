//! The laws of the merge: any order, any grouping, any repetition of the same deltas ends in the same state.

mod model;
mod support;

use kvcache_core::cache::{Cache, Delta, Key, Limits, Millis, NodeId, StateDelta, Time};
use proptest::prelude::*;
use proptest::sample::{Index, Selector};
use support::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn any_order_and_repetition_ends_in_the_same_state(steps in steps(), selectors in any::<[Selector; 4]>()) {
        let History { nodes, deltas: all, now } = play(&steps);
        for node in &nodes {
            apply_all(node, &all, now);
        }
        let digest = checked_digest(&nodes[0]);
        let state = deltas(&nodes[0]);
        for (number, selector) in selectors.into_iter().enumerate() {
            let replica = cache(10 + number as u64);
            let mut order: Vec<&Delta> = all.iter().chain(all.iter().take(all.len() / 2)).collect();
            let count = order.len();
            let mut shuffled = Vec::with_capacity(count);
            while !order.is_empty() {
                let index = *selector.select(&(0..order.len()).collect::<Vec<_>>());
                shuffled.push(order.swap_remove(index));
            }
            apply_all(&replica, shuffled, now);
            prop_assert_eq!(checked_digest(&replica), digest);
            prop_assert_eq!(&deltas(&replica), &state);
        }
        for node in &nodes[1..] {
            prop_assert_eq!(checked_digest(node), digest);
            prop_assert_eq!(&deltas(node), &state);
            prop_assert_eq!(node.keys(), nodes[0].keys());
        }
    }

    #[test]
    fn equal_stamps_with_different_content_end_in_the_same_state(
        steps in steps(), twins in prop::collection::vec((any::<Index>(), any::<u8>()), 1..8), selectors in any::<[Selector; 3]>(),
    ) {
        let History { nodes, deltas: mut all, now } = play(&steps);
        prop_assume!(!all.is_empty());
        all.extend(twins.iter().map(|(of, choice)| twin(of.get(&all), *choice)).collect::<Vec<_>>());
        apply_all(&nodes[0], &all, now);
        let state = deltas(&nodes[0]);
        for (number, selector) in selectors.into_iter().enumerate() {
            let replica = cache(10 + number as u64);
            let mut order: Vec<&Delta> = all.iter().chain(&state).collect();
            let mut shuffled = Vec::new();
            while !order.is_empty() {
                let index = *selector.select(&(0..order.len()).collect::<Vec<_>>());
                shuffled.push(order.swap_remove(index));
            }
            apply_all(&replica, shuffled, now);
            prop_assert_eq!(checked_digest(&replica), checked_digest(&nodes[0]));
            prop_assert_eq!(&deltas(&replica), &state);
        }
        // Two that took them in other groups have other digests for as long as they are not equal.
        let (a, b) = (cache(20), cache(21));
        let (first, second) = all.split_at(all.len() - twins.len());
        apply_all(&a, first, now);
        apply_all(&b, second.iter().chain(first), now);
        prop_assert_eq!(deltas(&a) == deltas(&b), checked_digest(&a) == checked_digest(&b));
        let (of_a, of_b) = (deltas(&a), deltas(&b));
        apply_all(&a, &of_b, now);
        apply_all(&b, &of_a, now);
        prop_assert_eq!(checked_digest(&a), checked_digest(&b));
        prop_assert_eq!(deltas(&a), deltas(&b));
        prop_assert_eq!(deltas(&a), state);
    }

    #[test]
    fn equal_stamps_agree_with_the_executable_model(
        steps in steps(), twins in prop::collection::vec((any::<Index>(), any::<u8>()), 1..8),
    ) {
        let steps: Vec<Step> = steps.into_iter().map(without_expiry).collect();
        let History { nodes, deltas: mut all, now } = play(&steps);
        prop_assume!(!all.is_empty());
        let without_expiry = |choice: u8| if choice % 4 == 1 { choice + 1 } else { choice };
        all.extend(twins.iter().map(|(of, choice)| twin(of.get(&all), without_expiry(*choice))).collect::<Vec<_>>());
        apply_all(&nodes[0], &all, now);
        for key in keys() {
            let state = model::join_all(all.iter().filter(|delta| *delta.key == *key.as_bytes()));
            prop_assert_eq!(seen(&nodes[0], &key, now), model::seen(&state));
        }
    }

    #[test]
    fn any_grouping_ends_in_the_same_state(steps in steps(), cut in any::<Index>()) {
        let History { nodes, deltas: all, now } = play(&steps);
        apply_all(&nodes[0], &all, now);
        let (left, right) = all.split_at(cut.index(all.len() + 1));
        let (a, b) = (cache(10), cache(11));
        apply_all(&a, left, now);
        apply_all(&b, right, now);
        let (of_a, of_b) = (deltas(&a), deltas(&b));
        apply_all(&a, &of_b, now);
        apply_all(&b, &of_a, now);
        prop_assert_eq!(checked_digest(&a), checked_digest(&nodes[0]));
        prop_assert_eq!(checked_digest(&b), checked_digest(&nodes[0]));
        prop_assert_eq!(deltas(&a), deltas(&nodes[0]));
    }

    #[test]
    fn superseded_deltas_need_not_be_sent(steps in steps(), selector in any::<Selector>()) {
        let History { nodes, deltas: all, now } = play(&steps);
        // States written out hold deltas that no client makes: resets that lost their value to a list or set.
        let mut all: Vec<Delta> = all.into_iter().chain(deltas(&nodes[0])).collect();
        let mut shuffled = Vec::new();
        while !all.is_empty() {
            let index = *selector.select(&(0..all.len()).collect::<Vec<_>>());
            shuffled.push(all.swap_remove(index));
        }
        let needed = |delta: &&Delta| !shuffled.iter().any(|newer| newer.supersedes(delta));
        let (whole, short) = (cache(10), cache(11));
        apply_all(&whole, &shuffled, now);
        apply_all(&short, shuffled.iter().filter(needed), now);
        prop_assert_eq!(checked_digest(&short), checked_digest(&whole));
        prop_assert_eq!(deltas(&short), deltas(&whole));
        prop_assert_eq!(short.keys(), whole.keys());
        // One delta for each slot is left, but for repetitions of the same.
        let mut left: Vec<&Delta> = shuffled.iter().filter(needed).collect();
        while let Some(delta) = left.pop() {
            let same_slot = |other: &&&Delta| other.key == delta.key && other.slot() == delta.slot();
            for other in left.iter().filter(same_slot) {
                prop_assert_eq!(other.newest(), delta.newest());
            }
        }
    }

    #[test]
    fn state_written_out_rebuilds_itself(steps in steps()) {
        let History { nodes, now, .. } = play(&steps);
        for node in &nodes {
            let copy = cache(20);
            apply_all(&copy, &deltas(node), now);
            prop_assert_eq!(checked_digest(&copy), checked_digest(node));
            prop_assert_eq!(deltas(&copy), deltas(node));
            for key in keys() {
                for later in [now, now + 2_000, now + 10_000] {
                    prop_assert_eq!(seen(&copy, &key, later), seen(node, &key, later));
                }
            }
        }
    }

    #[test]
    fn sweeping_changes_neither_digest_nor_answers(steps in steps(), wait in 0u64..5_000) {
        let History { nodes, deltas: all, now } = play(&steps);
        let now = now + wait;
        for node in &nodes {
            apply_all(node, &all, now);
        }
        nodes[0].sweep(1_024, now);
        prop_assert_eq!(checked_digest(&nodes[0]), checked_digest(&nodes[1]));
        for key in keys() {
            prop_assert_eq!(seen(&nodes[0], &key, now), seen(&nodes[1], &key, now));
        }
        // A copy made of the swept state behaves as one made of the other.
        let (swept, whole) = (cache(20), cache(21));
        apply_all(&swept, &deltas(&nodes[0]), now);
        apply_all(&whole, &deltas(&nodes[1]), now);
        prop_assert_eq!(checked_digest(&swept), checked_digest(&whole));
        for key in keys() {
            prop_assert_eq!(seen(&swept, &key, now), seen(&whole, &key, now));
        }
    }

    #[test]
    fn merge_agrees_with_the_executable_model(steps in steps()) {
        // The model states the rules without expiry.
        let steps: Vec<Step> = steps.into_iter().map(without_expiry).collect();
        let History { nodes, deltas: all, now } = play(&steps);
        apply_all(&nodes[0], &all, now);
        for key in keys() {
            let state = model::join_all(all.iter().filter(|delta| *delta.key == *key.as_bytes()));
            prop_assert_eq!(seen(&nodes[0], &key, now), model::seen(&state));
        }
    }

    #[test]
    fn no_increment_above_the_horizon_is_lost(steps in steps()) {
        let steps: Vec<Step> = steps.into_iter().map(without_expiry).collect();
        let History { nodes, deltas: all, now } = play(&steps);
        apply_all(&nodes[0], &all, now);
        for key in keys() {
            let Some(owed) = model::owed(&all, &key) else { continue };
            let shown = seen(&nodes[0], &key, now);
            let Seen::Scalar(text) = &shown else {
                return Err(TestCaseError::fail(format!("{shown:?} although {owed} are owed")));
            };
            let total = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
            prop_assert!(total >= Some(owed), "{shown:?} although {owed} are owed");
        }
    }
}

fn without_expiry(step: Step) -> Step {
    match step {
        Step::Write {
            node,
            key,
            write: Write::Set { value, .. },
            pause,
        } => Step::Write {
            node,
            key,
            write: Write::Set { value, expires: 0 },
            pause,
        },
        // Sums that can only grow, so that what is owed is a lower bound.
        Step::Write {
            node,
            key,
            write: Write::Increment(amount),
            pause,
        } => Step::Write {
            node,
            key,
            write: Write::Increment(amount.abs()),
            pause,
        },
        other => other,
    }
}

/// What happens where wall clocks run up to two days ahead for a while.
#[derive(Clone, Debug)]
enum Jump {
    Write {
        node: usize,
        key: usize,
        write: Write,
    },
    /// Deltas from the future arrive too, as though this node's clock were ahead as well.
    Deliver {
        node: usize,
        delta: Index,
    },
    /// The wall clock of a node is so many hours ahead from now on.
    Clock {
        node: usize,
        hours: u64,
    },
    Sweep {
        node: usize,
    },
}

fn jumps() -> impl Strategy<Value = Vec<Jump>> {
    let jump = prop_oneof![
        5 => (0usize..3, 0usize..2, write()).prop_map(|(node, key, write)| Jump::Write { node, key, write }),
        2 => (0usize..3, any::<Index>()).prop_map(|(node, delta)| Jump::Deliver { node, delta }),
        3 => (0usize..3, prop_oneof![2 => Just(0u64), 1 => 1u64..48]).prop_map(|(node, hours)| Jump::Clock { node, hours }),
        1 => (0usize..3).prop_map(|node| Jump::Sweep { node }),
    ];
    prop::collection::vec(jump, 1..60)
}

const HOUR: Millis = 3_600_000;

/// What the client sees that has just written at a node, given what it saw before.
fn check_own_write(before: &Seen, write: &Write, after: &Seen) {
    let has = |text: &String| match after {
        Seen::List(all) => all.last().is_some_and(|last| **last == *text.as_bytes()),
        Seen::Set(all) => all.iter().any(|member| **member == *text.as_bytes()),
        _ => false,
    };
    let number = |seen: &Seen| match seen {
        Seen::Scalar(text) => std::str::from_utf8(text).unwrap().parse::<i64>().unwrap(),
        _ => 0,
    };
    match write {
        Write::Set { value, .. } => assert_eq!(after, &Seen::Scalar(value.clone().into())),
        Write::Delete => assert_eq!(after, &Seen::Nothing),
        Write::Increment(amount) => assert_eq!(number(after), number(before) + *amount),
        Write::Push(text) | Write::Add(text) => assert!(has(text), "{text:?} in {after:?}"),
        Write::Drop(text) => assert!(!has(text), "{text:?} in {after:?}"),
        Write::Remove(_) => assert_ne!(after, before),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_write_counts_after_all_its_key_holds_though_the_clock_went_back(jumps in jumps(), selector in any::<Selector>()) {
        let nodes: Vec<Cache> = (1..=3).map(cache).collect();
        let (mut ahead, mut now) = ([0; 3], START);
        let mut all: Vec<Delta> = Vec::new();
        let mut swept = false;
        for jump in &jumps {
            now += 20;
            match jump {
                Jump::Clock { node, hours } => ahead[*node] = hours * HOUR,
                Jump::Sweep { node } => {
                    nodes[*node].sweep(1_024, now + ahead[*node]);
                    swept = true;
                    let newest = now + ahead[*node] + Limits::default().max_clock_skew_ms;
                    prop_assert!(nodes[*node].floor().millis() <= newest - Limits::default().tombstone_ttl_ms);
                }
                Jump::Deliver { node, delta } if !all.is_empty() => {
                    nodes[*node].apply(delta.get(&all), now + 48 * HOUR).expect("an honest delta");
                }
                Jump::Deliver { .. } => {}
                Jump::Write { node, key, write } => {
                    let (key, cache, wall) = (&keys()[*key], &nodes[*node], now + ahead[*node]);
                    let before = seen(cache, key, wall);
                    let of_key = |delta: &&Delta| *delta.key == *key.as_bytes();
                    let newest = deltas(cache).iter().filter(of_key).map(|delta| delta.newest()).max();
                    let Ok(Some(delta)) = perform(cache, key, write, wall) else { continue };
                    prop_assert!(Some(delta.newest()) > newest, "{:?} after {newest:?}", delta.newest());
                    check_own_write(&before, write, &seen(cache, key, wall));
                    all.push(delta);
                }
            }
        }
        let later = now + 48 * HOUR;
        for node in &nodes {
            checked_digest(node);
        }
        if swept {
            // What was collected early may be here or not.
            return Ok(());
        }
        // No two have one stamp, on one key.
        let mut stamps: Vec<_> = all.iter().map(|delta| (&delta.key, delta.newest())).collect();
        stamps.sort_unstable();
        prop_assert!(stamps.windows(2).all(|pair| pair[0] != pair[1]));
        let replica = cache(10);
        let mut order: Vec<&Delta> = all.iter().collect();
        while !order.is_empty() {
            let index = *selector.select(&(0..order.len()).collect::<Vec<_>>());
            apply_all(&replica, [order.swap_remove(index)], later);
        }
        for node in &nodes {
            apply_all(node, &all, later);
            prop_assert_eq!(checked_digest(node), checked_digest(&replica));
            prop_assert_eq!(deltas(node), deltas(&replica));
        }
    }
}

#[test]
fn what_was_written_with_a_clock_ahead_may_be_written_again_and_expires_in_time() {
    let node = cache(1);
    let (number, text) = (Key::shared(b"number"), Key::shared(b"text"));
    let day = 24 * HOUR;
    assert_eq!(node.increment(&number, 5, START + day).unwrap().0, 5);
    node.set(&text, "old", 0, START + day).unwrap();
    assert_eq!(node.increment(&number, 1, START + 1).unwrap().0, 6);
    node.set(&text, "new", 60, START + 1).unwrap();
    assert_eq!(seen(&node, &text, START + 60_000), Seen::Scalar("new".into()));
    assert_eq!(seen(&node, &text, START + 60_001), Seen::Nothing);
    // It counts anew, and so does everybody who gets to know of it.
    assert_eq!(node.increment(&text, 3, START + 60_001).unwrap().0, 3);
    let other = cache(2);
    apply_all(&other, &deltas(&node), START + day);
    assert_eq!(seen(&other, &text, START + day), Seen::Scalar("3".into()));
    assert_eq!(seen(&other, &number, START + day), Seen::Scalar("6".into()));
}

#[test]
fn a_clock_that_was_ahead_does_not_make_forget_early() {
    let (node, key, day) = (cache(1), Key::shared(b"key"), 24 * HOUR);
    node.delete(&key, START).unwrap();
    node.set(&Key::shared(b"expires"), "value", 3_600, START).unwrap();
    // Others are there, whose clocks are right.
    node.clock().compare_with([START; 2]);
    node.sweep(1_024, START + 10 * day);
    assert_eq!((node.entries(), node.keys()), (2, 1));
    // Nobody is there: it is believed, until it goes back.
    node.clock().compare_with([0; 2]);
    node.sweep(1_024, START + 10 * day);
    assert_eq!(node.entries(), 0);
    node.sweep(1_024, START + 1);
    assert!(node.floor() <= Time::from_millis(START + 1 - day));
    node.delete(&key, START + 1).unwrap();
    node.sweep(1_024, START + 2);
    assert_eq!(node.entries(), 1);
}

#[test]
fn deletions_are_forgotten_after_their_lifetime_and_the_cache_is_empty_again() {
    let node = cache(1);
    for n in 0..1_000 {
        let key = Key::shared(format!("k{n}").as_bytes());
        let write = match n % 4 {
            0 => Write::Set {
                value: "v".into(),
                expires: 0,
            },
            1 => Write::Set {
                value: "v".into(),
                expires: 5,
            },
            2 => Write::Push("v".into()),
            _ => Write::Add("v".into()),
        };
        perform(&node, &key, &write, START).unwrap();
        match n % 4 {
            0 => perform(&node, &key, &Write::Delete, START + 1),
            2 => perform(&node, &key, &Write::Remove("v".into()), START + 1),
            3 => perform(&node, &key, &Write::Drop("v".into()), START + 1),
            _ => Ok(None),
        }
        .unwrap();
    }
    let day = 24 * 60 * 60 * 1_000;
    node.sweep(1_024, START + day - 1);
    assert_eq!(
        (node.keys(), node.entries()),
        (0, 1_000),
        "tombstones stay for their lifetime"
    );
    // The last deadline, and one step of the floor.
    node.sweep(1_024, START + 5_000 + day + day / 24 + 1);
    assert_eq!((node.keys(), node.entries()), (0, 0));
    assert_eq!(checked_digest(&node).0, 0);
}

#[test]
fn what_one_node_has_forgotten_does_not_come_back_from_one_that_is_swept_later() {
    let (a, b) = (cache(1), cache(2));
    let write = |key: &str, write: Write, now: Millis| {
        let key = Key::shared(key.as_bytes());
        if let Some(delta) = perform(&a, &key, &write, now).unwrap() {
            b.apply(&delta, now).unwrap();
        }
    };
    for text in ["gone", "stays"] {
        write("list", Write::Push(text.into()), START);
        write("set", Write::Add(text.into()), START);
    }
    write("list", Write::Remove("gone".into()), START + 1);
    write("set", Write::Drop("gone".into()), START + 1);
    write("counter", Write::Delete, START);
    write("counter", Write::Increment(1), START + 1);
    write("counter", Write::Delete, START + 2);
    let later = START + 2 * 24 * 60 * 60 * 1_000;
    a.sweep(1_024, later);
    b.raise_floor(a.floor());
    b.clock().observe(a.clock().latest());
    let forgotten = checked_digest(&a);
    apply_all(&a, &deltas(&b), later);
    assert_eq!(checked_digest(&a), forgotten, "marks came back");
    b.sweep(1_024, later);
    assert_eq!(checked_digest(&b), forgotten);
    assert_eq!(deltas(&a), deltas(&b));
}

/// What one client after the other does to one counter, each at a node that has all that was done before.
#[derive(Clone, Debug)]
enum Turn {
    Write { node: usize, write: Write },
    Sweep { node: usize },
    Wait { part: u64 },
}

const TTL_MS: Millis = 2_400;

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let write = prop_oneof![
        6 => (-9i64..10).prop_map(Write::Increment),
        3 => Just(Write::Delete),
        1 => (-50i64..50, 0u32..4).prop_map(|(n, expires)| Write::Set { value: n.to_string(), expires }),
    ];
    let turn = prop_oneof![
        4 => (0usize..3, write).prop_map(|(node, write)| Turn::Write { node, write }),
        3 => (0usize..3).prop_map(|node| Turn::Sweep { node }),
        2 => (1u64..30).prop_map(|part| Turn::Wait { part }),
    ];
    prop::collection::vec(turn, 1..40)
}

fn forgetful(node: u64) -> Cache {
    let limits = Limits {
        tombstone_ttl_ms: TTL_MS,
        ..Limits::default()
    };
    Cache::new(NodeId(node), limits)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_counter_shows_what_one_server_would_whoever_has_forgotten_what(turns in turns()) {
        let nodes: Vec<Cache> = (1..=3).map(forgetful).collect();
        let key = Key::shared(b"counter");
        let mut now = START;
        let (mut expected, mut deadline) = (None::<i64>, Millis::MAX);
        for turn in &turns {
            now += 1;
            match turn {
                Turn::Wait { part } => now += part * TTL_MS / 20,
                Turn::Sweep { node } => drop(nodes[*node].sweep(1_024, now)),
                Turn::Write { node, write } => {
                    if now >= deadline {
                        (expected, deadline) = (None, Millis::MAX);
                    }
                    match write {
                        Write::Increment(amount) => expected = Some(expected.unwrap_or(0) + *amount),
                        Write::Set { value, expires } => {
                            expected = value.parse().ok();
                            deadline = if *expires == 0 { Millis::MAX } else { now + u64::from(*expires) * 1_000 };
                        }
                        _ => (expected, deadline) = (None, Millis::MAX),
                    }
                    let delta = perform(&nodes[*node], &key, write, now).unwrap().unwrap();
                    for other in &nodes {
                        apply_all(other, [&delta], now);
                    }
                }
            }
            let shown = expected.filter(|_| now < deadline);
            let shown = shown.map_or(Seen::Nothing, |number| Seen::Scalar(number.to_string().into()));
            for node in &nodes {
                prop_assert_eq!(&seen(node, &key, now), &shown);
                checked_digest(node);
            }
        }
        // Swept, and having told each other what they hold, they are equal, and so is one that comes new.
        let shown = seen(&nodes[0], &key, now);
        let new = forgetful(4);
        new.sweep(1_024, now);
        for from in &nodes {
            from.sweep(1_024, now);
            for to in nodes.iter().chain([&new]) {
                apply_all(to, &deltas(from), now);
            }
        }
        for node in nodes.iter().chain([&new]) {
            node.sweep(1_024, now);
            prop_assert_eq!(seen(node, &key, now), shown.clone());
            prop_assert_eq!(checked_digest(node), checked_digest(&nodes[0]));
            prop_assert_eq!(deltas(node), deltas(&nodes[0]));
            prop_assert!(node.entries() <= 1);
        }
    }
}

#[test]
fn a_counter_that_begins_anew_is_not_taken_for_the_forgotten_one() {
    let (a, b) = (cache(1), cache(2));
    let key = Key::shared(b"counter");
    let add = |amount, now| a.increment(&key, amount, now).unwrap();
    apply_all(&b, [&add(5, START).1, &a.delete(&key, START + 1).unwrap().1], START + 1);
    let later = START + 2 * 24 * 60 * 60 * 1_000;
    a.sweep(1_024, later);
    assert_eq!((a.entries(), b.entries()), (0, 1), "only one of them has forgotten");
    let (seven, first) = add(7, later);
    let (nine, second) = add(2, later + 1);
    assert_eq!((seven, nine), (7, 9));
    assert_eq!(first.slot(), second.slot(), "one entry is added to");
    apply_all(&b, [&second], later);
    assert_eq!(seen(&b, &key, later), Seen::Scalar("9".into()));
    // The other one, which still remembers the deletion, adds on something that all can count.
    let (ten, third) = b.increment(&key, 1, later + 2).unwrap();
    assert_eq!(ten, 10);
    apply_all(&a, [&third], later + 2);
    assert_eq!(seen(&a, &key, later + 2), Seen::Scalar("10".into()));
    // A deletion ends that counter as well.
    apply_all(&a, [&b.delete(&key, later + 3).unwrap().1], later + 3);
    apply_all(&a, [&first, &third], later + 3);
    assert_eq!(seen(&a, &key, later + 3), Seen::Nothing);
}

#[test]
fn a_counter_that_stands_on_a_forgotten_deletion_reaches_a_newcomer() {
    let old = cache(1);
    let (scalar, counter) = (Key::shared(b"scalar"), Key::shared(b"counter"));
    for key in [&scalar, &counter] {
        old.set(key, "100", if *key == scalar { 1 } else { 0 }, START).unwrap();
    }
    old.delete(&counter, START + 1).unwrap();
    for key in [&scalar, &counter] {
        old.increment(key, 3, START + 5_000).unwrap();
    }
    let later = START + 2 * 24 * 60 * 60 * 1_000;
    let new = cache(2);
    for node in [&old, &new] {
        node.sweep(1_024, later);
    }
    let held = deltas(&old);
    assert!(
        held.iter().any(|c| matches!(c.change, StateDelta::Delete { .. })),
        "{held:?}"
    );
    apply_all(&new, held.iter().rev(), later);
    for key in [&scalar, &counter] {
        assert_eq!(seen(&new, key, later), Seen::Scalar("3".into()));
    }
    assert_eq!(checked_digest(&new), checked_digest(&old));
    // A deletion that nothing builds upon is dropped by the next sweep, and not handed out until then.
    let (_, lone) = cache(3).delete(&Key::shared(b"lone"), START).unwrap();
    apply_all(&new, [&lone], later);
    assert_eq!((new.entries(), deltas(&new)), (3, held));
    new.sweep(1_024, later);
    assert_eq!(checked_digest(&new), checked_digest(&old));
}

#[test]
fn an_entry_waits_for_its_reset_until_that_can_only_have_been_forgotten() {
    let (author, node) = (cache(1), cache(2));
    let key = Key::shared(b"counter");
    let (_, deletion) = author.delete(&key, START).unwrap();
    let (_, addition) = author.increment(&key, 3, START + 10).unwrap();
    apply_all(&node, [&addition], START + 10);
    assert_eq!(seen(&node, &key, START + 10), Seen::Nothing);
    node.raise_floor(Time::from_millis(START + 5));
    assert_eq!(seen(&node, &key, START + 10), Seen::Scalar("3".into()));
    apply_all(&node, [&deletion], START + 10);
    assert_eq!(seen(&node, &key, START + 10), Seen::Scalar("3".into()));
    assert_eq!(checked_digest(&node), checked_digest(&author));
}

#[test]
fn an_expired_put_does_not_shadow_a_set_stamped_before_the_deadline() {
    let (a, b) = (cache(1), cache(2));
    let key = Key::shared(b"k");
    let short = a.set(&key, "short", 1, START).unwrap();
    b.apply(&short, START).unwrap();
    let long = b.set(&key, "long", 0, START + 500).unwrap();
    assert_eq!(seen(&a, &key, START + 5_000), Seen::Nothing);
    a.sweep(1_024, START + 5_000);
    a.apply(&long, START + 5_000).unwrap();
    assert_eq!(seen(&a, &key, START + 5_000), Seen::Scalar("long".into()));
    assert_eq!(checked_digest(&a), checked_digest(&b));
}

#[test]
fn counters_start_from_zero_after_the_deadline_on_all_nodes_alike() {
    let (a, b) = (cache(1), cache(2));
    let key = Key::shared(b"k");
    let put = a.set(&key, "100", 1, START).unwrap();
    b.apply(&put, START).unwrap();
    let before = a.increment(&key, 5, START + 10).unwrap();
    assert_eq!(before.0, 105);
    let (one, first) = a.increment(&key, 1, START + 2_000).unwrap();
    let (two, second) = b.increment(&key, 2, START + 2_000).unwrap();
    assert_eq!((one, two), (1, 2));
    apply_all(&a, [&second], START + 2_000);
    apply_all(&b, [&first, &before.1], START + 2_000);
    for node in [&a, &b] {
        assert_eq!(seen(node, &key, START + 2_000), Seen::Scalar("3".into()));
    }
    assert_eq!(checked_digest(&a), checked_digest(&b));
}

#[test]
fn an_addition_of_a_member_that_is_there_outlives_an_older_removal() {
    let (a, b) = (cache(1), cache(2));
    let key = Key::shared(b"k");
    let (_, first) = a.set_add(&key, "m", START).unwrap();
    b.apply(&first, START).unwrap();
    let (_, removal) = b.set_remove(&key, "m", START + 10).unwrap();
    let (new, again) = a.set_add(&key, "m", START + 20).unwrap();
    assert!(!new, "it was there");
    apply_all(&a, &removal, START + 20);
    apply_all(&b, [&again], START + 20);
    for node in [&a, &b] {
        assert_eq!(seen(node, &key, START + 20), Seen::Set(vec!["m".into()]));
    }
}

#[test]
fn a_deletion_holds_against_an_older_write_that_is_still_on_its_way() {
    let (a, b) = (cache(1), cache(2));
    let (key, set) = (Key::shared(b"k"), Key::shared(b"s"));
    let write = a.set(&key, "v", 0, START).unwrap();
    let (_, one) = a.set_add(&set, "one", START).unwrap();
    let (_, two) = a.set_add(&set, "two", START).unwrap();
    b.apply(&two, START).unwrap();
    let (there, deletion) = b.delete(&key, START + 10).unwrap();
    let (removed, removal) = b.set_remove(&set, "one", START + 10).unwrap();
    assert!(!there && !removed, "nothing to be seen yet");
    apply_all(&b, [&write, &one], START + 10);
    apply_all(&a, removal.iter().chain([&deletion]), START + 10);
    for node in [&a, &b] {
        assert_eq!(seen(node, &key, START + 10), Seen::Nothing);
        assert_eq!(seen(node, &set, START + 10), Seen::Set(vec!["two".into()]));
    }
    assert_eq!(checked_digest(&a), checked_digest(&b));
}
