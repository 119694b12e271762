//! The laws of the merge: any order, any grouping, any repetition of the same commands ends in the same state.

mod model;
mod support;

use nats_kvcache::cache::{Cache, Command, Key, Millis};
use proptest::prelude::*;
use proptest::sample::{Index, Selector};
use support::*;

/// A step of a history: a client writes at a node, or an old command arrives there, perhaps again.
#[derive(Clone, Debug)]
enum Step {
    Write {
        node: usize,
        key: usize,
        write: Write,
        pause: Millis,
    },
    Deliver {
        node: usize,
        command: Index,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0usize..3, 0usize..2, write(), prop_oneof![4 => 0u64..50, 1 => 500u64..2_500])
            .prop_map(|(node, key, write, pause)| Step::Write { node, key, write, pause }),
        2 => (0usize..3, any::<Index>()).prop_map(|(node, command)| Step::Deliver { node, command }),
    ];
    prop::collection::vec(step, 1..40)
}

struct History {
    nodes: Vec<Cache>,
    commands: Vec<Command>,
    now: Millis,
}

fn keys() -> [Key; 2] {
    [Key::shared(b"first"), Key::shared(b"second key, longer than 23 bytes")]
}

fn play(steps: &[Step]) -> History {
    let mut history = History {
        nodes: (1..=3).map(cache).collect(),
        commands: Vec::new(),
        now: START,
    };
    for step in steps {
        match step {
            Step::Write {
                node,
                key,
                write,
                pause,
            } => {
                history.now += pause;
                let command = perform(&history.nodes[*node], &keys()[*key], write, history.now);
                history.commands.extend(command.ok().flatten());
            }
            Step::Deliver { node, command } if !history.commands.is_empty() => {
                let command = command.get(&history.commands);
                history.nodes[*node]
                    .apply(command, history.now)
                    .expect("an honest command");
            }
            Step::Deliver { .. } => {}
        }
    }
    history
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn any_order_and_repetition_ends_in_the_same_state(steps in steps(), selectors in any::<[Selector; 4]>()) {
        let History { nodes, commands: all, now } = play(&steps);
        for node in &nodes {
            apply_all(node, &all, now);
        }
        let digest = checked_digest(&nodes[0]);
        let state = commands(&nodes[0]);
        for (number, selector) in selectors.into_iter().enumerate() {
            let replica = cache(10 + number as u64);
            let mut order: Vec<&Command> = all.iter().chain(all.iter().take(all.len() / 2)).collect();
            let count = order.len();
            let mut shuffled = Vec::with_capacity(count);
            while !order.is_empty() {
                let index = *selector.select(&(0..order.len()).collect::<Vec<_>>());
                shuffled.push(order.swap_remove(index));
            }
            apply_all(&replica, shuffled, now);
            prop_assert_eq!(checked_digest(&replica), digest);
            prop_assert_eq!(&commands(&replica), &state);
        }
        for node in &nodes[1..] {
            prop_assert_eq!(checked_digest(node), digest);
            prop_assert_eq!(&commands(node), &state);
            prop_assert_eq!(node.keys(), nodes[0].keys());
        }
    }

    #[test]
    fn any_grouping_ends_in_the_same_state(steps in steps(), cut in any::<Index>()) {
        let History { nodes, commands: all, now } = play(&steps);
        apply_all(&nodes[0], &all, now);
        let (left, right) = all.split_at(cut.index(all.len() + 1));
        let (a, b) = (cache(10), cache(11));
        apply_all(&a, left, now);
        apply_all(&b, right, now);
        let (of_a, of_b) = (commands(&a), commands(&b));
        apply_all(&a, &of_b, now);
        apply_all(&b, &of_a, now);
        prop_assert_eq!(checked_digest(&a), checked_digest(&nodes[0]));
        prop_assert_eq!(checked_digest(&b), checked_digest(&nodes[0]));
        prop_assert_eq!(commands(&a), commands(&nodes[0]));
    }

    #[test]
    fn state_written_out_rebuilds_itself(steps in steps()) {
        let History { nodes, now, .. } = play(&steps);
        for node in &nodes {
            let copy = cache(20);
            apply_all(&copy, &commands(node), now);
            prop_assert_eq!(checked_digest(&copy), checked_digest(node));
            prop_assert_eq!(commands(&copy), commands(node));
            for key in keys() {
                for later in [now, now + 2_000, now + 10_000] {
                    prop_assert_eq!(seen(&copy, &key, later), seen(node, &key, later));
                }
            }
        }
    }

    #[test]
    fn sweeping_changes_neither_digest_nor_answers(steps in steps(), wait in 0u64..5_000) {
        let History { nodes, commands: all, now } = play(&steps);
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
        apply_all(&swept, &commands(&nodes[0]), now);
        apply_all(&whole, &commands(&nodes[1]), now);
        prop_assert_eq!(checked_digest(&swept), checked_digest(&whole));
        for key in keys() {
            prop_assert_eq!(seen(&swept, &key, now), seen(&whole, &key, now));
        }
    }

    #[test]
    fn merge_agrees_with_the_executable_model(steps in steps()) {
        // The model states the rules without expiry.
        let steps: Vec<Step> = steps.into_iter().map(without_expiry).collect();
        let History { nodes, commands: all, now } = play(&steps);
        apply_all(&nodes[0], &all, now);
        for key in keys() {
            let state = model::join_all(all.iter().filter(|command| command.key == *key.as_bytes()));
            prop_assert_eq!(seen(&nodes[0], &key, now), model::seen(&state));
        }
    }

    #[test]
    fn no_increment_above_the_horizon_is_lost(steps in steps()) {
        let steps: Vec<Step> = steps.into_iter().map(without_expiry).collect();
        let History { nodes, commands: all, now } = play(&steps);
        apply_all(&nodes[0], &all, now);
        for key in keys() {
            let Some(owed) = model::owed(&all, &key) else { continue };
            if let Seen::Scalar(text) = seen(&nodes[0], &key, now) {
                let total: i64 = std::str::from_utf8(&text).unwrap().parse().unwrap_or(i64::MAX);
                prop_assert!(total >= owed, "{total} although {owed} are owed");
            }
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
    node.sweep(1_024, START + 10_000);
    assert_eq!(
        (node.keys(), node.entries()),
        (0, 1_000),
        "tombstones stay for their lifetime"
    );
    node.sweep(1_024, START + 2 * day);
    assert_eq!((node.keys(), node.entries()), (0, 0));
    assert_eq!(checked_digest(&node).0, 0);
}

#[test]
fn an_expired_put_does_not_shadow_a_set_stamped_before_the_deadline() {
    let (a, b) = (cache(1), cache(2));
    let key = Key::shared(b"k");
    let short = a.set(&key, "short".into(), 1, START).unwrap();
    b.apply(&short, START).unwrap();
    let long = b.set(&key, "long".into(), 0, START + 500).unwrap();
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
    let put = a.set(&key, "100".into(), 1, START).unwrap();
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
    let (_, first) = a.set_add(&key, "m".into(), START).unwrap();
    b.apply(&first, START).unwrap();
    let (_, removal) = b.set_remove(&key, "m".into(), START + 10).unwrap();
    let (new, again) = a.set_add(&key, "m".into(), START + 20).unwrap();
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
    let write = a.set(&key, "v".into(), 0, START).unwrap();
    let (_, one) = a.set_add(&set, "one".into(), START).unwrap();
    let (_, two) = a.set_add(&set, "two".into(), START).unwrap();
    b.apply(&two, START).unwrap();
    let (there, deletion) = b.delete(&key, START + 10);
    let (removed, removal) = b.set_remove(&set, "one".into(), START + 10).unwrap();
    assert!(!there && !removed, "nothing to be seen yet");
    apply_all(&b, [&write, &one], START + 10);
    apply_all(&a, removal.iter().chain([&deletion]), START + 10);
    for node in [&a, &b] {
        assert_eq!(seen(node, &key, START + 10), Seen::Nothing);
        assert_eq!(seen(node, &set, START + 10), Seen::Set(vec!["two".into()]));
    }
    assert_eq!(checked_digest(&a), checked_digest(&b));
}
