//! The wasmbus front end: host data, configuration, links, health, and the operations of `wasmcloud:keyvalue`.

mod chunks;
mod handler;
mod host_data;
mod host_process;
mod invocation;
mod keyvalue;
mod links;
mod rpc;
mod run;

pub use run::run;
