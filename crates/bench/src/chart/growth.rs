//! How figures grow with a size.

use std::path::Path;

use anyhow::Result;
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;

use super::{extent, picture, plain, Area, BASELINE, GRID, INK, MISSED, OURS, TEXT, TITLE};
use crate::report::Series;
use crate::table;

const WIDTH: i32 = 900;
const PANEL: i32 = 400;

/// Figures that differ by more than this factor are drawn on a logarithmic scale.
const LOGARITHMIC_FROM: f64 = 20.0;

const COLORS: [RGBColor; 6] = [
    OURS,
    MISSED,
    RGBColor(60, 140, 70),
    RGBColor(150, 90, 170),
    RGBColor(190, 130, 20),
    BASELINE,
];

/// Draws a panel for all series of a section that share size and unit.
pub fn draw(series: &[&Series], path: &Path) -> Result<()> {
    let mut panels: Vec<Vec<&Series>> = Vec::new();
    for one in series.iter().copied().filter(|series| !series.points.is_empty()) {
        let fits = |panel: &&mut Vec<&Series>| {
            let other = panel[0];
            (&other.size, &other.unit) == (&one.size, &one.unit)
        };
        match panels.iter_mut().find(fits) {
            Some(panel) => panel.push(one),
            None => panels.push(vec![one]),
        }
    }
    let height = PANEL * panels.len().max(1) as i32;
    picture(path, (WIDTH, height), |area| {
        for (area, panel) in area.split_evenly((panels.len().max(1), 1)).iter().zip(&panels) {
            draw_panel(area, panel)?;
        }
        Ok(())
    })
}

fn draw_panel(area: &Area, panel: &[&Series]) -> Result<()> {
    let values = panel.iter().flat_map(|series| &series.points).map(|point| point.1);
    let (least, most) = extent(values).unwrap_or((1.0, 1.0));
    if least > 0.0 && most / least > LOGARITHMIC_FROM {
        draw_lines(area, panel, (least / 1.5..most * 1.5).log_scale())
    } else {
        draw_lines(area, panel, 0.0..most.max(f64::MIN_POSITIVE) * 1.15)
    }
}

fn draw_lines<Y>(area: &Area, panel: &[&Series], y: Y) -> Result<()>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let sizes = panel.iter().flat_map(|series| &series.points).map(|point| point.0);
    let (least, most) = extent(sizes).unwrap_or((1.0, 1.0));
    let words = format!("{} by {}", panel[0].unit, panel[0].size);
    let mut chart = ChartBuilder::on(area)
        .caption(words, ("sans-serif", TITLE, &INK))
        .margin(16)
        .margin_right(40)
        .x_label_area_size(48)
        .y_label_area_size(80)
        .build_cartesian_2d((least / 1.2..most * 1.2).log_scale(), y)
        .map_err(plain)?;
    let font = || ("sans-serif", TEXT, &INK);
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc(&panel[0].size)
        .y_desc(&panel[0].unit)
        .x_label_formatter(&|size| table::number(*size).trim_end_matches(".00").to_owned())
        .y_label_formatter(&|value| table::number(*value))
        .label_style(font())
        .axis_desc_style(font())
        .draw()
        .map_err(plain)?;
    for (series, &color) in panel.iter().zip(COLORS.iter().cycle()) {
        chart
            .draw_series(LineSeries::new(series.points.iter().copied(), color.stroke_width(2)).point_size(4))
            .map_err(plain)?
            .label(&series.name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], color.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.85))
        .border_style(GRID)
        .label_font(font())
        .draw()
        .map_err(plain)
}
