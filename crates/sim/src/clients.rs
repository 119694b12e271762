//! Clients, who write at some node: to keys that all fight about, to the shared counter, or to keys of its own.

use bytes::Bytes;
use kvcache_core::cache::{Delta, Key, KeyHash, Millis, Partition};
use rand::RngExt;

use crate::client::{perform, Seen, Write};
use crate::event::{size, Event};
use crate::node::Own;
use crate::world::World;

/// Keys that all write to, with operations of all types.
pub(crate) const SHARED_KEYS: u64 = 4;

/// Keys that a process writes alone.
const OWN_KEYS: u64 = 5;

/// The key that is only ever incremented.
pub(crate) fn counter() -> Key {
    Key::shared(b"only ever incremented")
}

pub(crate) fn shared_key(number: u64) -> Key {
    Key::shared(format!("shared {number}").as_bytes())
}

impl World {
    pub(crate) fn client(&mut self) {
        let node = self.rng.random_range(0..self.nodes.len());
        if self.nodes[node].active() && self.is_open(node) {
            let burst = if self.rng.random_bool(0.05) {
                self.rng.random_range(2..20)
            } else {
                1
            };
            let before = self.nodes[node].queue.len();
            for _ in 0..burst {
                if let Some(delta) = self.write(node) {
                    self.nodes[node].queue.push(delta);
                }
            }
            let written = &self.nodes[node].queue[before..];
            self.outcome.writes += written.len() as u64;
            self.written_bytes += written.iter().map(size).sum::<u64>();
            if self.scenario.confirmed > 0.0 && self.rng.random_bool(self.scenario.confirmed) {
                self.write_to_be_confirmed(node);
            }
            if self.scenario.queue_ms == 0 {
                self.flush(node);
            } else {
                let time = self.now + self.rng.random_range(0..=self.scenario.queue_ms);
                let life = self.nodes[node].life;
                self.at(time, Event::Flush { node, life });
            }
        }
        let next = self.now + self.rng.random_range(1..=self.scenario.write_gap_ms);
        self.at(next, Event::Client);
    }

    fn write(&mut self, node: usize) -> Option<Delta> {
        let now = self.clock(node).wall;
        match self.rng.random_range(0..4) {
            0 => {
                let amount = i64::from(self.rng.random_range(1i32..10));
                let incremented = self.nodes[node].cache.increment(&counter(), amount, now);
                let (_, delta) = incremented.expect("small numbers");
                self.nodes[node].acknowledged.added += amount;
                self.added += amount;
                Some(delta)
            }
            1 => self.write_own_key(node, now),
            _ => {
                let key = shared_key(self.rng.random_range(0..SHARED_KEYS));
                let write = self.random_write();
                perform(&self.nodes[node].cache, &key, &write, now).ok().flatten()
            }
        }
    }

    /// One process alone writes to a key: what it holds at the end is known.
    fn write_own_key(&mut self, place: usize, now: Millis) -> Option<Delta> {
        let number = self.rng.random_range(0..OWN_KEYS);
        let key = Key::shared(format!("own {} {number}", self.nodes[place].life).as_bytes());
        let known = self.nodes[place].acknowledged.keys.get(&key);
        let holds = known.map_or(Seen::Nothing, |own| own.holds.clone());
        let (write, holds) = match (number, holds) {
            _ if self.rng.random_bool(0.15) => (Write::Delete, Seen::Nothing),
            (0 | 1, _) => self.own_scalar(),
            (2, Seen::Scalar(text)) => self.own_number(&text),
            (2, _) => self.own_number(b"0"),
            (3, Seen::List(items)) => self.own_list(items),
            (3, _) => self.own_list(Vec::new()),
            (_, Seen::Set(members)) => self.own_set(members),
            (_, _) => self.own_set(Vec::new()),
        };
        let node = &mut self.nodes[place];
        let delta = perform(&node.cache, &key, &write, now).expect("nobody else writes to the key");
        if node.keeping.is_some() {
            node.books.note(&key, &holds);
        }
        let fresh = Own {
            holds: Seen::Nothing,
            since: self.now,
            given_up: false,
        };
        let known = node.acknowledged.keys.remove(&key);
        // After these nothing earlier matters.
        let resets = matches!(write, Write::Set { .. } | Write::Delete);
        let own = known.filter(|_| !resets).unwrap_or(fresh);
        let partition = Partition::of(KeyHash::of(key.as_bytes()));
        node.acknowledged.keys.insert(key, Own { holds, ..own });
        if self.scenario.stores.is_some() && self.rng.random_bool(0.3) {
            self.wait_for_store(place, partition);
        }
        delta
    }

    fn own_scalar(&mut self) -> (Write, Seen) {
        let large = self.rng.random_bool(0.15);
        let length = if large {
            self.rng.random_range(0..=self.scenario.max_value)
        } else {
            8
        };
        let letter = char::from(self.rng.random_range(b'a'..=b'z'));
        let value: String = std::iter::repeat_n(letter, length).collect();
        if self.rng.random_bool(0.15) {
            let expires = self.rng.random_range(1..10);
            return (Write::Set { value, expires }, Seen::Nothing);
        }
        let holds = Seen::Scalar(value.clone().into());
        (Write::Set { value, expires: 0 }, holds)
    }

    fn own_number(&mut self, text: &[u8]) -> (Write, Seen) {
        let before: i64 = std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse().ok())
            .expect("a number");
        let amount = i64::from(self.rng.random_range(-9i32..10));
        let number = |number: i64| Seen::Scalar(number.to_string().into());
        if self.rng.random_bool(0.2) {
            let value = amount.to_string();
            return (Write::Set { value, expires: 0 }, number(amount));
        }
        (Write::Increment(amount), number(before + amount))
    }

    fn own_list(&mut self, mut items: Vec<Bytes>) -> (Write, Seen) {
        let text = self.short_text();
        let place = items.iter().position(|item| *item == text);
        let write = match place {
            Some(place) if self.rng.random_bool(0.6) => {
                items.remove(place);
                Write::Remove(text)
            }
            _ => {
                items.push(text.clone().into());
                Write::Push(text)
            }
        };
        let holds = if items.is_empty() {
            Seen::Nothing
        } else {
            Seen::List(items)
        };
        (write, holds)
    }

    fn own_set(&mut self, mut members: Vec<Bytes>) -> (Write, Seen) {
        let text = self.short_text();
        let place = members.binary_search_by(|member| (**member).cmp(text.as_bytes()));
        let write = match place {
            Ok(place) if self.rng.random_bool(0.7) => {
                members.remove(place);
                Write::Drop(text)
            }
            Ok(_) => Write::Add(text),
            Err(place) => {
                members.insert(place, text.clone().into());
                Write::Add(text)
            }
        };
        let holds = if members.is_empty() {
            Seen::Nothing
        } else {
            Seen::Set(members)
        };
        (write, holds)
    }

    fn short_text(&mut self) -> String {
        ["a", "b", "a longer text than fits inline"][self.rng.random_range(0..3)].to_owned()
    }

    fn random_write(&mut self) -> Write {
        let text = self.short_text();
        match self.rng.random_range(0..9) {
            0 => Write::Set {
                value: "10".into(),
                expires: 0,
            },
            1 => Write::Set {
                value: text,
                expires: self.rng.random_range(1..4),
            },
            2 => Write::Delete,
            3 | 4 => Write::Increment(self.rng.random_range(-5i32..10).into()),
            5 => Write::Push(text),
            6 => Write::Remove(text),
            7 => Write::Add(text),
            _ => Write::Drop(text),
        }
    }
}
