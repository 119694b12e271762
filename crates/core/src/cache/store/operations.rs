//! Reads and local writes.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use bytes::Bytes;

use super::Cache;
use crate::cache::blob::Blob;
use crate::cache::delta::{Delta, StateDelta, Value};
use crate::cache::error::CacheError;
use crate::cache::horizon::Base;
use crate::cache::key::Key;
use crate::cache::scalar::{self, Moment, View};
use crate::cache::set::Set;
use crate::cache::stamp::{Millis, Stamp};
use crate::cache::state::{Kind, State};

impl Cache {
    // --- reads

    /// The scalar at `key` (Redis GET), or `None`.
    pub fn get(&self, key: &Key, now: Millis) -> Result<Option<Bytes>, CacheError> {
        let moment = self.moment(now);
        self.read(key, |state| match state.kind(moment) {
            None => Ok(None),
            Some(Kind::Scalar) => Ok(match state.scalar(moment) {
                View::Nothing => None,
                View::Text(text) => Some(Bytes::copy_from_slice(text)),
                View::Number(number) => Some(number.to_string().into()),
            }),
            Some(_) => Err(CacheError::WrongType),
        })
    }

    /// Whether the key exists, with any type (Redis EXISTS).
    pub fn contains(&self, key: &Key, now: Millis) -> bool {
        let moment = self.moment(now);
        self.read(key, |state| state.kind(moment).is_some())
    }

    /// Items `start..=stop` of a list; negative indices count from the end (Redis LRANGE). An error where they take
    /// more than `max_bytes` ([`answer_bytes`]).
    pub fn list_range(
        &self,
        key: &Key,
        start: i64,
        stop: i64,
        now: Millis,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, CacheError> {
        let moment = self.moment(now);
        self.read(key, |state| {
            expect_kind(state, Kind::List, moment)?;
            let items = state.list().into_iter().flat_map(|list| list.range(start, stop));
            copied(items.map(|item| &item.value), max_bytes)
        })
    }

    /// The members of a set, sorted (Redis SMEMBERS). An error where they take more than `max_bytes`
    /// ([`answer_bytes`]).
    pub fn set_members(&self, key: &Key, now: Millis, max_bytes: usize) -> Result<Vec<Bytes>, CacheError> {
        self.look_at_set(key, now, |set| copied(set.into_iter().flat_map(Set::iter), max_bytes))?
    }

    /// Members of any of the sets, sorted (Redis SUNION). An error where they take more than `max_bytes`
    /// ([`answer_bytes`]).
    ///
    /// Each set is looked at once and by itself, however often it is named: what is held of all of them together is the
    /// answer so far and the set just looked at, each within the bound.
    pub fn set_union(&self, keys: &[Key], now: Millis, max_bytes: usize) -> Result<Vec<Bytes>, CacheError> {
        let mut sets = self.sets_by_size(keys, now)?.into_iter().rev();
        let (_, largest) = sets.next().ok_or(CacheError::NoKeys)?;
        let mut union = self.set_members(largest, now, max_bytes)?;
        let mut bytes: usize = union.iter().map(|member| answer_bytes(member.len())).sum();
        let mut others = BTreeSet::new();
        for (_, key) in sets {
            for member in self.set_members(key, now, max_bytes)? {
                let more = answer_bytes(member.len());
                if union.binary_search(&member).is_err() && others.insert(member) {
                    bytes = bytes.saturating_add(more);
                    within(bytes, max_bytes)?;
                }
            }
        }
        // Two sorted runs, which sorting only merges.
        union.extend(others);
        union.sort();
        Ok(union)
    }

    /// Members of all of the sets, sorted (Redis SINTER). An error where they take more than `max_bytes`
    /// ([`answer_bytes`]).
    ///
    /// Of the smallest set a copy is made, which the others are asked about one by one.
    pub fn set_intersection(&self, keys: &[Key], now: Millis, max_bytes: usize) -> Result<Vec<Bytes>, CacheError> {
        let sets = self.sets_by_size(keys, now)?;
        let [(smallest, first), others @ ..] = &sets[..] else {
            return Err(CacheError::NoKeys);
        };
        if *smallest == 0 {
            return Ok(Vec::new());
        }
        let mut common = match others {
            [] => return self.set_members(first, now, max_bytes),
            _ => self.set_members(first, now, usize::MAX)?,
        };
        for (_, key) in others {
            self.look_at_set(key, now, |set| {
                common.retain(|member| set.is_some_and(|set| set.contains(member)));
            })?;
        }
        within(common.iter().map(|member| answer_bytes(member.len())).sum(), max_bytes)?;
        Ok(common)
    }

    /// Each of the keys once with the number of members there, smallest first. All of them are looked at before any is
    /// used: another type is an error even where the answer is empty anyway.
    fn sets_by_size<'k>(&self, keys: &'k [Key], now: Millis) -> Result<Vec<(usize, &'k Key)>, CacheError> {
        if keys.is_empty() {
            return Err(CacheError::NoKeys);
        }
        let distinct: BTreeSet<&Key> = keys.iter().collect();
        let sized = |key| self.look_at_set(key, now, |set| (set.map_or(0, Set::len), key));
        let mut sets = distinct.into_iter().map(sized).collect::<Result<Vec<_>, _>>()?;
        sets.sort_unstable();
        Ok(sets)
    }

