//! Clusters of bare replicas in virtual time, on a seeded network that loses, repeats, delays and reorders messages,
//! with nodes that crash, leave, freeze, lose each other and have wrong clocks, servers that refuse, links with a rate,
//! and a stranger who sends recordings. Everything goes through the real codec. In some runs nodes have stores, which fail
//! and lose what is not synced, and all nodes die at once.
//!
//! A [`World`] is one run. Equal seeds are equal runs, to the last byte delivered. A run that finds something wrong
//! panics; [`run_all`] catches that and goes on with other seeds.

mod absence;
mod bookkeeping;
mod books;
mod check;
mod claims;
pub mod client;
mod clients;
mod engine;
mod event;
mod faults;
mod keeping;
mod kept;
mod network;
mod node;
mod outcome;
mod runner;
mod scenario;
mod stranger;
mod world;

pub use outcome::{grouped, Outcome};
pub use runner::{play, run_all, Failure, Totals};
pub use scenario::{Fault, Scenario, Stores};
pub use world::World;
