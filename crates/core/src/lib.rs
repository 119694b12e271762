//! The core of nats-kvcache: a map that merges, its messages, and the replication protocol as a state machine.
//!
//! Five modules; each knows only those below it (docs/ARCHITECTURE.md):
//!
//! | module | job |
//! | --- | --- |
//! | [`replica`] | the replication protocol, a state machine without IO, clock or randomness |
//! | [`wire`] | the messages of the protocol and their bytes |
//! | [`codec`] | deltas as bytes, for messages and for what keeps them outside of the process |
//! | [`durable`] | records that outlive the process, and the rules by which cache and store are made equal |
//! | [`cache`] | the concurrent map: stamps, per-key state that merges in any order, digests |
//!
//! Reads and local writes go straight to the cache; the delta that a write returns goes to the replica. Time and
//! seeds are passed in. Nothing here needs a runtime or knows NATS.
#![warn(missing_docs)]

pub mod cache;
pub mod codec;
pub mod durable;
pub mod replica;
pub mod wire;
