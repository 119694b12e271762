//! Random operations of all kinds through all providers at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use testkit::RpcResult;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::books::{Books, Outcome};
use crate::content::{self, Content};
use crate::lab::{Kv, Lab, Life};

/// Writers of shared keys per provider.
const SHARED_WRITERS: usize = 3;
/// Longest pause of a writer between two calls.
const LONGEST_PAUSE_MS: u64 = 30;
/// Keys that one life writes at a time and nobody else does.
const OWN_KEYS: usize = 12;
const OWN_LIST: usize = 40;
/// Now and then such a key is left as it is, and has to outlast the rest of the run.
const LEAVING: f64 = 0.01;
/// Seconds after which a value expires for which the run waits in the end, and for which it does not.
pub const SHORT: std::ops::RangeInclusive<u32> = 1..=4;
const LONG: u32 = 100_000;
/// Longest value; a call of the host has room for 900 KiB.
const LARGEST: usize = 400 << 10;
/// Longest item of a list: several travel in one answer.
const LARGEST_ITEM: usize = 60 << 10;

/// Starts the writers. They end after their call under way when `stop` becomes true.
pub fn start(lab: &Arc<Lab>, books: &Arc<Books>, seed: u64, stop: &watch::Receiver<bool>) -> JoinSet<()> {
    let mut seeds = StdRng::seed_from_u64(seed);
    let mut writers = JoinSet::new();
    for slot in 0..lab.slots() {
        for number in 0..=SHARED_WRITERS {
            let writer = Writer {
                lab: lab.clone(),
                books: books.clone(),
                slot,
                rng: StdRng::seed_from_u64(seeds.random()),
                stop: stop.clone(),
            };
            if number == 0 {
                writers.spawn(writer.write_own());
            } else {
                writers.spawn(writer.write_shared());
            }
        }
    }
    writers
}

/// One call of the contract.
#[derive(Clone, Debug)]
enum Action {
    Set(String, u32),
    Del,
    Increment(i32),
    Push(String),
    Remove(String),
    ClearList,
    Add(String),
    Drop(String),
    ClearSet,
    Read,
}

impl Action {
    fn name(&self) -> &'static str {
        match self {
            Self::Set(_, 0) => "Set",
            Self::Set(..) => "Set for",
            Self::Del => "Del",
            Self::Increment(_) => "Increment",
            Self::Push(_) => "ListAdd",
            Self::Remove(_) => "ListDel",
            Self::ClearList => "ListClear",
            Self::Add(_) => "SetAdd",
            Self::Drop(_) => "SetDel",
            Self::ClearSet => "SetClear",
            Self::Read => "read",
        }
    }
}

/// What writers do, by [`Action::name`].
pub const OPERATIONS: [&str; 11] = [
    "Set",
    "Set for",
    "Del",
    "Increment",
    "ListAdd",
    "ListDel",
    "ListClear",
    "SetAdd",
    "SetDel",
    "SetClear",
    "read",
];

enum Answer {
    Nothing,
    Number(i64),
    Content(Content),
}

async fn perform(kv: &Kv, key: &str, action: &Action) -> RpcResult<Answer> {
    Ok(match action {
        Action::Set(value, seconds) => {
            kv.set_for(key, value, *seconds).await?;
            Answer::Nothing
        }
        Action::Del => {
            kv.del(key).await?;
            Answer::Nothing
        }
        Action::ClearList => {
            kv.list_clear(key).await?;
            Answer::Nothing
        }
        Action::ClearSet => {
            kv.set_clear(key).await?;
            Answer::Nothing
        }
        Action::Increment(by) => Answer::Number(kv.increment(key, *by).await?.into()),
        Action::Push(item) => Answer::Number(kv.list_add(key, item).await?.into()),
        Action::Remove(item) => Answer::Number(kv.list_del(key, item).await?.into()),
        Action::Add(member) => Answer::Number(kv.set_add(key, member).await?.into()),
        Action::Drop(member) => Answer::Number(kv.set_del(key, member).await?.into()),
        Action::Read => Answer::Content(content::read(kv, key).await?),
    })
}

struct Writer {
    lab: Arc<Lab>,
    books: Arc<Books>,
    slot: usize,
    rng: StdRng,
    stop: watch::Receiver<bool>,
}

impl Writer {
    /// The present life of the provider, waiting for one; none when it is time to stop.
    async fn life(&mut self) -> Option<Arc<Life>> {
        let mut life = self.lab.life_of(self.slot);
        tokio::select! {
            biased;
            _ = self.stop.wait_for(|stop| *stop) => None,
            life = life.wait_for(Option::is_some) => life.ok()?.clone(),
        }
    }

    async fn pause(&mut self) {
        let pause = Duration::from_millis(self.rng.random_range(0..LONGEST_PAUSE_MS));
        tokio::time::sleep(pause).await;
    }

    // ------------------------------------------------------------ keys that everybody writes

