//! The charts of a run: SVG files that need no fonts of this machine.

mod comparison;
mod growth;
mod overview;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{anyhow, Context, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::Run;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Colour of this cache.
const OURS: RGBColor = RGBColor(31, 101, 173);
/// Colour of whom we are compared with.
const PEER: RGBColor = RGBColor(150, 150, 150);
/// Colour of a bar that does not hold.
const MISSED: RGBColor = RGBColor(200, 60, 40);
/// Colour of axes and marks of bars.
const INK: RGBColor = RGBColor(60, 60, 60);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// Height of text in pixels. Letters are about half as wide, which is what the widths of columns are reckoned with.
const TEXT: i32 = 14;
const TITLE: i32 = 19;

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

/// Draws a picture of some pixels on white.
fn picture(path: &Path, size: (i32, i32), draw: impl FnOnce(&Area) -> Result<()>) -> Result<()> {
    let area = SVGBackend::new(path, (size.0 as u32, size.1 as u32)).into_drawing_area();
    let drawn = area.fill(&WHITE).map_err(plain).and_then(|()| draw(&area));
    drawn
        .and_then(|()| area.present().map_err(plain))
        .with_context(|| format!("drawing {}", path.display()))
}

/// The errors of plotters borrow the drawing; their text does not.
fn plain(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{error}")
}

/// Where a text stands, seen from its point.
#[derive(Clone, Copy)]
enum Side {
    /// The text ends at the point.
    Left,
    /// The text begins at the point.
    Right,
    /// The point is in the middle.
    Middle,
}

fn text(area: &Area, words: &str, at: (i32, i32), side: Side, size: i32, color: RGBColor) -> Result<()> {
    let across = match side {
        Side::Left => HPos::Right,
        Side::Right => HPos::Left,
        Side::Middle => HPos::Center,
    };
    let font = ("sans-serif", size).into_font();
    let style = TextStyle::from(font).color(&color).pos(Pos::new(across, VPos::Center));
    area.draw_text(words, &style, at).map_err(plain)
}

fn title(area: &Area, words: &str) -> Result<()> {
    text(area, words, (16, 22), Side::Right, TITLE, INK)
}

/// A label of at most two lines that ends at a point.
fn label(area: &Area, words: &str, at: (i32, i32), letters: usize) -> Result<()> {
    let lines = wrapped(words, letters);
    let first = at.1 - (lines.len() as i32 - 1) * (TEXT + 2) / 2;
    for (number, line) in lines.iter().enumerate() {
        let y = first + number as i32 * (TEXT + 2);
        text(area, line, (at.0, y), Side::Left, TEXT, INK)?;
    }
    Ok(())
}

/// The words in at most two lines of about so many letters; what does not fit ends in an ellipsis.
fn wrapped(words: &str, letters: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words.split_whitespace() {
        let last = lines.len() - 1;
        let length = lines[last].chars().count() + word.chars().count() + 1;
        if length > letters && !lines[last].is_empty() && last == 0 {
            lines.push(word.into());
        } else {
            if !lines[last].is_empty() {
                lines[last].push(' ');
            }
            lines[last] += word;
        }
    }
    lines.into_iter().map(|line| shortened(&line, letters)).collect()
}

fn shortened(words: &str, letters: usize) -> String {
    if words.chars().count() <= letters {
        return words.into();
    }
    words.chars().take(letters - 1).chain(['…']).collect()
}

fn line(area: &Area, from: (i32, i32), to: (i32, i32), color: RGBColor, width: u32) -> Result<()> {
    let path = PathElement::new([from, to], color.stroke_width(width));
    area.draw(&path).map_err(plain)
}

fn block(area: &Area, from: (i32, i32), to: (i32, i32), color: RGBColor) -> Result<()> {
    area.draw(&Rectangle::new([from, to], color.filled())).map_err(plain)
}

/// Smallest and largest of some samples.
fn extent(samples: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    samples.into_iter().fold(None, |extent, sample| match extent {
        None => Some((sample, sample)),
        Some((least, most)) => Some((f64::min(least, sample), f64::max(most, sample))),
    })
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

    #[test]
    fn labels_have_at_most_two_lines() {
        assert_eq!(wrapped("short", 10), ["short"]);
        assert_eq!(wrapped("one two three", 9), ["one two", "three"]);
        assert_eq!(wrapped("one two three four five", 9), ["one two", "three fo…"]);
    }
}