    /// Shows the set at `key`, under its lock, or `None` where nothing is.
    pub(super) fn look_at_set<T>(
        &self,
        key: &Key,
        now: Millis,
        look: impl FnOnce(Option<&Set>) -> T,
    ) -> Result<T, CacheError> {
        let moment = self.moment(now);
        self.read(key, |state| {
            expect_kind(state, Kind::Set, moment)?;
            Ok(look(state.set()))
        })
    }

    // --- writes

    /// Sets a scalar, replacing any type (Redis SET). `expires_seconds` 0 means never.
    pub fn set(
        &self,
        key: &Key,
        value: impl Into<Blob>,
        expires_seconds: u32,
        now: Millis,
    ) -> Result<Delta, CacheError> {
        let value = value.into();
        self.check_length("key", key.as_bytes())?;
        self.check_length("value", &value)?;
        self.write(key, now, |state, at, moment| {
            let expires_at = match expires_seconds {
                0 => None,
                seconds => Some(moment.now + u64::from(seconds) * 1_000),
            };
            Ok((
                (),
                Some(StateDelta::Put {
                    at,
                    value: Value::Held(value),
                    expires_at,
                    seen: state.seen(),
                }),
            ))
        })
        .map(|((), delta)| delta.expect("a set always writes"))
    }

    /// Deletes a key of any type (Redis DEL). Returns whether there was something to delete. The deletion is written in
    /// any case: a value stamped before it may be on its way here.
    pub fn delete(&self, key: &Key, now: Millis) -> Result<(bool, Delta), CacheError> {
        // A key that was never written is remembered too.
        self.check_length("key", key.as_bytes())?;
        self.write(key, now, |state, at, moment| {
            let there = state.kind(moment).is_some();
            Ok((there, Some(StateDelta::Delete { at, seen: state.seen() })))
        })
        .map(|(there, delta)| (there, delta.expect("a delete always writes")))
    }

    /// Adds to a counter and returns its new value (Redis INCRBY).
    pub fn increment(&self, key: &Key, amount: i64, now: Millis) -> Result<(i64, Delta), CacheError> {
        self.increment_within(key, amount, i64::MIN..=i64::MAX, now)
    }

    /// Adds to a counter unless the sum would leave `range`: not every contract has numbers of 64 bits.
    pub fn increment_within(
        &self,
        key: &Key,
        amount: i64,
        range: RangeInclusive<i64>,
        now: Millis,
    ) -> Result<(i64, Delta), CacheError> {
        self.check_length("key", key.as_bytes())?;
        let node = self.node();
        self.write(key, now, |state, at, moment| {
            let value = current_number(state, moment)?;
            let total = value
                .checked_add(amount)
                .filter(|total| range.contains(total))
                .ok_or(CacheError::OutOfRange { value, amount })?;
            let (base, sum) = state.counter_entry(node, at.time, moment);
            let (base, sum) = match sum.checked_add(amount) {
                Some(sum) => (base, sum),
                // What this node has added is more than one entry can tell, as on a value near the other end of i64.
                None => (Base::fresh(at.time), amount),
            };
            Ok((total, Some(StateDelta::Add { node, base, sum, at })))
        })
        .map(|(total, delta)| (total, delta.expect("an increment always writes")))
    }

