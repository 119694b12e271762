//! Section 3: merging deltas of a peer, in process, on one thread.

use anyhow::Result;
use dashmap::DashMap;
use kvcache_core::cache::{Cache, Delta, Limits, NodeId, StateDelta, Value};
use kvcache_node::time;

use crate::node;
use crate::report::{Line, Target};
use crate::sample::{in_turns, rate};
use crate::Arguments;

/// Keys, of 16 bytes each, with values of as many.
const KEYS: usize = 1_000_000;
const VALUE_BYTES: usize = 16;

/// Deltas that one frame holds, about.
pub const FRAME: usize = 1_024;

/// Merges all deltas into a cache, a frame at a time. Each of them has to be news: what is known already costs less.
pub fn merge(cache: &Cache, deltas: &[Delta]) {
    let now = time::wall();
    for frame in deltas.chunks(FRAME) {
        cache.apply_all(frame, now, |merged| {
            assert!(merged.expect("an honest delta"), "a delta that changes nothing");
        });
    }
}

/// Keys and values of deltas as a plain map holds them.
pub fn pairs(deltas: &[Delta]) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("the benchmark writes text");
    let pair = |delta: &Delta| match &delta.change {
        StateDelta::Put {
            value: Value::Held(value),
            ..
        } => (text(&delta.key), text(value)),
        other => unreachable!("the benchmark only puts, not {other:?}"),
    };
    deltas.iter().map(pair).collect()
}

/// Inserts all pairs into a plain map.
pub fn insert(map: &DashMap<String, String>, pairs: &[(String, String)]) {
    for (key, value) in pairs {
        map.insert(key.clone(), value.clone());
    }
}

/// Measures the section.
pub fn lines(arguments: &Arguments) -> Result<Vec<Line>> {
    let deltas = node::deltas(KEYS, VALUE_BYTES);
    let pairs = pairs(&deltas);
    let (ours, baseline) = in_turns(
        arguments.runs(),
        || {
            let cache = Cache::new(NodeId(1), Limits::default());
            rate(KEYS, || merge(&cache, &deltas)) / 1e6
        },
        || {
            let map = DashMap::new();
            rate(KEYS, || insert(&map, &pairs)) / 1e6
        },
    );
    let what = "apply 1,000,000 remote puts (16 B + 16 B) to an empty cache, one thread";
    let unit = "million deltas/s";
    Ok(vec![
        Line::alone(3, what, unit, ours.clone(), Target::AtLeast(2.0)),
        Line::against(
            3,
            what,
            unit,
            ours,
            "insert into DashMap<String, String>",
            baseline,
            Target::AtLeast(0.6),
        ),
    ])
}
