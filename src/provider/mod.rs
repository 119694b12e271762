//! The wasmbus front end: host data, configuration, links, health, and the operations of `wasmcloud:keyvalue`.

mod config;
mod handler;
mod host_data;
mod keyvalue;
mod log;
mod memory;
mod run;
mod secret;

pub use config::{Config, ConfigError, RawSettings};
pub use handler::KvCacheProvider;
pub use host_data::{read_host_data, HostDataError};
pub use memory::Allocator;
pub use run::run;
