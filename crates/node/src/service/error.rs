//! Why a call of the service fails. Front ends word it for their callers.

use kvcache_core::cache::{CacheError, KeyError};
use kvcache_core::replica::{AckLevel, Reason, SyncState, Unconfirmed};

use super::reads::ReadError;
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
    /// Replication has stopped: the write was applied on this node only.
    #[error("the node is stopping: the write was applied on this host only and not replicated")]
    Stopping,
}

/// Words for a reason, also where there is none.
fn why(reason: Option<&Reason>) -> String {
    reason.map_or_else(|| "no reason is known".into(), words::reason)
}
