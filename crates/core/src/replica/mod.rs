//! The replication protocol as a state machine without IO, clock or randomness of its own.
//!
//! Bytes and time go in ([`Replica::handle`], [`Replica::tick`]), bytes and wake-ups come out
//! ([`Replica::poll_output`], [`Replica::poll_timeout`]). The same object runs under tokio in production and under a
//! seeded simulator in tests. Reads and local writes never pass through it: they go straight to the cache, and the
//! commands that a write returns come here as [`Input::Local`].

mod acks;
mod clocks;
mod delay;
mod fragments;
mod frames;
mod index;
mod machine;
mod membership;
mod outbound;
mod pace;
mod peers;
mod pull;
mod repair;
mod ring;
mod seal;
mod search;
mod serve;
mod sketch;
mod status;
mod throttle;

pub use acks::{Ack, AckRequest, Unconfirmed};
pub use machine::{Config, Input, Numbers, Output, Replica, Target};
pub use seal::{Keyring, KeyringError, Proof, Refusal, Signature, Unsealed};
pub use serve::{Answered, Job};
pub use status::{Channel, ClockFault, Counters, PeerStatus, Refused, Status, SyncState};

use crate::cache::Millis;

/// The time as the shell reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Milliseconds since the Unix epoch; may jump. Stamps and deadlines of values come from here.
    pub wall: Millis,
    /// Milliseconds of a clock that never goes back. Timers come from here.
    pub mono: Millis,
}
