//! `GET /metrics/segments`: counts of segments for Prometheus and compatible scrapers.

use std::cmp::Reverse;
use std::sync::Arc;

use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::header::HeaderMap;
use warp::reply::{Reply, Response};

use super::metrics::{Exposition, wanted};
use super::segments::selection::{MAX_SEGMENTS, Selection, users};
use crate::access::Access;
use crate::auth::Scope;
use crate::openapi::{Described, codes, parameters};
use crate::problem::Problem;
use crate::query::{Query, query};
use crate::resource::{Kind, Names, Operation, Resource};
use domain::text::duration_text;
use domain::{Reach, Timestamp, Window};
use engine::Headcount;
use engine::counts::Listed;
use telemetry::{LeftOut, SegmentMetrics, SegmentSample, WindowSample};

pub(super) static SEGMENT_METRICS: Resource = Resource {
    template: "/metrics/segments",
    parameters: &["prefix", "q", "segment", "window", "limit"],
    operations: &[Operation::get(Access::Needs(Scope::Read))
        .names(Names::Filtered)
        .described(describe)],
    kind: Kind::Plain,
};

/// The largest `limit`. The setting `max_segments` may be lower, and bounds every response.
const MAX_LIMIT: usize = 1_000_000;

pub(super) fn handler(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    let app = Arc::clone(app);
    warp::get()
        .and(warp::header::headers_cloned())
        .and(query())
        .and(super::extension())
        .then(move |headers: HeaderMap, query, reach| {
            let app = Arc::clone(&app);
            async move {
                let metrics = get(&app, &query, &reach).await;
                metrics.map_or_else(Reply::into_response, |metrics| {
                    let form = wanted(&headers);
                    form.respond(match form {
                        Exposition::OpenMetrics => metrics.render(),
                        Exposition::Plain => metrics.render_plain(),
                    })
                })
            }
        })
        .boxed()
}

async fn get(app: &Headcount, query: &Query, reach: &Reach) -> Result<SegmentMetrics, Problem> {
    let selection = Selection::of(query)?;
    let limit = query.limit("limit", MAX_LIMIT, MAX_LIMIT)?;
    let limit = limit.min(app.ingest().max_segments());
    let window = query.window_of_counts(app)?;
    let list = selection.list(app, window, reach).await?;
    let mut rows = selection.rows(&list, reach);
    let mut left_out = LeftOut::default();
    rows.retain(|row| match (row.withheld, row.count) {
        (true, _) => {
            left_out.withheld += 1;
            false
        }
        (false, None) => {
            left_out.unknown += 1;
            false
        }
        (false, Some(_)) => true,
    });
    if let Some(beyond) = rows.len().checked_sub(limit).filter(|beyond| *beyond > 0) {
        // The rows are sorted by name already, and the sort is stable.
        rows.sort_by_key(|row| Reverse(users(row)));
        rows.truncate(limit);
        left_out.limit = beyond as u64;
    }
    Ok(SegmentMetrics {
        segments: rows.iter().filter_map(|row| sample(app, row)).collect(),
        windows: windows(app, &rows),
        full_window: duration_text(app.frame().full_window().seconds()),
        left_out,
    })
}

fn sample(app: &Headcount, row: &Listed) -> Option<SegmentSample> {
    let count = row.count?;
    let flow = app.counts().total_flow(&row.segment);
    Some(SegmentSample {
        segment: row.segment.as_str().to_owned(),
        window: duration_text(row.window.seconds()),
        users: count.users,
        as_of: seconds(count.as_of),
        flow: flow.map(|(_, flow)| (flow.entered, flow.left)),
    })
}

/// All rows over each window together. Most rows are over the same one.
fn windows(app: &Headcount, rows: &[&Listed]) -> Vec<WindowSample> {
    struct OfWindow {
        window: Window,
        stale: u64,
        complete: bool,
        /// The latest instant for which completeness was judged. Most counts of a list are of the same one.
        judged: Option<Timestamp>,
    }
    let mut windows: Vec<OfWindow> = Vec::new();
    for row in rows {
        let position = windows.iter().position(|of| of.window == row.window);
        let position = position.unwrap_or_else(|| {
            windows.push(OfWindow {
                window: row.window,
                stale: 0,
                complete: true,
                judged: None,
            });
            windows.len() - 1
        });
        let (Some(of), Some(count)) = (windows.get_mut(position), row.count) else {
            continue;
        };
        of.stale += u64::from(row.stale);
        if of.judged.replace(count.as_of) != Some(count.as_of) {
            of.complete &= app.coverage().of(row.window, count.as_of).complete;
        }
    }
    let samples = windows.into_iter().map(|of| WindowSample {
        window: duration_text(of.window.seconds()),
        stale: of.stale,
        complete: of.complete,
    });
    samples.collect()
}

/// Unix time in seconds, to the millisecond.
fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1e3
}

fn describe() -> Described {
    Described::new(
        "getSegmentMetrics",
        "operations",
        "Get counts of segments for Prometheus",
        "`headcount_segment_users` and `headcount_segment_as_of_seconds` of each segment, from the same source as `GET /v1/segments`. \
         `headcount_segment_users_entered_total` and `headcount_segment_users_left_total` need the embedded store, or live counts in this \
         process; they are not returned with `min_users`. `headcount_segments_left_out` has how many segments are missing, and why. Without \
         `window`, each segment is counted over its own window, if it has one. A response has at most `max_segments` segments.",
    )
    .takes(parameters::segments(
        "Exactly this segment, also if it has no users. The parameter may be repeated; `prefix` and `q` apply as well.",
        MAX_SEGMENTS,
    ))
    .takes(parameters::prefix())
    .takes(parameters::part_of_name())
    .takes(parameters::window())
    .takes(parameters::limit(
        "The maximum number of segments. If there are more, those with the most users are returned. The default is all, up to the setting `max_segments`.",
        MAX_LIMIT,
    ))
    .answers_with(
        200,
        "The counts: in OpenMetrics if `Accept` prefers it, else in the text format 0.0.4.",
        &["text/plain", "application/openmetrics-text"],
    )
    .fails(&[
        codes::INVALID_SEGMENT,
        codes::INVALID_PARAMETER,
        codes::INVALID_WINDOW,
        codes::UNAVAILABLE,
    ])
}
