<<<<<<< HEAD
fn main() {}
=======
//! Development tools of nats-kvcache. One subcommand per module; `cargo run -p xtask -- help` lists them.

// These tools talk to the outside; the clock rule of clippy.toml is for the provider's core.
#![allow(clippy::disallowed_methods)]

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
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Par(command) => par::run(command).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
>>>>>>> helper-b
