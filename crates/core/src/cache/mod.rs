//! The concurrent cache: clock stamps, per-key state, idempotent deltas, merge and digests.
//!
//! No IO, no async, no clock of its own: every call that needs the time takes `now` in milliseconds. All methods take
//! `&self` and lock one partition at a time for the length of one operation.
//!
//! The rule everything follows: **the converged state is what one server would hold had it executed all operations one
//! after another in stamp order.** The exceptions are listed in docs/GUARANTEES.md and nowhere else.

mod add_entry;
mod adds;
mod blob;
mod component;
mod delta;
mod error;
mod fold;
mod hash;
mod horizon;
mod key;
mod list;
mod memory;
mod reads;
mod removed;
mod reset;
mod scalar;
mod set;
mod stamp;
mod state;
mod store;
mod table;

pub use add_entry::SeenAdd;
pub use blob::Blob;
pub use component::{Component, Position, Span};
pub use delta::{Delta, DeltaError, Slot, StateDelta, Value};
pub use error::CacheError;
pub use hash::{KeyHash, Partition, PARTITIONS};
pub use horizon::Base;
pub use key::{Key, KeyError, MAX_NAMESPACE_BYTES};
pub use memory::Usage;
pub use reads::Hint;
pub use stamp::{Clock, Millis, NodeId, Stamp, Time};
pub use store::{answer_bytes, Cache, Cursor, Held, Limits, Room, Victims};
pub use table::{Digest, Taken};
