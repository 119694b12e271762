//! One node against a plain model of docs: what one Redis-like server would answer, operation by operation.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kvcache_core::cache::{Cache, CacheError, Key, Limits, Millis, NodeId};
use proptest::prelude::*;
use support::{cache, START};

#[derive(Clone, Debug)]
enum Op {
    Get(usize),
    Contains(usize),
    Delete(usize),
    Set(usize, String, u32),
    Increment(usize, i64),
    Push(usize, String),
    Range(usize, i64, i64),
    Remove(usize, String),
    Add(usize, String),
    Drop(usize, String),
    Members(usize),
    Union(Vec<usize>),
    Intersection(Vec<usize>),
    Wait(Millis),
    Sweep,
}

#[derive(Clone, PartialEq, Debug)]
enum Value {
    Scalar(String, Option<Millis>),
    List(Vec<String>),
    Set(BTreeSet<String>),
}

/// Answers as text, so that one comparison serves all operations.
#[derive(Default)]
struct Model {
    now: Millis,
    keys: BTreeMap<usize, Value>,
}

const WRONG_TYPE: &str = "WRONGTYPE";

impl Model {
    fn at(&mut self, key: usize) -> Option<&mut Value> {
        if let Some(Value::Scalar(_, Some(deadline))) = self.keys.get(&key) {
            if self.now >= *deadline {
                self.keys.remove(&key);
            }
        }
        self.keys.get_mut(&key)
    }

    fn set_at(&mut self, key: usize) -> Result<BTreeSet<String>, String> {
        match self.at(key) {
            None => Ok(BTreeSet::new()),
            Some(Value::Set(members)) => Ok(members.clone()),
            Some(_) => Err(WRONG_TYPE.into()),
        }
    }

