//! What a run measures, as its command line says.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// What to measure, and how often.
#[derive(Parser)]
#[command(name = "bench", about, version, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// Without one of these everything is measured
    #[command(subcommand)]
    pub job: Option<Job>,
    /// The provider's release binary
    #[arg(long, default_value = "target/release/nats-kvcache")]
    pub bin: PathBuf,
    /// The provider archive, for its size
    #[arg(long, default_value = "build/nats-kvcache.par.gz")]
    pub par: PathBuf,
    /// Fewer and shorter runs: about ten minutes in all
    #[arg(long)]
    pub quick: bool,
    /// Only the sections with these numbers
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<u8>,
    /// Folder of the table, the JSON and the charts
    #[arg(long, default_value = "target/bench")]
    pub out: PathBuf,
}

/// What else there is to do.
#[derive(Subcommand)]
pub enum Job {
    /// Write docs/PERFORMANCE.md, its charts and README's figures from docs/bench/run.json
    Docs {
        /// Only look whether they are what they should be
        #[arg(long)]
        check: bool,
    },
    /// Create and delete keys; the part of section 12 that needs a process of its own
    #[command(hide = true)]
    Churn {
        /// Distinct keys
        #[arg(long)]
        keys: usize,
    },
    /// The lattice cache inside real hosts of the 0.18 line, beside the classic one: the tables of docs/WHY.md
    LatticeCache {
        /// Write them
        #[arg(long)]
        write: bool,
    },
    /// Compare instruction counts (JSON of `cargo bench --bench instructions` on standard input) with the stored ones
    Instructions {
        /// Store them instead
        #[arg(long)]
        bless: bool,
    },
}

impl Arguments {
    /// Whether a section is to be measured.
    pub fn wants(&self, section: u8) -> bool {
        self.only.is_empty() || self.only.contains(&section)
    }

    /// How often each side of a comparison is measured.
    pub fn runs(&self) -> usize {
        if self.quick {
            3
        } else {
            5
        }
    }

    /// The command that repeats this run.
    pub fn command(&self) -> String {
        let make = if self.quick { "make bench-quick" } else { "make bench" };
        if self.only.is_empty() {
            return make.into();
        }
        let sections: Vec<String> = self.only.iter().map(u8::to_string).collect();
        format!("{make} ONLY={}", sections.join(","))
    }
}
