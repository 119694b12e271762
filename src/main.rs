//! `nats-kvcache` without arguments is what a wasmCloud host starts.

mod store_command;
mod stores;
mod wasmbus;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kvcache_allocator::Allocator;
use store_command::StoreCommand;

// Keys are small allocations by the million: see Cargo.toml of the crate.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// wasmCloud capability provider wasmcloud:keyvalue: an in-memory map replicated between hosts over NATS.
///
/// A wasmCloud host starts it without arguments and writes host data (one line of base64 JSON) to its standard input.
/// To try it out without a host: `make run` in its repository.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Copy, check and write out what a cache is kept in (setting STORE)
    #[command(subcommand)]
    Store(StoreCommand),
}

fn main() -> ExitCode {
    Allocator::configure();
    match Arguments::parse().command {
        None => wasmbus::run(),
        Some(Command::Store(command)) => store_command::run(&command),
    }
}
