//! What the documents say of performance, written from a stored run: docs/PERFORMANCE.md with its charts, and the
//! headline figures of README.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{bail, Context, Result};

use crate::report::{Line, Run};
use crate::section::{self, Section};
use crate::{chart, headline, table};

const BEGIN: &str = "<!-- bench: begin -->";
const END: &str = "<!-- bench: end -->";
const README: &str = "README.md";
const PAGE: &str = "docs/PERFORMANCE.md";
const CHARTS: &str = "docs/bench";
const STORED: &str = "docs/bench/run.json";

/// Writes all of it anew below the root of the repository, or with `check` only looks whether it is what the stored run
/// says.
pub fn update(root: &Path, check: bool) -> Result<()> {
    let run = Run::read(&root.join(STORED))?;
    let readme =
        read(root, README)?.with_context(|| format!("no {README} here; run this in the root of the repository"))?;
    let mut files = charts(&run)?;
    files.insert(PAGE.into(), page(&run));
    files.insert(README.into(), with_section(&readme, &front(&run))?);
    for (name, text) in &files {
        if read(root, name)?.as_ref() == Some(text) {
            continue;
        }
        if check {
            bail!(
                "{name} is not what {STORED} says; write it with `cargo run --locked -p bench -- docs` and commit it"
            );
        }
        std::fs::write(root.join(name), text).with_context(|| format!("writing {name}"))?;
    }
    remove_other_charts(root, &files, check)
}

fn read(root: &Path, name: &str) -> Result<Option<String>> {
    match std::fs::read_to_string(root.join(name)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {name}")),
    }
}

/// The charts of a run by their path in the repository.
fn charts(run: &Run) -> Result<BTreeMap<String, String>> {
    let folder = tempfile::tempdir().context("a folder for charts")?;
    chart::write(run, folder.path())?;
    let mut charts = BTreeMap::new();
    for file in std::fs::read_dir(folder.path())? {
        let file = file?;
        let name = format!("{CHARTS}/{}", file.file_name().to_string_lossy());
        charts.insert(name, std::fs::read_to_string(file.path())?);
    }
    Ok(charts)
}

/// Charts that no figure of this run needs.
fn remove_other_charts(root: &Path, files: &BTreeMap<String, String>, check: bool) -> Result<()> {
    for file in std::fs::read_dir(root.join(CHARTS))? {
        let name = format!("{CHARTS}/{}", file?.file_name().to_string_lossy());
        if !name.ends_with(".svg") || files.contains_key(&name) {
            continue;
        }
        if check {
            bail!("{name} is a chart of another run than {STORED}; remove it");
        }
        std::fs::remove_file(root.join(&name)).with_context(|| format!("removing {name}"))?;
    }
    Ok(())
}

/// What stands between the marks of README.
fn front(run: &Run) -> String {
    let machine = &run.machine;
    format!(
        "{}\n\
         ![Headline figures beside their baselines]({CHARTS}/{})\n\n\
         Medians of `{}` on {}, {} cores, at commit {}, {}. {}\n",
        headline::table(run),
        chart::HEADLINE,
        run.command,
        machine.cpu,
        machine.cores,
        machine.commit,
        machine.date,
        table::targets(run),
    )
}

/// The text with the section in the place of what stood between the marks.
fn with_section(readme: &str, section: &str) -> Result<String> {
    let parts = readme
        .split_once(BEGIN)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.with_context(|| format!("{README} has no lines {BEGIN} and {END}, in this order"))?;
    Ok(format!("{before}{BEGIN}\n\n{section}\n{END}{after}"))
}

/// The page with all figures.
fn page(run: &Run) -> String {
    let machine: String = run
        .machine
        .rows()
        .into_iter()
        .map(|(name, value)| format!("| {name} | {value} |\n"))
        .collect();
    let sections: String = section::ALL
        .iter()
        .map(|section| format!("\n{}", of_section(run, section)))
        .collect();
    format!(
        "# Performance\n\n\
         Written by `make bench-store` from [the stored run](bench/run.json); not to be edited here.\n\n\
         | | |\n| --- | --- |\n| command | `{}` |\n{machine}\n\
         {READING}\n\
         ## Targets\n\n{}\n\n\
         ![How far each figure is from its target](bench/{})\n\
         {sections}",
        run.command,
        table::conclusion(run),
        chart::OVERVIEW,
    )
}

