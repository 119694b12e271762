//! A host of the 0.18 line as a process, and the plugins of its lattice cache without one.
//!
//!   host-0-18 host [--cache REFERENCE] [--insecure REGISTRY] [--rpc URL] [--namespace NAME]
//!   host-0-18 plugin LIBRARY|classic
//!   host-0-18 bench LIBRARY|classic KEYS
//!
//! `host` and `plugin` take commands, a line of JSON each, and answer each with a line of JSON: `{"ok": ...}` or
//! `{"error": "..."}`. They end with their standard input.

mod actor;
mod bench;
mod host;
mod plugin;

use std::io::{BufRead, Write};

use anyhow::{bail, Result};
use serde_json::{json, Value};

fn main() -> Result<()> {
    env_logger::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match &arguments[..] {
        ["host", options @ ..] => host::run(&host::Options::parse(options)?),
        ["plugin", which] => plugin::serve(plugin::load(which)?),
        ["bench", which, keys] => bench::run(plugin::load(which)?, keys.parse()?),
        _ => bail!("expected: host [options] | plugin LIBRARY|classic | bench LIBRARY|classic KEYS"),
    }
}

/// The next command, if there is one.
fn command() -> Result<Option<Value>> {
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line)? {
        0 => Ok(None),
        _ => Ok(Some(serde_json::from_str(&line)?)),
    }
}

fn answer(outcome: Result<Value>) -> Result<()> {
    let line = match outcome {
        Ok(answer) => json!({ "ok": answer }),
        Err(error) => json!({ "error": format!("{:#}", error) }),
    };
    let mut out = std::io::stdout();
    writeln!(out, "{}", line)?;
    Ok(out.flush()?)
}

/// An argument of a command.
fn text<'a>(command: &'a Value, name: &str) -> Result<&'a str> {
    match command[name].as_str() {
        Some(text) => Ok(text),
        None => bail!("the command has no text {:?}: {}", name, command),
    }
}
