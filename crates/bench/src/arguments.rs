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
    bin: PathBuf,
    /// Fewer and shorter runs: about four minutes in all
    #[arg(long)]
    quick: bool,
    /// Only the bars with these numbers (1 to 11)
    #[arg(long, value_delimiter = ',')]
    only: Vec<u8>,
    /// Folder of the table, the JSON and the charts
    #[arg(long, default_value = "target/bench")]
    pub out: PathBuf,
}

/// What else there is to do.
#[derive(Subcommand)]
pub enum Job {
    /// Write README's performance section from docs/bench/run.json
    Readme {
        /// Only look whether it is what it should be
        #[arg(long)]
        check: bool,
    },
    /// Compare instruction counts (JSON of `cargo bench --bench instructions` on standard input) with the stored ones
    Instructions {
        /// Store them instead
        #[arg(long)]
        bless: bool,
    },
}

impl Arguments {
    /// Whether a bar is to be measured.
    pub fn wants(&self, bar: u8) -> bool {
        self.only.is_empty() || self.only.contains(&bar)
    }

    /// As [`Arguments::wants`], and says so: all of it takes minutes.
    pub fn begins(&self, bar: u8, what: &str) -> bool {
        let wanted = self.wants(bar);
        if wanted {
            eprintln!("measuring {bar}: {what}");
        }
        wanted
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
        let bars: Vec<String> = self.only.iter().map(u8::to_string).collect();
        format!("{make} ONLY={}", bars.join(","))
    }
}
