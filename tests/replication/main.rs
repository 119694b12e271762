//! Replication between separate provider processes on a real nats-server.
//!
//! Every test ends with equal digests on all nodes and with values read on each of them. Nothing sleeps for luck:
//! conditions are polled with a limit.

// Tests wait and measure in real time; the clock rule of clippy.toml is for the provider's core.
#![allow(clippy::disallowed_methods)]

mod cluster;
mod confirmed;
mod failures;
mod flood;
mod isolation;
mod joining;
mod live;
mod permissions;
mod refusals;
mod slow;
mod trust;
