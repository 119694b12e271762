//! Where the entries of all keys lie in memory: a table per partition, each with a lock of its own.
//!
//! No other room knows which map it is, asks the processor for memory ahead, or has any `unsafe`: the workspace denies
//! it, but where it is allowed by name.

mod changes;
#[allow(unsafe_code)]
mod entry;
mod nodes;
mod partition;
mod pieces;
mod prefetch;
mod table_hash;
mod tables;
mod take;

pub(super) use entry::Entry;
pub use partition::Digest;
pub(super) use partition::PartitionStats;
pub(super) use pieces::{entries, let_others_in};
pub(super) use table_hash::Home;
pub(super) use tables::Tables;
pub use take::Taken;
