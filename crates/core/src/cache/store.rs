//! The map of all keys and the operations on it.

use std::collections::BTreeSet;
use std::ptr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use dashmap::mapref::one::{Ref, RefMut};
use dashmap::try_result::TryResult;
use dashmap::DashMap;

use super::blob::Blob;
use super::command::{Change, Command, CommandError, Value};
use super::component::{Component, Part, Position, Span};
use super::entry::Entry;
use super::error::CacheError;
use super::fold::Fold;
use super::hash::{Home, KeyHash, Partition, PARTITIONS};
use super::key::Key;
use super::nodes::Nodes;
use super::partition::{Digest, PartitionStats};
use super::prefetch::{ahead, prefetch, AT_ONCE};
use super::scalar::{self, Moment, View};
use super::set::Set;
use super::stamp::{Clock, Millis, NodeId, Stamp, Time};
use super::state::{KeyState, Kind, State};
use super::table::{entries, let_others_in, order_of, tables, ByPartition, Piece, Table};
use super::table_hash::TableSecret;

/// Bounds of what the cache takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Longest key, value, item or member in bytes.
    pub max_value_bytes: usize,
    /// How far ahead of this node's wall clock a peer's stamp may lie, in milliseconds.
    pub max_clock_skew_ms: Millis,
    /// How long a deletion is remembered, in milliseconds.
    pub tombstone_ttl_ms: Millis,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_value_bytes: 32 << 20,
            max_clock_skew_ms: 15 * 60 * 1_000,
            tombstone_ttl_ms: 24 * 60 * 60 * 1_000,
        }
    }
}

/// The floor moves in steps of this part of the tombstone lifetime, so that nodes mostly agree about it.
const FLOOR_STEPS: Millis = 24;

/// Commands that are merged under one lock of a partition at most: others have to wait meanwhile.
const MAX_LOCKED: usize = 256;

/// Keys for which an empty table is made large enough at once, at most: commands may all be about one key.
const MAX_RESERVED: usize = 4_096;

/// The replicated map of one node.
///
/// Reads and local writes are plain calls on `&self` that lock one partition. A local write has happened when the call
/// returns; the [`Command`] it returns has to reach the peers, in any order and any number of times.
pub struct Cache {
    clock: Clock,
    limits: Limits,
    /// Each partition has a shard of its own, and is there from the beginning.
    map: DashMap<Partition, Table, ByPartition>,
    /// Says where in the tables keys lie.
    secret: TableSecret,
    pub(super) nodes: Nodes,
    partitions: Box<[PartitionStats]>,
    floor: AtomicU64,
    swept: AtomicUsize,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("node", &self.node())
            .finish_non_exhaustive()
    }
}

impl Cache {
    /// An empty cache of the process `node`, whose tables are in an order that everybody knows. For tests, simulations
    /// and benchmarks: who knows it can make keys that all collide.
    pub fn new(node: NodeId, limits: Limits) -> Self {
        Cache::with_secret(node, limits, [0; 4])
    }

    /// An empty cache of the process `node`. `secret` is random, and decides where in its tables keys lie.
    pub fn with_secret(node: NodeId, limits: Limits, secret: [u64; 4]) -> Self {
        Cache {
            secret: TableSecret::new(secret),
            clock: Clock::new(node, limits.max_clock_skew_ms),
            limits,
            map: tables(),
            nodes: Nodes::new(),
            partitions: (0..PARTITIONS).map(|_| PartitionStats::default()).collect(),
            floor: AtomicU64::new(0),
            swept: AtomicUsize::new(0),
        }
    }

    /// The process this cache belongs to.
    pub fn node(&self) -> NodeId {
        self.clock.node()
    }

    /// The hybrid logical clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The bounds given at the start.
    pub fn limits(&self) -> Limits {
        self.limits
    }

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

