//! The API: one file per resource, with its path, its handler and its description. Here are the list of all resources, and
//! the handlers of a service and of a worker.

mod admin;
mod count;
mod coverage;
mod docs;
pub(super) mod events;
mod flow;
#[cfg(test)]
mod fuzz;
pub(super) mod health;
mod influx;
mod intake;
mod messages;
mod metrics;
pub(super) mod overlap;
mod pairs;
mod segment;
mod segment_metrics;
mod segment_user;
mod segment_users;
mod segments;
mod set_count;
mod trend;
mod trends;
mod user_merge;
mod users;

use std::convert::Infallible;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use warp::filters::BoxedFilter;
use warp::filters::path::FullPath;
use warp::reply::{Reply, Response};
use warp::{Filter, Rejection};

use crate::access::Access;
use crate::auth::{Auth, Scope};
use crate::authorization::Authorizer;
use crate::openapi::Documented;
use crate::page;
use crate::path;
use crate::problem::Problem;
use crate::query::{Query, query};
use crate::representation::Representation;
use crate::resource::{Resource, UNKNOWN, part_of};
use crate::settings::HttpSettings;
use domain::{Reach, Segment, UserId};
use engine::Headcount;

/// All resources. The busiest come first, because a path is compared with them in this order.
static ALL: [&Resource; 52] = [
    &pairs::PAIRS,
    &pairs::NDJSON,
    &influx::WRITE,
    &influx::WRITE_1,
    &messages::BATCH,
    &count::COUNT,
    &segments::SEGMENTS,
    &set_count::SET_COUNT,
    &overlap::OVERLAP,
    &overlap::TOP,
    &trend::TREND,
    &trends::TRENDS,
    &flow::FLOW,
    &segment::SEGMENT,
    &segment_user::SEGMENT_USER,
    &segment_users::SEGMENT_USERS,
    &events::EVENTS,
    &users::USER,
    &user_merge::MERGE,
    &admin::REFRESH,
    &admin::ARCHIVE,
    &coverage::COVERAGE,
    &coverage::STATEMENT,
    &health::HEALTH,
    &health::READY,
    &metrics::METRICS,
    &messages::IMPORT,
    &messages::TRACK,
    &messages::IDENTIFY,
    &messages::PAGE,
    &messages::SCREEN,
    &messages::GROUP,
    &messages::ALIAS,
    &messages::POSTHOG,
    &messages::SNOWPLOW,
    &influx::PING,
    &influx::HEALTH,
    &segment_metrics::SEGMENT_METRICS,
    &docs::OPENAPI,
    &docs::DOCS,
    &docs::FILE,
    &page::LIST,
    &page::SEGMENTS_FILE,
    &page::SEGMENT,
    &page::COMPARE,
    &page::TRENDS_FILE,
    &page::COMBINE,
    &page::OVERLAPS,
    &page::STATUS,
    &page::SIGN_IN,
    &page::SIGN_OUT,
    &page::ASSET,
];

/// The resource at `path`.
pub(super) fn find(path: &str) -> &'static Resource {
    let found = ALL.into_iter().find(|resource| resource.is_at(path));
    found.unwrap_or(&UNKNOWN)
}

/// The same for a request on the public address. What is not public does not exist there.
pub(super) fn find_public(path: &str, method: &str) -> &'static Resource {
    match find(path) {
        resource if resource.is_public(method) => resource,
        _ => &UNKNOWN,
    }
}

/// The handlers of a process, by resource. Cloning is cheap.
#[derive(Clone)]
pub(super) struct Routes(Arc<[Route]>);