const READING: &str = "\
Both sides of a comparison run in turn on this machine, which all processes of the measurement share. Shown are medians;
the ratio is the median of the ratios ours / baseline, pair by pair. A target is for the ratio where there is a
baseline, else for our median. A figure without a target is there to be seen.

| command | what it does |
| --- | --- |
| `make bench` | measures everything: table, JSON and charts in `target/bench` (`ONLY=1,2` for some sections) |
| `make bench-quick` | the same with fewer and shorter runs |
| `make bench-store` | stores the last run in `docs/bench`, and writes this page and the figures of README from it |
| `make bench-instructions` | counts instructions of the hot paths and compares them with those stored |
| `make bench-micro` | times of the hot paths of one node, each alone |

What bounds each path: [ARCHITECTURE.md](ARCHITECTURE.md#limits-of-speed).
";

fn of_section(run: &Run, section: &Section) -> String {
    let lines: Vec<&Line> = run.lines_of(section).collect();
    let mut parts = vec![
        format!("## {}. {}\n", section.number, section.title),
        format!("{}\n", section.about),
    ];
    if lines.is_empty() {
        parts.push(format!("{}.\n", capitalised(table::NOT_MEASURED)));
        return parts.join("\n");
    }
    parts.push(table::for_markdown(&lines));
    let missing: Vec<&str> = section
        .beside
        .iter()
        .filter(|name| !is_beside(&lines, name))
        .copied()
        .collect();
    if !missing.is_empty() {
        parts.push(format!("Beside {}: {}.\n", missing.join(" and "), table::NOT_MEASURED));
    }
    parts.push(chart_of("the figures of this section", &chart::of_section(section)));
    if run.series_of(section).next().is_some() {
        parts.push(chart_of("how they grow", &chart::growth_of(section)));
    }
    parts.join("\n")
}

fn is_beside(lines: &[&Line], name: &str) -> bool {
    let baselines = lines.iter().filter_map(|line| line.baseline.as_ref());
    baselines.into_iter().any(|baseline| baseline.name.starts_with(name))
}

fn chart_of(what: &str, file: &str) -> String {
    format!("![{}](bench/{file})\n", capitalised(what))
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::run;

    #[test]
    fn the_documents_show_the_stored_run() -> Result<()> {
        update(&testkit::workspace_root(), true)
    }

    #[test]
    fn the_page_says_how_where_and_what() {
        let text = page(&run());
        for part in [
            "| command | `make bench-quick` |",
            "| machine | Abacus 9, 2 cores, 8 GiB |",
            "| servers | nats-server 2.15.1, redis-server 7.0.15 |",
            "| commit | 0123456789, 2026-01-02 03:04 UTC |",
            "1 of 2 targets are met.",
            "](bench/overview.svg)",
            "## 1. Calls\n",
            "| get, 64 callers |",
            "](bench/section-1.svg)",
        ] {
            assert!(text.contains(part), "'{part}' is missing in:\n{text}");
        }
    }

    #[test]
    fn what_the_run_lacks_is_said() {
        let text = page(&run());
        assert!(
            text.contains(
                "Beside a provider of constants and a provider on redis-server: not measured in the stored run."
            ),
            "{text}"
        );
        let (_, lag) = text.split_once("## 2.").expect("a section of each");
        let (lag, _) = lag.split_once("## 3.").expect("a section of each");
        assert!(lag.contains("\nNot measured in the stored run.\n"), "{lag}");
    }

    #[test]
    fn readme_has_the_headline_figures() {
        let text = front(&run());
        for part in [
            "| get through",
            "](docs/bench/headline.svg)",
            "1 of 2 targets are met.",
            "Medians of `make bench-quick` on Abacus 9, 2 cores,",
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
            assert!(error.to_string().contains("bench: begin"), "{error}");
        }
    }
}
