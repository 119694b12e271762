//! Development tools of nats-kvcache. One subcommand per module; `cargo run -p xtask -- help` lists them.

// These tools talk to the outside; the clock rule of clippy.toml is for the provider's core.
#![allow(clippy::disallowed_methods)]

mod dev_lattice;
mod dev_state;
mod kv;
mod par;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "xtask", about, version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Provider archives: create, inspect, push to and pull from an OCI registry
    #[command(subcommand)]
    Par(par::ParCommand),
    /// Start a nats-server and three providers, show replication, end with a summary
    DevLattice(dev_lattice::DevLatticeArguments),
    /// Call one operation of a dev lattice that was started with --keep
    Kv(kv::KvArguments),
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Par(command) => par::run(command).await,
        Command::DevLattice(arguments) => dev_lattice::run(arguments).await,
        Command::Kv(arguments) => kv::run(arguments).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
