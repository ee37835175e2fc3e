//! `GET /v1/events`: changes of counts as they happen, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::stream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use warp::filters::BoxedFilter;
use warp::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use warp::reply::{Reply, Response};
use warp::{Filter as _, path};

use super::activity::{Activity, Streaming};
use super::gate;
use super::problem::Problem;
use super::query::{Query, query};
use crate::app::Headcount;
use crate::auth::Reach;
use crate::events::{Filter, RETRY_FULL, Subscription};

/// Then the client comes back where it was, so that a token that was revoked or expired meanwhile is noticed.
const LONGEST: Duration = Duration::from_mins(15);
/// More segments are asked for by asking for all.
pub(super) const MAX_SEGMENTS: usize = 100;
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Keeps nginx and its kin from collecting the stream.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// One client's stream.
struct Open {
    subscription: Subscription,
    until: Instant,
    closing: CancellationToken,
    /// Tells the connection; none where the service was not asked over one.
    streaming: Option<Streaming>,
}

/// The route. Streams end when `closing` is cancelled.
pub(super) fn route(app: &Arc<Headcount>, closing: CancellationToken) -> BoxedFilter<(Response,)> {
    let app = Arc::clone(app);
    path!("v1" / "events")
        .and(warp::get())
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional())
        .and(warp::ext::optional())
        .and(query())
        .then(move |headers, activity, reach: Option<Reach>, query| {
            let (app, closing) = (Arc::clone(&app), closing.clone());
            async move {
                get(
                    &app,
                    &headers,
                    activity,
                    reach.unwrap_or_default(),
                    &query,
                    closing,
                )
                .await
                .unwrap_or_else(Reply::into_response)
            }
        })
        .boxed()
}

async fn get(
    app: &Headcount,
    headers: &HeaderMap,
    activity: Option<Arc<Activity>>,
    reach: Reach,
    query: &Query,
    closing: CancellationToken,
) -> Result<Response, Problem> {
    let segments = query.segments("segment", MAX_SEGMENTS)?;
    if segments
        .iter()
        .any(|segment| !reach.covers(segment.as_str()))
    {
        return Err(gate::beyond_reach());
    }
    let filter = Filter::new(segments, reach);
    // One that is no text is none of ours: its client is lost, and told so.
    let last_id = headers
        .get(LAST_EVENT_ID)
        .map(|id| id.to_str().unwrap_or_default());
    let subscribed = app.events().subscribe(last_id, filter).await;
    let subscription =
        subscribed.map_err(|full| Problem::unavailable(full.to_string(), RETRY_FULL))?;
    let open = Open {
        subscription,
        until: Instant::now() + LONGEST,
        closing,
        streaming: activity.map(|activity| activity.stream()),
    };
    let mut response = warp::reply::stream(pieces(open)).into_response();
    for (name, value) in [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
        (ACCEL_BUFFERING, "no"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

/// Asked for one piece at a time, whenever the connection has room for it.
fn pieces(open: Open) -> impl Stream<Item = Result<String, Infallible>> {
    stream::unfold(open, |mut open| async move {
        let piece = tokio::select! {
            // In this order, or a busy stream might not come to its end.
            biased;
            () = open.closing.cancelled() => {
                if let Some(streaming) = &mut open.streaming {
                    streaming.cut_short();
                }
                return None;
            }
            () = tokio::time::sleep_until(open.until) => return None,
            piece = open.subscription.next() => piece,
        };
        Some((Ok(piece), open))
    })
}
