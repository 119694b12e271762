//! Attacks with real servers and real provider processes: what a stranger on the NATS account, a linked actor, and a
//! peer that errs can send must not stop, block, grow or change a host more than the documentation says.
//!
//! Every attack is bounded in count and time; all together take less than three minutes.

// Tests wait and measure in real time; the clock rule of clippy.toml is for the provider's core.
#![allow(clippy::disallowed_methods)]

mod actor;
mod links;
mod peer;
mod stranger;

/// One attack at a time: each of them measures, and wants the machine for itself.
pub static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
