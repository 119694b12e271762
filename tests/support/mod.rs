//! Random operations on caches, shared by the tests of the merge rules.
#![allow(dead_code)]

use bytes::Bytes;
use nats_kvcache::cache::{Cache, CacheError, Command, Digest, Key, Limits, Millis, NodeId, Partition};
use proptest::prelude::*;

/// Wall clock at which random histories start.
pub const START: Millis = 1_700_000_000_000;

/// One write of a client.
#[derive(Clone, Debug)]
pub enum Write {
    Set { value: String, expires: u32 },
    Delete,
    Increment(i32),
    Push(String),
    Remove(String),
    Add(String),
    Drop(String),
}

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
        3 => (-9i32..10).prop_map(Write::Increment),
        2 => small_text().prop_map(Write::Push),
        1 => small_text().prop_map(Write::Remove),
        2 => small_text().prop_map(Write::Add),
        1 => small_text().prop_map(Write::Drop),
    ]
}

/// Performs a write; the command it makes, if any.
pub fn perform(cache: &Cache, key: &Key, write: &Write, now: Millis) -> Result<Option<Command>, CacheError> {
    let bytes = |text: &String| Bytes::from(text.clone());
    match write {
        Write::Set { value, expires } => cache.set(key, bytes(value), *expires, now).map(Some),
        Write::Delete => Ok(Some(cache.delete(key, now).1)),
        Write::Increment(amount) => cache.increment(key, *amount, now).map(|(_, command)| Some(command)),
        Write::Push(value) => cache
            .list_push(key, bytes(value), now)
            .map(|(_, command)| Some(command)),
        Write::Remove(value) => cache.list_remove(key, value.as_bytes(), now),
        Write::Add(member) => cache.set_add(key, bytes(member), now).map(|(_, command)| Some(command)),
        Write::Drop(member) => cache.set_remove(key, bytes(member), now).map(|(_, command)| command),
    }
}

pub fn cache(node: u64) -> Cache {
    Cache::new(NodeId(node), Limits::default())
}

/// What a reader sees of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    Nothing,
    Scalar(Bytes),
    List(Vec<Bytes>),
    Set(Vec<Bytes>),
}

pub fn seen(cache: &Cache, key: &Key, now: Millis) -> Seen {
    let exists = cache.contains(key, now);
    let seen = if let Ok(Some(value)) = cache.get(key, now) {
        Seen::Scalar(value)
    } else {
        match (cache.list_range(key, 0, -1, now), cache.set_members(key, now)) {
            (Ok(items), _) if !items.is_empty() => Seen::List(items),
            (_, Ok(members)) if !members.is_empty() => Seen::Set(members),
            _ => Seen::Nothing,
        }
    };
    assert_eq!(
        exists,
        seen != Seen::Nothing,
        "contains and reads disagree about {seen:?}"
    );
    seen
}

/// The full state as commands, in an order that does not depend on the history.
pub fn commands(cache: &Cache) -> Vec<Command> {
    let mut all = Vec::new();
    for partition in Partition::all() {
        cache.commands(partition, |command| all.push(command));
    }
    all.sort_by_key(|command| (command.key.clone(), command.newest(), format!("{command:?}")));
    all
}

pub fn apply_all<'a>(cache: &Cache, commands: impl IntoIterator<Item = &'a Command>, now: Millis) {
    for command in commands {
        cache.apply(command, now).expect("an honest command");
    }
}

/// Root digest, after checking it against the one computed from scratch.
pub fn checked_digest(cache: &Cache) -> Digest {
    let digest = cache.root_digest();
    assert_eq!(
        digest,
        cache.recomputed_digest(),
        "digest kept in O(1) differs from the state's"
    );
    digest
}