    fn answer(&mut self, op: &Op) -> Result<String, String> {
        let wrong = || Err(WRONG_TYPE.to_owned());
        match op {
            Op::Get(key) => match self.at(*key) {
                None => Ok("none".into()),
                Some(Value::Scalar(text, _)) => Ok(format!("some {text}")),
                Some(_) => wrong(),
            },
            Op::Contains(key) => Ok(self.at(*key).is_some().to_string()),
            Op::Delete(key) => {
                let there = self.at(*key).is_some();
                self.keys.remove(key);
                Ok(there.to_string())
            }
            Op::Set(key, text, expires) => {
                let deadline = (*expires > 0).then_some(self.now + u64::from(*expires) * 1_000);
                self.keys.insert(*key, Value::Scalar(text.clone(), deadline));
                Ok("ok".into())
            }
            Op::Increment(key, amount) => {
                let (old, deadline) = match self.at(*key) {
                    None => (0, None),
                    Some(Value::Scalar(text, deadline)) => match text.parse::<i64>() {
                        Ok(number) if number.to_string() == *text => (number, *deadline),
                        _ => return Err("not an integer".into()),
                    },
                    Some(_) => return wrong(),
                };
                match old.checked_add(*amount) {
                    Some(sum) => {
                        self.keys.insert(*key, Value::Scalar(sum.to_string(), deadline));
                        Ok(sum.to_string())
                    }
                    None => Err("range of numbers".into()),
                }
            }
            Op::Push(key, item) => match self.at(*key) {
                Some(Value::List(items)) => {
                    items.push(item.clone());
                    Ok(items.len().to_string())
                }
                Some(_) => wrong(),
                None => {
                    self.keys.insert(*key, Value::List(vec![item.clone()]));
                    Ok("1".into())
                }
            },
            Op::Range(key, start, stop) => match self.at(*key) {
                None => Ok("[]".into()),
                Some(Value::List(items)) => {
                    let length = items.len() as i64;
                    let place = |index: i64| if index < 0 { length + index } else { index };
                    let chosen: Vec<&String> = items
                        .iter()
                        .enumerate()
                        .filter(|(n, _)| *n as i64 >= place(*start) && *n as i64 <= place(*stop))
                        .map(|(_, item)| item)
                        .collect();
                    Ok(format!("{chosen:?}"))
                }
                Some(_) => wrong(),
            },
            Op::Remove(key, item) => {
                let (removed, empty) = match self.at(*key) {
                    None => (false, false),
                    Some(Value::List(items)) => {
                        let place = items.iter().position(|known| known == item);
                        place.map(|place| items.remove(place));
                        (place.is_some(), items.is_empty())
                    }
                    Some(_) => return wrong(),
                };
                if empty {
                    self.keys.remove(key);
                }
                Ok(removed.to_string())
            }
            Op::Add(key, member) => match self.at(*key) {
                None => {
                    self.keys.insert(*key, Value::Set([member.clone()].into()));
                    Ok("true".into())
                }
                Some(Value::Set(members)) => Ok(members.insert(member.clone()).to_string()),
                Some(_) => wrong(),
            },
            Op::Drop(key, member) => {
                let (removed, empty) = match self.at(*key) {
                    None => (false, false),
                    Some(Value::Set(members)) => (members.remove(member), members.is_empty()),
                    Some(_) => return wrong(),
                };
                if empty {
                    self.keys.remove(key);
                }
                Ok(removed.to_string())
            }
            Op::Members(key) => self.set_at(*key).map(|members| format!("{members:?}")),
            Op::Union(keys) | Op::Intersection(keys) => {
                let sets = keys
                    .iter()
                    .map(|key| self.set_at(*key))
                    .collect::<Result<Vec<_>, _>>()?;
                let combined = sets.into_iter().reduce(|a, b| match op {
                    Op::Union(_) => &a | &b,
                    _ => &a & &b,
                });
                combined
                    .map(|members| format!("{members:?}"))
                    .ok_or_else(|| "at least one set name".into())
            }
            Op::Wait(pause) => {
                self.now += pause;
                Ok(String::new())
            }
            Op::Sweep => Ok(String::new()),
        }
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (-20i64..20).prop_map(|n| n.to_string()),
        2 => "[a-c]{0,2}",
        1 => prop::sample::select(vec!["+5", "007", "-0", " 12", "3.5", "1e3", "", "2147483647", "-2147483648",
            "2147483648", "9223372036854775807", "-9223372036854775808", "9223372036854775808", "\u{0}", "a value that is longer than 23 bytes"])
            .prop_map(str::to_owned),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let key = || 0usize..4;
    let index = || prop_oneof![4 => -5i64..6, 1 => prop::sample::select(vec![i64::MIN, i64::MAX])];
    let keys = || prop::collection::vec(0usize..4, 0..4);
    let amount = prop_oneof![5 => -10i64..10, 1 => prop::sample::select(vec![i64::MIN, i64::MAX, 1 << 62])];
    prop_oneof![
        2 => key().prop_map(Op::Get),
        1 => key().prop_map(Op::Contains),
        1 => key().prop_map(Op::Delete),
        2 => (key(), text(), prop_oneof![2 => Just(0u32), 1 => 1u32..4]).prop_map(|(k, t, e)| Op::Set(k, t, e)),
        3 => (key(), amount).prop_map(|(k, a)| Op::Increment(k, a)),
        3 => (key(), text()).prop_map(|(k, t)| Op::Push(k, t)),
        2 => (key(), index(), index()).prop_map(|(k, a, b)| Op::Range(k, a, b)),
        2 => (key(), text()).prop_map(|(k, t)| Op::Remove(k, t)),
        3 => (key(), text()).prop_map(|(k, t)| Op::Add(k, t)),
        2 => (key(), text()).prop_map(|(k, t)| Op::Drop(k, t)),
        1 => key().prop_map(Op::Members),
        1 => keys().prop_map(Op::Union),
        1 => keys().prop_map(Op::Intersection),
        1 => (1u64..2_000).prop_map(Op::Wait),
        1 => Just(Op::Sweep),
    ]
}

fn show(all: Vec<Bytes>) -> Vec<String> {
    all.into_iter()
        .map(|bytes| String::from_utf8(bytes.into()).unwrap())
        .collect()
}

fn short(error: CacheError) -> String {
    match error {
        CacheError::WrongType => WRONG_TYPE,
        CacheError::NotAnInteger => "not an integer",
        CacheError::OutOfRange { .. } => "range of numbers",
        CacheError::NoKeys => "at least one set name",
        other => panic!("unexpected error {other}"),
    }
    .into()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn one_node_answers_as_one_server(ops in prop::collection::vec(op(), 1..80)) {
        let node = cache(1);
        // Deadlines are whole milliseconds of the stamp's clock, which is the wall clock as long as it runs ahead of
        // the number of operations; a millisecond per operation keeps it there.
        let mut model = Model { now: START, ..Model::default() };
        let key = |number: &usize| Key::shared(format!("key{number}").as_bytes());
        let all = |numbers: &Vec<usize>| numbers.iter().map(key).collect::<Vec<_>>();
        for op in &ops {
            model.now += 1;
            let expected = model.answer(op);
            let now = model.now;
            let bytes = |text: &String| Bytes::from(text.clone());
            let answer = match op {
                Op::Get(k) => node.get(&key(k), now).map(|value| match value {
                    Some(value) => format!("some {}", std::str::from_utf8(&value).unwrap()),
                    None => "none".into(),
                }),
                Op::Contains(k) => Ok(node.contains(&key(k), now).to_string()),
                Op::Delete(k) => node.delete(&key(k), now).map(|(there, _)| there.to_string()),
                Op::Set(k, text, expires) => node.set(&key(k), bytes(text), *expires, now).map(|_| "ok".into()),
                Op::Increment(k, amount) => node.increment(&key(k), *amount, now).map(|(sum, _)| sum.to_string()),
                Op::Push(k, item) => node.list_push(&key(k), bytes(item), now).map(|(length, _)| length.to_string()),
                Op::Range(k, start, stop) => {
                    node.list_range(&key(k), *start, *stop, now, usize::MAX).map(|items| format!("{:?}", show(items)))
                }
                Op::Remove(k, item) => {
                    node.list_remove(&key(k), item.as_bytes(), now).map(|delta| delta.is_some().to_string())
                }
                Op::Add(k, member) => node.set_add(&key(k), bytes(member), now).map(|(changed, _)| changed.to_string()),
                Op::Drop(k, member) => node.set_remove(&key(k), bytes(member), now).map(|(changed, _)| changed.to_string()),
                Op::Members(k) => node.set_members(&key(k), now, usize::MAX).map(braces),
                Op::Union(keys) => node.set_union(&all(keys), now, usize::MAX).map(braces),
                Op::Intersection(keys) => node.set_intersection(&all(keys), now, usize::MAX).map(braces),
                Op::Wait(_) => Ok(String::new()),
                Op::Sweep => {
                    node.sweep(1_024, now);
                    Ok(String::new())
                }
            };
            prop_assert_eq!(answer.map_err(short), expected, "{:?} at {}", op, now);
        }
    }
}

fn braces(all: Vec<Bytes>) -> String {
    format!("{:?}", show(all).into_iter().collect::<BTreeSet<_>>())
}

/// The rules of the merge were checked with this model before they were written in Rust.
#[test]
fn the_executable_model_converges() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/model/merge_model.py");
    let run = std::process::Command::new("python3").args([model, "3000"]).output();
    match run {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => testkit::skip_test("python3 is not installed"),
        Err(error) => panic!("python3: {error}"),
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
    }
}

