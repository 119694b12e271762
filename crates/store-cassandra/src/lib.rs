//! A store in Apache Cassandra or ScyllaDB.
//!
//! Of two values with one timestamp Cassandra keeps the larger one, byte by byte. The timestamp of a row is here the time
//! that its value begins with, so that Cassandra's rule and ours are the same and a write is a plain `INSERT`: nothing is
//! read before it, and writers need not know of each other. What they lose against they do not see either: conflicts are
//! counted where an audit finds what somebody else has written.
//!
//! Removing a record reads it, and deletes with its timestamp. So what is larger, and later by a microsecond, stays
//! whenever it comes; what is smaller stays hidden until Cassandra drops the tombstone. Only a larger value of the same
//! microsecond that comes between the reading and the deletion would be lost: nobody writes any more what is removed.

mod connection;
mod errors;
mod layout;
mod opener;
mod options;
mod parts;
mod schema;
mod statements;
mod store;
#[cfg(feature = "tls")]
mod tls;

pub use opener::CassandraOpener;
