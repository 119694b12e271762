//! State of one key: a join semilattice (docs/ARCHITECTURE.md, "Data model").
//!
//! Invariants, after every call:
//! 1. No component at or below the horizon is kept, except counter entries whose base is not below it.
//! 2. Components of one type only: where concurrent writers left two types above the horizon, the type with the newest
//!    component wins and the horizon rises to the newest stamp of the others.
//! 3. The returned delta is exactly the change of the wrapping sum of the key's component hashes.

use std::ops::RangeInclusive;

use super::add_entry::{AddEntry, SeenAdd};
use super::adds::Adds;
use super::blob::Blob;
use super::component::Part;
use super::delta::{Slot, StateDelta, Value};
use super::fold::Fold;
use super::hash::KeyHash;
use super::horizon::{Base, Horizon};
use super::list::List;
use super::memory::{allocated, allocated_or_none};
use super::reset::Reset;
use super::scalar::{Moment, Scalar, View};
use super::set::{Membership, Set};
use super::stamp::{Millis, NodeId, Stamp, Time};

/// The state of a key where it lies in memory, to look at.
#[derive(Clone, Copy, Debug)]
pub(super) enum State<'a> {
    /// A reset and nothing else.
    Reset(Reset<'a>),
    /// Anything.
    Large(&'a KeyState),
}

impl<'a> State<'a> {
    /// A key nobody has written.
    pub const NEW: State<'static> = State::Reset(Reset {
        horizon: Horizon::START,
        value: None,
        expires_at: None,
        seen: &[],
    });

    /// The newest reset's place in time.
    pub fn horizon(&self) -> Horizon {
        match self {
            State::Reset(reset) => reset.horizon,
            State::Large(state) => state.horizon(),
        }
    }

    /// The type a reader sees, if any.
    pub fn kind(&self, moment: Moment) -> Option<Kind> {
        match self {
            State::Reset(reset) => reset.shown(moment.now).map(|_| Kind::Scalar),
            State::Large(state) => state.kind(moment),
        }
    }

    /// The scalar a reader sees. Lists and sets show nothing here; ask [`State::kind`] first.
    pub fn scalar(&self, moment: Moment) -> View<'a> {
        match self {
            State::Reset(reset) => reset.shown(moment.now).map_or(View::Nothing, View::Text),
            State::Large(state) => state.scalar(moment),
        }
    }

    /// The deadline of the scalar, if it has one.
    pub fn expires_at(&self) -> Option<Millis> {
        match self {
            State::Reset(reset) => reset.expires_at,
            State::Large(state) => match &state.live {
                Live::Scalar(scalar) => scalar.expires_at,
                _ => None,
            },
        }
    }

    pub fn list(&self) -> Option<&'a List> {
        match self {
            State::Reset(_) => None,
            State::Large(state) => state.list(),
        }
    }

    pub fn set(&self) -> Option<&'a Set> {
        match self {
            State::Reset(_) => None,
            State::Large(state) => state.set(),
        }
    }

    /// The counter entries a reset made now has seen.
    pub fn seen(&self) -> Vec<SeenAdd> {
        match self {
            State::Reset(_) => Vec::new(),
            State::Large(state) => state.seen(),
        }
    }

    /// See [`KeyState::counter_entry`].
    pub fn counter_entry(&self, node: NodeId, at: Time, moment: Moment) -> (Base, i64) {
        match self {
            State::Reset(reset) => KeyState::of_reset(reset).counter_entry(node, at, moment),
            State::Large(state) => state.counter_entry(node, at, moment),
        }
    }

    /// Newest stamp of anything that the key holds, what is left of removals included: nothing here was written later.
    pub fn newest(&self) -> Stamp {
        match self {
            State::Reset(reset) => reset.horizon.stamp,
            State::Large(state) => state.newest(),
        }
    }

    /// Shows every component: one hash of the digest and one change each.
    pub fn parts(&self, mut show: impl FnMut(Part<'a>)) {
        match self {
            State::Reset(reset) if reset.horizon != Horizon::START => show(Part::Reset(*reset)),
            State::Reset(_) => {}
            State::Large(state) => state.parts(show),
        }
    }

    /// One element of a list or set.
    pub fn part(&self, slot: Slot<'_>) -> Option<Part<'a>> {
        match slot {
            Slot::Item(id) => self.list().and_then(|list| list.part(id)),
            Slot::Member(member) => self.set().and_then(|set| set.part(member)),
            Slot::Reset | Slot::Add(..) => None,
        }
    }

    /// Sum of the component hashes, from scratch.
    pub fn digest(&self, key: KeyHash) -> u64 {
        let mut sum = 0u64;
        self.parts(|part| sum = sum.wrapping_add(part.hash(key)));
        sum
    }

    /// Whether nothing of the key shows and all that is left of it lies before the floor: the next sweep drops it.
    pub fn is_forgotten(&self, moment: Moment) -> bool {
        self.kind(moment).is_none() && self.died_at() < moment.floor
    }

    /// Whether a sweep would find something to do.
    pub fn is_due(&self, moment: Moment) -> bool {
        match self {
            State::Reset(reset) => self.is_forgotten(moment) || reset.bytes().is_some() && reset.expired(moment.now),
            State::Large(_) => true,
        }
    }

    /// For a key that shows nothing: newest time of anything that is left of it.
    fn died_at(&self) -> Time {
        match self {
            State::Reset(reset) => {
                let deadline = reset.expires_at.map_or(Time(0), Time::from_millis);
                deadline.max(reset.horizon.stamp.time)
            }
            State::Large(state) => state.died_at(),
        }
    }
}

/// What the key holds beside its horizon. The two smallest forms need no allocation of their own.
#[derive(Clone, Debug)]
enum Live {
    Nothing,
    Value(Blob),
    Scalar(Box<Scalar>),
    List(Box<List>),
    Set(Box<Set>),
}

impl Live {
    /// The scalar that a reset leaves, with the counter entries that survive it.
    fn of_reset(reset: &Reset<'_>, adds: Adds) -> Live {
        let bare = reset.expires_at.is_none() && adds.is_empty() && reset.seen.is_empty();
        match &reset.value {
            Some(Value::Held(bytes)) if bare => Live::Value(Blob::new(bytes)),
            None if bare => Live::Nothing,
            value => Live::Scalar(Box::new(Scalar {
                value: value.as_ref().map(Value::owned),
                expires_at: reset.expires_at,
                seen: reset.seen.to_vec(),
                adds,
            })),
        }
    }
}

/// The type a key shows to a reader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Scalar,
    List,
    Set,
}

