//! A node of nats-kvcache: the [core](kvcache_core) on tokio, with clocks, entropy and NATS around it.
//!
//! | module | job |
//! | --- | --- |
//! | [`nats`] | the network: one connection, one task that carries the bytes of the replica |
//! | [`time`] | clocks and entropy |
//!
//! Nothing here knows what a host or a client speaks: front ends are built on top.
#![warn(missing_docs)]

pub mod nats;
pub mod time;
