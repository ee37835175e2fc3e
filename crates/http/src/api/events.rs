//! `GET /v1/events`: changes of counts as server-sent events.

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
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use warp::reply::{Reply, Response};

use crate::access::Access;
use crate::activity::{Activity, Streaming};
use crate::auth::Scope;
use crate::authorization::Grant;
use crate::openapi::{Described, codes, parameters};
use crate::problem::Problem;
use crate::query::{Query, query};
use crate::resource::{Kind, Names, Operation, Resource};
use crate::service::RequestContext;
use crate::settings::HttpSettings;
use domain::Reach;
use engine::Headcount;
use engine::events::{Filter, RETRY_FULL, Subscription};

pub(super) static EVENTS: Resource = Resource {
    template: "/v1/events",
    parameters: &["segment"],
    operations: &[Operation::get(Access::Needs(Scope::Read))
        .names(Names::Filtered)
        .by_cookie()
        .described(describe)],
    kind: Kind::Stream,
};

/// The age at which the service ends a stream. The client reconnects and resumes where it was, which lets a load balancer
/// choose a better instance.
const MAX_AGE: Duration = Duration::from_mins(15);
/// How often a client's authorization is checked again. A change of the tokens file also takes up to a second.
const CHECK_PERIOD: Duration = Duration::from_secs(1);
/// Most `segment` parameters of a request. A client that needs more segments subscribes to all of them.
pub(super) const MAX_SEGMENTS: usize = 100;
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Disables response buffering in nginx and compatible proxies.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The authenticated client of a stream; an extension of the request if tokens are required.
#[derive(Debug, Clone)]
pub(crate) struct Subscriber {
    /// The caller's id, for the limit of streams per token.
    pub(crate) id: [u8; 32],
    /// The authorization, checked again while the stream lasts.
    pub(crate) grant: Grant,
}

/// One client's stream.
struct ClientStream {
    subscription: Subscription,
    until: Instant,
    /// When the authorization is checked again.
    next_check: Instant,
    /// `None` if no token is required.
    grant: Option<Grant>,
    /// Released with the stream.
    _slot: Option<TokenSlot>,
    closing: CancellationToken,
    /// Registers the stream with its connection. `None` in tests that call the routes without a connection.
    streaming: Option<Streaming>,
}

/// What the service adds to a request as extensions.
struct Client {
    activity: Option<Arc<Activity>>,
    reach: Reach,
    subscriber: Option<Subscriber>,
}

fn client() -> impl warp::Filter<Extract = (Client,), Error = Infallible> + Copy {
    let parts = warp::ext::optional().and(super::extension());
    parts
        .and(warp::ext::optional())
        .map(
            |context: Option<RequestContext>, reach, subscriber| Client {
                // The stream outlasts its handler.
                activity: context.map(|context| context.connection.activity),
                reach,
                subscriber,
            },
        )
}

/// Counts the streams of each token, so that one token can't take all places.
#[derive(Debug)]
struct TokenSlots {
    most: usize,
    taken: Mutex<HashMap<[u8; 32], usize>>,
}

/// The place of one stream under the limit of its token.
#[derive(Debug)]
struct TokenSlot {
    id: [u8; 32],
    slots: Arc<TokenSlots>,
}

impl TokenSlots {
    fn new(most: usize) -> Self {
        Self {
            most,
            taken: Mutex::default(),
        }
    }

    fn take(self: &Arc<Self>, id: [u8; 32]) -> Result<TokenSlot, Problem> {
        let mut taken = self.taken.lock();
        let streams = taken.get(&id).copied().unwrap_or_default();
        if streams >= self.most {
            let detail = format!(
                "{streams} clients with this token are connected already: the limit is max_event_clients_per_token"
            );
            return Err(Problem::busy(detail, RETRY_FULL));
        }
        taken.insert(id, streams + 1);
        Ok(TokenSlot {
            id,
            slots: Arc::clone(self),
        })
    }
}

impl Drop for TokenSlot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock();
        if let Some(streams) = taken.get_mut(&self.id) {
            *streams = streams.saturating_sub(1);
            if *streams == 0 {
                taken.remove(&self.id);
            }
        }
    }
}

