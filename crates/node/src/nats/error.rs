//! Why there is no connection.

use std::path::Path;

/// What can go wrong before replication runs.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// Not an address.
    #[error("'{address}' is not the address of a NATS server: {reason}")]
    Address {
        /// The address without credentials.
        address: String,
        /// What the client library says.
        reason: String,
    },
    /// Not a seed.
    #[error("the user seed is not a valid nkey seed ({0})")]
    Seed(String),
    /// A file that cannot be used.
    #[error("file '{file}': {reason}")]
    File {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No connection in time.
    #[error("{}: {reason}", match .seconds { 0 => "the only attempt failed".to_owned(), seconds => format!("no connection within {seconds} s") })]
    Unreachable {
        /// How long it was tried; 0: once.
        seconds: u64,
        /// Why the last attempts failed.
        reason: String,
    },
    /// The client library refuses to subscribe or to connect.
    #[error("cannot use the NATS connection: {0}")]
    Client(String),
}

impl NatsError {
    pub(super) fn file(file: &Path, reason: String) -> Self {
        NatsError::File {
            file: file.display().to_string(),
            reason,
        }
    }
}