    async fn write_shared(mut self) {
        while let Some(life) = self.life().await {
            let (key, action) = self.shared();
            self.books.shared_key(&key);
            let counted = match (&action, key.starts_with("count/")) {
                (Action::Increment(by), true) => Some(i64::from(*by)),
                _ => None,
            };
            if let Some(by) = counted {
                self.books.attempt(&key, life.number, by);
            }
            if let Action::Set(_, seconds @ 1..LONG) = action {
                self.books.expires_in(Duration::from_secs(seconds.into()));
            }
            let answer = perform(&life.kv, &key, &action).await;
            let outcome = self.books.tally(action.name(), &answer);
            if let (Some(by), Outcome::Done) = (counted, outcome) {
                self.books.acknowledge(&key, life.number, by);
            }
            self.pause().await;
        }
    }

    fn shared(&mut self) -> (String, Action) {
        let rng = &mut self.rng;
        match rng.random_range(0..100) {
            0..45 => (format!("text/{}", rng.random_range(0..400)), text_action(rng)),
            45..55 => (
                format!("count/{}", rng.random_range(0..4)),
                Action::Increment(rng.random_range(1..=9)),
            ),
            55..63 => (format!("number/{}", rng.random_range(0..16)), number_action(rng)),
            63..75 => (format!("list/{}", rng.random_range(0..16)), list_action(rng)),
            75..87 => (format!("set/{}", rng.random_range(0..16)), set_action(rng)),
            _ => {
                let action = match rng.random_range(0..4) {
                    0 => text_action(rng),
                    1 => number_action(rng),
                    2 => list_action(rng),
                    _ => set_action(rng),
                };
                (format!("mixed/{}", rng.random_range(0..16)), action)
            }
        }
    }

    // ------------------------------------------------------------ keys of one life

    async fn write_own(mut self) {
        while let Some(life) = self.life().await {
            let mut names = (0_u32..).map(|number| format!("own/{}/{number}", life.number));
            let mut keys: Vec<Own> = names.by_ref().take(OWN_KEYS).map(Own::new).collect();
            while !*self.stop.borrow() && !life.is_killed() {
                let position = self.rng.random_range(0..keys.len());
                let known = self.operate(&life, &mut keys[position]).await;
                if !known || self.rng.random_bool(LEAVING) {
                    let name = names.next().expect("names do not end");
                    keys[position] = Own::new(name);
                }
                self.pause().await;
            }
        }
    }

    /// One call on a key of this life. Returns false when nobody knows what the key holds from now on.
    async fn operate(&mut self, life: &Life, own: &mut Own) -> bool {
        let action = own.choose(&mut self.rng);
        let reads = matches!(action, Action::Read);
        let (next, expected) = own.model.after(&action);
        if !reads {
            self.books.trying(
                &own.key,
                life.number,
                next.in_the_end(),
                matches!(next, Model::Number(_)),
            );
        }
        if let Action::Set(_, seconds @ 1..LONG) = action {
            self.books.expires_in(Duration::from_secs(seconds.into()));
        }
        let answer = perform(&life.kv, &own.key, &action).await;
        let outcome = self.books.tally(action.name(), &answer);
        match (outcome, answer) {
            (Outcome::Done, Ok(answer)) => {
                let told = |found: &dyn std::fmt::Display, expected: &dyn std::fmt::Display| {
                    format!(
                        "{life}: {} of {} answers {found}, expected {expected}",
                        action.name(),
                        own.key
                    )
                };
                match (&answer, expected) {
                    (Answer::Number(found), Some(expected)) if *found != expected => {
                        self.books.violation(told(found, &expected));
                    }
                    (Answer::Content(found), _) if !own.model.expires_soon() && *found != own.model.in_the_end() => {
                        self.books.violation(told(found, &own.model.in_the_end()));
                    }
                    _ => {}
                }
                if !reads {
                    self.books.settle(&own.key);
                    own.model = next;
                }
                true
            }
            (Outcome::Refused, _) => {
                let what = action.name();
                self.books.violation(format!(
                    "{life}: {what} of {} is refused, but nobody else writes it",
                    own.key
                ));
                false
            }
            // A read that was not answered changes nothing.
            _ => reads,
        }
    }
}

/// A key of one life, and what it holds.
struct Own {
    key: String,
    model: Model,
}

#[derive(Clone)]
enum Model {
    Text(Option<String>),
    /// A text that will be gone in the end.
    ShortText,
    Number(Option<i64>),
    List(Vec<String>),
    Set(BTreeSet<String>),
}

impl Own {
    fn new(key: String) -> Self {
        let number = key.bytes().last().unwrap_or_default();
        let model = match number % 4 {
            0 => Model::Text(None),
            1 => Model::Number(None),
            2 => Model::List(Vec::new()),
            _ => Model::Set(BTreeSet::new()),
        };
        Self { key, model }
    }

