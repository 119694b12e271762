//! Why a call of the service fails. Front ends word it for their callers.

use kvcache_core::cache::{CacheError, KeyError};
use kvcache_core::replica::{AckLevel, Reason, SyncState, Unconfirmed};

use super::edge::Full;
use super::reads::ReadError;
use crate::store::NotStored;
use crate::words;

/// Why a call fails. Unless it says otherwise, nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// The namespace of the scope cannot be used.
    #[error(transparent)]
    Namespace(#[from] KeyError),
    /// The operation cannot be performed on what is there, or with these arguments.
    #[error(transparent)]
    Refused(#[from] CacheError),
    /// The write does not fit.
    #[error(transparent)]
    Full(#[from] Full),
    /// A read with a large answer has to wait for too many others.
    #[error(transparent)]
    Busy(#[from] ReadError),
    /// The scope asks all peers to confirm its writes, and this node may have missed some that were confirmed.
    #[error("this host is out of contact with the lattice ({0})")]
    OutOfContact(SyncState),
    /// The scope asks for confirmations, and it is known that nobody will give any.
    #[error("no other host can confirm a write of this one ({state}: {})", why(reason.as_ref()))]
    CannotBeConfirmed {
        /// How this node is.
        state: SyncState,
        /// Why.
        reason: Option<Reason>,
    },
    /// The write is applied here and goes on replicating, but it was not confirmed in time.
    #[error("the write is applied on this host, but not confirmed within {timeout_ms} ms")]
    Unconfirmed {
        /// What was asked for.
        wanted: AckLevel,
        /// How long was waited, in milliseconds.
        timeout_ms: u64,
        /// Who has confirmed it and who has not.
        unconfirmed: Unconfirmed,
    },
    /// The store is still read.
    #[error("the cache is being read from {store}: loading {percent} %")]
    Loading {
        /// The store.
        store: String,
        /// How much of it.
        percent: u8,
    },
    /// The store cannot be read, and no peer has its state.
    #[error("{store} cannot be read ({why}), and no other host has its data")]
    StoreMissing {
        /// The store.
        store: String,
        /// What is wrong with it.
        why: String,
    },
    /// The scope asks for writes to be stored, and there is no store.
    #[error("there is no store that writes could be kept in")]
    NoStore,
    /// The scope asks for writes to be stored, and it is known that this will not be.
    #[error("writes cannot be stored: {0}")]
    CannotBeStored(NotStored),
    /// The write is applied here and goes on replicating, but it is not stored.
    #[error("the write is applied on this host, but not stored: {0}")]
    NotStored(NotStored),
    /// The write is applied here and goes on replicating, but it was not stored in time.
    #[error("the write is applied on this host, but {store} did not take it within {timeout_ms} ms")]
    NotStoredInTime {
        /// The store.
        store: String,
        /// How long was waited, in milliseconds.
        timeout_ms: u64,
    },
    /// Replication has stopped: the write was applied on this node only.
    #[error("the node is stopping: the write was applied on this host only and not replicated")]
    Stopping,
}

/// Words for a reason, also where there is none.
fn why(reason: Option<&Reason>) -> String {
    reason.map_or_else(|| "no reason is known".into(), words::reason)
}
