//! Engines of stores that are as bad as they may be: what is under way when somebody dies is written in part and in any
//! order, what an engine has acknowledged and not synced is lost with it, and any operation may fail.

use std::collections::BTreeMap;

use kvcache_core::durable::{Batch, Held, Record, Section};
use rand::rngs::StdRng;
use rand::RngExt;

/// What a store is asked to do.
#[derive(Clone)]
pub(crate) enum Op {
    /// Writes records; larger values stay.
    Write(Vec<Batch>),
    /// Removes records whose value is still the same.
    Remove(Batch),
    /// Writes all there is of some sections, in one step.
    Replace(Vec<Batch>),
}

type Content = BTreeMap<(Section, Box<[u8]>), Box<[u8]>>;

/// What happens to one record.
#[derive(Clone)]
struct Change {
    section: Section,
    id: Box<[u8]>,
    value: Box<[u8]>,
    removes: bool,
}

impl Change {
    fn of(section: Section, record: Record<'_>, removes: bool) -> Self {
        Change {
            section,
            id: record.id.into(),
            value: record.value.into(),
            removes,
        }
    }

    /// Whether it is about the section itself.
    fn is_state(&self) -> bool {
        self.id.is_empty()
    }

    fn make(&self, content: &mut Content) {
        let place = (self.section, self.id.clone());
        if self.removes {
            if content.get(&place) == Some(&self.value) {
                content.remove(&place);
            }
            return;
        }
        let held = content.entry(place).or_default();
        if **held < *self.value {
            held.clone_from(&self.value);
        }
    }
}

/// What was asked for and is not done.
enum Asked {
    /// Changes, by section and in their order.
    Changes(BTreeMap<Section, Vec<Change>>),
    /// Sections to be replaced.
    Replace(Vec<Batch>),
}

impl Asked {
    fn of(op: Op) -> Self {
        let (batches, removes) = match op {
            Op::Replace(batches) => return Asked::Replace(batches),
            Op::Write(batches) => (batches, false),
            Op::Remove(batch) => (vec![batch], true),
        };
        let mut changes: BTreeMap<Section, Vec<Change>> = BTreeMap::new();
        for batch in &batches {
            let section = batch.section();
            let of_section = changes.entry(section).or_default();
            of_section.extend(batch.iter().map(|record| Change::of(section, record, removes)));
        }
        Asked::Changes(changes)
    }
}

/// A store.
pub(crate) struct Engine {
    /// What readers see.
    shown: Content,
    /// What is there after a loss of power at least.
    synced: Content,
    /// What was acknowledged since, by section, in its order.
    tail: BTreeMap<Section, Vec<Vec<Change>>>,
    /// What nodes have asked for and is not done, by the place of the node.
    under_way: BTreeMap<usize, Asked>,
    /// Whether what was acknowledged is synced later only.
    is_lazy: bool,
    /// It cannot be reached.
    pub down: bool,
    /// Something was lost that it had acknowledged.
    pub has_lost: bool,
}

impl Engine {
    pub fn new(is_lazy: bool) -> Self {
        Engine {
            shown: Content::new(),
            synced: Content::new(),
            tail: BTreeMap::new(),
            under_way: BTreeMap::new(),
            is_lazy,
            down: false,
            has_lost: false,
        }
    }

    /// Takes an operation of a node.
    pub fn begin(&mut self, place: usize, op: Op) {
        self.under_way.insert(place, Asked::of(op));
    }

    /// The operation of a node ends. Whether it has succeeded: it does not where the engine was away meanwhile.
    pub fn end(&mut self, place: usize, succeeds: bool, rng: &mut StdRng) -> bool {
        if self.down {
            // It has not heard of it.
            self.under_way.remove(&place);
            return false;
        }
        if !succeeds {
            self.loses(place, rng);
            return false;
        }
        match self.under_way.remove(&place) {
            None => return false,
            Some(Asked::Replace(batches)) => self.replace(&batches),
            Some(Asked::Changes(changes)) => changes
                .into_iter()
                .for_each(|(section, changes)| self.acknowledged(section, changes)),
        }
        true
    }

