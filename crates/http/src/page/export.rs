//! `GET /segments.csv` and `GET /trends.csv`: what the pages show, for spreadsheets.

use std::collections::BTreeMap;

use warp::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};
use warp::reply::{Reply, Response};

use super::Pages;
use super::compare::MAX_COMPARED;
use super::list;
use super::trends::{self, Trend};
use super::view::View;
use crate::problem::Problem;
use crate::query::Query;
use domain::{Reach, Segment, Timestamp};

/// Spreadsheets take a cell that begins with one of these for a formula.
const BEGINS_FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

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
    let mut rows = vec![["segment", "users", "window_seconds", "as_of", "stale"].map(String::from)];
    for listed in &found.list {
        // A count that is withheld is an empty value.
        let count = listed.count;
        rows.push([
            cell(listed.segment.as_str()),
            count.map_or(String::new(), |count| count.users.to_string()),
            period.window.seconds().to_string(),
            count.map_or(String::new(), |count| count.as_of.to_string()),
            listed.stale.to_string(),
        ]);
    }
    file("segments.csv", rows)
}

/// The history of one or more segments: a row for each time, a column for each segment.
pub(super) async fn trends(pages: &Pages, query: &Query) -> Result<Response, Problem> {
    let app = &pages.app;
    let period = pages.period(query)?;
    let segments = query.segments("segment", MAX_COMPARED)?;
    let step = i64::try_from(trends::step(&period.span)).unwrap_or(1);
    let mut rows: BTreeMap<i64, (i64, Vec<String>)> = BTreeMap::new();
    for (column, segment) in segments.iter().enumerate() {
        let Trend { points, .. } = trends::trend(app, segment, &period, None, false).await?;
        for (at, users) in points {
            let empty = || (at, vec![String::new(); segments.len()]);
            let row = rows.entry(at.div_euclid(step)).or_insert_with(empty);
            row.0 = row.0.max(at);
            if let Some(cell) = row.1.get_mut(column) {
                *cell = users.to_string();
            }
        }
    }
    let names = segments.iter().map(Segment::as_str).map(cell);
    let head = std::iter::once("at".to_owned()).chain(names).collect();
    let row = |(at, users): (i64, Vec<String>)| {
        let at = Timestamp::from_second(at).unwrap_or_default();
        std::iter::once(at.to_string()).chain(users).collect()
    };
    let lines = std::iter::once(head).chain(rows.into_values().map(row));
    file::<Vec<String>>("trends.csv", lines.collect())
}

/// A name that no spreadsheet takes for a formula.
fn cell(name: &str) -> String {
    match name.starts_with(BEGINS_FORMULA) {
        true => format!("'{name}"),
        false => name.to_owned(),
    }
}

fn file<R: AsRef<[String]>>(name: &str, rows: Vec<R>) -> Result<Response, Problem> {
    let failed = |error: csv::Error| Problem::internal().caused_by(&error);
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.write_record(row.as_ref()).map_err(failed)?;
    }
    let body = writer
        .into_inner()
        .map_err(|error| Problem::internal().caused_by(&error.error()))?;
    let mut response = warp::http::Response::new(body).into_response();
    let disposition = format!("attachment; filename=\"{name}\"");
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/csv; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(disposition) = HeaderValue::try_from(disposition) {
        headers.insert(CONTENT_DISPOSITION, disposition);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_formulas() {
        assert_eq!(cell("=1+1"), "'=1+1");
        assert_eq!(cell("a=1"), "a=1");
    }
}
