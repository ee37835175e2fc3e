//! Charts as SVG. Horizontal positions are in per cent and text is in pixels, so that labels keep their size at any width.
//! Colours come from the stylesheet.

use std::fmt::Write;
use std::ops::Range;

use domain::Timestamp;
use domain::text::grouped;

/// A point of a line: unix seconds and users.
pub(super) type Point = (i64, u64);

/// The height of the area of lines, and the width of its coordinates.
const AREA: (f64, f64) = (1_000.0, 200.0);
/// The room for labels above. The stylesheet has that of labels on the left.
const TOP: f64 = 10.0;
/// The room for labels below.
const BOTTOM: f64 = 26.0;
/// The possible intervals between labels of a time axis, in seconds: 1 minute to 30 days.
const STEPS: [i64; 15] = [
    60, 300, 600, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800, 345_600, 604_800,
    1_209_600, 2_592_000,
];
/// Most labels of a time axis.
const MAX_LABELS: i64 = 8;
/// Intervals of the vertical axis.
const ROWS: f64 = 4.0;
const SPARK: (f64, f64) = (120.0, 32.0);

/// The counts of a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Track {
    /// In order of time.
    pub(super) points: Vec<Point>,
    /// The times of counts that are withheld, in order. The line is interrupted there.
    pub(super) gaps: Vec<i64>,
}

/// A line of a chart.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// Its class in the stylesheet: `s0` to `s7`, or `before`.
    pub(super) class: String,
    pub(super) track: Track,
}

impl Track {
    /// A line without gaps.
    pub(super) fn of(points: Vec<Point>) -> Self {
        let gaps = Vec::new();
        Self { points, gaps }
    }

    /// The uninterrupted parts of the line.
    fn parts(&self) -> impl Iterator<Item = &[Point]> {
        self.points.chunk_by(|before, after| {
            let next = self.gaps.partition_point(|gap| *gap <= before.0);
            self.gaps.get(next).is_none_or(|gap| *gap >= after.0)
        })
    }
}

/// The beginning of the vertical axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    /// Zero, so that heights are in proportion to users.
    Zero,
    /// Near the lowest point, so that small changes are visible. Nothing is filled then.
    Lowest,
}

/// The labels of the vertical axis: the lowest, the step, and how many steps.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scale {
    bottom: f64,
    step: f64,
    steps: u32,
}

/// A sparkline: a line without axes, as high as a line of text.
pub(super) fn spark(track: &Track) -> String {
    let points = &track.points;
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return String::new();
    };
    let users = || points.iter().map(|point| point.1);
    let (lowest, highest) = (
        users().min().unwrap_or(0) as f64,
        users().max().unwrap_or(0) as f64,
    );
    // A tenth of the height at least, so that noise does not look like a change.
    let height = (highest - lowest).max(highest / 10.0).max(1.0);
    let middle = f64::midpoint(highest, lowest);
    let length = (last.0 - first.0).max(1) as f64;
    let place = |(at, users): &Point| {
        let x = 2.0 + (at - first.0) as f64 / length * (SPARK.0 - 4.0);
        let y = SPARK.1 / 2.0 - (*users as f64 - middle) / height * (SPARK.1 - 6.0);
        format!("{x:.1},{y:.1}")
    };
    let (width, height) = SPARK;
    let mut svg =
        format!("<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">");
    for part in track.parts() {
        let path = joined(part.iter().map(place));
        let _ = write!(svg, "<polyline points=\"{path}\"/>");
    }
    svg.push_str("</svg>");
    svg
}

/// The corners of a path. A path without length is a dot, because its ends are round.
fn joined(corners: impl Iterator<Item = String>) -> String {
    let mut corners: Vec<_> = corners.collect();
    if let [only] = &corners[..] {
        corners.push(only.clone());
    }
    corners.join(" ")
}

