//! README's performance section, written from a stored run.

use std::path::Path;

use anyhow::{bail, ensure, Context, Result};

use crate::report::Run;
use crate::table;

const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";
const STORED: &str = "docs/bench/run.json";
const CHART: &str = "docs/bench/overview.svg";

/// Writes the section of `README.md` anew, or with `check` only looks whether it is what the stored run says.
pub fn update(check: bool) -> Result<()> {
    let path = Path::new("README.md");
    let old = std::fs::read_to_string(path).context("no README.md here; run this in the root of the repository")?;
    let run = Run::read(Path::new(STORED))?;
    ensure!(
        Path::new(CHART).is_file(),
        "{CHART} is missing; `make bench-store` puts it there"
    );
    let new = with_section(&old, &section(&run))?;
    if new == old {
        return Ok(());
    }
    if check {
        bail!(
            "the performance section of README.md is not what {STORED} says; write it with \
             `cargo run --locked -p bench -- readme` and commit README.md"
        );
    }
    std::fs::write(path, new).context("writing README.md")
}

/// What stands between the marks.
fn section(run: &Run) -> String {
    format!(
        "Written by `make bench-store` from [{STORED}]({STORED}); not to be edited here.\n\n\
         Measured with `{}` on {}. Both sides of a comparison run in turn on this machine; shown are medians, and the \
         ratio is the median of the ratios ours / peer, pair by pair.\n\n\
         {}\n\
         ![How far each figure is from its bar]({CHART})\n",
        run.command,
        run.machine.sentence(),
        table::for_markdown(run)
    )
}

/// The text with the section in the place of what stood between the marks.
fn with_section(readme: &str, section: &str) -> Result<String> {
    let parts = readme
        .split_once(BEGIN)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.with_context(|| format!("README.md has no lines {BEGIN} and {END}, in this order"))?;
    Ok(format!("{before}{BEGIN}\n\n{section}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::run;

    #[test]
    fn the_section_says_how_where_and_what() {
        let text = section(&run());
        for part in [
            "`make bench-quick`",
            "Abacus 9, 2 cores, 8 GiB; Debian 12, Linux 6.1",
            "nats-server 2.15.1, redis-server 7.0.15, Rust 1.95.0; commit 0123456789, 2026-01-02 03:04 UTC",
            "| 1. get, 64 callers |",
            "1 of 2 bars hold.",
            "](docs/bench/overview.svg)",
        ] {
            assert!(text.contains(part), "'{part}' is missing in:\n{text}");
        }
    }

    #[test]
    fn only_what_stands_between_the_marks_changes() -> Result<()> {
        let readme = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let once = with_section(&readme, "new\n")?;
        assert_eq!(once, format!("before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"));
        assert_eq!(with_section(&once, "new\n")?, once);
        Ok(())
    }

    #[test]
    fn missing_marks_are_named() {
        for readme in ["no marks", &format!("{END} {BEGIN}"), BEGIN] {
            let error = with_section(readme, "new").expect_err("there is no place for it");
            assert!(error.to_string().contains("bench:begin"), "{error}");
        }
    }
}
