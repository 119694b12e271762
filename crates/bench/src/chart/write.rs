//! All charts of a run.

use std::path::Path;

use anyhow::{Context, Result};

use super::{comparison, growth, overview};
use crate::headline;
use crate::report::Run;
use crate::section::{self, Section};

/// Writes all charts of a run into a folder. Charts of earlier runs are removed.
pub fn write(run: &Run, folder: &Path) -> Result<()> {
    remove_old(folder)?;
    let file = |name: &str| folder.join(name);
    if !run.lines.is_empty() {
        overview::draw(run, &file(OVERVIEW))?;
    }
    let headline: Vec<_> = headline::lines(run).collect();
    if !headline.is_empty() {
        comparison::draw("Medians, with smallest and largest sample", &headline, &file(HEADLINE))?;
    }
    for section in &section::ALL {
        let lines: Vec<_> = run.lines_of(section).collect();
        if !lines.is_empty() {
            let title = format!("{}: medians, with smallest and largest sample", section.title);
            comparison::draw(&title, &lines, &file(&of_section(section)))?;
        }
        let series: Vec<_> = run.series_of(section).collect();
        if !series.is_empty() {
            growth::draw(&series, &file(&growth_of(section)))?;
        }
    }
    Ok(())
}

/// How far every figure is from its target.
pub const OVERVIEW: &str = "overview.svg";

/// The headline figures beside their baselines.
pub const HEADLINE: &str = "headline.svg";

/// The lines of a section beside their baselines.
pub fn of_section(section: &Section) -> String {
    format!("section-{}.svg", section.number)
}

/// How figures of a section grow with a size.
pub fn growth_of(section: &Section) -> String {
    format!("growth-{}.svg", section.number)
}

fn remove_old(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "svg") {
            std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::report::Series;
    use crate::table::tests::run;

    #[test]
    fn every_section_has_a_chart_and_old_ones_go() -> Result<()> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("section-7.svg"), "old")?;
        let mut run = run();
        run.series.push(Series {
            section: 8,
            name: "set".into(),
            size: "keys".into(),
            unit: "ns".into(),
            points: vec![(1e3, 100.0), (1e6, 130.0)],
        });
        write(&run, folder.path())?;
        let names: Result<BTreeSet<_>, _> = std::fs::read_dir(folder.path())?
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .collect();
        let expected = [
            "growth-8.svg",
            "overview.svg",
            "section-1.svg",
            "section-8.svg",
            "section-9.svg",
        ];
        assert_eq!(names?, BTreeSet::from(expected.map(str::to_owned)));
        let overview = std::fs::read_to_string(folder.path().join("overview.svg"))?;
        assert!(overview.contains("get, 64 callers"), "{overview}");
        Ok(())
    }
}
