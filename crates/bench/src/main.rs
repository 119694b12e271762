//! `make bench`: every figure beside a peer that is measured alternately in the same run on the same machine.
//!
//! One module per group of bars; each returns [`report::Line`]s.

// Benchmarks talk to the outside; the clock rule of clippy.toml is for the provider's core.
#![allow(clippy::disallowed_methods)]

mod apply;
mod arguments;
mod caller;
mod chart;
mod cold;
mod cpu;
mod growth;
mod instructions;
mod lag;
mod lattice;
mod live;
mod load;
mod machine;
mod memory;
mod node;
mod raw;
mod readme;
mod reads;
mod redis;
mod repair;
mod report;
mod rpc;
mod sample;
mod slow;
mod start;
mod table;
mod value;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

pub use arguments::Arguments;
use arguments::Job;

// That of the provider's main.rs.
#[global_allocator]
static ALLOCATOR: kvcache_allocator::Allocator = kvcache_allocator::Allocator;

#[tokio::main]
async fn main() -> ExitCode {
    kvcache_allocator::Allocator::configure();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    match arguments.job {
        None => measure(&arguments).await,
        Some(Job::Readme { check }) => readme::update(check),
        Some(Job::Instructions { bless }) => instructions::compare(bless),
    }
}

/// Measures the bars that are wanted. A bar that is missed is said so in the table; it is no error.
async fn measure(arguments: &Arguments) -> Result<()> {
    let mut lines: Vec<report::Line> = Vec::new();
    let mut series: Vec<report::Series> = Vec::new();
    if arguments.begins(1, "RPC") {
        lines.extend(rpc::lines(arguments).await?);
    }
    if arguments.begins(2, "replication lag") {
        lines.extend(lag::lines(arguments).await?);
    }
    if arguments.begins(3, "merging") {
        lines.extend(apply::lines(arguments)?);
    }
    if arguments.begins(4, "live replication") {
        lines.extend(live::lines(arguments).await?);
    }
    if arguments.begins(5, "cold start") {
        lines.extend(cold::lines(arguments).await?);
    }
    if arguments.begins(6, "memory") {
        lines.extend(memory::lines(arguments).await?);
    }
    if arguments.begins(7, "repair") {
        lines.extend(repair::lines(arguments).await?);
    }
    if arguments.begins(8, "growth") {
        for (of, growth) in [
            growth::lines(arguments),
            growth::replays(arguments).await?,
            lattice::lines(arguments)?,
        ] {
            lines.extend(of);
            series.extend(growth);
        }
    }
    if arguments.begins(9, "reads under a flood") {
        lines.extend(reads::lines(arguments).await?);
    }
    if arguments.begins(10, "start") {
        lines.extend(start::lines(arguments).await?);
    }
    if arguments.begins(11, "slow links") {
        lines.extend(slow::lines(arguments).await?);
    }
    finish(arguments, lines, series)
}

/// Prints the table, and writes it with its charts.
fn finish(arguments: &Arguments, lines: Vec<report::Line>, series: Vec<report::Series>) -> Result<()> {
    let run = report::Run {
        command: arguments.command(),
        machine: machine::Machine::here(),
        lines,
        series,
    };
    print!("{}", table::for_terminal(&run));
    let out = &arguments.out;
    std::fs::create_dir_all(out).with_context(|| format!("creating {}", out.display()))?;
    run.write(&out.join("run.json"))?;
    chart::write(&run, out)?;
    println!("\nrun.json and charts (SVG) are in {}", out.display());
    Ok(())
}
