//! Real servers and real processes for tests, benchmarks and development tools.
//!
//! The kit plays the roles around the provider: [`NatsServer`] is the server of a lattice, [`Lattice`] and
//! [`ProviderProcess`] do what a wasmCloud host does (start the binary with host data on stdin, put and delete links,
//! ask for health, shut down), [`KeyValueClient`] sends signed invocations as an actor's host does, and [`KeyValue`]
//! puts short names on the operations of the contract. [`FaultyProxy`] and [`NatsCluster`] are there to break things,
//! [`RedisServer`] to measure beside, [`CassandraServer`] and [`ConsulServer`] to keep things in. [`OciRegistry`] and
//! [`Wash`] are those that archives travel with, [`HostProgram`] is the host they are for.
//!
//! Nothing here sleeps for luck: [`eventually`] polls a condition with a limit and reports the last reason.

// The kit waits and measures in real time; the clock rule of clippy.toml is for the provider's core.
#![allow(clippy::disallowed_methods)]

mod cassandra_server;
mod client;
mod consul_server;
mod guard;
mod host;
mod host_program;
mod http;
mod jwt;
mod keys;
mod keyvalue;
mod lattice;
mod lattice_cache;
mod local_server;
mod log;
mod nats_cluster;
mod nats_server;
mod node;
mod process;
mod proxy;
mod redis_server;
mod registry;
mod status;
mod store_suite;
mod wait;
mod wash;
mod workload;
mod workspace;

pub use cassandra_server::CassandraServer;
pub use client::{answer_in, Actor, Forgery, KeyValueClient};
pub use consul_server::ConsulServer;
pub use guard::KillOnDrop;
pub use host::{encode_host_data, run_to_end, ProviderOptions, ProviderProcess};
pub use host::{DEFAULT_LINK_NAME, TEST_HOST_ID};
pub use host_program::HostProgram;
pub use http::HttpAnswer;
pub use jwt::{NatsOperator, UserCredentials};
pub use keys::sdk_readable;
pub use keyvalue::KeyValue;
pub use lattice::{Lattice, CONTRACT_ID};
pub use lattice_cache::{host_0_18, plugin_0_18, Commanded, HostOptions};
pub use local_server::LocalServer;
pub use log::CapturedLog;
pub use nats_cluster::NatsCluster;
pub use nats_server::{NatsServer, NatsServerBuilder, ServerLimits};
pub use proxy::{Direction, FaultyProxy, ProxyStats};
pub use redis_server::{redis_benchmark, RedisKind, RedisServer};
pub use registry::OciRegistry;
pub use status::{Status, SyncState};
pub use store_suite::{batch, cache_name, load, run_store_suite, Held, ServedStore, StoreEngine};
pub use wait::{eventually, promptly};
pub use wash::Wash;
pub use workload::Workload;
pub use workspace::{cargo, faketime_library, skip_test, workspace_root, xtask_beside};

/// The error that every call to a provider returns; re-exported so that users need no dependency of their own.
pub use wasmbus_rpc::error::{RpcError, RpcResult};
