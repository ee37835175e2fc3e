//! The description of each resource: purpose, parameters, responses and error codes.

use serde_json::json;

use super::codes::*;
use super::operation::Described;
use super::{pairs, parameters};
use crate::events::MAX_SEGMENTS;
use crate::route::Route;
use crate::{admin, count, docs, health, segments, trend, users};

/// The description of `method` on `route`. `None` omits it from the document, which is right for the pages.
///
/// [`Described::answers_with`] describes a response that is not JSON.
pub(super) fn described(route: Route, method: &str) -> Option<Described> {
    let described = match route {
        Route::Pairs => pairs::post(),
        Route::Count => get_count(),
        Route::Segments => get_segments(),
        Route::Trend => get_trend(),
        Route::Events => get_events(),
        Route::User if method == "DELETE" => delete_user(),
        Route::User => get_user(),
        Route::Refresh => refresh(),
        Route::Archive => archive(),
        Route::Health => Described::new(
            "getHealth",
            "operations",
            "Does the process live?",
            "For whoever restarts processes. Says nothing of the store.",
        )
        .answers::<health::Health>(200, "It does.", json!({"status": "ok"})),
        Route::Ready => ready(),
        Route::Metrics => Described::new(
            "getMetrics",
            "operations",
            "Metrics for Prometheus",
            "Open to everybody, unless the service is configured to ask for scope `read`.",
        )
        .answers_with(
            200,
            "All metrics: OpenMetrics for who names it in `Accept`, else the text format 0.0.4.",
            &["text/plain", "application/openmetrics-text"],
        ),
        Route::OpenApi => Described::new(
            "getOpenApi",
            "operations",
            "This document",
            "The same as `headcount openapi` prints. It holds no data, and is open to everybody.",
        )
        .answers_with(200, "An OpenAPI 3.1 document.", &["application/json"]),
        Route::Docs => Described::new(
            "getDocs",
            "operations",
            "This document for people",
            "A viewer that loads nothing from any other host.",
        )
        .answers_with(200, "A page.", &["text/html"]),
        Route::DocsFile => Described::new(
            "getDocsFile",
            "operations",
            "A part of the viewer",
            "What the page at /docs loads.",
        )
        .takes(parameters::file(docs::FILES))
        .answers_with(
            200,
            "The file.",
            &["text/css", "text/javascript", "image/png"],
        )
        .fails(&[NOT_FOUND]),
        // Pages for browsers are no part of the API.
        Route::Page
        | Route::SegmentPage
        | Route::SignIn
        | Route::SignOut
        | Route::Asset
        | Route::Unknown => return None,
    };
    Some(described)
}

fn get_count() -> Described {
    Described::new(
        "getCount",
        "counts",
        "How many users a segment has",
        "The count of an unknown segment is 0.",
    )
    .takes(parameters::segment())
    .takes(parameters::segment_beside())
    .takes(parameters::window())
    .takes(parameters::fresh())
    .answers::<count::CountResponse<'static>>(
        200,
        "The count.",
        json!({
            "segment": "sports", "users": 123, "window_seconds": 1_209_600, "as_of": "2026-11-21T08:00:00Z",
            "age_seconds": 0.8, "source": "memory", "pending": 2, "stale": false, "known": true
        }),
    )
    .fails(&[INVALID_SEGMENT, INVALID_WINDOW, INVALID_PARAMETER, UNAVAILABLE])
}

fn get_segments() -> Described {
    Described::new(
        "getSegments",
        "counts",
        "All segments with their counts",
        "In pages: ask again with `cursor` until `next` is null.",
    )
    .takes(parameters::prefix())
    .takes(parameters::window())
    .takes(parameters::sort())
    .takes(parameters::limit())
    .takes(parameters::cursor())
    .answers::<segments::SegmentsResponse<'static>>(
        200,
        "A page of segments.",
        json!({
            "segments": [{"segment": "sports", "users": 123, "as_of": "2026-11-21T08:00:00Z", "stale": false}],
            "window_seconds": 1_209_600, "next": null
        }),
    )
    .fails(&[INVALID_PARAMETER, INVALID_WINDOW, UNAVAILABLE])
}

