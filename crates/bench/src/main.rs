//! `make bench`: every figure beside a peer that is measured alternately in the same run on the same machine.
//!
//! One module per group of bars; each returns [`report::Line`]s.

// Benchmarks talk to the outside; the clock rule of clippy.toml is for the provider's core.
#![allow(clippy::disallowed_methods)]

mod apply;
mod caller;
mod cold;
mod cpu;
mod growth;
mod lag;
mod live;
mod load;
mod memory;
mod node;
mod reads;
mod redis;
mod repair;
mod report;
mod rpc;
mod sample;
mod start;
mod value;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

// That of the provider's main.rs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What to measure, and how often.
#[derive(Parser)]
#[command(name = "bench", about, version)]
pub struct Arguments {
    /// The provider's release binary
    #[arg(long, default_value = "target/release/nats-kvcache")]
    bin: PathBuf,
    /// Fewer and shorter runs: about three minutes in all
    #[arg(long)]
    quick: bool,
    /// Only the bars with these numbers (1 to 10)
    #[arg(long, value_delimiter = ',')]
    only: Vec<u8>,
    /// Folder of the table, the JSON and the charts
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

impl Arguments {
    /// Whether a bar is to be measured.
    pub fn wants(&self, bar: u8) -> bool {
        self.only.is_empty() || self.only.contains(&bar)
    }

    /// How often each side of a comparison is measured.
    pub fn runs(&self) -> usize {
        if self.quick {
            3
        } else {
            5
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    let mut lines: Vec<report::Line> = Vec::new();
    if arguments.wants(1) {
        lines.extend(rpc::lines(&arguments).await?);
    }
    if arguments.wants(2) {
        lines.extend(lag::lines(&arguments).await?);
    }
    if arguments.wants(3) {
        lines.extend(apply::lines(&arguments)?);
    }
    if arguments.wants(4) {
        lines.extend(live::lines(&arguments).await?);
    }
    if arguments.wants(5) {
        lines.extend(cold::lines(&arguments).await?);
    }
    if arguments.wants(6) {
        lines.extend(memory::lines(&arguments).await?);
    }
    if arguments.wants(7) {
        lines.extend(repair::lines(&arguments).await?);
    }
    if arguments.wants(8) {
        lines.extend(growth::lines(&arguments)?);
    }
    if arguments.wants(9) {
        lines.extend(reads::lines(&arguments).await?);
    }
    if arguments.wants(10) {
        lines.extend(start::lines(&arguments).await?);
    }
    report::print(&lines);
    Ok(())
}
