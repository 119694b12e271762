//! The merge rules once more, as plainly as possible: a port of the executable model that the design was checked with.
//! Slow, without digests, without incremental anything. One state per key.

use std::collections::BTreeMap;

use bytes::Bytes;
use kvcache_core::cache::{Base, Blob, Delta, Key, NodeId, Stamp, StateDelta};

use xxhash_rust::xxh3::xxh3_64;

use crate::support::Seen;

type Horizon = (Stamp, bool);
type Entry = (NodeId, Base);

#[derive(Clone, Default, PartialEq, Debug)]
pub struct State {
    horizon: Horizon,
    value: Option<Blob>,
    seen: BTreeMap<Entry, i64>,
    adds: BTreeMap<Entry, (Stamp, i64)>,
    items: BTreeMap<Stamp, (Option<Blob>, Option<Stamp>)>,
    members: BTreeMap<Blob, (Stamp, bool)>,
}

fn start() -> Horizon {
    (Stamp::default(), true)
}

fn fragment(change: &StateDelta) -> State {
    let mut state = State {
        horizon: start(),
        ..State::default()
    };
    match change {
        StateDelta::Put { at, value, seen, .. } => {
            state.horizon = (*at, false);
            state.value = value.bytes().map(Blob::new);
            state.seen = seen.iter().map(|s| ((s.node, s.base), s.sum)).collect();
        }
        StateDelta::Delete { at, seen } => {
            state.horizon = (*at, true);
            state.seen = seen.iter().map(|s| ((s.node, s.base), s.sum)).collect();
        }
        StateDelta::Add { node, base, sum, at } => drop(state.adds.insert((*node, *base), (*at, *sum))),
        StateDelta::ListPush { id, value } => drop(state.items.insert(*id, (Some(value.clone()), None))),
        StateDelta::ListRemove { id, at } => drop(state.items.insert(*id, (None, Some(*at)))),
        StateDelta::SetAdd { member, at } => drop(state.members.insert(member.clone(), (*at, true))),
        StateDelta::SetRemove { member, at } => drop(state.members.insert(member.clone(), (*at, false))),
    }
    state
}

fn newest(id: Stamp, removed: Option<Stamp>) -> Stamp {
    id.max(removed.unwrap_or_default())
}

fn base_horizon(base: &Base) -> Horizon {
    (base.stamp, base.void)
}

fn normalise(mut s: State) -> State {
    loop {
        let (stamp, void) = s.horizon;
        s.items.retain(|id, (_, removed)| newest(*id, *removed) > stamp);
        s.members.retain(|_, (at, _)| *at > stamp);
        let horizon = s.horizon;
        s.adds
            .retain(|(_, base), (last, _)| base_horizon(base) >= horizon || *last > stamp);
        if void {
            s.value = None;
        }
        let mut types = Vec::new();
        let newest_add = s.adds.values().map(|(last, _)| *last).max();
        if let Some(at) = newest_add.max((!void).then_some(stamp)) {
            types.push(at);
        }
        types.extend(s.items.iter().map(|(id, (_, removed))| newest(*id, *removed)).max());
        types.extend(s.members.values().map(|(at, _)| *at).max());
        if types.len() < 2 {
            return s;
        }
        types.sort();
        let loser = types[types.len() - 2];
        assert!((loser, true) > s.horizon, "a conflict that does not raise the horizon");
        s.horizon = (loser, true);
        s.seen.clear();
    }
}

/// What decides between two resets with one stamp (docs/PROTOCOL.md, "Content").
fn content(s: &State) -> u64 {
    let words = |words: &[u64]| xxh3_64(&words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>());
    let value = s.value.as_ref().map_or(0, |value| xxh3_64(value));
    if s.seen.is_empty() {
        return value;
    }
    let seen = s.seen.iter().fold(0u64, |sum, ((node, base), seen)| {
        let kind = 2 + 256 * u64::from(base.void) + 512 * u64::from(base.expired);
        let entry = [kind, base.stamp.time.0, base.stamp.node.0, node.0, *seen as u64];
        sum.wrapping_add(words(&entry))
    });
    words(&[value, 0, 0, seen])
}

