//! A chart with its legend and the table of its points.

use std::collections::BTreeMap;
use std::ops::Range;

use askama::Template;

use super::chart::{self, Base, Line, Track, chart};
use super::words::plural;
use domain::Timestamp;
use domain::text::grouped;

/// The rest of a range in which a young service has no points is not drawn, from this share on.
const MAX_EMPTY: i64 = 8;

/// A chart with its legend and the table of its points.
#[derive(Template)]
#[template(path = "graph.html")]
pub(super) struct Graph {
    /// The name in ids of elements.
    id: &'static str,
    svg: String,
    /// The text for screen readers.
    label: String,
    /// The drawn range in unix seconds, and the seconds between its labels.
    span: Range<i64>,
    step: i64,
    lines: Vec<Named>,
    rows: Vec<Row>,
    /// Since when there are points, if that is later than the beginning of the range.
    since: Option<Moment>,
    /// Whether heights are not in proportion to users.
    is_cut: bool,
    /// Whether a line is interrupted.
    has_gaps: bool,
    /// Whether the lines need names.
    has_legend: bool,
    /// Whether the time zone is named: once on a page is enough.
    names_zone: bool,
}

/// A line with its name.
#[derive(Debug)]
struct Named {
    class: String,
    name: String,
    last: String,
}

/// An instant, for machines and for readers, in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) machine: String,
    pub(super) words: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    at: Moment,
    /// The users of each line; empty where it has no point.
    users: Vec<String>,
}

/// A line of a graph before it is drawn.
pub(super) struct Series {
    pub(super) class: String,
    pub(super) name: String,
    pub(super) track: Track,
}

impl Moment {
    pub(super) fn of(seconds: i64) -> Self {
        let at = Timestamp::from_second(seconds).unwrap_or_default();
        Self {
            machine: at.to_string(),
            words: at.strftime("%-d %b %Y, %H:%M").to_string(),
        }
    }
}

impl Graph {
    /// Draws `series` over `span`; `None` if none has two points. `step` is the seconds of a row of the table, and `is_older`
    /// whether there are counts from before `span`.
    pub(super) fn draw(
        id: &'static str,
        series: Vec<Series>,
        span: &Range<i64>,
        step: u64,
        base: Base,
        is_older: bool,
    ) -> Option<Self> {
        if series.iter().all(|line| line.track.points.len() < 2) {
            return None;
        }
        let firsts = series.iter().filter_map(|line| line.track.points.first());
        let first = firsts.map(|point| point.0).min()?;
        let empty = first - span.start;
        let is_young = !is_older && empty > (span.end - span.start) / MAX_EMPTY;
        let drawn = match is_young {
            true => first..span.end,
            false => span.clone(),
        };
        let label = series
            .iter()
            .filter_map(described)
            .collect::<Vec<_>>()
            .join(" ");
        let rows = rows(&series, i64::try_from(step).unwrap_or(1).max(1));
        let has_gaps = series.iter().any(|line| !line.track.gaps.is_empty());
        // A comparison has a table of its lines.
        let has_legend = series.iter().any(|line| line.class == "before");
        let (lines, named) = series.into_iter().map(named).unzip::<_, _, Vec<_>, _>();
        Some(Self {
            id,
            svg: chart(&lines, &drawn, base),
            label,
            step: chart::step(drawn.end - drawn.start),
            span: drawn,
            lines: named,
            rows,
            since: is_young.then(|| Moment::of(first)),
            is_cut: base == Base::Lowest,
            has_gaps,
            has_legend,
            names_zone: id == "trend",
        })
    }
}

impl Graph {
    /// The classes of the lines, for the page's script.
    fn classes(&self) -> String {
        let classes = self.lines.iter().map(|line| line.class.as_str());
        classes.collect::<Vec<_>>().join(" ")
    }
}

fn named(series: Series) -> (Line, Named) {
    let last = series.track.points.last().map_or(0, |point| point.1);
    let named = Named {
        class: series.class.clone(),
        name: series.name,
        last: grouped(last),
    };
    let line = Line {
        class: series.class,
        track: series.track,
    };
    (line, named)
}

fn described(series: &Series) -> Option<String> {
    let points = &series.track.points;
    let users = || points.iter().map(|(_, users)| *users);
    Some(format!(
        "{}: from {} to {}, between {} and {}.",
        series.name,
        grouped(points.first()?.1),
        plural(points.last()?.1, "user"),
        grouped(users().min()?),
        grouped(users().max()?)
    ))
}

/// One row for each step in which a line has a point, the newest first.
fn rows(series: &[Series], step: i64) -> Vec<Row> {
    let mut rows: BTreeMap<i64, (i64, Vec<String>)> = BTreeMap::new();
    for (column, line) in series.iter().enumerate() {
        for (at, users) in &line.track.points {
            let empty = || (*at, vec![String::new(); series.len()]);
            let row = rows.entry(at.div_euclid(step)).or_insert_with(empty);
            row.0 = row.0.max(*at);
            if let Some(cell) = row.1.get_mut(column) {
                *cell = grouped(*users);
            }
        }
    }
    let row = |(at, users)| Row {
        at: Moment::of(at),
        users,
    };
    rows.into_values().rev().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::chart::Point;

    const NOON: i64 = 1_795_262_400;

    fn series(name: &str, points: &[Point]) -> Series {
        Series {
            class: "s0".to_owned(),
            name: name.to_owned(),
            track: Track::of(points.to_vec()),
        }
    }

    #[test]
    fn points_of_the_same_step_share_a_row() {
        let lines = [
            series("a", &[(NOON, 1), (NOON + 60, 2)]),
            series("b", &[(NOON + 61, 1_000)]),
        ];
        let rows = rows(&lines, 60);
        let users: Vec<_> = rows.iter().map(|row| row.users.join(" ")).collect();
        assert_eq!(users, ["2 1,000", "1 "]);
        assert_eq!(rows[1].at.words, "21 Nov 2026, 12:00");
        assert_eq!(rows[1].at.machine, "2026-11-21T12:00:00Z");
    }

    #[test]
    fn a_young_service_has_no_empty_chart() {
        let month = NOON - 30 * 86_400..NOON;
        let drawn = |points: &[Point], is_older| {
            let series = vec![series("a", points)];
            Graph::draw("g", series, &month, 60, Base::Zero, is_older)
        };
        let draw = |points: &[Point]| drawn(points, false);
        let rare = drawn(&[(NOON - 600, 1), (NOON, 2)], true).unwrap();
        assert!(rare.since.is_none() && rare.span == month);
        let young = draw(&[(NOON - 600, 1), (NOON, 2)]).unwrap();
        assert_eq!(young.span, NOON - 600..NOON);
        assert_eq!(young.since.as_ref().unwrap().words, "21 Nov 2026, 11:50");
        assert_eq!(young.label, "a: from 1 to 2 users, between 1 and 2.");
        let old = draw(&[(month.start + 3_600, 1), (NOON, 2)]).unwrap();
        assert!(old.since.is_none() && old.span == month);
        assert!(draw(&[(NOON, 1)]).is_none());
        let text = young.to_string();
        assert!(text.contains("datetime=\"2026-11-21T11:50:00Z\""), "{text}");
    }
}