/// Lines with axes over `span`.
pub(super) fn chart(lines: &[Line], span: &Range<i64>, base: Base) -> String {
    let users = || {
        lines
            .iter()
            .flat_map(|line| &line.track.points)
            .map(|point| point.1)
    };
    let scale = Scale::of(users().min().unwrap_or(0), users().max().unwrap_or(0), base);
    let (width, height) = AREA;
    let mut svg = format!(
        "<svg class=\"axes\" width=\"100%\" height=\"{}\" overflow=\"visible\">",
        TOP + height + BOTTOM
    );
    let mut grid = String::new();
    for row in 0..=scale.steps {
        let y = height - f64::from(row) / f64::from(scale.steps) * height;
        let label = compact(scale.bottom + f64::from(row) * scale.step);
        let _ = write!(
            svg,
            "<text class=\"y\" x=\"-8\" y=\"{:.1}\">{label}</text>",
            TOP + y + 4.0
        );
        let _ = write!(
            grid,
            "<line x1=\"0\" x2=\"{width}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
        );
    }
    let _ = write!(
        svg,
        "<svg class=\"area\" y=\"{TOP}\" width=\"100%\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         preserveAspectRatio=\"none\" overflow=\"visible\">{grid}"
    );
    let filled = base == Base::Zero && lines.len() == 1;
    for line in lines {
        for part in line.track.parts() {
            svg.push_str(&drawn(&line.class, part, span, scale, filled));
        }
    }
    let _ = write!(
        svg,
        "</svg><svg class=\"ticks\" y=\"{}\" height=\"{BOTTOM}\" overflow=\"visible\">",
        TOP + height
    );
    svg.push_str(&ticks(span));
    svg.push_str("</svg></svg>");
    svg
}

fn drawn(class: &str, points: &[Point], span: &Range<i64>, scale: Scale, filled: bool) -> String {
    let place = |(at, users): &Point| {
        let (x, y) = (x(*at, span), scale.height_of(*users as f64));
        format!("{x:.1},{y:.1}")
    };
    let path = joined(points.iter().map(place));
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return String::new();
    };
    let area = match filled {
        true => format!(
            "<polygon class=\"{class}\" points=\"{:.1},{bottom} {path} {:.1},{bottom}\"/>",
            x(first.0, span),
            x(last.0, span),
            bottom = AREA.1,
        ),
        false => String::new(),
    };
    format!("{area}<polyline class=\"{class}\" points=\"{path}\"/>")
}

fn x(at: i64, span: &Range<i64>) -> f64 {
    let length = (span.end - span.start).max(1) as f64;
    (at - span.start) as f64 / length * AREA.0
}

/// The labels of the time axis in UTC. The page's script replaces them by those of the reader's time zone.
fn ticks(span: &Range<i64>) -> String {
    let length = (span.end - span.start).max(1);
    let step = step(length);
    let first = span.start.div_euclid(step) + 1;
    let mut text = String::new();
    for number in first..=first + MAX_LABELS {
        let at = number * step;
        let place = (at - span.start) as f64 / length as f64 * 100.0;
        // A label at the very edge would be cut off.
        if !(2.0..=98.0).contains(&place) {
            continue;
        }
        // A phone has room for every second label.
        let class = if number % 2 == 0 { "even" } else { "odd" };
        let _ = write!(
            text,
            "<text class=\"{class}\" x=\"{place:.2}%\" y=\"18\">{}</text>",
            label(at)
        );
    }
    text
}

/// The seconds between two labels of a time axis.
pub(super) fn step(length: i64) -> i64 {
    let fits = |step: &&i64| length / **step <= MAX_LABELS;
    let longest = (length / MAX_LABELS).max(1);
    STEPS.iter().find(fits).copied().unwrap_or(longest)
}

fn label(at: i64) -> String {
    let form = match at.rem_euclid(86_400) {
        0 => "%-d %b",
        _ => "%H:%M",
    };
    let at = Timestamp::from_second(at).unwrap_or_default();
    at.strftime(form).to_string()
}

impl Scale {
    fn of(lowest: u64, highest: u64, base: Base) -> Self {
        let (lowest, highest) = match base {
            Base::Zero => (0.0, highest.max(1) as f64),
            Base::Lowest => (lowest as f64, (highest as f64).max(lowest as f64 + 1.0)),
        };
        let rough = (highest - lowest) / ROWS;
        let power = 10_f64.powf(rough.log10().floor());
        let nice = [1.0, 2.0, 2.5, 5.0, 10.0].map(|nice| nice * power);
        let step = nice.into_iter().find(|step| *step >= rough);
        // There are no halves of users.
        let step = step.unwrap_or(rough).max(1.0).ceil();
        let bottom = (lowest / step).floor() * step;
        let steps = ((highest - bottom) / step).ceil().max(1.0);
        Self {
            bottom,
            step,
            steps: steps as u32,
        }
    }

    fn height_of(self, users: f64) -> f64 {
        let height = self.step * f64::from(self.steps);
        AREA.1 - (users - self.bottom) / height * AREA.1
    }
}

