//! The wasmbus front end: host data, configuration, links, health, and the operations of `wasmcloud:keyvalue`.

mod chunks;
mod config;
mod handler;
mod host_data;
mod invocation;
mod keyvalue;
mod links;
mod log;
mod reads;
mod rpc;
mod run;
mod secret;

pub use run::run;
