//! Parts of a store.

use crate::cache::{Partition, PARTITIONS};

/// A part of a store that is read as one: that of a partition, or the head.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Section(u16);

impl Section {
    /// Says what the store is, and how far back it goes.
    pub const HEAD: Section = Section(PARTITIONS as u16);

    /// The section of a partition.
    pub fn of(partition: Partition) -> Self {
        Section(partition.0)
    }

    /// The section with this number: that of a partition, or 1,024 for the head. `None` beyond.
    pub fn numbered(number: u16) -> Option<Self> {
        (number <= Section::HEAD.0).then_some(Section(number))
    }

    /// Its number: that of the partition, or 1,024 for the head.
    pub fn number(self) -> u16 {
        self.0
    }

    /// The partition; `None` for the head.
    pub fn partition(self) -> Option<Partition> {
        (self != Section::HEAD).then_some(Partition(self.0))
    }
}
