//! nats-kvcache: `wasmcloud:keyvalue` over an in-memory map that is replicated between hosts over NATS.
//!
//! Four layers; each knows only those below it (docs/ARCHITECTURE.md):
//!
//! | module | job |
//! | --- | --- |
//! | [`provider`] | what a wasmCloud host sees: host data, settings, links, health, the operations of the contract |
//! | [`nats`] | the network: one connection, one task that carries the bytes of the replica |
//! | [`replica`] | the replication protocol, a state machine without IO, clock or randomness |
//! | [`cache`] | the concurrent map: stamps, per-key state that merges in any order, digests |
//!
//! Reads and local writes go straight to the cache; the command that a write returns goes to the replica through a
//! bounded queue. Without the features `nats` and `provider` only the two lower layers are built, and they need no
//! runtime.
#![warn(missing_docs)]

pub mod cache;
#[cfg(feature = "nats")]
pub mod nats;
#[cfg(feature = "provider")]
pub mod provider;
pub mod replica;
#[cfg(feature = "nats")]
pub mod time;
