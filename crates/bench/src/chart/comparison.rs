//! Ours beside the baseline's, for the lines of one section.

use std::path::Path;

use anyhow::Result;

use super::{block, extent, label, line, picture, shortened, text, title, Area, Side, BASELINE, GRID, INK, OURS, TEXT};
use crate::report::{median, Line, Target};
use crate::table;

const WIDTH: i32 = 1080;
const ROW: i32 = 62;
const TOP: i32 = 72;
/// Height of one of the two blocks of a row.
const HEIGHT: i32 = 18;
/// The columns of labels, of blocks and of numbers.
const LABELS: i32 = 380;
const LEFT: i32 = 396;
const RIGHT: i32 = 700;
const NUMBERS: i32 = 714;

/// Draws some lines. Their units differ, so each has a scale of its own, and its numbers beside it.
pub fn draw(words: &str, lines: &[&Line], path: &Path) -> Result<()> {
    let bottom = TOP + ROW * lines.len() as i32;
    picture(path, (WIDTH, bottom + 12), |area| {
        title(area, words)?;
        legend(area)?;
        for (number, line) in lines.iter().enumerate() {
            row(area, line, TOP + ROW * number as i32 + ROW / 2)?;
        }
        line(area, (LEFT, TOP), (LEFT, bottom), INK, 1)
    })
}

fn legend(area: &Area) -> Result<()> {
    let words = "each row has a scale of its own";
    text(area, words, (16, 50), Side::Right, TEXT, INK)?;
    for (x, color, words) in [(LEFT, OURS, "this cache"), (LEFT + 130, BASELINE, "the baseline")] {
        block(area, (x, 44), (x + 12, 56), color)?;
        text(area, words, (x + 20, 50), Side::Right, TEXT, INK)?;
    }
    Ok(())
}

fn row(area: &Area, figure: &Line, y: i32) -> Result<()> {
    line(area, (16, y + ROW / 2), (WIDTH - 16, y + ROW / 2), GRID, 1)?;
    label(area, &figure.what, (LABELS, y), 52)?;
    let baseline = figure.baseline.iter().flat_map(|baseline| &baseline.samples);
    let all = figure.ours.iter().chain(baseline).copied().chain(own_target(figure));
    let most = extent(all).map_or(0.0, |(_, most)| most);
    let scale = |value: f64| {
        LEFT + if most > 0.0 {
            (f64::from(RIGHT - LEFT) * value / most).round() as i32
        } else {
            0
        }
    };
    let unit = &figure.unit;
    match &figure.baseline {
        Some(baseline) => {
            let above = y - HEIGHT / 2 - 2;
            samples(area, &figure.ours, unit, above, OURS, scale)?;
            let words = format!("{unit}  {}", baseline.name);
            samples(area, &baseline.samples, &words, above + HEIGHT + 4, BASELINE, scale)
        }
        None => {
            samples(area, &figure.ours, unit, y, OURS, scale)?;
            own_target(figure).map_or(Ok(()), |target| {
                let x = scale(target);
                line(area, (x, y - HEIGHT), (x, y + HEIGHT), INK, 2)
            })
        }
    }
}

/// The target, where it is in the unit of the figure.
fn own_target(figure: &Line) -> Option<f64> {
    match figure.target {
        Target::AtLeast(number) | Target::AtMost(number) if figure.baseline.is_none() => Some(number),
        _ => None,
    }
}

fn samples(
    area: &Area,
    samples: &[f64],
    words: &str,
    y: i32,
    color: plotters::style::RGBColor,
    scale: impl Fn(f64) -> i32,
) -> Result<()> {
    let (Some(median), Some((least, most))) = (median(samples), extent(samples.iter().copied())) else {
        return text(area, "not measured", (NUMBERS, y), Side::Right, TEXT, INK);
    };
    block(area, (LEFT, y - HEIGHT / 2), (scale(median), y + HEIGHT / 2), color)?;
    let (least, most) = (scale(least), scale(most));
    line(area, (least, y), (most, y), INK, 1)?;
    for x in [least, most] {
        line(area, (x, y - 4), (x, y + 4), INK, 1)?;
    }
    let words = shortened(&format!("{} {words}", table::number(median)), 50);
    text(area, &words, (NUMBERS, y), Side::Right, TEXT, INK)
}