/// State of one key.
#[derive(Clone, Debug)]
pub(super) struct KeyState {
    horizon: Horizon,
    live: Live,
}

impl KeyState {
    /// A key nobody has written.
    pub fn new() -> Self {
        KeyState {
            horizon: Horizon::START,
            live: Live::Nothing,
        }
    }

    /// A key that holds nothing but this reset.
    pub fn of_reset(reset: &Reset<'_>) -> Self {
        KeyState {
            horizon: reset.horizon,
            live: Live::of_reset(reset, Adds::default()),
        }
    }

    /// The newest reset with what is left of it.
    pub fn newest_reset(&self) -> Reset<'_> {
        let (value, expires_at, seen): (_, _, &[SeenAdd]) = match &self.live {
            Live::Value(value) => (Some(Value::Held(&**value)), None, &[]),
            Live::Scalar(scalar) => {
                let value = scalar.value.as_ref().map(Value::borrowed);
                (value, scalar.expires_at, &scalar.seen)
            }
            _ => (None, None, &[]),
        };
        Reset {
            horizon: self.horizon,
            value,
            expires_at,
            seen,
        }
    }

    /// The newest reset, if the key holds nothing else and nothing that counts on it.
    pub fn as_reset(&self) -> Option<Reset<'_>> {
        let alone = match &self.live {
            Live::Nothing | Live::Value(_) => true,
            Live::Scalar(scalar) => scalar.adds.is_empty() && scalar.seen.is_empty(),
            Live::List(_) | Live::Set(_) => false,
        };
        alone.then(|| self.newest_reset())
    }

    /// Merges a change. Returns the change of the digest (wrapping); 0 if nothing changed.
    pub fn apply<B: AsRef<[u8]>>(&mut self, key: KeyHash, change: &StateDelta<B>) -> u64 {
        if let Some(reset) = Reset::of(change) {
            return self.reset(key, &reset);
        }
        match change {
            StateDelta::Put { .. } | StateDelta::Delete { .. } => unreachable!("a reset"),
            StateDelta::Add { node, base, sum, at } => self.merge_add(
                key,
                AddEntry {
                    node: *node,
                    base: *base,
                    last: *at,
                    sum: *sum,
                },
            ),
            StateDelta::ListPush { id, value } => {
                self.merge_item(key, *id, *id, |list| list.push(key, *id, value.as_ref()))
            }
            StateDelta::ListRemove { id, at } => self.merge_item(key, *id, *at, |list| list.remove(key, *id, *at)),
            StateDelta::SetAdd { member, at } => self.merge_member(key, member.as_ref(), *at, true),
            StateDelta::SetRemove { member, at } => self.merge_member(key, member.as_ref(), *at, false),
        }
    }

    /// Merges a removal stamped before the floor. The element goes if it is there, but no mark of that stays: two nodes
    /// of which only one has been swept would give it back to each other for ever. Returns the change of the digest.
    pub fn apply_forgotten<B: AsRef<[u8]>>(&mut self, key: KeyHash, change: &StateDelta<B>) -> u64 {
        match (change, &mut self.live) {
            (StateDelta::ListRemove { id, .. }, Live::List(list)) => {
                let delta = list.drop_item(key, *id);
                if list.is_blank() {
                    self.live = Live::Nothing;
                }
                delta
            }
            (StateDelta::SetRemove { member, at }, Live::Set(set)) => {
                let delta = set.drop_member(key, member.as_ref(), *at);
                if set.is_blank() {
                    self.live = Live::Nothing;
                }
                delta
            }
            (StateDelta::ListRemove { .. } | StateDelta::SetRemove { .. }, _) => 0,
            _ => self.apply(key, change),
        }
    }

    /// Raises the horizon to that of `reset` if that is newer, and puts its scalar in place. Of two resets with one
    /// horizon the larger content stays.
    fn reset(&mut self, key: KeyHash, reset: &Reset<'_>) -> u64 {
        let to = reset.horizon;
        if to < self.horizon {
            return 0;
        }
        let old = self.newest_reset();
        if to == self.horizon {
            // Beside the elements of a list or set nothing of a reset is kept but its horizon.
            let beside = matches!(self.live, Live::List(_) | Live::Set(_));
            if beside || to == Horizon::START || reset.content() <= old.content() {
                return 0;
            }
        }
        let old = old.hash(key);
        self.horizon = to;
        let mut delta = 0u64;
        let mut adds = Adds::default();
        match &mut self.live {
            Live::Nothing | Live::Value(_) => {}
            Live::Scalar(scalar) => {
                delta = delta.wrapping_add(scalar.drop_covered(key, to));
                adds = std::mem::take(&mut scalar.adds);
            }
            Live::List(list) => {
                delta = delta.wrapping_add(list.drop_covered(key, to.stamp));
                if !list.is_blank() {
                    return delta.wrapping_add(self.void_scalar(key)).wrapping_sub(old);
                }
            }
            Live::Set(set) => {
                delta = delta.wrapping_add(set.drop_covered(key, to.stamp));
                if !set.is_blank() {
                    return delta.wrapping_add(self.void_scalar(key)).wrapping_sub(old);
                }
            }
        }
        self.live = Live::of_reset(reset, adds);
        delta.wrapping_add(reset.hash(key)).wrapping_sub(old)
    }

    /// A reset below the elements of a list or set loses its own value to them (invariant 2). Returns the component
    /// hash of what is left of it.
    fn void_scalar(&mut self, key: KeyHash) -> u64 {
        self.horizon.void = true;
        self.newest_reset().hash(key)
    }

    /// Newest stamp of what the key holds of another type than `kind`, if it holds any.
    fn newest_of_others(&self, kind: Kind) -> Option<Stamp> {
        match &self.live {
            Live::List(list) if kind != Kind::List => Some(list.newest),
            Live::Set(set) if kind != Kind::Set => Some(set.newest),
            _ if kind == Kind::Scalar => None,
            Live::Scalar(scalar) if !scalar.adds.is_empty() => Some(scalar.adds.newest().max(self.scalar_stamp())),
            Live::Nothing | Live::Value(_) | Live::Scalar(_) if !self.horizon.void => Some(self.horizon.stamp),
            _ => None,
        }
    }

    fn scalar_stamp(&self) -> Stamp {
        if self.horizon.void {
            Stamp::default()
        } else {
            self.horizon.stamp
        }
    }

    /// Settles a conflict of types between what the key holds and a component of `kind` stamped `newest` that is about
    /// to be merged: the loser's stamp becomes the horizon. Returns the change of the digest.
    fn settle_types(&mut self, key: KeyHash, kind: Kind, newest: Stamp) -> u64 {
        let Some(other) = self.newest_of_others(kind) else {
            return 0;
        };
        let loser = other.min(newest);
        self.reset(key, &Reset::void(loser, &[]))
    }

    fn merge_add(&mut self, key: KeyHash, entry: AddEntry) -> u64 {
        if !entry.survives(self.horizon) {
            return 0;
        }
        let mut delta = self.settle_types(key, Kind::Scalar, entry.last);
        if !entry.survives(self.horizon) {
            return delta;
        }
        delta = delta.wrapping_add(self.scalar_mut().adds.merge(key, entry));
        delta
    }

    /// The scalar of this key in its large form. Only called when no list or set is there.
    fn scalar_mut(&mut self) -> &mut Scalar {
        if !matches!(self.live, Live::Scalar(_)) {
            let value = match std::mem::replace(&mut self.live, Live::Nothing) {
                Live::Value(value) => Some(Value::Held(value)),
                _ => None,
            };
            self.live = Live::Scalar(Box::new(Scalar {
                value,
                ..Scalar::default()
            }));
        }
        match &mut self.live {
            Live::Scalar(scalar) => scalar,
            _ => unreachable!("made a scalar just above"),
        }
    }

    fn merge_item(&mut self, key: KeyHash, id: Stamp, newest: Stamp, merge: impl FnOnce(&mut List) -> u64) -> u64 {
        debug_assert!(id <= newest);
        if newest <= self.horizon.stamp {
            return 0;
        }
        let mut delta = self.settle_types(key, Kind::List, newest);
        if newest <= self.horizon.stamp {
            return delta;
        }
        if !matches!(self.live, Live::List(_)) {
            delta = delta.wrapping_add(self.replace_scalar(key, Live::List(Box::default())));
        }
        match &mut self.live {
            Live::List(list) => delta.wrapping_add(merge(list)),
            _ => unreachable!("made a list just above"),
        }
    }

    /// Puts elements in place of what is left of a deletion: what that has seen is not kept beside them. Returns the
    /// change of the digest.
    fn replace_scalar(&mut self, key: KeyHash, by: Live) -> u64 {
        let old = self.newest_reset().hash(key);
        self.live = by;
        self.newest_reset().hash(key).wrapping_sub(old)
    }

    fn merge_member(&mut self, key: KeyHash, member: &[u8], at: Stamp, present: bool) -> u64 {
        if at <= self.horizon.stamp {
            return 0;
        }
        let mut delta = self.settle_types(key, Kind::Set, at);
        if at <= self.horizon.stamp {
            return delta;
        }
        if !matches!(self.live, Live::Set(_)) {
            delta = delta.wrapping_add(self.replace_scalar(key, Live::Set(Box::default())));
        }
        match &mut self.live {
            Live::Set(set) => delta.wrapping_add(set.merge(key, member, Membership { at, present })),
            _ => unreachable!("made a set just above"),
        }
    }

    /// The newest reset's place in time.
    pub fn horizon(&self) -> Horizon {
        self.horizon
    }

    /// About how many components there are beside the newest reset.
    pub fn elements(&self) -> usize {
        match &self.live {
            Live::Nothing | Live::Value(_) => 0,
            Live::Scalar(scalar) => scalar.adds.len(),
            Live::List(list) => list.items.len() + list.removed.len(),
            Live::Set(set) => set.elements(),
        }
    }

    /// Bytes it takes beside itself.
    pub fn heap_bytes(&self) -> usize {
        match &self.live {
            Live::Nothing => 0,
            Live::Value(value) => value.heap_bytes(),
            Live::Scalar(scalar) => {
                let value = match &scalar.value {
                    Some(Value::Held(value)) => value.heap_bytes(),
                    _ => 0,
                };
                let seen = allocated_or_none(scalar.seen.capacity() * size_of::<SeenAdd>());
                allocated(size_of::<Scalar>()) + value + seen + scalar.adds.heap_bytes()
            }
            Live::List(list) => allocated(size_of::<List>()) + list.heap_bytes(),
            Live::Set(set) => allocated(size_of::<Set>()) + set.heap_bytes(),
        }
    }

    /// Those of them that are left of the removal of elements.
    pub fn deletion_bytes(&self) -> usize {
        match &self.live {
            Live::List(list) => list.deletion_bytes(),
            Live::Set(set) => set.deletion_bytes(),
            _ => 0,
        }
    }

    /// The type a reader sees, if any.
    pub fn kind(&self, moment: Moment) -> Option<Kind> {
        match &self.live {
            Live::Nothing => None,
            Live::Value(_) => Some(Kind::Scalar),
            Live::Scalar(scalar) => (scalar.view(self.horizon, moment) != View::Nothing).then_some(Kind::Scalar),
            Live::List(list) => (!list.items.is_empty()).then_some(Kind::List),
            Live::Set(set) => (set.len() > 0).then_some(Kind::Set),
        }
    }

    /// Whether the key holds data, be it past its deadline. Does not depend on the clock.
    pub fn holds_data(&self) -> bool {
        match &self.live {
            Live::Nothing => false,
            Live::Value(_) => true,
            Live::Scalar(scalar) => scalar.bytes().is_some() || !scalar.adds.is_empty(),
            Live::List(list) => !list.items.is_empty(),
            Live::Set(set) => set.len() > 0,
        }
    }

    /// The scalar a reader sees. Lists and sets show nothing here; ask [`KeyState::kind`] first.
    pub fn scalar(&self, moment: Moment) -> View<'_> {
        match &self.live {
            Live::Value(value) => View::Text(value),
            Live::Scalar(scalar) => scalar.view(self.horizon, moment),
            _ => View::Nothing,
        }
    }

    pub fn list(&self) -> Option<&List> {
        match &self.live {
            Live::List(list) => Some(list),
            _ => None,
        }
    }

    pub fn set(&self) -> Option<&Set> {
        match &self.live {
            Live::Set(set) => Some(set),
            _ => None,
        }
    }

    /// The counter entries a reset made now has seen.
    pub fn seen(&self) -> Vec<SeenAdd> {
        match &self.live {
            Live::Scalar(scalar) => scalar.seen_now(),
            _ => Vec::new(),
        }
    }

    /// The entry to which `node` adds with the stamp `at`: its base and its sum so far.
    ///
    /// Where the horizon lies before the floor, something may have been forgotten: an entry of this node on the very
    /// same base, which a peer that is swept later still knows from what a deletion has seen. And the horizon itself
    /// may be forgotten elsewhere, where an entry on it would wait for it. So a new entry stands on a base of its own
    /// there.
    pub fn counter_entry(&self, node: NodeId, at: Time, moment: Moment) -> (Base, i64) {
        let mut current = self.horizon.base(false);
        if let Live::Scalar(scalar) = &self.live {
            let reading = scalar.reading(self.horizon, moment);
            if let Some(entry) = scalar.entry_of(node, reading) {
                return (entry.base, entry.sum);
            }
            current = reading.current;
        }
        if self.horizon.stamp.time < moment.floor {
            return (Base::fresh(at), 0);
        }
        (current, 0)
    }

    /// Shows every component: one hash of the digest and one change each.
    pub fn parts<'a>(&'a self, mut show: impl FnMut(Part<'a>)) {
        if self.horizon != Horizon::START {
            show(Part::Reset(self.newest_reset()));
        }
        match &self.live {
            Live::Nothing | Live::Value(_) => {}
            Live::Scalar(scalar) => scalar.adds.iter().for_each(|entry| show(Part::Add(entry))),
            Live::List(list) => {
                list.items.iter().for_each(|item| show(item.part()));
                for (&id, &at) in &list.removed {
                    show(Part::Removed { id, at });
                }
            }
            Live::Set(set) => set.parts(show),
        }
    }

    /// Gives back what nobody can see any more: the value of an expired scalar at once, removed elements stamped
    /// before the floor, and the key as a whole when all that is left of it lies before the floor.
    pub fn sweep(&mut self, key: KeyHash, moment: Moment) -> Swept {
        let mut delta = 0u64;
        match &mut self.live {
            Live::Scalar(scalar) if scalar.expired(moment.now) => {
                scalar.value = scalar.value.as_ref().map(Value::given_back);
            }
            Live::List(list) => delta = list.collect(key, moment.floor),
            Live::Set(set) => delta = set.collect(key, moment.floor),
            _ => {}
        }
        self.shrink();
        if State::Large(self).is_forgotten(moment) {
            return Swept {
                delta: delta.wrapping_sub(State::Large(self).digest(key)),
                forget: true,
            };
        }
        Swept { delta, forget: false }
    }

    /// The reset that folds this key's counter entries, if `fold` says so.
    pub fn fold(&self, fold: &Fold<'_>) -> Option<StateDelta> {
        match &self.live {
            Live::Scalar(scalar) => fold.of(scalar, self.horizon),
            _ => None,
        }
    }

    /// Drops components without a trace, as though they had never arrived: those among `elements` that are stamped
    /// before `floor` and whose hash `to_remove` accepts. See [`super::Cache::forget`].
    pub fn forget(
        &mut self,
        key: KeyHash,
        elements: &RangeInclusive<u64>,
        floor: Time,
        to_remove: &mut impl FnMut(u64) -> bool,
    ) -> Forgotten {
        let mut forgotten = Forgotten::default();
        let mut delta = 0u64;
        let reset = self.newest_reset().hash(key);
        if reset != 0 && elements.contains(&0) && self.horizon.stamp.time < floor && to_remove(reset) {
            delta = self.forget_reset(key, &mut forgotten.dropped);
        }
        let mut doom = |part: Part<'_>, old: bool| {
            let drop = old && elements.contains(&part.element()) && to_remove(part.hash(key));
            forgotten.dropped += usize::from(drop);
            drop
        };
        let horizon = self.horizon;
        let change = match &mut self.live {
            Live::Nothing | Live::Value(_) => 0,
            Live::Scalar(scalar) => scalar.adds.drop_where(key, |entry| {
                let fresh = entry.base.is_fresh() && entry.base.horizon() > horizon;
                let left_behind = !fresh && entry.base.horizon() != horizon && entry.base.stamp.time < floor;
                doom(Part::Add(entry), entry.last.time < floor || left_behind)
            }),
            Live::List(list) => list.forget(key, |part| doom(part, part.newest().time < floor)),
            Live::Set(set) => set.forget(key, |part| doom(part, part.newest().time < floor)),
        };
        self.shrink();
        forgotten.delta = delta.wrapping_add(change);
        forgotten.blank = self.horizon == Horizon::START && matches!(self.live, Live::Nothing);
        forgotten
    }

    /// Takes the newest reset away with its value. Counter entries on older horizons counted only in part, and without
    /// the reset nobody can say which: they go with it. Those on the reset itself go on counting ([`Scalar::counted`]):
    /// it lies before the floor. Returns the change of the digest.
    fn forget_reset(&mut self, key: KeyHash, dropped: &mut usize) -> u64 {
        let mut delta = self.newest_reset().hash(key).wrapping_neg();
        let old = std::mem::replace(&mut self.horizon, Horizon::START);
        *dropped += 1;
        match &mut self.live {
            Live::Value(_) => self.live = Live::Nothing,
            Live::Scalar(scalar) => {
                let before = scalar.adds.len();
                delta = delta.wrapping_add(scalar.adds.drop_where(key, |entry| entry.base.horizon() < old));
                *dropped += before - scalar.adds.len();
                (scalar.value, scalar.expires_at, scalar.seen) = (None, None, Vec::new());
            }
            Live::Nothing | Live::List(_) | Live::Set(_) => {}
        }
        delta
    }

    /// Brings what is left into its smallest form.
    fn shrink(&mut self) {
        match &mut self.live {
            Live::Scalar(scalar) if scalar.adds.is_empty() && scalar.seen.is_empty() && scalar.expires_at.is_none() => {
                self.live = match scalar.value.take() {
                    Some(Value::Held(value)) => Live::Value(value),
                    None => Live::Nothing,
                    value => {
                        scalar.value = value;
                        return;
                    }
                };
            }
            Live::List(list) if list.is_blank() => self.live = Live::Nothing,
            Live::Set(set) if set.is_blank() => self.live = Live::Nothing,
            _ => {}
        }
    }

    /// Newest stamp of anything that the key holds, what is left of removals included.
    fn newest(&self) -> Stamp {
        let newest = match &self.live {
            Live::Nothing | Live::Value(_) => Stamp::default(),
            Live::Scalar(scalar) => scalar.adds.newest(),
            Live::List(list) => list.newest,
            Live::Set(set) => set.newest,
        };
        newest.max(self.horizon.stamp)
    }

    /// For a key that shows nothing: newest time of anything that is left of it.
    fn died_at(&self) -> Time {
        let deadline = match &self.live {
            Live::Scalar(scalar) => scalar.expires_at.map_or(Time(0), Time::from_millis),
            _ => Time(0),
        };
        deadline.max(self.newest().time)
    }
}

/// What a sweep of one key did.
pub(super) struct Swept {
    /// Change of the digest (wrapping).
    pub delta: u64,
    /// Nothing is left: the key can be dropped.
    pub forget: bool,
}

/// What forgetting components of one key did.
#[derive(Default)]
pub(super) struct Forgotten {
    /// Change of the digest (wrapping).
    pub delta: u64,
    /// How many components were dropped.
    pub dropped: usize,
    /// Nothing is left: the key can be dropped.
    pub blank: bool,
}
