//! nats-kvcache: `wasmcloud:keyvalue` over an in-memory map that is replicated between hosts over NATS.
#![warn(missing_docs)]

pub mod cache;
#[cfg(feature = "nats")]
pub mod nats;
#[cfg(feature = "provider")]
pub mod provider;
pub mod replica;
pub mod time;