    fn choose(&self, rng: &mut StdRng) -> Action {
        match &self.model {
            Model::Text(_) | Model::ShortText => text_action(rng),
            Model::Number(_) => match number_action(rng) {
                // Text as a number would be refused.
                Action::Set(value, _) if value.parse::<i32>().is_err() => Action::Read,
                action => action,
            },
            Model::List(items) if items.len() >= OWN_LIST => Action::ClearList,
            Model::List(items) => match rng.random_range(0..10) {
                0..6 => Action::Push(text(rng, LARGEST_ITEM)),
                6..8 => Action::Remove(items.choose(rng).cloned().unwrap_or_default()),
                8 => Action::Remove(text(rng, 8)),
                _ => Action::Read,
            },
            Model::Set(_) => match rng.random_range(0..20) {
                0 => Action::Del,
                1..3 => Action::Read,
                _ => set_action(rng),
            },
        }
    }
}

impl Model {
    fn expires_soon(&self) -> bool {
        matches!(self, Self::ShortText)
    }

    /// What a reader sees when everything that expires soon has expired.
    fn in_the_end(&self) -> Content {
        match self {
            Self::Text(None) | Self::ShortText | Self::Number(None) => Content::Nothing,
            Self::Text(Some(text)) => Content::text(text),
            Self::Number(Some(number)) => Content::text(&number.to_string()),
            Self::List(items) => Content::list(items),
            Self::Set(members) => Content::set(members),
        }
    }

    /// What `action` makes of it, and the number it answers with, if it does.
    fn after(&self, action: &Action) -> (Self, Option<i64>) {
        let mut next = self.clone();
        let answer = match (&mut next, action) {
            (Self::Number(number), Action::Set(value, _)) => {
                *number = value.parse().ok();
                None
            }
            (Self::Number(number), Action::Increment(by)) => {
                let sum = number.unwrap_or_default() + i64::from(*by);
                *number = Some(sum);
                Some(sum)
            }
            (Self::Number(number), Action::Del) => {
                *number = None;
                None
            }
            (text @ (Self::Text(_) | Self::ShortText), Action::Set(_, 1..LONG)) => {
                *text = Self::ShortText;
                None
            }
            (text @ (Self::Text(_) | Self::ShortText), Action::Set(value, _)) => {
                *text = Self::Text(Some(value.clone()));
                None
            }
            (text @ (Self::Text(_) | Self::ShortText), Action::Del) => {
                *text = Self::Text(None);
                None
            }
            (Self::List(items), Action::Push(item)) => {
                items.push(item.clone());
                Some(items.len() as i64)
            }
            (Self::List(items), Action::Remove(item)) => {
                let position = items.iter().position(|it| it == item);
                Some(position.map(|position| items.remove(position)).is_some().into())
            }
            (Self::List(items), Action::ClearList | Action::Del) => {
                items.clear();
                None
            }
            (Self::Set(members), Action::Add(member)) => Some(members.insert(member.clone()).into()),
            (Self::Set(members), Action::Drop(member)) => Some(members.remove(member).into()),
            (Self::Set(members), Action::ClearSet | Action::Del) => {
                members.clear();
                None
            }
            _ => None,
        };
        (next, answer)
    }
}

// ---------------------------------------------------------------- choices

/// Mostly small, now and then large, sometimes nothing at all. No two of them are likely to be equal.
fn text(rng: &mut StdRng, largest: usize) -> String {
    let length = match rng.random_range(0..100) {
        0..5 => 0,
        5..70 => rng.random_range(1..64),
        70..90 => rng.random_range(64..4_096),
        90..98 => rng.random_range(4_096..65_536),
        _ => rng.random_range(65_536..=LARGEST),
    };
    let unit = format!("{:016x} ", rng.random::<u64>());
    unit.chars().cycle().take(length.min(largest)).collect()
}

fn text_action(rng: &mut StdRng) -> Action {
    match rng.random_range(0..20) {
        0..12 => Action::Set(text(rng, LARGEST), 0),
        12 => Action::Set(text(rng, LARGEST), rng.random_range(SHORT)),
        13 => Action::Set(text(rng, LARGEST), LONG),
        14..16 => Action::Del,
        _ => Action::Read,
    }
}

fn number_action(rng: &mut StdRng) -> Action {
    match rng.random_range(0..20) {
        0..15 => Action::Increment(rng.random_range(-99..=99)),
        15..17 => Action::Set(rng.random_range(-999..=999).to_string(), 0),
        17 => Action::Del,
        _ => Action::Read,
    }
}

/// Of few different items, so that some are there when they are removed.
fn list_action(rng: &mut StdRng) -> Action {
    let item = |rng: &mut StdRng| {
        let number: usize = rng.random_range(0..40);
        format!("item {number} {}", "x".repeat(number * 5))
    };
    match rng.random_range(0..20) {
        0..9 => Action::Push(item(rng)),
        9..17 => Action::Remove(item(rng)),
        17 => Action::ClearList,
        _ => Action::Read,
    }
}

fn set_action(rng: &mut StdRng) -> Action {
    let member = |rng: &mut StdRng| format!("member {}", rng.random_range(0..60));
    match rng.random_range(0..20) {
        0..10 => Action::Add(member(rng)),
        10..17 => Action::Drop(member(rng)),
        17 => Action::ClearSet,
        _ => Action::Read,
    }
}