type Route = (&'static Resource, BoxedFilter<(Response,)>);

impl Routes {
    /// Those of a service. Cancelling `stop` makes the service report that it is not ready. Cancelling `closing` ends the
    /// event streams.
    pub(super) fn of_service(
        app: &Arc<Headcount>,
        settings: &HttpSettings,
        authorizer: Authorizer,
        stop: CancellationToken,
        closing: CancellationToken,
    ) -> Self {
        let auth = Arc::clone(authorizer.auth());
        let intake = Arc::new(intake::Intake::new(app, settings, authorizer.clone()));
        let mut routes = vec![
            (&pairs::PAIRS, pairs::handler(&intake)),
            (&pairs::NDJSON, pairs::ndjson_handler(&intake)),
            (&influx::WRITE, influx::handler(&intake)),
            (&influx::WRITE_1, influx::handler(&intake)),
            (&influx::PING, influx::ping_handler()),
            (&influx::HEALTH, influx::health_handler()),
            (&count::COUNT, count::handler(app)),
            (&segments::SEGMENTS, segments::handler(app)),
            (&set_count::SET_COUNT, set_count::handler(app)),
            (&overlap::OVERLAP, overlap::handler(app)),
            (&overlap::TOP, overlap::top_handler(app)),
            (&trend::TREND, trend::handler(app)),
            (&trends::TRENDS, trends::handler(app, settings)),
            (&flow::FLOW, flow::handler(app)),
            (&segment::SEGMENT, segment::handler(app, settings)),
            (&segment_user::SEGMENT_USER, segment_user::handler(app)),
            (
                &segment_users::SEGMENT_USERS,
                segment_users::handler(app, settings),
            ),
            (&events::EVENTS, events::handler(app, settings, closing)),
            (&users::USER, users::handler(app)),
            (&user_merge::MERGE, user_merge::handler(app, settings)),
            (&admin::REFRESH, admin::refresh_handler(app)),
            (&admin::ARCHIVE, admin::archive_handler(app)),
            (&coverage::COVERAGE, coverage::handler(app)),
            (&coverage::STATEMENT, coverage::statement_handler(app)),
            (
                &segment_metrics::SEGMENT_METRICS,
                segment_metrics::handler(app),
            ),
            (&docs::OPENAPI, docs::document_handler()),
            (&docs::DOCS, docs::page_handler()),
            (&docs::FILE, docs::file_handler()),
        ];
        routes.extend(messages::handlers(&intake));
        routes.extend(page::handlers(app, settings, authorizer));
        routes.extend(probes(app, &auth, health::Role::Service, stop));
        Self(routes.into_iter().map(closed).collect())
    }

    /// Those of a live process: what services ask it.
    pub(super) fn of_live_process(
        app: &Arc<Headcount>,
        auth: &Arc<Auth>,
        stop: CancellationToken,
    ) -> Self {
        let mut routes = vec![
            (&count::COUNT, count::handler(app)),
            (&segments::SEGMENTS, segments::handler(app)),
            (&set_count::SET_COUNT, set_count::handler(app)),
            (&overlap::OVERLAP, overlap::handler(app)),
            (&overlap::TOP, overlap::top_handler(app)),
            (&flow::FLOW, flow::handler(app)),
            (&users::USER, users::reading_handler(app)),
            (&admin::REFRESH, admin::refresh_handler(app)),
        ];
        routes.extend(probes(app, auth, health::Role::LiveProcess, stop));
        Self(routes.into_iter().map(closed).collect())
    }

    /// Those of a process that does not serve the API: the probes and metrics.
    pub(super) fn of_worker(
        app: &Arc<Headcount>,
        auth: &Arc<Auth>,
        stop: CancellationToken,
    ) -> Self {
        let routes = probes(app, auth, health::Role::Worker, stop);
        Self(routes.into_iter().map(closed).collect())
    }

    /// The handler of `resource`, if this process has it.
    pub(super) fn handler(&self, resource: &'static Resource) -> Option<&BoxedFilter<(Response,)>> {
        let mut routes = self.0.iter();
        let found = routes.find(|(known, _)| std::ptr::eq(*known, resource));
        found.map(|(_, handler)| handler)
    }
}

fn probes(
    app: &Arc<Headcount>,
    auth: &Arc<Auth>,
    role: health::Role,
    stop: CancellationToken,
) -> [Route; 3] {
    [
        (&health::HEALTH, health::health_handler()),
        (&health::READY, health::ready_handler(app, auth, role, stop)),
        (&metrics::METRICS, metrics::handler(app)),
    ]
}

/// A request without a body.
struct Request {
    path: FullPath,
    query: Query,
    /// The segments that the caller may use.
    reach: Reach,
    /// The representation that the client prefers.
    representation: Representation,
}

impl Request {
    /// The segment in the path.
    fn segment(&self) -> Result<Segment, Problem> {
        path::segment(part_of(&self.path, 2), &self.query)
    }

    /// The user in the part of the path with this index, from 0.
    fn user(&self, index: usize) -> Result<UserId<'static>, Problem> {
        path::user(part_of(&self.path, index), &self.query)
    }
}

/// A handler for requests of one `method` without a body.
fn on<F>(
    method: impl Filter<Extract = (), Error = Rejection> + Clone + Send + Sync + 'static,
    app: &Arc<Headcount>,
    respond: impl Fn(Arc<Headcount>, Request) -> F + Clone + Send + Sync + 'static,
) -> BoxedFilter<(Response,)>
where
    F: Future<Output = Result<Response, Problem>> + Send + 'static,
{
    let app = Arc::clone(app);
    method
        .and(warp::path::full())
        .and(query())
        .and(extension())
        .and(extension())
        .then(move |path, query, reach, representation| {
            let request = Request {
                path,
                query,
                reach,
                representation,
            };
            let response = respond(Arc::clone(&app), request);
            async { response.await.unwrap_or_else(Reply::into_response) }
        })
        .boxed()
}

