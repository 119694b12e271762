//! A node of nats-kvcache: the [core](kvcache_core) on tokio, with clocks, entropy and NATS around it.
//!
//! | module | job |
//! | --- | --- |
//! | [`service`] | the cache with replication, confirmations, scopes and sweeping: all that a front end sees |
//! | [`answers`] | errors and state of the service in the words of front ends |
//! | [`store`] | engines that the cache is written behind to |
//! | [`settings`] | typed settings |
//! | [`nats`] | the network: one connection, one task that carries the bytes of the replica |
//! | [`time`] | clocks and entropy |
//! | [`words`] | words for what a replica says, with the settings and remedies |
//! | [`secret`] | texts that must not reach a log |
//!
//! Nothing here knows what a host or a client speaks: front ends are built on top.
#![warn(missing_docs)]

pub mod answers;
pub mod nats;
pub mod secret;
pub mod service;
pub mod settings;
pub mod store;
pub mod time;
pub mod words;
