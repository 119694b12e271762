//! Providers with a store behind them: what is left after every process was killed, and what is said when something is
//! wrong with the store.

// Tests wait and measure in real time; the clock rule of clippy.toml is for the provider's core.
#![allow(clippy::disallowed_methods)]

mod demonstration;
mod hosts;
mod life;
mod missing;
mod outage;
mod shared;
mod tools;
