//! Real servers and real processes for tests, benchmarks and development tools.
//!
//! The kit plays the roles around the provider: [`NatsServer`] is the server of a lattice, [`Lattice`] and
//! [`ProviderProcess`] do what a wasmCloud host does (start the binary with host data on stdin, put and delete links,
//! ask for health, shut down), [`KeyValueClient`] sends signed invocations as an actor's host does, and [`KeyValue`]
//! puts short names on the operations of the contract.
//!
//! Nothing here sleeps for luck: [`eventually`] polls a condition with a limit and reports the last reason.

mod client;
mod guard;
mod host;
mod jwt;
mod keyvalue;
mod log;
mod nats_server;
mod process;
mod status;
mod wait;
mod workspace;

pub use client::{Actor, Forgery, KeyValueClient};
pub use guard::KillOnDrop;
pub use host::{encode_host_data, run_to_end, Lattice, ProviderOptions, ProviderProcess};
pub use host::{CONTRACT_ID, DEFAULT_LINK_NAME, TEST_HOST_ID};
pub use jwt::{NatsOperator, UserCredentials};
pub use keyvalue::KeyValue;
pub use log::CapturedLog;
pub use nats_server::{nats_server_or_skip, NatsServer, NatsServerBuilder};
pub use status::{Status, SyncState};
pub use wait::eventually;
pub use workspace::{skip_test, workspace_root};

/// The error that every call to a provider returns; re-exported so that users need no dependency of their own.
pub use wasmbus_rpc::error::{RpcError, RpcResult};
