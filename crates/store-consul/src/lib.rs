//! A store in the key-value store of Consul.
//!
//! Consul replaces a value only if it is still the one that was read (compare-and-set on its index). So a write reads,
//! merges by our rule and writes; where somebody else was faster it begins again. Each write goes through Raft and each
//! key costs memory on every server, so records stand in buckets, two for each section, and many buckets are read or
//! written in one transaction.
//!
//! The client is `reqwest`: what is needed is one endpoint, `/v1/txn`, which `rs-consul` 0.15 does not know.

mod bucket;
mod client;
mod errors;
mod layout;
mod opener;
mod options;
mod parts;
mod store;
mod tls;

pub use opener::ConsulOpener;
