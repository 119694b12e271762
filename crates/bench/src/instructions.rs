//! Instruction counts of the hot paths beside those stored in the repository.
//!
//! Counts do not scatter as times do: the same build gives the same count. Another compiler or another processor (the
//! hash has variants for several) may give others; the stored file says with what it was made.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{stdin, Read};
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::machine::Machine;

const STORED: &str = "crates/core/benches/instructions.json";

/// More than this is a regression, in percent.
const TOLERATED: f64 = 5.0;

/// Counts by name.
type Counts = BTreeMap<String, u64>;

#[derive(Serialize, Deserialize)]
struct Stored {
    /// Compiler, processor and commit of the counts.
    made_with: String,
    instructions: Counts,
}

/// Compares the counts on standard input with the stored ones, or stores them if `bless`. More instructions than is
/// tolerated, and a function on one side only, is an error.
pub fn compare(bless: bool) -> Result<()> {
    let now = counts(stdin())?;
    ensure!(
        !now.is_empty(),
        "no counts on standard input; `make bench-instructions` makes them"
    );
    if bless {
        return store(now);
    }
    let stored = read()?;
    println!("{}", rows(&stored.instructions, &now));
    println!("\nstored: {}", stored.made_with);
    println!("now:    {}", made_with());
    let faults = faults(&stored.instructions, &now);
    if !faults.is_empty() {
        bail!(
            "instruction counts differ from {STORED}:\n  {}\nIf that is as it should be, store them with \
             `make bench-instructions BLESS=1`",
            faults.join("\n  ")
        );
    }
    println!("no function takes over {TOLERATED} % more instructions than stored");
    Ok(())
}

fn read() -> Result<Stored> {
    let text = std::fs::read_to_string(STORED)
        .with_context(|| format!("no {STORED} here; `make bench-instructions BLESS=1` makes one"))?;
    serde_json::from_str(&text).with_context(|| format!("{STORED} holds something else than counts"))
}

fn store(instructions: Counts) -> Result<()> {
    let made_with = made_with();
    let text = serde_json::to_string_pretty(&Stored {
        made_with,
        instructions,
    })? + "\n";
    std::fs::write(Path::new(STORED), text).with_context(|| format!("writing {STORED}"))?;
    println!("stored in {STORED}");
    Ok(())
}

fn made_with() -> String {
    let machine = Machine::here();
    format!("Rust {}, {}, commit {}", machine.rustc, machine.cpu, machine.commit)
}

/// The counts in a stream of gungraun's summaries, one for each benchmark.
fn counts(summaries: impl Read) -> Result<Counts> {
    serde_json::Deserializer::from_reader(summaries)
        .into_iter()
        .map(|summary| {
            let summary: Value = summary.context("standard input is not the JSON of gungraun")?;
            let name = ["function_name", "id"].map(|field| summary[field].as_str().unwrap_or_default());
            let name = name.join(" ");
            let count = summary
                .pointer("/profiles/0/data/total/metrics/Ir/values/new")
                .and_then(Value::as_u64)
                .with_context(|| format!("no count of instructions (Ir) for '{name}'; is this gungraun 0.20?"))?;
            Ok((name, count))
        })
        .collect()
}

/// Everything in aligned columns: what, stored, now, change.
fn rows(stored: &Counts, now: &Counts) -> String {
    let shown = |count: Option<&u64>| count.map_or("-".into(), u64::to_string);
    let names: BTreeSet<&String> = stored.keys().chain(now.keys()).collect();
    let mut text = format!("{:<30} {:>12} {:>12} {:>9}", "what", "stored", "now", "change");
    for name in names {
        let (stored, now) = (stored.get(name), now.get(name));
        let change = match (stored, now) {
            (Some(&stored), Some(&now)) => format!("{:+.2} %", change(stored, now)),
            _ => "-".into(),
        };
        text += &format!("\n{name:<30} {:>12} {:>12} {change:>9}", shown(stored), shown(now));
    }
    text
}

/// What is wrong, one sentence each.
fn faults(stored: &Counts, now: &Counts) -> Vec<String> {
    let gone = stored.keys().filter(|name| !now.contains_key(*name));
    let mut faults: Vec<String> = gone
        .map(|name| format!("{name} is stored, but was not counted"))
        .collect();
    for (name, &now) in now {
        match stored.get(name) {
            None => faults.push(format!("{name} was counted, but is not stored")),
            Some(&stored) if change(stored, now) > TOLERATED => faults.push(format!(
                "{name} takes {:.2} % more, over {TOLERATED} %",
                change(stored, now)
            )),
            Some(_) => {}
        }
    }
    faults
}

/// In percent.
fn change(stored: u64, now: u64) -> f64 {
    // Multiplied first: 5 % of a round number is then exactly 5.
    (now as f64 - stored as f64) * 100.0 / stored as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(counts: &[(&str, u64)]) -> Counts {
        counts.iter().map(|&(name, count)| (name.into(), count)).collect()
    }

    #[test]
    fn counts_are_read_from_summaries() -> Result<()> {
        let summary = r#"{"function_name": "get", "id": "hit", "profiles": [{"data": {"total": {"metrics":
            {"Ir": {"values": {"new": 7, "old": 8}}}}}}]}"#;
        assert_eq!(counts(summary.as_bytes())?, of(&[("get hit", 7)]));
        let error = counts(r#"{"function_name": "get", "id": "hit"}"#.as_bytes()).expect_err("there is no count");
        assert!(error.to_string().contains("'get hit'"), "{error}");
        Ok(())
    }

    #[test]
    fn more_than_is_tolerated_is_a_fault() {
        let stored = of(&[("get", 1_000), ("set", 1_000)]);
        assert_eq!(faults(&stored, &of(&[("get", 1_050), ("set", 500)])), [""; 0]);
        assert_eq!(
            faults(&stored, &of(&[("get", 1_051), ("set", 1_000)])),
            ["get takes 5.10 % more, over 5 %"]
        );
    }

    #[test]
    fn what_is_on_one_side_only_is_a_fault() {
        let faults = faults(&of(&[("get", 1)]), &of(&[("set", 1)]));
        assert_eq!(
            faults,
            [
                "get is stored, but was not counted",
                "set was counted, but is not stored"
            ]
        );
    }
}
