//! What reading a store into an empty cache has come to.

use super::record::Record;
use super::section_state::SectionState;
use crate::cache::{Cache, Partition, Time};

/// What was read of one section.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LoadedSection {
    state: Option<SectionState>,
    holds_any: bool,
}

impl LoadedSection {
    /// A record was read. Whether it is to be merged: it is not where it is about the section itself.
    pub fn shows(&mut self, record: Record<'_>) -> bool {
        let Some(state) = SectionState::of(record) else {
            self.holds_any = true;
            return true;
        };
        if self.state.is_none_or(|known| known.written < state.written) {
            self.state = Some(state);
        }
        false
    }
}

/// What all sections say of themselves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Loaded {
    pub(super) states: Vec<(Partition, Option<SectionState>)>,
    pub(super) differ: Vec<Partition>,
}

impl Loaded {
    /// A section was read to its end, and its records are merged.
    pub fn has(&mut self, cache: &Cache, partition: Partition, LoadedSection { state, holds_any }: LoadedSection) {
        if state.is_some() || holds_any {
            self.states.push((partition, state));
        }
        if state.is_some_and(|state| state.digest != cache.digest(partition)) {
            self.differ.push(partition);
        }
    }

    /// The time before which deletions were forgotten in the store.
    pub fn floor(&self) -> Time {
        let floors = self.states.iter().flat_map(|(_, state)| state).map(|state| state.floor);
        floors.max().unwrap_or_default()
    }

    /// Up to when deletions are in the store, or forgotten. Of a section that does not say how far it goes nothing is
    /// known. `None` for a store that holds nothing.
    pub fn contact(&self) -> Option<Time> {
        let contact = |(_, state): &(Partition, Option<SectionState>)| state.map_or(Time(0), |state| state.contact);
        self.states.iter().map(contact).min()
    }
}
