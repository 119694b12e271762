//! `nats-kvcache` without arguments is what a wasmCloud host starts.

mod stores;
mod wasmbus;

use std::process::ExitCode;

use clap::Parser;
use kvcache_allocator::Allocator;

// Keys are small allocations by the million: see Cargo.toml of the crate.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// wasmCloud capability provider wasmcloud:keyvalue: an in-memory map replicated between hosts over NATS.
///
/// A wasmCloud host starts it without arguments and writes host data (one line of base64 JSON) to its standard input.
/// To try it out without a host: `make run` in its repository.
#[derive(Parser)]
#[command(version)]
struct Arguments {}

fn main() -> ExitCode {
    Allocator::configure();
    let Arguments {} = Arguments::parse();
    wasmbus::run()
}
