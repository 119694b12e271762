//! The replication protocol as a state machine without IO, clock or randomness of its own.
//!
//! Bytes and time go in ([`Replica::handle`], [`Replica::tick`]), bytes and wake-ups come out
//! ([`Replica::poll_output`], [`Replica::poll_timeout`]). The same object runs under tokio in production and under a
//! seeded simulator in tests. Reads and local writes never pass through it: they go straight to the cache, and the
//! deltas that a write returns come here as [`Input::Local`].
//!
//! `machine` holds the replica: what it is made of, its inputs and timers. `parts` are what it is made of, each with
//! fields of its own and without knowledge of the replica; `handlers` are what it does with them, message by message.

mod handlers;
mod io;
mod machine;
mod parts;

pub use io::{Handover, Input, Output, ReplicaConfig, Start, Target};
pub use machine::Replica;
pub use parts::authenticator::{ClusterKeys, Keyring, KeyringError, Proof, Refusal, Signature, Verified};
pub use parts::jobs::{Answered, Job};
pub use parts::lineage::Lineage;
pub use parts::notice::{Notice, Reason};
pub use parts::now::Now;
pub use parts::pending_writes::{AckLevel, AckRequest, Unconfirmed};
pub use parts::status::{Counters, PeerStatus, Status};
pub use parts::sync_state::{Channel, ClockFault, Refused, SyncState};
