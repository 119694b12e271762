//! The charts of a run: SVG files that need no fonts of this machine.

mod comparison;
mod growth;
mod overview;
mod write;

use std::path::Path;

use anyhow::{anyhow, Context, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub use write::{growth_of, of_section, write, HEADLINE, OVERVIEW};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Colour of this cache.
const OURS: RGBColor = RGBColor(31, 101, 173);
/// Colour of whom we are compared with.
const BASELINE: RGBColor = RGBColor(150, 150, 150);
/// Colour of a target that is not met.
const MISSED: RGBColor = RGBColor(200, 60, 40);
/// Colour of axes and marks of targets.
const INK: RGBColor = RGBColor(60, 60, 60);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// Height of text in pixels. Letters are about half as wide, which is what the widths of columns are reckoned with.
const TEXT: i32 = 14;
const TITLE: i32 = 19;

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

    #[test]
    fn labels_have_at_most_two_lines() {
        assert_eq!(wrapped("short", 10), ["short"]);
        assert_eq!(wrapped("one two three", 9), ["one two", "three"]);
        assert_eq!(wrapped("one two three four five", 9), ["one two", "three fo…"]);
    }
}
