//! What outlives the process: the state of a cache as records, and the rules by which cache and store are made equal.
//!
//! A store is one more replica that is no process. It holds a [`Record`] for each component of each key, in sections:
//! one for each partition, and the head, which says what the store is. Of two records with one id **the one with the
//! larger value stays**, byte by byte: a value begins with the stamp of its component. So a store is a join semilattice
//! too, whatever keeps it, and nobody who writes to it can lose what others have written.
//!
//! Nothing here knows engines, files or the network.

mod batch;
mod length;
mod record;

pub use batch::Batch;
pub use record::{Record, RecordError};

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