#[test]
fn set_answers_are_sorted() {
    let node = cache(1);
    let (a, b) = (Key::shared(b"a"), Key::shared(b"b"));
    for member in ["z", "m", "", "ä", "a"] {
        node.set_add(&a, member, START).unwrap();
        node.set_add(&b, member, START).unwrap();
    }
    let sorted = ["", "a", "m", "z", "ä"];
    for answer in [
        node.set_members(&a, START, usize::MAX).unwrap(),
        node.set_union(&[a.clone(), b.clone()], START, usize::MAX).unwrap(),
        node.set_intersection(&[a, b], START, usize::MAX).unwrap(),
    ] {
        assert_eq!(show(answer), sorted);
    }
}

fn set_of(node: &Cache, name: &str, members: std::ops::Range<usize>) -> Key {
    let key = Key::shared(name.as_bytes());
    for member in members {
        node.set_add(&key, &*format!("{member:06}"), START).unwrap();
    }
    key
}

#[test]
fn a_set_named_again_and_again_is_looked_at_once() {
    let node = cache(1);
    let set = set_of(&node, "set", 0..10_000);
    let names = vec![set.clone(); 100_000];
    // Each member counts 6 bytes and 1 for its length. A copy of the set for each name would take 48 GB.
    let members = node.set_members(&set, START, 70_000).unwrap();
    assert_eq!(members.len(), 10_000);
    assert_eq!(node.set_union(&names, START, 70_000), Ok(members.clone()));
    assert_eq!(node.set_intersection(&names, START, 70_000), Ok(members));
}

