//! `GET /v1/events`: changes of counts as they happen, as server-sent events.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::stream;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use warp::filters::BoxedFilter;
use warp::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use warp::reply::{Reply, Response};
use warp::{Filter as _, path};

use super::activity::{Activity, Streaming};
use super::gate::{self, Standing};
use super::problem::Problem;
use super::query::{Query, query};
use crate::settings::HttpSettings;
use domain::Reach;
use engine::Headcount;
use engine::events::{Filter, RETRY_FULL, Subscription};

/// Then the client comes back where it was: a load balancer may have better places by then.
const LONGEST: Duration = Duration::from_mins(15);
/// How often it is looked whether a client's token still lets it in. The tokens file is read as often as this.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// More segments are asked for by asking for all.
pub(super) const MAX_SEGMENTS: usize = 100;
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Keeps nginx and its kin from collecting the stream.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Who listens, where tokens are asked for.
#[derive(Debug, Clone)]
pub(super) struct Listener {
    /// Tells them from others.
    pub(super) id: [u8; 32],
    /// What lets them go on.
    pub(super) standing: Standing,
}

/// One client's stream.
struct Open {
    subscription: Subscription,
    until: Instant,
    /// When it is looked again whether the client may go on.
    look: Instant,
    /// None where nobody is asked for a token.
    standing: Option<Standing>,
    /// The client's share of the places, given back with the stream.
    _share: Option<Share>,
    closing: CancellationToken,
    /// Tells the connection; none where the service was not asked over one.
    streaming: Option<Streaming>,
}

/// What the service says of a request beside it.
struct Client {
    activity: Option<Arc<Activity>>,
    reach: Reach,
    listener: Option<Listener>,
}

fn client() -> impl warp::Filter<Extract = (Client,), Error = Infallible> + Copy {
    let parts = warp::ext::optional().and(warp::ext::optional());
    parts.and(warp::ext::optional()).map(
        |activity, reach: Option<Reach>, listener: Option<Listener>| Client {
            activity,
            reach: reach.unwrap_or_default(),
            listener,
        },
    )
}

/// How many streams each token has, so that none takes all places.
#[derive(Debug)]
struct Shares {
    most: usize,
    taken: Mutex<HashMap<[u8; 32], usize>>,
}

/// A stream's place in the share of its token.
#[derive(Debug)]
struct Share {
    id: [u8; 32],
    shares: Arc<Shares>,
}

impl Shares {
    fn new(most: usize) -> Self {
        Self {
            most,
            taken: Mutex::default(),
        }
    }

    fn take(self: &Arc<Self>, id: [u8; 32]) -> Result<Share, Problem> {
        let mut taken = self.taken.lock();
        let streams = taken.get(&id).copied().unwrap_or_default();
        if streams >= self.most {
            let detail = format!(
                "{streams} clients with this token listen already; max_event_clients_per_token is the limit"
            );
            return Err(Problem::busy(detail, RETRY_FULL));
        }
        taken.insert(id, streams + 1);
        Ok(Share {
            id,
            shares: Arc::clone(self),
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.taken.lock();
        if let Some(streams) = taken.get_mut(&self.id) {
            *streams = streams.saturating_sub(1);
            if *streams == 0 {
                taken.remove(&self.id);
            }
        }
    }
}

/// The route. Streams end when `closing` is cancelled.
pub(super) fn route(
    app: &Arc<Headcount>,
    settings: &HttpSettings,
    closing: CancellationToken,
) -> BoxedFilter<(Response,)> {
    let app = Arc::clone(app);
    let shares = Arc::new(Shares::new(settings.max_event_clients_per_token));
    path!("v1" / "events")
        .and(warp::get())
        .and(warp::header::headers_cloned())
        .and(client())
        .and(query())
        .then(move |headers, client, query| {
            let (app, closing) = (Arc::clone(&app), closing.clone());
            let shares = Arc::clone(&shares);
            async move {
                get(&app, &headers, client, &shares, &query, closing)
                    .await
                    .unwrap_or_else(Reply::into_response)
            }
        })
        .boxed()
}

async fn get(
    app: &Headcount,
    headers: &HeaderMap,
    client: Client,
    shares: &Arc<Shares>,
    query: &Query,
    closing: CancellationToken,
) -> Result<Response, Problem> {
    let segments = query.segments("segment", MAX_SEGMENTS)?;
    if segments
        .iter()
        .any(|segment| !client.reach.covers(segment.as_str()))
    {
        return Err(gate::beyond_reach());
    }
    let filter = Filter::new(segments, client.reach);
    let share = match &client.listener {
        Some(listener) => Some(shares.take(listener.id)?),
        None => None,
    };
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
        look: Instant::now() + LOOK_PERIOD,
        standing: client.listener.map(|listener| listener.standing),
        _share: share,
        closing,
        streaming: client.activity.map(|activity| activity.stream()),
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
        let piece = {
            let Open {
                subscription,
                until,
                look,
                standing,
                closing,
                streaming,
                ..
            } = &mut open;
            // One future for all looks: it says now and then that the stream lives.
            let mut next = pin!(subscription.next());
            loop {
                tokio::select! {
                    // In this order, or a busy stream might not come to its end.
                    biased;
                    () = closing.cancelled() => {
                        if let Some(streaming) = streaming {
                            streaming.cut_short();
                        }
                        return None;
                    }
                    () = tokio::time::sleep_until(*until) => return None,
                    () = tokio::time::sleep_until(*look), if standing.is_some() => {
                        if !standing.as_ref().is_some_and(Standing::holds) {
                            return None;
                        }
                        *look = Instant::now() + LOOK_PERIOD;
                    }
                    piece = next.as_mut() => break piece,
                }
            }
        };
        Some((Ok(piece), open))
    })
}
