//! `make bench`: every figure beside a baseline that is measured alternately in the same run on the same machine.
//!
//! One module per section, or a few; each returns [`report::Line`]s.

// Benchmarks talk to the outside; the clock rule of clippy.toml is for the provider's core.
#![allow(clippy::disallowed_methods)]

mod acknowledgement;
mod apply;
mod arguments;
mod authentication;
mod caller;
mod chart;
mod churn;
mod cold;
mod cpu;
mod docs;
mod eviction;
mod growth;
mod headline;
mod instructions;
mod lag;
mod lattice;
mod lattice_cache;
mod live;
mod load;
mod machine;
mod memory;
mod node;
mod raw;
mod reads;
mod redis;
mod repair;
mod report;
mod rpc;
mod sample;
mod section;
mod slow;
mod start;
mod stores;
mod table;
mod value;

use std::path::Path;
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
        Some(Job::Docs { check }) => docs::update(Path::new("."), check),
        Some(Job::Churn { keys }) => churn::churn(keys),
        Some(Job::Instructions { bless }) => instructions::compare(bless),
        Some(Job::LatticeCache { write }) => {
            let (library, archive) = lattice_cache::built()?;
            lattice_cache::run(&library, &archive, write).await
        }
    }
}

/// Measures the sections that are wanted. A target that is missed is said so in the table; it is no error.
async fn measure(arguments: &Arguments) -> Result<()> {
    section::check(&arguments.only)?;
    let mut lines: Vec<report::Line> = Vec::new();
    let mut series: Vec<report::Series> = Vec::new();
    for section in section::ALL.iter().filter(|section| arguments.wants(section.number)) {
        // All of them take minutes.
        eprintln!("measuring {}: {}", section.number, section.title);
        let (new_lines, new_series) = measure_section(section.number, arguments).await?;
        lines.extend(new_lines);
        series.extend(new_series);
    }
    finish(arguments, lines, series)
}

async fn measure_section(section: u8, arguments: &Arguments) -> Result<(Vec<report::Line>, Vec<report::Series>)> {
    let lines = match section {
        1 => rpc::lines(arguments).await?,
        2 => lag::lines(arguments).await?,
        3 => apply::lines(arguments)?,
        4 => live::lines(arguments).await?,
        5 => cold::lines(arguments).await?,
        6 => memory::lines(arguments).await?,
        7 => return repair::lines(arguments).await,
        8 => return growth_in_all(arguments).await,
        9 => reads::lines(arguments).await?,
        10 => start::lines(arguments).await?,
        11 => slow::lines(arguments).await?,
        12 => return churn::lines(arguments).await,
        13 => authentication::lines(arguments).await?,
        14 => acknowledgement::lines(arguments).await?,
        15 => stores::lines(arguments).await?,
        16 => eviction::lines(arguments)?,
        _ => unreachable!("no section {section}"),
    };
    Ok((lines, Vec::new()))
}

/// Of a cache, of what fills and holds it, and of a lattice.
async fn growth_in_all(arguments: &Arguments) -> Result<(Vec<report::Line>, Vec<report::Series>)> {
    let (mut lines, mut series) = growth::lines(arguments);
    for (more_lines, more_series) in [growth::bootstraps(arguments).await?, lattice::lines(arguments)?] {
        lines.extend(more_lines);
        series.extend(more_series);
    }
    Ok((lines, series))
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