    /// Appends to a list and returns its new length (Redis RPUSH).
    pub fn list_push(&self, key: &Key, value: impl Into<Blob>, now: Millis) -> Result<(u32, Delta), CacheError> {
        self.list_push_within(key, value, usize::MAX, now)
    }

    /// Appends to a list unless it has `max_items` already.
    pub fn list_push_within(
        &self,
        key: &Key,
        value: impl Into<Blob>,
        max_items: usize,
        now: Millis,
    ) -> Result<(u32, Delta), CacheError> {
        let value = value.into();
        self.check_length("list name", key.as_bytes())?;
        self.check_length("value", &value)?;
        self.write(key, now, |state, at, moment| {
            expect_kind(state, Kind::List, moment)?;
            let length = state.list().map_or(0, |list| list.items.len());
            has_room(length, max_items)?;
            let length = u32::try_from(length + 1).map_err(|_| CacheError::ListTooLong)?;
            Ok((length, Some(StateDelta::ListPush { id: at, value })))
        })
        .map(|(length, delta)| (length, delta.expect("a push always writes")))
    }

    /// Removes the first item equal to `value` (Redis LREM with count 1). `None` if there was none.
    pub fn list_remove(&self, key: &Key, value: &[u8], now: Millis) -> Result<Option<Delta>, CacheError> {
        self.write(key, now, |state, at, moment| {
            expect_kind(state, Kind::List, moment)?;
            let found = state
                .list()
                .and_then(|list| list.items.iter().find(|item| *item.value == *value));
            Ok(((), found.map(|item| StateDelta::ListRemove { id: item.id, at })))
        })
        .map(|((), delta)| delta)
    }

    /// Adds a member to a set (Redis SADD). Returns whether it was new. The addition is written in any case: it is
    /// newer than a removal that may be on its way here.
    pub fn set_add(&self, key: &Key, member: impl Into<Blob>, now: Millis) -> Result<(bool, Delta), CacheError> {
        self.set_add_within(key, member, usize::MAX, now)
    }

    /// Adds a member to a set unless it is new and the set has `max_items` already.
    pub fn set_add_within(
        &self,
        key: &Key,
        member: impl Into<Blob>,
        max_items: usize,
        now: Millis,
    ) -> Result<(bool, Delta), CacheError> {
        let member = member.into();
        self.check_length("set name", key.as_bytes())?;
        self.check_length("value", &member)?;
        self.write(key, now, |state, at, moment| {
            expect_kind(state, Kind::Set, moment)?;
            let known = state.set().is_some_and(|set| set.contains(&member));
            if !known {
                has_room(state.set().map_or(0, Set::len), max_items)?;
            }
            Ok((!known, Some(StateDelta::SetAdd { member, at })))
        })
        .map(|(new, delta)| (new, delta.expect("an addition always writes")))
    }

    /// Removes a member from a set (Redis SREM). Returns whether it was in there. The removal is written wherever there
    /// is a set: an addition stamped before it may be on its way here.
    pub fn set_remove(
        &self,
        key: &Key,
        member: impl Into<Blob>,
        now: Millis,
    ) -> Result<(bool, Option<Delta>), CacheError> {
        let member = member.into();
        self.check_length("value", &member)?;
        self.write(key, now, |state, at, moment| {
            expect_kind(state, Kind::Set, moment)?;
            let known = state.set().is_some_and(|set| set.contains(&member));
            // A mark on a key that is no set here could void a concurrent writer's scalar or list.
            let is_set = state.kind(moment) == Some(Kind::Set);
            Ok((known, is_set.then_some(StateDelta::SetRemove { member, at })))
        })
    }

    // --- one key

