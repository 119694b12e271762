//! A store of the cache in Redis, Valkey, or what speaks as they do.
//!
//! ```text
//! redis://user:password@host:6379/database?timeout_ms=5000
//! rediss://...                                                 over TLS
//! ```
//!
//! | part | meaning |
//! | --- | --- |
//! | `user` | of an ACL; without one the password is that of `requirepass` |
//! | `host` | one: a name or an address; port 6379 where none is given |
//! | `database` | its number; 0 where none is given |
//! | `timeout_ms` | how long connecting, and then each answer, may take: 100 to 60,000, by default 5,000. A value of many megabytes over a slow network needs more |
//! | `ca` | `rediss` only: file of the authorities that are trusted, in place of those of the system |
//! | `cert`, `key` | `rediss` only: files of the client's own certificate and its key |
//!
//! **What it writes.** One hash for each section, its key `nats-kvcache:1:lattice:link:section`; fields are the ids of
//! records. In the names all but letters, digits, `.`, `_` and `-` is percent-encoded, so no two caches share a key.
//!
//! **What it needs.** Redis 6 or any Valkey, and a user with
//! `~nats-kvcache:1:* +eval +evalsha +exists +hmget +hset +hdel +hscan +select +info`; without `info` it is not seen that the
//! server evicts. A server that evicts keys without a deadline (`maxmemory-policy allkeys-...`) is refused: it would
//! drop whole sections. What is acknowledged is as durable as the server makes it (`appendonly`, `appendfsync`, `save`).
//!
//! **How.** A script compares and writes some hundred records at a time, so two writers lose nothing and the server is
//! never blocked for long. Sections are read with HSCAN, in answers of bounded size. Several questions are under way at
//! a time on one connection, which is made again when it is lost.
//!
//! **The client** is the crate `redis`. `fred` brings its own queue, retries and reconnecting, all of which is decided
//! here and above: a question to a server that does not answer has to end, and the caller asks again.
#![warn(missing_docs)]

mod answer;
mod connection;
mod fault;
mod key;
mod opener;
mod part;
mod script;
mod server;
mod store;

pub use opener::RedisOpener;
