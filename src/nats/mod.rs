//! The only code that touches the network: it carries the bytes of the [replica](crate::replica) over NATS.
//!
//! One task owns the state machine. It selects over connection events, messages, local commands and the deadline, and
//! performs what the machine asks for.

mod connection;
mod inbox;
mod queue;
mod replicator;
mod subjects;

pub use connection::{is_address, without_credentials, Credentials, NatsError};
pub use replicator::{Replicated, Replicator, Settings};
pub use subjects::{SubjectError, Subjects};
