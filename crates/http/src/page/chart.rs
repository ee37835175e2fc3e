//! Renders charts as SVG. The stylesheet replaces the colours, so that one drawing works in light and dark mode.

use std::fmt::Write;
use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use domain::Timestamp;
use domain::text::grouped;

/// A point of a line: unix seconds and users.
pub(super) type Point = (i64, u64);

const SPARK: (u32, u32) = (120, 32);
const CHART: (u32, u32) = (720, 260);
/// The possible intervals between labels of a time axis, in seconds: 1 minute to 30 days.
const STEPS: [i64; 15] = [
    60, 300, 600, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800, 345_600, 604_800,
    1_209_600, 2_592_000,
];
/// Most labels of a time axis.
const MAX_LABELS: i64 = 8;

type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// A sparkline: a line without axes, as high as a line of text.
pub(super) fn spark(points: &[Point]) -> String {
    svg(SPARK, |area| {
        let (Some(first), Some(last)) = (points.first(), points.last()) else {
            return Ok(());
        };
        let mut chart = ChartBuilder::on(area).margin(2).build_cartesian_2d(
            TimeAxis(first.0..last.0.max(first.0 + 1)),
            around(points, false),
        )?;
        chart.draw_series(LineSeries::new(
            points.iter().map(|(at, users)| (*at, *users as f64)),
            BLACK.stroke_width(2),
        ))?;
        Ok(())
    })
}

/// A line with axes over `span`. With `from_zero` the vertical axis begins at zero.
pub(super) fn chart(points: &[Point], span: Range<i64>, from_zero: bool) -> String {
    svg(CHART, |area| {
        let heights = around(points, from_zero);
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(24)
            .x_label_area_size(28)
            .y_label_area_size(72)
            .build_cartesian_2d(TimeAxis(span.clone()), heights.clone())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .y_labels(5)
            .label_style(("sans-serif", 13))
            .y_label_formatter(&|users| grouped(users.round().max(0.0) as u64))
            .draw()?;
        let line = || points.iter().map(|(at, users)| (*at, *users as f64));
        chart.draw_series(AreaSeries::new(line(), heights.start, BLACK.mix(0.15)))?;
        chart.draw_series(LineSeries::new(line(), BLACK.stroke_width(2)))?;
        Ok(())
    })
}

fn svg(
    size: (u32, u32),
    draw: impl FnOnce(&DrawingArea<SVGBackend<'_>, plotters::coord::Shift>) -> Drawn,
) -> String {
    let mut text = String::new();
    let drawn = {
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        draw(&area).and_then(|()| area.present())
    };
    match drawn {
        Ok(()) => text,
        // A page without a chart is better than no page.
        Err(error) => {
            tracing::warn!(%error, "a chart could not be drawn");
            String::new()
        }
    }
}

/// The vertical range of `points`, with a margin.
fn around(points: &[Point], from_zero: bool) -> Range<f64> {
    let users = || points.iter().map(|(_, users)| *users);
    let highest = users().max().unwrap_or(0) as f64;
    let lowest = match from_zero {
        true => 0.0,
        false => users().min().unwrap_or(0) as f64,
    };
    let air = ((highest - lowest) * 0.1).max(1.0);
    (lowest - air).max(0.0)..highest + air
}

/// A time axis in unix seconds, with labels at whole hours and days in UTC.
struct TimeAxis(Range<i64>);

impl Ranged for TimeAxis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = i64;

    fn map(&self, value: &i64, limit: (i32, i32)) -> i32 {
        let (start, end) = (self.0.start as f64, self.0.end as f64);
        RangedCoordf64::from(start..end).map(&(*value as f64), limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<i64> {
        let step = self.step();
        let first = self.0.start.div_euclid(step) * step;
        (0..=MAX_LABELS)
            .map(|index| first + index * step)
            .filter(|at| self.0.contains(at))
            .collect()
    }

    fn range(&self) -> Range<i64> {
        self.0.clone()
    }
}

impl TimeAxis {
    fn step(&self) -> i64 {
        let length = self.0.end - self.0.start;
        let fits = |step: &&i64| length / **step < MAX_LABELS;
        let longest = (length / MAX_LABELS).max(1);
        STEPS.iter().find(fits).copied().unwrap_or(longest)
    }
}

impl ValueFormatter<i64> for TimeAxis {
    fn format_ext(&self, value: &i64) -> String {
        let Ok(at) = Timestamp::from_second(*value) else {
            return String::new();
        };
        let form = match self.step() {
            86_400.. => "%-d %b",
            _ if self.0.end - self.0.start > 86_400 => "%-d %b %H:%M",
            _ => "%H:%M",
        };
        let mut text = String::new();
        // Only a bad format fails.
        let _ = write!(text, "{}", at.strftime(form));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_795_262_400;

    #[test]
    fn a_chart_divides_time_where_people_look() {
        let points: Vec<Point> = (0..=14).map(|day| (NOON + day * 86_400, 1_000)).collect();
        let svg = chart(&points, NOON..NOON + 14 * 86_400, false);
        assert!(svg.starts_with("<svg "), "{svg}");
        assert!(svg.contains("23 Nov") && svg.contains("1,00"), "{svg}");
        let hours = chart(&points, NOON..NOON + 6 * 3_600, false);
        assert!(hours.contains("14:00"), "{hours}");
    }

    #[test]
    fn drawings_hold_nothing_that_a_strict_policy_refuses() {
        for svg in [
            spark(&[]),
            spark(&[(NOON, 5)]),
            spark(&[(NOON, 5), (NOON + 60, 6)]),
            chart(&[], NOON..NOON + 60, true),
        ] {
            for refused in ["style=", "<style", "<script", "href", "NaN", " on"] {
                assert!(!svg.contains(refused), "{refused}: {svg}");
            }
        }
    }
}
