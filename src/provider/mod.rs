//! The wasmbus front end: host data, configuration, links, health, and the operations of `wasmcloud:keyvalue`.

mod chunks;
mod config;
mod handler;
mod host_data;
mod invocation;
mod keyvalue;
mod links;
mod log;
mod memory;
mod reads;
mod rpc;
mod run;
mod secret;

pub use config::{Config, ConfigError, RawSettings};
pub use handler::KvCacheProvider;
pub use host_data::{read_host_data, HostDataError};
pub use memory::Allocator;
pub use run::run;
