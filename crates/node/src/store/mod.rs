//! Stores: what the cache is written behind to, so that it outlives its last process.
//!
//! A store keeps records ([`Record`]) in sections. Of two records with one id the one with the larger value stays: that
//! is all an engine has to know. What records mean, which of them are written, and when, is decided above it.
//!
//! A new engine is one file: a [`Store`], and an [`Opener`] for its URLs. `tests/store` of the root runs against all of
//! them.

mod auditing;
mod behind;
mod error;
#[cfg(feature = "store-file")]
pub mod file;
mod flushing;
mod head;
#[cfg(feature = "store-jetstream")]
pub mod jetstream;
mod loading;
mod records;
mod shared;
mod status;
pub mod tools;
mod url;
mod worker;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

pub use behind::WriteBehind;
pub use error::StoreError;
pub use kvcache_core::durable::{Batch, Record, RecordError, Section};
pub use shared::{Begins, Company, NotStored, StoreConfig};
pub use status::{StoreState, StoreStatus};
pub use url::{StoreUrl, UrlError};

/// What an engine is asked for. It ends in bounded time, whatever the engine does. It may block its thread, which is not
/// one of those that serve callers.
pub type Asked<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Takes the records that a store loads, from several sections at a time and in any order. It does not block for long.
pub type Sink<'a> = &'a (dyn Fn(Section, Record<'_>) + Sync);

/// Which cache a store is of. Caches of different lattices or link names never mix: an engine keeps each under a name of
/// its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CacheName {
    /// Name of the lattice.
    pub lattice: String,
    /// Link name of the cache.
    pub link: String,
}

/// What a write has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Written {
    /// Records that were not written because the store held a larger value, as another writer leaves it.
    pub conflicts: u64,
}

/// An open store. All methods may be called at the same time, those that write for different sections.
pub trait Store: Send + Sync + 'static {
    /// What and where it is, for people; without secrets. Such as `Redis at 10.0.0.5:6379`.
    fn name(&self) -> &str;

    /// Whether all nodes of the lattice use the same one. One that is not shared is of this node alone, and nobody else
    /// writes to it.
    fn is_shared(&self) -> bool;

    /// Whether it is read best in one go: all sections in one call of [`Store::load`], as what lies there lies in the
    /// order of time.
    fn is_read_at_once(&self) -> bool {
        false
    }

    /// Whether [`Written::conflicts`] counts. An engine that decides by itself what stays may not say so; then what others
    /// have written is counted when it is found, by audits.
    fn tells_conflicts(&self) -> bool {
        true
    }

    /// Shows all records of these sections that were written before the call. An id may come more than once, with
    /// different values: the largest is meant.
    fn load<'a>(&'a self, sections: &'a [Section], sink: Sink<'a>) -> Asked<'a, ()>;

    /// Writes records. **Where the store holds a larger value for an id, that stays**; it may have been written by
    /// somebody else, at the same time. When this returns the records are as durable as the engine makes anything.
    /// After an error some may be written, and the caller tries again.
    fn write<'a>(&'a self, batches: &'a [Batch]) -> Asked<'a, Written>;

    /// Writes all there is of some sections: what the store holds beside it goes, in one step. Only for stores that are
    /// not shared.
    fn replace<'a>(&'a self, batches: &'a [Batch]) -> Asked<'a, ()> {
        let _ = batches;
        Box::pin(async { Err(StoreError::Unusable("a store that is shared replaces nothing".into())) })
    }

    /// Sections that take more room than what they hold, and are to be replaced next. Only of stores that are not
    /// shared.
    fn overgrown(&self) -> Vec<Section> {
        Vec::new()
    }

    /// Removes records, each if its value is still the one that is given. What a removed one was is forgotten: a smaller
    /// value may be written to its id. An engine that marks what it has removed, as Cassandra does, may ignore smaller
    /// values, and others with the same time, for as long as it keeps its marks; larger ones it takes. So remove only
    /// what nobody writes any more. Only for stores that are shared.
    fn remove<'a>(&'a self, batch: &'a Batch) -> Asked<'a, ()> {
        let _ = batch;
        Box::pin(async {
            Err(StoreError::Unusable(
                "a store of one node is replaced, not cleaned".into(),
            ))
        })
    }

    /// Ends in order. No other method is called after it.
    fn close(&self) -> Asked<'_, ()>;
}

/// Opens the stores of a kind of URL: connects, and makes what the engine lacks (a bucket, a table).
pub trait Opener: Send + Sync + 'static {
    /// Schemes of its URLs, such as `redis` and `rediss`.
    fn schemes(&self) -> &'static [&'static str];

    /// What is wrong with a URL of this scheme, before anything is opened.
    fn check(&self, url: &StoreUrl) -> Result<(), UrlError>;

    /// Opens the store of a cache.
    fn open<'a>(&'a self, url: &'a StoreUrl, cache: &'a CacheName) -> Asked<'a, Arc<dyn Store>>;
}
