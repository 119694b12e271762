//! Provider archives (PAR) of the wasmbus generation, without `wash`.

mod archive;
mod create;
mod inspect;
mod keys;
mod registry;

use anyhow::Result;
use clap::Subcommand;

#[derive(Subcommand)]
pub enum ParCommand {
    /// Write a signed archive around the provider binary
    Create(create::Create),
    /// Check an archive and show its claims
    Inspect(inspect::Inspect),
    /// Send an archive to an OCI registry
    Push(registry::Push),
    /// Fetch an archive from an OCI registry
    Pull(registry::Pull),
}

pub async fn run(command: ParCommand) -> Result<()> {
    match command {
        ParCommand::Create(command) => command.run().await,
        ParCommand::Inspect(command) => command.run().await,
        ParCommand::Push(command) => command.run().await,
        ParCommand::Pull(command) => command.run().await,
    }
}