fn get_trend() -> Described {
    Described::new(
        "getTrend",
        "counts",
        "Counts of the past",
        "Each refresh adds a point for each window that it recounts. At most 10,000 are answered. A window that is not \
         recounted and has no points is 400 `invalid_window`.",
    )
    .takes(parameters::segment())
    .takes(parameters::segment_beside())
    .takes(parameters::window())
    .takes(parameters::from())
    .takes(parameters::to())
    .takes(parameters::step())
    .answers::<trend::TrendResponse<'static>>(
        200,
        "The points, oldest first.",
        json!({
            "segment": "sports", "window_seconds": 1_209_600,
            "points": [{"at": "2026-11-21T08:00:00Z", "users": 123}], "known": true
        }),
    )
    .fails(&[
        INVALID_SEGMENT,
        INVALID_WINDOW,
        INVALID_PARAMETER,
        TOO_MANY_POINTS,
        UNAVAILABLE,
    ])
}

fn get_events() -> Described {
    Described::new(
        "getEvents",
        "counts",
        "Changes of counts as they happen",
        "Server-sent events, without an end. `event: count` has the data `{\"segment\": \"sports\", \"users\": 123, \
         \"as_of\": \"2026-11-21T08:00:00Z\"}`, over the configured window. `event: reset` says that changes were missed: \
         read `/v1/segments` again. A line `:` shows that the stream lives. Open the stream first and read \
         `/v1/segments` then: what changes after that is told.",
    )
    .takes(parameters::only_segments(MAX_SEGMENTS))
    .takes(parameters::last_event_id())
    .answers_with(200, "The events.", &["text/event-stream"])
    .fails(&[INVALID_SEGMENT, INVALID_PARAMETER, TOKEN_STREAM_LIMIT, STREAM_LIMIT])
}

fn get_user() -> Described {
    Described::new(
        "getUser",
        "users",
        "Where a user is counted",
        "A user whom nobody knows is in no segment.",
    )
    .takes(parameters::user_id())
    .takes(parameters::user_id_beside())
    .answers::<users::Memberships<'static>>(
        200,
        "The segments that the user is in.",
        json!({"user_id": "u104010", "segments": [{
            "segment": "sports", "last_seen": "2026-11-21T08:00:00Z", "until": "2026-12-05T08:00:00Z"
        }]}),
    )
    .fails(&[INVALID_USER_ID, INVALID_PARAMETER, UNAVAILABLE])
}

fn delete_user() -> Described {
    Described::new(
        "deleteUser",
        "users",
        "Erase a user",
        "From all segments and from this instance's disk, at once; other instances follow. The answer is a receipt. May be \
         repeated, and is to be repeated after an error.",
    )
    .takes(parameters::user_id())
    .takes(parameters::user_id_beside())
    .answers::<users::Erased>(
        200,
        "The user is erased.",
        json!({
            "erased": 2,
            "erased_at": "2026-11-29T12:00:00.25Z",
            "places": [
                {"place": "store", "state": "erased", "until": null, "note": "every pair of the user"},
                {"place": "embedded_files", "state": "remains", "until": "2026-11-29T13:00:00.25Z",
                 "note": "a hash of the user id under this directory's key, until the next snapshot"}
            ]
        }),
    )
    .fails(&[INVALID_USER_ID, INVALID_PARAMETER, UNAVAILABLE])
}

fn refresh() -> Described {
    Described::new(
        "refresh",
        "admin",
        "Recount into the cache",
        "All segments, or one. A second one at the same time is skipped, which is no failure.",
    )
    .takes(parameters::only_segment())
    .answers::<admin::Refreshed>(
        200,
        "What was done.",
        json!({"refreshed": 12, "failed": 0, "took_seconds": 0.4}),
    )
    .fails(&[
        INVALID_SEGMENT,
        INVALID_PARAMETER,
        UNKNOWN_SEGMENT,
        UNAVAILABLE,
    ])
}

fn archive() -> Described {
    Described::new(
        "archive",
        "admin",
        "Remove what no window can reach",
        "The embedded store also does this by itself. With Postgres or Redis, schedule it.",
    )
    .answers::<admin::Removed>(200, "What was removed.", json!({"removed": 0}))
    .fails(&[UNAVAILABLE])
}

fn ready() -> Described {
    let example = |status: &str, up: bool| json!({"status": status, "writes": up, "reads": up, "components": {"store": {"ok": up}}});
    Described::new(
        "getReady",
        "operations",
        "What can be served now?",
        "For whoever sends requests to instances: by component.",
    )
    .answers::<health::ReadinessResponse<'static>>(
        200,
        "Pairs or counts can be served.",
        example("ready", true),
    )
    .answers::<health::ReadinessResponse<'static>>(
        503,
        "Neither can, or the service is about to stop.",
        example("unavailable", false),
    )
}