    fn read<T>(&self, key: &Key, look: impl FnOnce(State<'_>) -> T) -> T {
        self.tables.read(key.as_bytes(), look)
    }

    /// One local operation: `decide` sees the key's state and a fresh stamp, and may answer with a change of it.
    ///
    /// The stamp is taken under the lock, and is above everything the state holds: removals too, and what was written
    /// while the clock was ahead, before it was set back. So operations on a key happen in the order of their stamps,
    /// and no two of this node have the same. Deadlines are compared with the clock, not by such a stamp.
    fn write<T>(
        &self,
        key: &Key,
        now: Millis,
        decide: impl FnOnce(State<'_>, Stamp, Moment) -> Result<(T, Option<StateDelta>), CacheError>,
    ) -> Result<(T, Option<Delta>), CacheError> {
        self.write_bytes(key.as_blob(), now, decide)
    }

    /// The same, of the bytes of a key.
    pub(super) fn write_bytes<T>(
        &self,
        key: &Blob,
        now: Millis,
        decide: impl FnOnce(State<'_>, Stamp, Moment) -> Result<(T, Option<StateDelta>), CacheError>,
    ) -> Result<(T, Option<Delta>), CacheError> {
        let decide = |state: State<'_>| {
            let tick = self.clock.tick(now);
            decide(state, tick.above(state.newest()), self.moment_at(tick.time))
        };
        let (decided, _) = self.tables.write(key, now, decide, |decided| match decided {
            Ok((_, Some(change))) => Some((change, false)),
            _ => None,
        });
        let (answer, change) = decided?;
        Ok((
            answer,
            change.map(|change| Delta {
                key: key.clone(),
                change,
            }),
        ))
    }

    fn check_length(&self, what: &'static str, bytes: &[u8]) -> Result<(), CacheError> {
        let limit = self.limits.max_value_bytes;
        if bytes.len() <= limit {
            return Ok(());
        }
        Err(CacheError::TooLarge {
            what,
            length: bytes.len(),
            limit,
        })
    }
}

/// What an element of so many bytes counts in an answer: its bytes, and its length as MessagePack writes it.
pub fn answer_bytes(length: usize) -> usize {
    let head = match length {
        0..32 => 1,
        32..0x100 => 2,
        0x100..0x1_0000 => 3,
        _ => 5,
    };
    length.saturating_add(head)
}

/// Whether a collection with so many items may have one more.
fn has_room(items: usize, limit: usize) -> Result<(), CacheError> {
    match items < limit {
        true => Ok(()),
        false => Err(CacheError::CollectionFull { items, limit }),
    }
}

fn within(bytes: usize, limit: usize) -> Result<(), CacheError> {
    if bytes <= limit {
        return Ok(());
    }
    Err(CacheError::AnswerTooLarge { limit })
}

/// Copies of all elements, as long as they stay within `max_bytes`.
fn copied<'a>(elements: impl Iterator<Item = &'a Blob>, max_bytes: usize) -> Result<Vec<Bytes>, CacheError> {
    let mut bytes = 0usize;
    let copy = |element: &Blob| {
        bytes = bytes.saturating_add(answer_bytes(element.len()));
        within(bytes, max_bytes).map(|()| element.to_bytes())
    };
    elements.map(copy).collect()
}

fn expect_kind(state: State<'_>, kind: Kind, moment: Moment) -> Result<(), CacheError> {
    match state.kind(moment) {
        None => Ok(()),
        Some(known) if known == kind => Ok(()),
        Some(_) => Err(CacheError::WrongType),
    }
}

fn current_number(state: State<'_>, moment: Moment) -> Result<i64, CacheError> {
    match (state.kind(moment), state.scalar(moment)) {
        (None, _) => Ok(0),
        (Some(Kind::Scalar), View::Number(number)) => Ok(number),
        (Some(Kind::Scalar), View::Text(text)) => scalar::parse_integer(text).ok_or(CacheError::NotAnInteger),
        (Some(Kind::Scalar), View::Nothing) => Ok(0),
        (Some(_), _) => Err(CacheError::WrongType),
    }
}