/// The route. Streams end when `closing` is cancelled.
pub(super) fn handler(
    app: &Arc<Headcount>,
    settings: &HttpSettings,
    closing: CancellationToken,
) -> BoxedFilter<(Response,)> {
    let app = Arc::clone(app);
    let slots = Arc::new(TokenSlots::new(settings.max_event_clients_per_token));
    warp::get()
        .and(warp::header::headers_cloned())
        .and(client())
        .and(query())
        .then(move |headers, client, query| {
            let (app, closing) = (Arc::clone(&app), closing.clone());
            let slots = Arc::clone(&slots);
            async move {
                get(&app, &headers, client, &slots, &query, closing)
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
    slots: &Arc<TokenSlots>,
    query: &Query,
    closing: CancellationToken,
) -> Result<Response, Problem> {
    // A request that names segments beyond the reach was refused before. Changes of such segments are left out.
    let segments = query.segments("segment", MAX_SEGMENTS)?;
    let filter = Filter::new(segments, client.reach);
    let slot = match &client.subscriber {
        Some(subscriber) => Some(slots.take(subscriber.id)?),
        None => None,
    };
    // An id that is not a string is unknown: the client receives `event: reset`.
    let last_id = headers
        .get(LAST_EVENT_ID)
        .map(|id| id.to_str().unwrap_or_default());
    let subscribed = app.events().subscribe(last_id, filter).await;
    let subscription =
        subscribed.map_err(|full| Problem::unavailable(full.to_string(), RETRY_FULL))?;
    let stream_state = ClientStream {
        subscription,
        until: Instant::now() + MAX_AGE,
        next_check: Instant::now() + CHECK_PERIOD,
        grant: client.subscriber.map(|subscriber| subscriber.grant),
        _slot: slot,
        closing,
        streaming: client.activity.map(|activity| activity.begin_stream()),
    };
    let mut response = warp::reply::stream(chunks(stream_state)).into_response();
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

/// The chunks of a stream. hyper polls for one chunk at a time, when the connection has capacity for it.
fn chunks(stream_state: ClientStream) -> impl Stream<Item = Result<String, Infallible>> {
    stream::unfold(stream_state, |mut stream_state| async move {
        let chunk = {
            let ClientStream {
                subscription,
                until,
                next_check,
                grant,
                closing,
                streaming,
                ..
            } = &mut stream_state;
            // One future across all checks, because it also returns the heartbeat.
            let mut next = pin!(subscription.next());
            loop {
                tokio::select! {
                    // In this order, or a busy stream might never end.
                    biased;
                    () = closing.cancelled() => {
                        if let Some(streaming) = streaming {
                            streaming.cut_short();
                        }
                        return None;
                    }
                    () = tokio::time::sleep_until(*until) => return None,
                    () = tokio::time::sleep_until(*next_check), if grant.is_some() => {
                        if !grant.as_ref().is_some_and(Grant::is_valid) {
                            return None;
                        }
                        *next_check = Instant::now() + CHECK_PERIOD;
                    }
                    chunk = next.as_mut() => break chunk,
                }
            }
        };
        Some((Ok(chunk), stream_state))
    })
}

fn describe() -> Described {
    Described::new(
        "getEvents",
        "counts",
        "Stream changes of counts",
        "Server-sent events. `event: count` has the data `{\"segment\": \"sports\", \"users\": 123, \
         \"as_of\": \"2026-11-21T08:00:00Z\", \"covered_since\": \"2026-11-01T00:00:00Z\", \"complete\": true}`, over the \
         segment's own window, or else the configured one. `users` is null if it is withheld, because it would reveal a group of \
         fewer than `min_users` users. Over the configured window, with the embedded store or a replica in the process, it \
         also has `entered` and `left`: the users who entered and left since the segment's previous change. `event: reset` means that changes were missed: \
         read `/v1/segments` again. A line `:` keeps the connection open. Open the stream first, then read \
         `/v1/segments`: the stream has every change after that.",
    )
    .takes(parameters::segments("Only changes of this segment. The parameter may be repeated.", MAX_SEGMENTS))
    .takes(parameters::last_event_id())
    .answers_with(200, "A stream of events.", &["text/event-stream"])
    .fails(&[codes::INVALID_SEGMENT, codes::INVALID_PARAMETER, codes::TOKEN_STREAM_LIMIT, codes::STREAM_LIMIT])
}
