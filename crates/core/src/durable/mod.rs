//! What outlives the process: the state of a cache as records, and the rules by which cache and store are made equal.
//!
//! A store is one more replica that is no process. It holds a [`Record`] for each component of each key, in sections:
//! one for each partition, and the head, which says what the store is. Of two records with one id **the one with the
//! larger value stays**, byte by byte: a value begins with the stamp of its component. So a store is a join semilattice
//! too, whatever keeps it, and nobody who writes to it can lose what others have written.
//!
//! Nothing here knows engines, files or the network.

mod batch;
mod keeper;
mod length;
mod loaded;
mod owners;
mod reconcile;
mod record;
mod section;
mod section_state;
mod sections;

pub use batch::Batch;
pub use keeper::{Keeper, Present};
pub use loaded::{Loaded, LoadedSection};
pub use owners::owns;
pub use reconcile::{reconcile, Held, Reconciliation, Trust};
pub use record::{Record, RecordError};
pub use section::Section;
pub use section_state::SectionState;