    /// Whoever has asked for something is gone, or hears of an error: some of it may be done.
    pub fn loses(&mut self, place: usize, rng: &mut StdRng) {
        match self.under_way.remove(&place) {
            None => {}
            Some(Asked::Replace(batches)) => {
                let is_done = rng.random_bool(0.5);
                self.replace(if is_done { &batches } else { &[] });
            }
            Some(Asked::Changes(changes)) => {
                for (section, changes) in changes {
                    let some = survivors(changes, rng);
                    self.acknowledged(section, some);
                }
            }
        }
    }

    fn acknowledged(&mut self, section: Section, changes: Vec<Change>) {
        changes.iter().for_each(|change| change.make(&mut self.shown));
        match self.is_lazy {
            true => self.tail.entry(section).or_default().push(changes),
            false => changes.iter().for_each(|change| change.make(&mut self.synced)),
        }
    }

    fn replace(&mut self, batches: &[Batch]) {
        for batch in batches {
            for content in [&mut self.shown, &mut self.synced] {
                content.retain(|(section, _), _| *section != batch.section());
                batch
                    .iter()
                    .for_each(|record| Change::of(batch.section(), record, false).make(content));
            }
        }
    }

    /// All that was acknowledged is durable.
    pub fn sync(&mut self) {
        for change in std::mem::take(&mut self.tail).into_values().flatten().flatten() {
            change.make(&mut self.synced);
        }
    }

    /// It cannot be reached from now on: some of what is under way is done.
    pub fn goes(&mut self, rng: &mut StdRng) {
        let places: Vec<usize> = self.under_way.keys().copied().collect();
        places.into_iter().for_each(|place| self.loses(place, rng));
        self.down = true;
    }

    /// It loses its power. Of what was acknowledged since the last sync, each section keeps a beginning, and of what came
    /// next some in any order.
    pub fn crash(&mut self, rng: &mut StdRng) {
        self.goes(rng);
        for (_, ops) in std::mem::take(&mut self.tail) {
            let whole = rng.random_range(0..=ops.len());
            self.has_lost |= whole < ops.len();
            let mut ops = ops.into_iter();
            for change in ops.by_ref().take(whole).flatten() {
                change.make(&mut self.synced);
            }
            let torn = ops.next().map(|changes| survivors(changes, rng));
            torn.iter().flatten().for_each(|change| change.make(&mut self.synced));
        }
        self.shown = self.synced.clone();
    }

    /// All records of partitions that would be there after a loss of power.
    pub fn synced(&self) -> impl Iterator<Item = Record<'_>> {
        let of_partition = self
            .synced
            .iter()
            .filter(|((section, id), _)| *section != Section::HEAD && !id.is_empty());
        of_partition.map(|((_, id), value)| Record { id, value })
    }

    /// The records of a section: all that was acknowledged, and perhaps some of what others have asked for.
    pub fn read(&mut self, section: Section, rng: &mut StdRng) -> Held {
        let of_section = |asked: &Asked| match asked {
            Asked::Changes(changes) => changes.get(&section).cloned(),
            Asked::Replace(_) => None,
        };
        let asked: Vec<Vec<Change>> = self.under_way.values().filter_map(of_section).collect();
        for changes in asked {
            let some = survivors(changes, rng);
            self.acknowledged(section, some);
        }
        let end = Section::numbered(section.number() + 1);
        let from = (section, Box::default());
        let range = match end {
            Some(end) => self.shown.range(from..(end, Box::default())),
            None => self.shown.range(from..),
        };
        range.map(|((_, id), value)| (id.clone(), value.clone())).collect()
    }
}

/// What is done of changes that were interrupted: any of them, but what a section says of itself only after all others.
fn survivors(changes: Vec<Change>, rng: &mut StdRng) -> Vec<Change> {
    let share = [0.0, 0.3, 0.9, 1.0][rng.random_range(0..4)];
    let all = changes.iter().filter(|change| !change.is_state()).count();
    let (states, mut some): (Vec<Change>, Vec<Change>) = changes.into_iter().partition(Change::is_state);
    some.retain(|_| rng.random_bool(share));
    if some.len() == all && rng.random_bool(0.5) {
        some.extend(states);
    }
    some
}