#[test]
fn answers_stay_within_the_bound_of_the_caller() {
    let node = cache(1);
    let (low, high) = (set_of(&node, "low", 0..100), set_of(&node, "high", 60..160));
    let both = [low.clone(), high];
    let list = Key::shared(b"list");
    for n in 0..100 {
        node.list_push(&list, &*format!("{n:06}"), START).unwrap();
    }
    // 7 bytes for each of 100, 160, 40 and 100 elements.
    type Read<'a> = &'a dyn Fn(usize) -> Result<Vec<Bytes>, CacheError>;
    let reads: [(usize, Read); 4] = [
        (700, &|most| node.set_members(&low, START, most)),
        (1_120, &|most| node.set_union(&both, START, most)),
        (280, &|most| node.set_intersection(&both, START, most)),
        (700, &|most| node.list_range(&list, 0, -1, START, most)),
    ];
    for (bytes, read) in reads {
        assert_eq!(read(bytes).unwrap().len(), bytes / 7);
        let limit = bytes - 1;
        assert_eq!(read(limit), Err(CacheError::AnswerTooLarge { limit }));
    }
    // Part of a list that would be too large as a whole.
    assert_eq!(node.list_range(&list, 0, 9, START, 70).unwrap().len(), 10);
    // What an intersection is made from may be larger than the bound, and a missing set makes it empty.
    let missing = Key::shared(b"missing");
    assert_eq!(node.set_intersection(&[low.clone(), missing], START, 0), Ok(Vec::new()));
    assert_eq!(
        node.set_intersection(&[low, list], START, 0),
        Err(CacheError::WrongType)
    );
}

#[test]
fn keys_that_are_too_long_are_not_deleted_either() {
    let limits = Limits {
        max_value_bytes: 100,
        ..Limits::default()
    };
    let node = Cache::new(NodeId(1), limits);
    let error = node.delete(&Key::shared(&[b'k'; 101]), START).unwrap_err();
    assert!(matches!(error, CacheError::TooLarge { what: "key", .. }), "{error}");
    assert_eq!(node.entries(), 0, "nothing is remembered of it");
}

#[test]
fn large_arguments_are_refused() {
    let limits = Limits {
        max_value_bytes: 100,
        ..Limits::default()
    };
    let node = Cache::new(NodeId(1), limits);
    let set = node.set(&Key::shared(b"k"), &[b'x'; 101][..], 0, START);
    let refused = CacheError::TooLarge {
        what: "value",
        length: 101,
        limit: 100,
    };
    assert_eq!(set, Err(refused));
    assert!(!node.contains(&Key::shared(b"k"), START));
}
