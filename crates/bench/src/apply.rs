//! Section 3: merging commands of a peer, in process, on one thread.

use anyhow::Result;
use dashmap::DashMap;
use kvcache_core::cache::{Cache, Change, Command, Limits, NodeId, Value};
use kvcache_node::time;

use crate::node;
use crate::report::{Line, Target};
use crate::sample::{in_turns, rate};
use crate::Arguments;

/// Keys, of 16 bytes each, with values of as many.
const KEYS: usize = 1_000_000;
const VALUE_BYTES: usize = 16;

/// Commands that one frame holds, about.
pub const FRAME: usize = 1_024;

/// Merges all commands into a cache, a frame at a time. Each of them has to be news: what is known already costs less.
pub fn merge(cache: &Cache, commands: &[Command]) {
    let now = time::wall();
    for frame in commands.chunks(FRAME) {
        cache.apply_all(frame, now, |merged| {
            assert!(merged.expect("an honest command"), "a command that changes nothing");
        });
    }
}

/// Keys and values of commands as a plain map holds them.
pub fn pairs(commands: &[Command]) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("the benchmark writes text");
    let pair = |command: &Command| match &command.change {
        Change::Put {
            value: Value::Held(value),
            ..
        } => (text(&command.key), text(value)),
        other => unreachable!("the benchmark only puts, not {other:?}"),
    };
    commands.iter().map(pair).collect()
}

/// Inserts all pairs into a plain map.
pub fn insert(map: &DashMap<String, String>, pairs: &[(String, String)]) {
    for (key, value) in pairs {
        map.insert(key.clone(), value.clone());
    }
}

/// Measures the section.
pub fn lines(arguments: &Arguments) -> Result<Vec<Line>> {
    let commands = node::commands(KEYS, VALUE_BYTES);
    let pairs = pairs(&commands);
    let (ours, baseline) = in_turns(
        arguments.runs(),
        || {
            let cache = Cache::new(NodeId(1), Limits::default());
            rate(KEYS, || merge(&cache, &commands)) / 1e6
        },
        || {
            let map = DashMap::new();
            rate(KEYS, || insert(&map, &pairs)) / 1e6
        },
    );
    let what = "apply 1,000,000 remote puts (16 B + 16 B) to an empty cache, one thread";
    let unit = "million commands/s";
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
