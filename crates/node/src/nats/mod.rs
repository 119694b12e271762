//! The only code that touches the network: it carries the bytes of the [replica](kvcache_core::replica) over NATS.
//!
//! One task owns the state machine. It selects over connection events, messages, local deltas and the deadline, and
//! performs what the machine asks for.

mod address;
mod connection;
mod credentials;
mod error;
mod inbox;
mod queue;
mod reconnect;
mod refusal;
mod replicator;
mod subjects;

pub use address::{AddressError, ServerAddress};
pub use connection::connect;
#[cfg(feature = "store-jetstream")]
pub(crate) use connection::{open_for_store, StoreConnection};
pub use credentials::{
    check_authorities, check_certificate, check_credentials_file, Credentials, SeedError, Tls, UserSeed,
};
pub use error::NatsError;
pub use reconnect::explain;
pub use replicator::{Prepared, Replicated, Replicator, ReplicatorConfig};
pub use subjects::{Subject, SubjectError, Subjects};
