//! Random operations on caches, shared by the tests of the merge rules.
#![allow(dead_code)]

use kvcache_core::cache::{Blob, Cache, Delta, Key, Limits, Millis, NodeId, StateDelta, Time, Value};
use proptest::prelude::*;
use proptest::sample::Index;

/// Writes and reads as the simulator has them.
#[path = "../../../sim/src/client.rs"]
mod client;
pub use client::*;

fn small_text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("a".to_owned()),
        Just("b".into()),
        Just(String::new()),
        Just("value of more than 23 bytes".into())
    ]
}

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![3 => (-50i64..50).prop_map(|n| n.to_string()), 1 => Just("text".to_owned()), 1 => Just("007".into())]
}

pub fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        2 => (scalar(), prop_oneof![3 => Just(0u32), 1 => 1u32..4]).prop_map(|(value, expires)| Write::Set { value, expires }),
        1 => Just(Write::Delete),
        3 => (-9i64..10).prop_map(Write::Increment),
        2 => small_text().prop_map(Write::Push),
        1 => small_text().prop_map(Write::Remove),
        2 => small_text().prop_map(Write::Add),
        1 => small_text().prop_map(Write::Drop),
    ]
}

pub fn cache(node: u64) -> Cache {
    Cache::new(NodeId(node), Limits::default())
}

pub fn apply_all<'a>(cache: &Cache, deltas: impl IntoIterator<Item = &'a Delta>, now: Millis) {
    for delta in deltas {
        cache.apply(delta, now).expect("an honest delta");
    }
}

/// Another content under the stamp of a delta, as of a peer that uses one twice. Removals of items have no content.
pub fn twin(delta: &Delta, choice: u8) -> Delta {
    let mut twin = delta.clone();
    let other = Blob::from(format!("{choice}").as_str());
    let (at, member) = match &mut twin.change {
        StateDelta::Put {
            value,
            expires_at,
            seen,
            ..
        } => {
            match choice % 4 {
                0 => *value = Value::Held(other),
                1 => *expires_at = Some(START + u64::from(choice) * 100),
                2 => seen.iter_mut().for_each(|entry| entry.sum += i64::from(choice)),
                _ => seen.clear(),
            }
            return twin;
        }
        StateDelta::Delete { seen, .. } => {
            seen.truncate(usize::from(choice % 2));
            return twin;
        }
        StateDelta::Add { sum, .. } => {
            *sum += i64::from(choice);
            return twin;
        }
        StateDelta::ListPush { value, .. } => {
            *value = other;
            return twin;
        }
        StateDelta::ListRemove { .. } => return twin,
        StateDelta::SetAdd { member, at } | StateDelta::SetRemove { member, at } => (*at, member.clone()),
    };
    twin.change = match delta.change {
        StateDelta::SetAdd { .. } => StateDelta::SetRemove { member, at },
        _ => StateDelta::SetAdd { member, at },
    };
    twin
}

/// A step of a history: a client writes at a node, or an old delta arrives there, perhaps again.
#[derive(Clone, Debug)]
pub enum Step {
    Write {
        node: usize,
        key: usize,
        write: Write,
        pause: Millis,
    },
    Deliver {
        node: usize,
        delta: Index,
    },
    /// A node forgets deletions, of which there are none that old.
    Forget {
        node: usize,
    },
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0usize..3, 0usize..2, write(), prop_oneof![4 => 0u64..50, 1 => 500u64..2_500])
            .prop_map(|(node, key, write, pause)| Step::Write { node, key, write, pause }),
        2 => (0usize..3, any::<Index>()).prop_map(|(node, delta)| Step::Deliver { node, delta }),
        1 => (0usize..3).prop_map(|node| Step::Forget { node }),
    ];
    prop::collection::vec(step, 1..40)
}

pub struct History {
    pub nodes: Vec<Cache>,
    pub deltas: Vec<Delta>,
    pub now: Millis,
}

pub fn keys() -> [Key; 2] {
    [Key::shared(b"first"), Key::shared(b"second key, longer than 23 bytes")]
}

pub fn play(steps: &[Step]) -> History {
    let mut history = History {
        nodes: (1..=3).map(cache).collect(),
        deltas: Vec::new(),
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
                let delta = perform(&history.nodes[*node], &keys()[*key], write, history.now);
                history.deltas.extend(delta.ok().flatten());
            }
            Step::Deliver { node, delta } if !history.deltas.is_empty() => {
                let delta = delta.get(&history.deltas);
                history.nodes[*node].apply(delta, history.now).expect("an honest delta");
            }
            Step::Deliver { .. } => {}
            Step::Forget { node } => history.nodes[*node].raise_floor(Time::from_millis(START - 1)),
        }
    }
    history
}