/// A number of at most seven characters: `1,200`, `12.5k`, `1.25M`.
fn compact(number: f64) -> String {
    let short = |unit: f64, name: &str| {
        let text = format!("{:.2}", number / unit);
        format!("{}{name}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match number {
        1e9.. => short(1e9, "B"),
        1e6.. => short(1e6, "M"),
        1e4.. => short(1e3, "k"),
        _ => grouped(number.round().max(0.0) as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_795_262_400;

    fn line(points: Vec<Point>) -> Line {
        Line {
            class: "s0".to_owned(),
            track: Track::of(points),
        }
    }

    #[test]
    fn a_line_is_interrupted_where_a_count_is_withheld() {
        let track = Track {
            points: [0, 60, 180, 240, 360]
                .map(|after| (NOON + after, 10))
                .to_vec(),
            gaps: [-60, 120, 300, 420].map(|after| NOON + after).to_vec(),
        };
        let lengths: Vec<_> = track.parts().map(<[Point]>::len).collect();
        assert_eq!(lengths, [2, 2, 1]);
        assert_eq!(spark(&track).matches("<polyline").count(), 3);
        let line = Line {
            class: "s0".to_owned(),
            track,
        };
        let svg = chart(&[line], &(NOON..NOON + 360), Base::Zero);
        assert_eq!(svg.matches("<polyline").count(), 3, "{svg}");
        assert_eq!(svg.matches("<polygon").count(), 3, "{svg}");
        assert!(
            svg.contains("points=\"1000.0,33.3 1000.0,33.3\""),
            "a dot: {svg}"
        );
    }

    #[test]
    fn a_chart_divides_time_where_people_look() {
        let points: Vec<Point> = (0..=14).map(|day| (NOON + day * 86_400, 1_000)).collect();
        let svg = chart(&[line(points)], &(NOON..NOON + 14 * 86_400), Base::Zero);
        assert!(svg.starts_with("<svg "), "{svg}");
        assert!(svg.contains("23 Nov") && svg.contains("1,000"), "{svg}");
        let hours = chart(&[], &(NOON..NOON + 6 * 3_600), Base::Zero);
        assert!(hours.contains("14:00"), "{hours}");
        for length in [60, 3_600, 86_400, 90 * 86_400, 3_650 * 86_400] {
            let labels = ticks(&(NOON + 7..NOON + 7 + length))
                .matches("<text")
                .count();
            assert!(labels <= 8, "{labels} labels in {length} s");
        }
    }

    #[test]
    fn heights_are_in_proportion_unless_the_base_is_the_lowest_point() {
        let zero = Scale::of(900, 1_000, Base::Zero);
        assert_eq!((zero.bottom, zero.step, zero.steps), (0.0, 250.0, 4));
        assert_eq!(zero.height_of(500.0), AREA.1 / 2.0);
        let near = Scale::of(913, 1_000, Base::Lowest);
        assert_eq!((near.bottom, near.step, near.steps), (900.0, 25.0, 4));
        assert_eq!(Scale::of(0, 0, Base::Zero).steps, 1);
        assert_eq!(Scale::of(7, 7, Base::Lowest).bottom, 7.0);
        let line = line(vec![(NOON, 900), (NOON + 60, 1_000)]);
        let drawn = |base| chart(std::slice::from_ref(&line), &(NOON..NOON + 60), base);
        assert!(drawn(Base::Zero).contains("<polygon"));
        assert!(!drawn(Base::Lowest).contains("<polygon"));
    }

    #[test]
    fn labels_are_short() {
        let texts = [0.0, 950.0, 9_999.0, 12_000.0, 12_500.0, 1_250_000.0, 3e9].map(compact);
        assert_eq!(texts, ["0", "950", "9,999", "12k", "12.5k", "1.25M", "3B"]);
    }

    #[test]
    fn drawings_hold_nothing_that_a_strict_policy_refuses() {
        for svg in [
            spark(&Track::default()),
            spark(&Track::of(vec![(NOON, 5)])),
            spark(&Track::of(vec![(NOON, 5), (NOON + 60, 6)])),
            chart(&[], &(NOON..NOON + 60), Base::Lowest),
            chart(&[line(vec![(NOON, 0)])], &(NOON..NOON), Base::Zero),
        ] {
            for refused in ["style=", "<style", "<script", "href", "NaN", "inf", " on"] {
                assert!(!svg.contains(refused), "{refused}: {svg}");
            }
        }
    }
}
