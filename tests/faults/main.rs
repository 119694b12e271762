//! Real faults: provider processes and nats-servers that are killed and frozen, connections that are cut, dropped,
//! delayed, slowed down and stalled, servers that drop slow consumers or refuse to publish and subscribe, and clocks
//! that jump. Afterwards all nodes must hold the same, and nothing that a surviving process has acknowledged may be
//! missing.
//!
//! Three of the five providers of the random run have a store, and come up from it after they were killed: one a file,
//! two a Redis that is killed and frozen as well. In the end all are killed at once, and each store alone has everything.
//!
//! Calls and health travel over a nats-server of their own that nobody disturbs, so every process can always be asked.
//! Replication goes through a proxy for each provider and server.
//!
//! `make faults SECONDS=600` runs the random part for so long; `SEED=n` makes the same plan once more. Only the plan
//! and the choices of the writers follow from the seed: processes and networks keep their own time. With `FAULTS_LOGS`
//! set, a run that passes shows the ends of the providers' logs as well.

// Tests wait and measure in real time; the clock rule of clippy.toml is for the provider's core.
#![allow(clippy::disallowed_methods)]

mod books;
mod cases;
mod chaos;
mod content;
mod lab;
mod load;
mod plan;

/// One test at a time: each of them wants the machine for itself.
pub static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
