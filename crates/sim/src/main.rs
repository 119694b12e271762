//! `sim`: many simulated clusters, or the story of one.
// Only the limit of real time and the speed come from the clock; no run reads it.
#![allow(clippy::disallowed_methods)]

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use sim::{grouped, Failure, Scenario, Totals};

/// How often a line of progress is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A single run takes milliseconds. One that takes this long beyond the limit of time never ends.
const STUCK: Duration = Duration::from_secs(60);

/// Simulates clusters on a hostile network and checks that all nodes end equal and that nothing acknowledged is lost.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// How many runs
    #[arg(long, default_value_t = 1_000)]
    runs: u64,
    /// Seed of the first run
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Threads; by default one for each core
    #[arg(long)]
    jobs: Option<usize>,
    /// Replay one run and print its story
    #[arg(long)]
    seed: Option<u64>,
    /// Start no more runs after this time: 300s, 5m, 1h
    #[arg(long, value_parser = duration)]
    time_limit: Option<Duration>,
    /// Nodes may be away for longer than deletions are remembered in all runs that forget some, not in half of them
    #[arg(long)]
    long_absences: bool,
    /// Nodes have stores, which fail and lose what is not synced, and all nodes die at once
    #[arg(long, conflicts_with = "long_absences")]
    stores: bool,
}

impl Arguments {
    fn scenario(&self, seed: u64) -> Scenario {
        let mut scenario = match self.stores {
            true => Scenario::with_stores(seed),
            false => Scenario::from_seed(seed),
        };
        scenario.long_absences |= self.long_absences;
        scenario
    }

    fn replay_command(&self, seed: u64) -> String {
        let absences = if self.long_absences { " --long-absences" } else { "" };
        let stores = if self.stores { " --stores" } else { "" };
        format!("cargo run --locked --profile sim -p sim -- --seed {seed}{absences}{stores}")
    }

    fn report_failure(&self, failure: &Failure) -> String {
        format!(
            "seed {} FAILS: {}\n  replay it with: {}",
            failure.seed,
            failure.message,
            self.replay_command(failure.seed)
        )
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.trim_end_matches(char::is_alphabetic).len());
    let number: u64 = number
        .parse()
        .map_err(|_| "expected a number and a unit, e.g. 300s".to_owned())?;
    match unit {
        "" | "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(60 * number)),
        "h" => Ok(Duration::from_secs(3_600 * number)),
        other => Err(format!("unknown unit {other}: expected s, m or h")),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.seed {
        Some(seed) => replay(&arguments, seed),
        None => run_many(&arguments),
    }
}

fn replay(arguments: &Arguments, seed: u64) -> ExitCode {
    match sim::play(arguments.scenario(seed), true) {
        Ok(outcome) => {
            println!("\nseed {seed} is well\n{outcome}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!();
            eprintln!("{}", arguments.report_failure(&failure));
            ExitCode::FAILURE
        }
    }
}

fn run_many(arguments: &Arguments) -> ExitCode {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = arguments.jobs.unwrap_or(cores);
    let mut progress = Progress::new(arguments);
    let seeds = arguments.from..arguments.from.saturating_add(arguments.runs);
    let totals = sim::run_all(
        seeds,
        jobs,
        |seed| arguments.scenario(seed),
        |totals, running| progress.report(totals, running),
    );
    let took = progress.began.elapsed().as_secs_f64();
    progress.bar.finish_and_clear();
    println!("{:<34} {:>19}\n{}", "runs", grouped(totals.runs), totals.outcome);
    println!("{:<34} {:>19}", "failures", grouped(totals.failures.len() as u64));
    println!(
        "{:.0} runs per second in {took:.1} s on {jobs} threads",
        totals.runs as f64 / took
    );
    if totals.runs < arguments.runs {
        println!(
            "the time limit ended this after {} of {} runs",
            totals.runs, arguments.runs
        );
    }
    for failure in &totals.failures {
        println!("{}", arguments.report_failure(failure));
    }
    if totals.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Shows how far the runs are: a bar on a terminal, else a line now and then.
struct Progress<'a> {
    arguments: &'a Arguments,
    bar: ProgressBar,
    began: Instant,
    last_line: Instant,
    failures_told: usize,
}

impl<'a> Progress<'a> {
    fn new(arguments: &'a Arguments) -> Self {
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::new(arguments.runs)
        } else {
            ProgressBar::hidden()
        };
        let style = "{bar:40} {human_pos} of {human_len} runs, {per_sec}, {eta} to go  {msg}";
        bar.set_style(ProgressStyle::with_template(style).expect("a template that is right"));
        Progress {
            arguments,
            bar,
            began: Instant::now(),
            last_line: Instant::now(),
            failures_told: 0,
        }
    }

    fn report(&mut self, totals: &Totals, running: &[AtomicU64]) -> ControlFlow<()> {
        self.bar.set_position(totals.runs);
        for failure in totals.failures.iter().skip(self.failures_told) {
            let text = self.arguments.report_failure(failure);
            self.bar.suspend(|| eprintln!("{text}"));
        }
        if self.failures_told < totals.failures.len() {
            self.failures_told = totals.failures.len();
            self.bar.set_message(format!("{} failures", self.failures_told));
        }
        if self.bar.is_hidden() && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            eprintln!(
                "{} of {} runs after {} s, {} failures",
                grouped(totals.runs),
                grouped(self.arguments.runs),
                self.began.elapsed().as_secs(),
                totals.failures.len()
            );
        }
        let Some(limit) = self.arguments.time_limit else {
            return ControlFlow::Continue(());
        };
        if self.began.elapsed() > limit + STUCK {
            let seeds = running.iter().map(|slot| slot.load(Ordering::Relaxed));
            for seed in seeds.filter(|&seed| seed != u64::MAX) {
                let replay = self.arguments.replay_command(seed);
                eprintln!("seed {seed} FAILS: it does not end\n  replay it with: {replay}");
            }
            std::process::exit(1);
        }
        if self.began.elapsed() > limit {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}