/// An extension of the request, or its default if the request has none.
fn extension<T>() -> impl Filter<Extract = (T,), Error = Infallible> + Copy
where
    T: Default + Clone + Send + Sync + 'static,
{
    warp::ext::optional().map(Option::<T>::unwrap_or_default)
}

/// A handler that refuses nothing: handlers respond with problems themselves.
fn closed((resource, handler): Route) -> Route {
    (resource, handler.recover(not_found).unify().boxed())
}

async fn not_found(_: Rejection) -> Result<Response, Infallible> {
    Ok(Problem::not_found().into_response())
}

/// The method, path template and required scope of every operation. `None` needs no token, which is the default of
/// `/metrics`.
pub(super) fn operations() -> impl Iterator<Item = (&'static str, &'static str, Option<Scope>)> {
    ALL.into_iter().flat_map(|resource| {
        resource.methods().map(|method| {
            let operation = resource.operation(method);
            let scope = match operation.map(|operation| operation.access) {
                Some(Access::Needs(scope)) => Some(scope),
                Some(Access::InBody) => Some(Scope::Write),
                Some(Access::Open | Access::Metrics) | None => None,
            };
            (method, resource.template, scope)
        })
    })
}

/// The operations that the OpenAPI document describes. HEAD is GET without a body, and would only double the document.
pub(super) fn documented() -> impl Iterator<Item = Documented> {
    ALL.into_iter().flat_map(|resource| {
        let methods = resource.methods().filter(|method| *method != "HEAD");
        methods.filter_map(|method| {
            let operation = resource.operation(method)?;
            Some(Documented {
                template: resource.template,
                method,
                access: operation.access,
                described: operation.describe?(),
            })
        })
    })
}

/// Whether an unknown `path` is that of a name with a slash that was not percent-encoded.
pub(super) fn has_slash_in_name(path: &str) -> bool {
    let name = ["/v1/segments/", "/v1/users/", "/segments/"]
        .iter()
        .find_map(|start| path.strip_prefix(start));
    let Some(rest) = name else { return false };
    let of_segment = rest
        .strip_suffix("/count")
        .or_else(|| rest.strip_suffix("/trend"));
    match of_segment {
        Some(name) => name.contains('/'),
        None => !path.starts_with("/v1/segments/") && rest.contains('/'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_templates() {
        for (path, template) in [
            ("/v1/pairs", "/v1/pairs"),
            ("/v1/segments/a%2Fb/count", "/v1/segments/{segment}/count"),
            ("/v1/segments/count/trend", "/v1/segments/{segment}/trend"),
            ("/v1/segments/a%2Fb", "/v1/segments/{segment}"),
            ("/v1/segments/count", "/v1/segments/{segment}"),
            ("/v1/segments/", "unknown"),
            ("/v1/users/u1", "/v1/users/{user_id}"),
            ("/v1/users/u1/merge", "/v1/users/{user_id}/merge"),
            ("/healthz", "/healthz"),
            ("/v1/segments//count", "unknown"),
            ("/v1/segments/a/b/count", "unknown"),
            ("/v1/pairs/", "unknown"),
            ("/v1/users/u1/x", "unknown"),
            ("//healthz", "unknown"),
            ("/", "/"),
            ("/segments/a%2Fb", "/segments/{segment}"),
            ("/segments/", "unknown"),
            ("", "unknown"),
            ("*", "unknown"),
        ] {
            assert_eq!(find(path).template, template, "{path}");
        }
    }

    #[test]
    fn a_slash_in_a_name_is_seen() {
        for path in [
            "/v1/segments/a/b/count",
            "/v1/segments/a/b/c/trend",
            "/v1/users/a/b",
            "/segments/a/b",
        ] {
            assert!(!find(path).exists() && has_slash_in_name(path), "{path}");
        }
        for path in [
            "/v1/segments/a/counts",
            "/v1/segments//count",
            "/v1/pairs/x",
            "/a/b",
        ] {
            assert!(!has_slash_in_name(path), "{path}");
        }
    }

    #[test]
    fn methods_are_taken_whole() {
        assert!(users::USER.operation("DELETE").is_some());
        assert!(users::USER.operation("HEAD").is_some());
        assert!(pairs::PAIRS.operation("GET").is_none());
        assert!(pairs::PAIRS.operation("").is_none());
        assert!(health::HEALTH.operation("get").is_none());
        assert_eq!(users::USER.allow(), "GET, HEAD, DELETE");
    }
}