    /// Items `start..=stop` of a list; negative indices count from the end (Redis LRANGE). An error where they take more
    /// than `max_bytes` ([`answer_bytes`]).
    pub fn list_range(
        &self,
        key: &Key,
        start: i32,
        stop: i32,
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
    fn look_at_set<T>(&self, key: &Key, now: Millis, look: impl FnOnce(Option<&Set>) -> T) -> Result<T, CacheError> {
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
    ) -> Result<Command, CacheError> {
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
                Some(Change::Put {
                    at,
                    value: Value::Held(value),
                    expires_at,
                    seen: state.seen(),
                }),
            ))
        })
        .map(|((), command)| command.expect("a set always writes"))
    }

    /// Deletes a key of any type (Redis DEL). Returns whether there was something to delete. The deletion is written in
    /// any case: a value stamped before it may be on its way here.
    pub fn delete(&self, key: &Key, now: Millis) -> Result<(bool, Command), CacheError> {
        // A key that was never written is remembered too.
        self.check_length("key", key.as_bytes())?;
        self.write(key, now, |state, at, moment| {
            let there = state.kind(moment).is_some();
            Ok((there, Some(Change::Delete { at, seen: state.seen() })))
        })
        .map(|(there, command)| (there, command.expect("a delete always writes")))
    }

    /// Adds to a counter and returns its new value (Redis INCRBY, within i32).
    pub fn increment(&self, key: &Key, amount: i32, now: Millis) -> Result<(i32, Command), CacheError> {
        self.check_length("key", key.as_bytes())?;
        let node = self.node();
        self.write(key, now, |state, at, moment| {
            let value = current_number(state, moment)?;
            let total = value
                .checked_add(amount.into())
                .and_then(|total| i32::try_from(total).ok())
                .ok_or(CacheError::OutOfRange { value, amount })?;
            let (base, sum) = state.counter_entry(node, at.time, moment);
            let sum = sum.wrapping_add(amount.into());
            Ok((total, Some(Change::Add { node, base, sum, at })))
        })
        .map(|(total, command)| (total, command.expect("an increment always writes")))
    }

    /// Appends to a list and returns its new length (Redis RPUSH).
    pub fn list_push(&self, key: &Key, value: impl Into<Blob>, now: Millis) -> Result<(u32, Command), CacheError> {
        let value = value.into();
        self.check_length("list name", key.as_bytes())?;
        self.check_length("value", &value)?;
        self.write(key, now, |state, at, moment| {
            expect_kind(state, Kind::List, moment)?;
            let length = state.list().map_or(0, |list| list.items.len());
            let length = u32::try_from(length + 1).map_err(|_| CacheError::ListTooLong)?;
            Ok((length, Some(Change::ListPush { id: at, value })))
        })
        .map(|(length, command)| (length, command.expect("a push always writes")))
    }

    /// Removes the first item equal to `value` (Redis LREM with count 1). `None` if there was none.
    pub fn list_remove(&self, key: &Key, value: &[u8], now: Millis) -> Result<Option<Command>, CacheError> {
        self.write(key, now, |state, at, moment| {
            expect_kind(state, Kind::List, moment)?;
            let found = state
                .list()
                .and_then(|list| list.items.iter().find(|item| *item.value == *value));
            Ok(((), found.map(|item| Change::ListRemove { id: item.id, at })))
        })
        .map(|((), command)| command)
    }

    /// Adds a member to a set (Redis SADD). Returns whether it was new. The addition is written in any case: it is
    /// newer than a removal that may be on its way here.
    pub fn set_add(&self, key: &Key, member: impl Into<Blob>, now: Millis) -> Result<(bool, Command), CacheError> {
        let member = member.into();
        self.check_length("set name", key.as_bytes())?;
        self.check_length("value", &member)?;
        self.write(key, now, |state, at, moment| {
            expect_kind(state, Kind::Set, moment)?;
            let known = state.set().is_some_and(|set| set.contains(&member));
            Ok((!known, Some(Change::SetAdd { member, at })))
        })
        .map(|(new, command)| (new, command.expect("an addition always writes")))
    }

    /// Removes a member from a set (Redis SREM). Returns whether it was in there. The removal is written wherever there
    /// is a set: an addition stamped before it may be on its way here.
    pub fn set_remove(
        &self,
        key: &Key,
        member: impl Into<Blob>,
        now: Millis,
    ) -> Result<(bool, Option<Command>), CacheError> {
        let member = member.into();
        self.check_length("value", &member)?;
        self.write(key, now, |state, at, moment| {
            expect_kind(state, Kind::Set, moment)?;
            let known = state.set().is_some_and(|set| set.contains(&member));
            // A mark on a key that is no set here could void a concurrent writer's scalar or list.
            let is_set = state.kind(moment) == Some(Kind::Set);
            Ok((known, is_set.then_some(Change::SetRemove { member, at })))
        })
    }

    // --- replication

    /// Merges a command of a peer. Returns whether it changed anything.
    pub fn apply<B: AsRef<[u8]>>(&self, command: &Command<B>, now: Millis) -> Result<bool, CommandError> {
        let mut answer = Ok(false);
        self.apply_all(std::slice::from_ref(command), now, |applied| answer = applied);
        answer
    }

    /// Merges the commands of a message, in order. Answers for each as [`Cache::apply`] does.
    ///
    /// Of a large cache nearly every key is far away in memory. So the processor is asked for what later commands need
    /// while earlier ones are merged. Commands for one partition in a row, of which a replay consists, take its lock
    /// together, some hundred at a time. `answer` is called with the partition locked.
    pub fn apply_all<B: AsRef<[u8]>>(
        &self,
        commands: &[Command<B>],
        now: Millis,
        mut answer: impl FnMut(Result<bool, CommandError>),
    ) {
        let latest = Time::from_millis(now.saturating_add(self.limits.max_clock_skew_ms));
        let floor = self.floor();
        let homes: Vec<Home> = commands.iter().map(|command| self.home(command.key.as_ref())).collect();
        let mut fetched = 0;
        let mut done = 0;
        while let Some(&Home { partition, .. }) = homes.get(done) {
            let here = |home: &&Home| home.partition == partition;
            let run = homes[done..].iter().take_while(here).count();
            self.fetch_ahead(&homes, done, &mut fetched);
            for first in (done..done + run).step_by(MAX_LOCKED) {
                let batch = first..(first + MAX_LOCKED).min(done + run);
                let mut table = self.table_mut(partition);
                if run > 1 {
                    table.expect(run.min(MAX_RESERVED), |entry| self.place_of(entry));
                }
                for (command, home) in commands[batch.clone()].iter().zip(&homes[batch]) {
                    answer(command.check(latest).map(|()| {
                        self.clock.observe(command.newest().time);
                        // Of a deletion there is always a mark: a living counter may build upon it. One that is alone
                        // goes with the next sweep, and nobody hands it out.
                        let forgotten = command.removes_an_element() && command.newest().time < floor;
                        let key = command.key.as_ref();
                        let (_, changed) = self.merge(
                            &mut table,
                            key,
                            *home,
                            now,
                            |_| command,
                            |command| Some((&command.change, forgotten)),
                        );
                        changed
                    }));
                }
            }
            done += run;
        }
    }

    /// Asks the processor for what the commands after number `done` need, in the two steps in which a hash table is
    /// looked through: where the hash leads to, and, one group of commands later, the entry that is found there.
    /// `fetched` counts the commands of which the first step is done.
    fn fetch_ahead(&self, homes: &[Home], done: usize, fetched: &mut usize) {
        let entries = fetched.saturating_sub(AT_ONCE);
        if done + AT_ONCE < entries {
            return;
        }
        let (buckets, entries) = ((*fetched).max(done), entries.max(done));
        *fetched = entries + 2 * AT_ONCE;
        let within = |command: usize| command.min(homes.len());
        for home in &homes[within(buckets)..within(*fetched)] {
            self.fetch_bucket(*home);
        }
        // Of a command that is alone only the bucket can be fetched ahead.
        if homes.len() > 1 {
            for home in &homes[within(entries)..within(entries + AT_ONCE)] {
                self.fetch_entry(*home);
            }
        }
    }

    /// Asks the processor to fetch where a key with this hash is looked for first.
    fn fetch_bucket(&self, home: Home) {
        if let Some((control, bucket)) = self.stats(home.partition).place(home.place, size_of::<Entry>()) {
            prefetch(control);
            prefetch(bucket);
        }
    }

    /// Asks the processor to fetch the first entry that may be that of a key with this hash.
    fn fetch_entry(&self, home: Home) {
        if !self.stats(home.partition).is_large() {
            return;
        }
        if let TryResult::Present(table) = self.map.try_get(&home.partition) {
            table.piece(home.place).find(home.place, |entry| {
                entry.prefetch();
                true
            });
        }
    }

    /// All components in the span, sorted. Of a whole partition their hashes add up (wrapping) to its digest.
    pub fn components(&self, span: Span) -> Vec<Component> {
        let mut found = Vec::new();
        self.visit(span, |_| false, |_, component, _| found.push(component));
        found.sort_unstable();
        found
    }

    /// The hashes of all components of a partition, in any order.
    pub fn component_hashes(&self, partition: Partition) -> Vec<u64> {
        let mut found = Vec::new();
        let span = Span::of(partition);
        self.visit(span, |_| false, |_, component, _| found.push(component.hash));
        found
    }

    /// Writes out the components in the span whose hash `wanted` accepts, each as one command that brings it to a
    /// cache that lacks it, but for what the next sweep drops ([`Cache::commands`]). Both functions are called with the
    /// partition locked.
    pub fn select(&self, span: Span, wanted: impl FnMut(u64) -> bool, mut emit: impl FnMut(Command<&[u8]>)) {
        self.select_components(span, wanted, |_, command| emit(command));
    }

    /// As [`Cache::select`], with the component that each command is of.
    pub fn select_components(
        &self,
        span: Span,
        mut wanted: impl FnMut(u64) -> bool,
        mut emit: impl FnMut(Component, Command<&[u8]>),
    ) {
        let moment = self.latest_moment();
        let forgotten = |state: State<'_>| state.is_forgotten(moment);
        self.visit(span, forgotten, |key, component, part| {
            if !wanted(component.hash) {
                return;
            }
            let change = part.change();
            emit(component, Command { key, change });
        });
    }

    /// Shows the components in the span with their keys, key after key, but for keys that `skip` names.
    fn visit(&self, span: Span, skip: impl Fn(State<'_>) -> bool, mut show: impl FnMut(&[u8], Component, Part<'_>)) {
        self.visit_entries(span.partition(), |entry| {
            let key = entry.key();
            let hash = KeyHash::of(key);
            let Some(elements) = span.elements(hash) else {
                return;
            };
            let state = entry.state(&self.nodes);
            if skip(state) {
                return;
            }
            state.parts(|part| {
                let element = part.element();
                if elements.contains(&element) {
                    let position = Position {
                        key: hash.path(),
                        element,
                    };
                    let hash = part.hash(hash);
                    show(key, Component { position, hash }, part);
                }
            });
        });
    }

    /// Shows all entries of a partition, each once.
    fn visit_entries(&self, partition: Partition, mut show: impl FnMut(&Entry)) {
        let mut from = Some(0);
        while let Some(order) = from {
            let table = self.table(partition);
            let (piece, first, last) = table.piece_around(order);
            for entry in entries(piece) {
                // Pieces that were put together since begin with what was seen already.
                if first == order || self.order_of(entry) >= order {
                    show(entry);
                }
            }
            drop(table);
            from = last.checked_add(1);
            from.iter().for_each(|_| let_others_in());
        }
    }

    /// Digest of one partition.
    pub fn digest(&self, partition: Partition) -> Digest {
        self.stats(partition).digest()
    }

    /// Digest of the whole cache: the wrapping sum over all partitions.
    pub fn root_digest(&self) -> Digest {
        self.partitions.iter().map(PartitionStats::digest).sum()
    }

    /// When a partition last changed, as the caller's wall clock said.
    pub fn changed_at(&self, partition: Partition) -> Millis {
        self.stats(partition).changed_at()
    }

    /// The digest of the whole cache, computed anew from the state. For tests and diagnosis.
    pub fn recomputed_digest(&self) -> Digest {
        let of_entry = |entry: &Entry| Digest(entry.state(&self.nodes).digest(KeyHash::of(entry.key())));
        let mut digests = Vec::new();
        Partition::all().for_each(|partition| self.visit_entries(partition, |entry| digests.push(of_entry(entry))));
        digests.into_iter().sum()
    }

    /// Number of keys that hold data.
    pub fn keys(&self) -> u64 {
        self.partitions
            .iter()
            .map(PartitionStats::keys)
            .fold(0, u64::wrapping_add)
    }

    /// Number of keys of a partition that hold data.
    pub fn keys_in(&self, partition: Partition) -> u64 {
        self.stats(partition).keys()
    }

    /// Number of entries in memory, tombstones included.
    pub fn entries(&self) -> usize {
        self.map.iter().map(|table| table.len()).sum()
    }

    // --- sweeping

    /// Deletions stamped before this time are forgotten.
    pub fn floor(&self) -> Time {
        Time(self.floor.load(Ordering::Relaxed))
    }

    /// Raises the floor to `floor` if that is higher: a peer has collected up to there.
    pub fn raise_floor(&self, floor: Time) {
        self.floor.fetch_max(floor.0, Ordering::Relaxed);
    }

    /// A floor that no clock which is right can have was raised while the wall clock was ahead. What was collected then is
    /// gone, but peers may have it, and give it back.
    fn lower_floor(&self, newest: Time, due: Time) {
        let lower = |floor: u64| (floor > newest.0).then_some(due.0);
        // Nothing to do is what happens.
        let _ = self.floor.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lower);
    }

    /// Gives back memory of the next `partitions` partitions in turn: values past their deadline, and deletions older
    /// than the tombstone lifetime. Returns how many entries were dropped.
    pub fn sweep(&self, partitions: usize, now: Millis) -> usize {
        self.clock.mend(now);
        let ttl = self.limits.tombstone_ttl_ms;
        let newest = self.clock.now(now).saturating_add(self.limits.max_clock_skew_ms);
        let now = self.clock.certain(now);
        let step = (ttl / FLOOR_STEPS).max(1);
        let due = Time::from_millis(now.saturating_sub(ttl) / step * step);
        self.lower_floor(Time::from_millis(newest.saturating_sub(ttl)), due);
        self.raise_floor(due);
        (0..partitions.min(PARTITIONS))
            .map(|_| self.swept.fetch_add(1, Ordering::Relaxed) % PARTITIONS)
            .map(|partition| self.sweep_partition(Partition(partition as u16), now))
            .sum()
    }

    fn sweep_partition(&self, partition: Partition, now: Millis) -> usize {
        let floor = self.floor();
        let moment = Moment { now, floor };
        let due = |_: &[u8], state: State<'_>| state.is_due(moment);
        self.change_all(partition, now, due, |key, state| {
            let swept = state.sweep(KeyHash::of(key), moment);
            (swept.delta, swept.forget)
        })
    }

    /// Drops components in the span, without a trace and as though they had never arrived: those whose hash `doomed`
    /// accepts and which are stamped before `floor`. Returns how many were dropped. `doomed` is called with the
    /// partition locked.
    ///
    /// This is for a node that was away for longer than deletions are remembered. What its peers lack of what it holds
    /// from before the floor they have deleted or replaced, and forgotten that they did; so it takes their state
    /// instead of bringing its own back. Merge what the peers hold first: a reset among that decides which counter
    /// entries are still good.
    ///
    /// A counter entry is cumulative, so additions from before the floor cannot be told from later ones. It goes
    /// as well when its newest addition is later than the floor, but its base lies before the floor and is not the
    /// horizon any more, nor fresh: its sum has been folded into a value, or deleted, where that cannot be seen any
    /// more. A dropped reset takes those with it that are on older bases than itself; those on it that stay, because
    /// the peers hold them, count in full here as they do there.
    pub fn forget(&self, span: Span, floor: Time, mut doomed: impl FnMut(u64) -> bool, now: Millis) -> usize {
        let mut dropped = 0;
        let inside = |key: &[u8], _: State<'_>| span.elements(KeyHash::of(key)).is_some();
        self.change_all(span.partition(), now, inside, |key, state| {
            let hash = KeyHash::of(key);
            let elements = span.elements(hash).expect("asked just before");
            let forgotten = state.forget(hash, &elements, floor, &mut doomed);
            dropped += forgotten.dropped;
            (forgotten.delta, forgotten.blank)
        });
        dropped
    }

    /// Folds the counters of a partition that hold at least `at_least` entries of nodes that are gone, so that
    /// restarts do not make counters grow without bound. Returns the commands for the peers; what a reader sees of a
    /// key does not change, here or anywhere.
    ///
    /// An entry can go when its newest addition is stamped before the floor and `may_add` does not accept its node.
    /// `may_add` has to accept every node that may have added something at or after the floor, heard of or not: all
    /// that are present, and all that have left since. This node itself is always accepted. It is called with the
    /// partition locked.
    ///
    /// The key is rewritten by a Put of the total it shows, stamped one tick above the newest entry that goes; a
    /// deadline that has not passed stays. Why that is safe:
    ///
    /// - The stamp lies below the floor, before which all nodes hold everything. So no reset and no component of
    ///   another type is covered that the author has not seen, and anything that is newer than the Put wins over it as
    ///   it would have won over the entries.
    /// - The Put is an *observed reset* (the term of Redis Active-Active): it carries what its total holds of each
    ///   entry that may go on. An entry with additions after the Put's stamp survives it and counts less that; one
    ///   without goes, its sum being in the total. One on a fresh base above the Put's stamp is not in the total.
    /// - Two nodes that fold write two Puts with stamps of their own. The newer one covers the older one, and holds the
    ///   total in full: its author had all that the older one is stamped above.
    ///
    /// Left alone are keys that show no integer, whose total leaves i64, or that hold entries on a reset which has yet
    /// to arrive. Entries from before a deadline that has passed do not count and are not folded: nobody makes new ones.
    pub fn fold(
        &self,
        partition: Partition,
        at_least: usize,
        now: Millis,
        may_add: impl Fn(NodeId) -> bool,
    ) -> Vec<Command> {
        let fold = Fold {
            author: self.node(),
            now: self.clock.now(now),
            floor: self.floor(),
            at_least,
            may_add: &may_add,
        };
        let mut commands = Vec::new();
        let foldable = |_: &[u8], state: State<'_>| matches!(state, State::Large(_));
        self.change_all(partition, now, foldable, |key, state| {
            let Some(change) = state.fold(&fold) else {
                return (0, false);
            };
            let delta = state.apply(KeyHash::of(key), &change);
            let key = Blob::new(key);
            commands.push(Command { key, change });
            (delta, false)
        });
        commands
    }

    /// Runs `change` on every key of a partition that `wanted` accepts, under the partition's lock; it returns the change
    /// of the digest, and whether the key is to be dropped. Returns how many were dropped.
    fn change_all(
        &self,
        partition: Partition,
        now: Millis,
        wanted: impl Fn(&[u8], State<'_>) -> bool,
        mut change: impl FnMut(&[u8], &mut KeyState) -> (u64, bool),
    ) -> usize {
        let mut dropped = 0;
        let mut from = Some(0);
        while let Some(order) = from {
            let (of_piece, last) = self.change_piece(partition, order, now, &wanted, &mut change);
            dropped += of_piece;
            from = last.checked_add(1);
            from.iter().for_each(|_| let_others_in());
        }
        dropped
    }

    /// The same with the keys of one piece. Returns how many were dropped, and the last order in that piece.
    fn change_piece(
        &self,
        partition: Partition,
        order: u64,
        now: Millis,
        wanted: impl Fn(&[u8], State<'_>) -> bool,
        mut change: impl FnMut(&[u8], &mut KeyState) -> (u64, bool),
    ) -> (usize, u64) {
        let stats = self.stats(partition);
        let mut table = self.table_mut(partition);
        let (piece, _, last) = table.piece_around_mut(order);
        let mut dropped = 0;
        // SAFETY: the write guard is held throughout; erasing the bucket just yielded is allowed while iterating.
        unsafe {
            for bucket in ahead(piece.iter(), |bucket| bucket.as_ref().prefetch()) {
                let entry = bucket.as_mut();
                let state = entry.state(&self.nodes);
                if !wanted(entry.key(), state) {
                    continue;
                }
                let held = entry.holds_data();
                let (delta, drop) = entry.change(&self.nodes, &mut change);
                let holds = entry.holds_data();
                stats.record(delta, held, holds && !drop, now);
                if drop {
                    piece.erase(bucket);
                    dropped += 1;
                }
            }
        }
        if dropped > 0 && table.shrink(order, |entry| self.place_of(entry)) {
            note_table(stats, &table);
        }
        (dropped, last)
    }

    // --- when a key is looked at

    /// The caller's wall clock says `now`.
    fn moment(&self, now: Millis) -> Moment {
        Moment {
            now: self.clock.now(now),
            floor: self.floor(),
        }
    }

    /// What is certain without a wall clock.
    pub(super) fn latest_moment(&self) -> Moment {
        self.moment_at(self.clock.latest())
    }

    fn moment_at(&self, time: Time) -> Moment {
        Moment {
            now: time.millis(),
            floor: self.floor(),
        }
    }

    // --- one key under its lock

    fn home(&self, key: &[u8]) -> Home {
        Home::of(key, &self.secret)
    }

    /// Where a table puts an entry.
    fn place_of(&self, entry: &Entry) -> u64 {
        self.secret.hash(entry.key())
    }

    /// Where it stands in the order of pieces.
    pub(super) fn order_of(&self, entry: &Entry) -> u64 {
        order_of(self.place_of(entry))
    }

    /// Where an element of a key stands among those of the key, and the reset before them.
    pub(super) fn order_of_part(&self, part: &Part<'_>) -> u64 {
        part.identity(|bytes| self.secret.hash(bytes)).unwrap_or(0)
    }

    /// The table of a partition, locked to be looked at.
    pub(super) fn table(&self, partition: Partition) -> Ref<'_, Partition, Table> {
        self.map.get(&partition).expect("all partitions are there")
    }

    /// The same, locked to be changed.
    fn table_mut(&self, partition: Partition) -> RefMut<'_, Partition, Table> {
        self.map.get_mut(&partition).expect("all partitions are there")
    }

    fn stats(&self, partition: Partition) -> &PartitionStats {
        &self.partitions[partition.0 as usize]
    }

    fn read<T>(&self, key: &Key, look: impl FnOnce(State<'_>) -> T) -> T {
        let key = key.as_bytes();
        let home = self.home(key);
        let table = self.table(home.partition);
        let piece = table.piece(home.place);
        fetch_bucket(piece, home.place);
        let found = piece.get(home.place, |known| known.key() == key);
        look(found.map_or(State::NEW, |entry| entry.state(&self.nodes)))
    }

    /// One local operation: `decide` sees the key's state and a fresh stamp, and may answer with a change of it.
    ///
    /// The stamp is taken under the lock, and is above everything the state holds: removals too, and what was written
    /// while the clock was ahead, before it was set back. So operations on a key happen in the order of their stamps,
    /// and no two of this node have the same. Deadlines are judged by the clock, not by such a stamp.
    fn write<T>(
        &self,
        key: &Key,
        now: Millis,
        decide: impl FnOnce(State<'_>, Stamp, Moment) -> Result<(T, Option<Change>), CacheError>,
    ) -> Result<(T, Option<Command>), CacheError> {
        let home = self.home(key.as_bytes());
        let decide = |state: State<'_>| {
            let tick = self.clock.tick(now);
            decide(state, tick.above(state.newest()), self.moment_at(tick.time))
        };
        // At the same time as the lock.
        prefetch(ptr::from_ref(self.stats(home.partition)).cast());
        let mut table = self.table_mut(home.partition);
        fetch_bucket(table.piece(home.place), home.place);
        let (decided, _) = self.merge(&mut table, key.as_bytes(), home, now, decide, |decided| match decided {
            Ok((_, Some(change))) => Some((change, false)),
            _ => None,
        });
        drop(table);
        let (answer, change) = decided?;
        Ok((
            answer,
            change.map(|change| Command {
                key: key.as_blob().clone(),
                change,
            }),
        ))
    }

    /// One operation on a key, given its locked partition: `decide` sees the state and `change` says what is to be
    /// merged after that, and whether that is a removal from before the floor ([`KeyState::apply_forgotten`]). Returns
    /// what was decided, and whether the state has changed.
    fn merge<T, B: AsRef<[u8]>>(
        &self,
        table: &mut Table,
        key: &[u8],
        Home { hash, partition, place }: Home,
        now: Millis,
        decide: impl FnOnce(State<'_>) -> T,
        change: impl for<'t> FnOnce(&'t T) -> Option<(&'t Change<B>, bool)>,
    ) -> (T, bool) {
        let stats = self.stats(partition);
        let known = table.piece_mut(place).get_mut(place, |known| known.key() == key);
        let Some(entry) = known else {
            let decided = decide(State::NEW);
            let made = match change(&decided) {
                Some((change, false)) => Entry::made_by(&self.nodes, key, hash, change),
                _ => None,
            };
            let Some((entry, delta)) = made else {
                return (decided, false);
            };
            stats.record(delta, false, entry.holds_data(), now);
            table.insert(place, entry, |entry| self.place_of(entry));
            note_table(stats, table);
            return (decided, true);
        };
        let held = entry.holds_data();
        let decided = decide(entry.state(&self.nodes));
        let delta = match change(&decided) {
            None => return (decided, false),
            Some((change, false)) => entry.apply(&self.nodes, hash, change),
            Some((change, true)) => entry.change(&self.nodes, |_, state| state.apply_forgotten(hash, change)),
        };
        stats.record(delta, held, entry.holds_data(), now);
        (decided, delta != 0)
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
            setting: "MAX_VALUE_BYTES",
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

/// Asks the processor to fetch the bucket in which a key with this hash is looked for first: so it comes at the same time
/// as the control bytes, not after them.
fn fetch_bucket(piece: &Piece, place: u64) {
    let place = place as usize & (piece.buckets() - 1);
    // Buckets are counted downwards.
    prefetch(piece.data_end().as_ptr().wrapping_sub(place + 1).cast());
}

/// Where the table of a partition lies now. One in pieces is not asked for ahead.
fn note_table(stats: &PartitionStats, table: &Table) {
    match table.whole() {
        // The control bytes follow the buckets.
        Some(whole) => stats.lies_at(whole.data_end().as_ptr().cast(), whole.buckets()),
        None => stats.lies_at(ptr::null_mut(), 1),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Were all partitions of a size, it would swing between 1.14 and 2.29.
    #[test]
    fn tables_take_the_same_per_key_at_every_number_of_keys() {
        let cache = Cache::new(NodeId(1), Limits::default());
        let keys = |from: usize, to: usize| (from..to).map(|n| Key::shared(format!("key{n}").as_bytes()));
        let mut held = 0;
        for number in (0..8).map(|eighth| (40_000.0 * (eighth as f64 / 8.0).exp2()) as usize) {
            for key in keys(held, number) {
                cache.set(&key, Bytes::from_static(b"value"), 0, 1).expect("fits");
            }
            held = number;
            let buckets_of = |table: &Table| table.pieces().map(Piece::buckets).sum::<usize>();
            let buckets: usize = cache.map.iter().map(|table| buckets_of(&table)).sum();
            let per_key = buckets as f64 / number as f64;
            assert!((1.5..1.8).contains(&per_key), "{number} keys: {per_key}");
        }
    }
}