fn join(a: State, b: State) -> State {
    let order = |s: &State| (s.horizon, content(s));
    let (top, other) = if order(&a) >= order(&b) { (a, b) } else { (b, a) };
    let mut s = top;
    for (entry, add) in other.adds {
        let known = s.adds.entry(entry).or_insert(add);
        if (add.0, add.1 as u64) > (known.0, known.1 as u64) {
            *known = add;
        }
    }
    for (id, (value, removed)) in other.items {
        let known = s.items.entry(id).or_insert((value.clone(), None));
        known.1 = known.1.max(removed);
        // A removal carries no value.
        let content = |value: &Option<Blob>| value.as_ref().map(|value| xxh3_64(value));
        if content(&value) > content(&known.0) {
            known.0 = value;
        }
    }
    for (member, state) in other.members {
        let known = s.members.entry(member).or_insert(state);
        *known = state.max(*known);
    }
    normalise(s)
}

/// The state after all deltas.
pub fn join_all<'a>(deltas: impl IntoIterator<Item = &'a Delta>) -> State {
    let empty = State {
        horizon: start(),
        ..State::default()
    };
    deltas
        .into_iter()
        .fold(empty, |state, delta| join(state, fragment(&delta.change)))
}

fn added(s: &State) -> Option<i64> {
    let (stamp, void) = s.horizon;
    let current = Base {
        stamp,
        void,
        expired: false,
    };
    s.adds.iter().fold(None, |total, ((node, base), (last, sum))| {
        // No reset made such a base: what was added on it is newer than any reset it is newer than.
        let fresh = base.void && base.stamp.node == NodeId(0) && base.stamp > stamp;
        if *base == current || fresh {
            Some(total.unwrap_or(0) + sum)
        } else if *base < current && *last > stamp {
            Some(total.unwrap_or(0) + sum - s.seen.get(&(*node, *base)).copied().unwrap_or(0))
        } else {
            total
        }
    })
}

/// What a reader sees of the state.
pub fn seen(s: &State) -> Seen {
    let stamp = s.horizon.0;
    let items: Vec<Bytes> = s
        .items
        .iter()
        .filter(|(id, (_, removed))| **id > stamp && removed.is_none())
        .flat_map(|(_, (v, _))| v.as_ref().map(|v| Bytes::copy_from_slice(v)))
        .collect();
    let members: Vec<Bytes> = s
        .members
        .iter()
        .filter(|(_, (_, there))| *there)
        .map(|(m, _)| Bytes::copy_from_slice(m))
        .collect();
    if !items.is_empty() {
        return Seen::List(items);
    }
    if !members.is_empty() {
        return Seen::Set(members);
    }
    match (&s.value, added(s)) {
        (None, None) => Seen::Nothing,
        (Some(text), None) => Seen::Scalar(Bytes::copy_from_slice(text)),
        (None, Some(sum)) => Seen::Scalar(sum.to_string().into()),
        (Some(text), Some(sum)) => match integer(text) {
            Some(number) => Seen::Scalar((number + sum).to_string().into()),
            None => Seen::Scalar(Bytes::copy_from_slice(text)),
        },
    }
}

fn integer(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// The number that the key has to show at least: the value of the newest reset plus all increments stamped after it.
/// `None` where it need not show any, for there is neither, or the value is a text.
pub fn owed(deltas: &[Delta], key: &Key) -> Option<i64> {
    let of_key: Vec<&Delta> = deltas.iter().filter(|delta| *delta.key == *key.as_bytes()).collect();
    let state = join_all(of_key.iter().copied());
    let start = match &state.value {
        Some(text) => Some(integer(text)?),
        None => None,
    };
    let mut sums: BTreeMap<Entry, i64> = BTreeMap::new();
    let mut owed = start;
    for delta in of_key {
        // Deltas of one node stand in the order in which it made them, so the difference is one increment.
        if let StateDelta::Add { node, base, sum, at } = &delta.change {
            let amount = sum - sums.insert((*node, *base), *sum).unwrap_or(0);
            if *at > state.horizon.0 {
                owed = Some(owed.unwrap_or(0) + amount);
            }
        }
    }
    owed
}
