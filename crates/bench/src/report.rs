//! What `make bench` has measured, and what it is compared with.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::section::Section;

/// Which way a target points.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub enum Target {
    /// Reported only.
    None,
    /// The result has to be at least this.
    AtLeast(f64),
    /// The result has to be at most this.
    AtMost(f64),
}

/// One line of the table. The result is the ratio ours / baseline where there is a baseline, else our median.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Number of its section, see [`crate::section::ALL`].
    pub section: u8,
    /// What was measured, with its parameters.
    pub what: String,
    /// Unit of `ours` and `baseline`.
    pub unit: String,
    /// Our samples, in the order in which they were taken.
    pub ours: Vec<f64>,
    /// Who we are compared with.
    pub baseline: Option<Baseline>,
    /// What it has to reach.
    pub target: Target,
    /// What a reader has to know beside the figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The other side of a comparison.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Baseline {
    /// For example `redis-server 7.0.15, one replica`.
    pub name: String,
    /// Its samples; sample `n` was taken right before or after our sample `n`.
    pub samples: Vec<f64>,
}

impl Line {
    /// A comparison: the result is the median of the ratios ours / baseline, pair by pair.
    pub fn against(
        section: u8,
        what: impl Into<String>,
        unit: &str,
        ours: Vec<f64>,
        name: impl Into<String>,
        samples: Vec<f64>,
        target: Target,
    ) -> Line {
        let name = name.into();
        let baseline = Some(Baseline { name, samples });
        let (what, unit) = (what.into(), unit.into());
        Line {
            section,
            what,
            unit,
            ours,
            baseline,
            target,
            note: None,
        }
    }

    /// A figure of its own: the result is its median.
    pub fn alone(section: u8, what: impl Into<String>, unit: &str, ours: Vec<f64>, target: Target) -> Line {
        let (what, unit) = (what.into(), unit.into());
        Line {
            section,
            what,
            unit,
            ours,
            baseline: None,
            target,
            note: None,
        }
    }

    /// Adds what a reader has to know beside the figure; it stands below the table.
    pub fn note(mut self, note: impl Into<String>) -> Line {
        self.note = Some(note.into());
        self
    }

    /// What is compared with the target for each pair of samples: ours / baseline, or ours where there is no baseline.
    /// Pairs that say nothing (a baseline of 0) are left out.
    pub fn result_samples(&self) -> Vec<f64> {
        let result: Vec<f64> = match &self.baseline {
            Some(baseline) => self
                .ours
                .iter()
                .zip(&baseline.samples)
                .map(|(ours, baseline)| ours / baseline)
                .collect(),
            None => self.ours.clone(),
        };
        result.into_iter().filter(|number| number.is_finite()).collect()
    }

    /// The number that is compared with the target; `None` if nothing was measured.
    pub fn result(&self) -> Option<f64> {
        median(&self.result_samples())
    }

    /// Whether the target is met; `None` if there is none. A target of which nothing was measured is not met.
    pub fn met(&self) -> Option<bool> {
        let result = self.result();
        match self.target {
            Target::None => None,
            Target::AtLeast(least) => Some(result.is_some_and(|number| number >= least)),
            Target::AtMost(most) => Some(result.is_some_and(|number| number <= most)),
        }
    }
}

/// How a figure grows with a size: one line of a chart, without a target.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Series {
    /// Number of its section.
    pub section: u8,
    /// What was measured, for example `set`. Short: it stands in a legend.
    pub name: String,
    /// What grows, for example `keys`.
    pub size: String,
    /// Unit of the figure. Series of one section, size and unit share a chart.
    pub unit: String,
    /// Size (above 0) and figure.
    pub points: Vec<(f64, f64)>,
}

/// One run of `make bench`, as `run.json` holds it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The command that repeats it.
    pub command: String,
    /// Where and with what it was measured.
    pub machine: Machine,
    /// The table.
    pub lines: Vec<Line>,
    /// For the charts of growth.
    #[serde(default)]
    pub series: Vec<Series>,
}

impl Run {
    /// Reads a stored run.
    pub fn read(path: &Path) -> Result<Run> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "no run at {}; `make bench` and `make bench-store` make one",
                path.display()
            )
        })?;
        serde_json::from_str(&text).with_context(|| format!("{} is not a run of this version", path.display()))
    }

    /// Writes the run.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// The lines of a section.
    pub fn lines_of<'a>(&'a self, section: &'a Section) -> impl Iterator<Item = &'a Line> {
        self.lines.iter().filter(|line| line.section == section.number)
    }

    /// The series of a section.
    pub fn series_of<'a>(&'a self, section: &'a Section) -> impl Iterator<Item = &'a Series> {
        self.series.iter().filter(|series| series.section == section.number)
    }

    /// The lines that have a target, and those of them that do not meet it.
    pub fn targets(&self) -> (usize, Vec<&Line>) {
        let with_target = self.lines.iter().filter(|line| line.target != Target::None).count();
        let missed = self.lines.iter().filter(|line| line.met() == Some(false));
        (with_target, missed.collect())
    }
}

/// The middle sample, or the mean of the two in the middle; `None` of nothing.
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    Some(if sorted.len() % 2 == 1 {
        upper
    } else {
        (sorted[sorted.len() / 2 - 1] + upper) / 2.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn against(ours: &[f64], baseline: &[f64], target: Target) -> Line {
        Line::against(
            1,
            "gets",
            "per second",
            ours.to_vec(),
            "baseline",
            baseline.to_vec(),
            target,
        )
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        // The machine was three times slower during the second pair; the ratio of the medians would be 1.
        let line = against(&[30.0, 10.0, 20.0], &[15.0, 5.0, 20.0], Target::AtLeast(2.0));
        assert_eq!(line.result(), Some(2.0));
        assert_eq!(line.met(), Some(true));
    }

    #[test]
    fn a_target_includes_its_own_number() {
        assert_eq!(against(&[2.0], &[1.0], Target::AtMost(2.0)).met(), Some(true));
        assert_eq!(against(&[2.1], &[1.0], Target::AtMost(2.0)).met(), Some(false));
        assert_eq!(against(&[1.9], &[1.0], Target::AtLeast(2.0)).met(), Some(false));
    }

    #[test]
    fn without_a_baseline_our_median_is_the_result() {
        let line = Line::alone(8, "growth", "times", vec![1.0, 1.4, 1.2], Target::AtMost(1.25));
        assert_eq!((line.result(), line.met()), (Some(1.2), Some(true)));
    }

    #[test]
    fn a_figure_without_a_target_misses_none() {
        let line = Line::alone(8, "size", "MB", vec![1.0], Target::None);
        assert_eq!(line.met(), None);
    }

    #[test]
    fn a_target_of_which_nothing_was_measured_is_not_met() {
        assert_eq!(against(&[], &[], Target::AtLeast(1.0)).met(), Some(false));
        assert_eq!(against(&[1.0], &[0.0], Target::AtLeast(1.0)).met(), Some(false));
    }
}
