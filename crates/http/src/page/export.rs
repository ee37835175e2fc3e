//! `GET /segments.csv` and `GET /trends.csv`: what the pages show, for spreadsheets.

use std::collections::BTreeMap;
use std::iter;

use warp::reply::Response;

use super::Pages;
use super::compare::MAX_COMPARED;
use super::list;
use super::trends::{self, Trend};
use super::view::View;
use crate::document::csv_file;
use crate::problem::Problem;
use crate::query::Query;
use domain::{Reach, Segment, Timestamp};

/// The table of segments, all of its pages.
pub(super) async fn segments(
    pages: &Pages,
    query: &Query,
    reach: &Reach,
) -> Result<Response, Problem> {
    let mut view = View::of(query)?;
    let period = pages.period(query)?;
    let found = list::found(pages, &mut view, &period, reach).await;
    if let Some(error) = found.failure {
        return Err(error.into());
    }
    let columns = ["segment", "users", "window_seconds", "as_of", "stale"];
    let rows = found.list.iter().map(|listed| {
        // A count that is withheld is an empty value.
        let count = listed.count;
        (
            listed.segment.as_str(),
            count.map(|count| count.users),
            listed.window.seconds(),
            count.map(|count| count.as_of.to_string()),
            listed.stale,
        )
    });
    csv_file("segments", columns, rows)
}

/// The history of one or more segments: a row for each time, a column for each segment.
pub(super) async fn trends(pages: &Pages, query: &Query) -> Result<Response, Problem> {
    let app = &pages.app;
    let period = pages.period(query)?;
    let segments = query.segments("segment", MAX_COMPARED)?;
    let step = i64::try_from(trends::step(&period.span)).unwrap_or(1);
    let mut rows: BTreeMap<i64, (i64, Vec<Option<u64>>)> = BTreeMap::new();
    for (column, segment) in segments.iter().enumerate() {
        let Trend { track, .. } = trends::trend(app, segment, &period, None, false).await?;
        for (at, users) in track.points {
            let empty = || (at, vec![None; segments.len()]);
            let row = rows.entry(at.div_euclid(step)).or_insert_with(empty);
            row.0 = row.0.max(at);
            if let Some(cell) = row.1.get_mut(column) {
                *cell = Some(users);
            }
        }
    }
    let columns = iter::once("at").chain(segments.iter().map(Segment::as_str));
    let rows = rows.into_values().map(|(at, users)| {
        let at = Timestamp::from_second(at).unwrap_or_default();
        (at.to_string(), users)
    });
    csv_file("trends", columns, rows)
}
