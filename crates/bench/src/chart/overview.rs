//! How far every figure is from its target, on one page.

use std::path::Path;

use anyhow::Result;

use super::{extent, label, line, picture, text, title, Area, Side, GRID, INK, MISSED, OURS, TEXT};
use crate::report::{Line, Run, Target};
use crate::table;

const WIDTH: i32 = 1080;
const ROW: i32 = 42;
const TOP: i32 = 76;
/// The columns of labels, of marks and of numbers.
const LABELS: i32 = 410;
const LEFT: i32 = 430;
const RIGHT: i32 = 830;
const NUMBERS: i32 = 850;

/// Figures further from their target than so many times stand at the edge.
const FURTHEST: f64 = 100.0;

/// Draws every line that has a target.
pub fn draw(run: &Run, path: &Path) -> Result<()> {
    let lines: Vec<&Line> = run.lines.iter().filter(|line| line.target != Target::None).collect();
    let scale = Scale::of(lines.iter().flat_map(|line| margins(line)));
    let bottom = TOP + ROW * lines.len() as i32;
    picture(path, (WIDTH, bottom + 44), |area| {
        title(area, "Times better than the target asks for (right of the line: met)")?;
        text(area, "measured (target)", (NUMBERS, TOP - 20), Side::Right, TEXT, INK)?;
        axis(area, &scale, bottom)?;
        for (number, line) in lines.iter().enumerate() {
            row(area, &scale, line, TOP + ROW * number as i32 + ROW / 2)?;
        }
        Ok(())
    })
}

fn row(area: &Area, scale: &Scale, figure: &Line, y: i32) -> Result<()> {
    let color = if figure.met() == Some(true) { OURS } else { MISSED };
    label(area, &format!("{}. {}", figure.section, figure.what), (LABELS, y), 56)?;
    if let Some((least, most)) = extent(margins(figure)) {
        line(area, (scale.x(least), y), (scale.x(most), y), color, 2)?;
    }
    let numbers = match figure.result() {
        Some(result) => {
            let x = scale.x(margin(figure.target, result));
            super::block(area, (x - 5, y - 5), (x + 5, y + 5), color)?;
            format!("{} ({})", table::number(result), table::target(figure.target))
        }
        None => format!("not measured ({})", table::target(figure.target)),
    };
    text(area, &numbers, (NUMBERS, y), Side::Right, TEXT, color)
}

fn axis(area: &Area, scale: &Scale, bottom: i32) -> Result<()> {
    for tick in scale.ticks() {
        let x = scale.x(tick);
        line(area, (x, TOP), (x, bottom), GRID, 1)?;
        text(area, &format!("{tick}x"), (x, bottom + 16), Side::Middle, TEXT, INK)?;
    }
    line(area, (scale.x(1.0), TOP), (scale.x(1.0), bottom), INK, 2)
}

/// How many times better than its target a number is; below 1 the target is missed.
fn margin(target: Target, result: f64) -> f64 {
    let times = match target {
        Target::None => 1.0,
        Target::AtLeast(least) => result / least,
        Target::AtMost(most) => most / result,
    };
    // 0 of at most 0 is no number, and meets it.
    if times.is_nan() {
        1.0
    } else {
        times.clamp(1.0 / FURTHEST, FURTHEST)
    }
}

fn margins(line: &Line) -> Vec<f64> {
    let result = line.result_samples().into_iter();
    result.map(|sample| margin(line.target, sample)).collect()
}

/// A logarithmic axis around 1.
struct Scale {
    least: f64,
    most: f64,
}

impl Scale {
    fn of(samples: impl Iterator<Item = f64>) -> Scale {
        let (least, most) = extent(samples).unwrap_or((1.0, 1.0));
        Scale {
            least: least.min(0.5) * 0.9,
            most: most.max(2.0) * 1.1,
        }
    }

    fn x(&self, times: f64) -> i32 {
        let part = (times / self.least).ln() / (self.most / self.least).ln();
        LEFT + (f64::from(RIGHT - LEFT) * part).round() as i32
    }

    /// The round numbers of the axis, not so many that their texts touch.
    fn ticks(&self) -> Vec<f64> {
        let all = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];
        let shown = |tick: &f64| (self.least..=self.most).contains(tick);
        let ticks: Vec<f64> = all.into_iter().filter(shown).collect();
        if ticks.len() <= 8 {
            return ticks;
        }
        ticks.into_iter().filter(|tick| tick.log10().fract() == 0.0).collect()
    }
}
