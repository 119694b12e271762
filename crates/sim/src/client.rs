//! What clients do with a cache, and what readers see of it. Shared with the tests of the merge rules.

use bytes::Bytes;
use kvcache_core::cache::{Cache, CacheError, Delta, Digest, Key, Millis, Partition};

/// Wall clock at which random histories start.
pub const START: Millis = 1_700_000_000_000;

/// One write of a client.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Write {
    Set { value: String, expires: u32 },
    Delete,
    Increment(i64),
    Push(String),
    Remove(String),
    Add(String),
    Drop(String),
}

/// Performs a write; the delta it makes, if any.
pub fn perform(cache: &Cache, key: &Key, write: &Write, now: Millis) -> Result<Option<Delta>, CacheError> {
    let bytes = |text: &String| Bytes::from(text.clone());
    match write {
        Write::Set { value, expires } => cache.set(key, bytes(value), *expires, now).map(Some),
        Write::Delete => cache.delete(key, now).map(|(_, delta)| Some(delta)),
        Write::Increment(amount) => cache.increment(key, *amount, now).map(|(_, delta)| Some(delta)),
        Write::Push(value) => cache.list_push(key, bytes(value), now).map(|(_, delta)| Some(delta)),
        Write::Remove(value) => cache.list_remove(key, value.as_bytes(), now),
        Write::Add(member) => cache.set_add(key, bytes(member), now).map(|(_, delta)| Some(delta)),
        Write::Drop(member) => cache.set_remove(key, bytes(member), now).map(|(_, delta)| delta),
    }
}

/// What a reader sees of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Seen {
    Nothing,
    Scalar(Bytes),
    List(Vec<Bytes>),
    Set(Vec<Bytes>),
}

/// What a reader sees of a key, through every operation that reads.
pub fn seen(cache: &Cache, key: &Key, now: Millis) -> Seen {
    let exists = cache.contains(key, now);
    let seen = if let Ok(Some(value)) = cache.get(key, now) {
        Seen::Scalar(value)
    } else {
        match (
            cache.list_range(key, 0, -1, now, usize::MAX),
            cache.set_members(key, now, usize::MAX),
        ) {
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

/// The full state as deltas, in an order that does not depend on the history.
pub fn deltas(cache: &Cache) -> Vec<Delta> {
    let mut all = Vec::new();
    for partition in Partition::all() {
        cache.deltas(partition, |delta| all.push(delta.to_owned()));
    }
    // Stamps are unique within a key, whatever they stamp.
    all.sort_unstable_by(|a, b| (&a.key, a.newest()).cmp(&(&b.key, b.newest())));
    all
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
