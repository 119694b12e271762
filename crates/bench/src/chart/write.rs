//! All charts of a run.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};

use super::{comparison, growth, overview};
use crate::report::Run;

/// Writes all charts of a run into a folder: `overview.svg`, `bar-N.svg` for every bar that has lines, and `growth.svg`
/// if there are series. Charts of earlier runs are removed.
pub fn write(run: &Run, folder: &Path) -> Result<()> {
    remove_old(folder)?;
    let file = |name: &str| folder.join(name);
    if !run.lines.is_empty() {
        overview::draw(run, &file("overview.svg"))?;
    }
    let bars: BTreeSet<u8> = run.lines.iter().map(|line| line.bar).collect();
    for bar in bars {
        let lines: Vec<_> = run.lines.iter().filter(|line| line.bar == bar).collect();
        comparison::draw(bar, &lines, &file(&format!("bar-{bar}.svg")))?;
    }
    if !run.series.is_empty() {
        growth::draw(&run.series, &file("growth.svg"))?;
    }
    Ok(())
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
    use super::*;
    use crate::report::Series;
    use crate::table::tests::run;

    #[test]
    fn every_bar_has_a_chart_and_old_ones_go() -> Result<()> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("bar-7.svg"), "old")?;
        let mut run = run();
        run.series.push(Series {
            bar: 8,
            name: "set".into(),
            size: "keys".into(),
            unit: "ns".into(),
            points: vec![(1e3, 100.0), (1e6, 130.0)],
        });
        write(&run, folder.path())?;
        let names: Result<BTreeSet<_>, _> = std::fs::read_dir(folder.path())?
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .collect();
        let expected = ["bar-1.svg", "bar-8.svg", "bar-9.svg", "growth.svg", "overview.svg"];
        assert_eq!(names?, BTreeSet::from(expected.map(str::to_owned)));
        let overview = std::fs::read_to_string(folder.path().join("overview.svg"))?;
        assert!(overview.contains("get, 64 callers"), "{overview}");
        Ok(())
    }
}
