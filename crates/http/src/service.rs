//! The decorator around all routes: request ids, tokens, refusals, spans, the access log and metrics.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::body::Body;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tracing::Instrument;
use warp::filters::BoxedFilter;
use warp::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use warp::http::{Method, Request, StatusCode, Version};
use warp::reply::{Reply, Response};

use super::activity::Activity;
use super::client_address;
use super::cors::Policy;
use super::events::Listener;
use super::gate::{Gate, Refused};
use super::health::ShowsDetails;
use super::host;
use super::page;
use super::problem::{Cause, Problem};
use super::query;
use super::reach;
use super::request_id;
use super::route::{self, Route};
use super::site::Visitors;
use super::trail::{Act, Trail};
use super::unread::{Answer, Unread, WarpBody};
use crate::auth::Caller;
use crate::networks::Networks;
use telemetry::Metrics;

/// All routes, decorated. Cloning is cheap.
#[derive(Clone)]
pub(super) struct Web {
    routes: BoxedFilter<(Response,)>,
    gate: Gate,
    visitors: Visitors,
    cors: Policy,
    metrics: Arc<Metrics>,
    trail: Trail,
    trusted_proxies: Arc<Networks>,
    /// Of all connections.
    unread: Unread,
    /// What happens on the connection.
    activity: Arc<Activity>,
    /// The other end of the connection.
    peer: IpAddr,
}

/// What [`Web`] is made of.
pub(super) struct WebParts {
    pub(super) routes: BoxedFilter<(Response,)>,
    pub(super) gate: Gate,
    pub(super) visitors: Visitors,
    pub(super) cors: Policy,
    pub(super) metrics: Arc<Metrics>,
    pub(super) trail: Trail,
    pub(super) trusted_proxies: Networks,
}

/// Counts are of the moment, and some are for those alone who have a token: nothing on the way may keep them. Nor may a
/// browser take a response for something else than its type says.
const UNLESS_SAID: [(HeaderName, HeaderValue); 2] = [
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
];

/// What the log and metrics say of a request.
struct Seen {
    route: Route,
    method: &'static str,
    id: HeaderValue,
    caller: Option<Caller>,
    /// Who sent it, where it was refused although that is known.
    refused: Option<Arc<str>>,
    from: IpAddr,
    /// Whom or what it is about, where the audit trail says so.
    about: Option<String>,
    started: Instant,
}

impl Web {
    pub(super) fn new(parts: WebParts) -> Self {
        Self {
            routes: parts.routes,
            gate: parts.gate,
            visitors: parts.visitors,
            cors: parts.cors,
            metrics: parts.metrics,
            trail: parts.trail,
            trusted_proxies: Arc::new(parts.trusted_proxies),
            unread: Unread::new(),
            activity: Arc::default(),
            peer: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        }
    }

    /// The same service for another connection, from `peer`, and what happens there.
    pub(super) fn for_connection(&self, peer: IpAddr) -> (Self, Arc<Activity>) {
        let activity = Arc::<Activity>::default();
        let service = Self {
            activity: Arc::clone(&activity),
            peer,
            ..self.clone()
        };
        (service, activity)
    }

    fn finish(&self, seen: &Seen, response: &mut Response) {
        let headers = response.headers_mut();
        headers.insert(request_id::REQUEST_ID, seen.id.clone());
        for (name, value) in UNLESS_SAID {
            headers.entry(name).or_insert(value);
        }
        let took = seen.started.elapsed();
        let (route, status) = (seen.route.template(), response.status().as_u16());
        self.metrics.http.request(route, seen.method, status, took);
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let request_id = seen.id.to_str().unwrap_or("-");
        let method = seen.method;
        let who = seen.caller.as_ref().map(|caller| &*caller.name);
        let who = who.or(seen.refused.as_deref());
        let caller = who.unwrap_or("-");
        let act = Act {
            route: seen.route,
            method,
            who,
            from: seen.from,
            request_id,
            about: seen.about.as_deref(),
        };
        self.trail.write(&act, response);
        if response.status().is_server_error() {
            let cause = response.extensions().get::<Cause>();
            let cause = cause.map_or("", |Cause(cause)| cause.as_str());
            tracing::warn!(
                request_id,
                method,
                route,
                status,
                took_us,
                caller,
                cause,
                "request failed"
            );
        } else {
            tracing::debug!(
                request_id,
                method,
                route,
                status,
                took_us,
                caller,
                "request answered"
            );
        }
    }
}

impl<B> Service<Request<B>> for Web
where
    B: Body + Send + Sync + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = warp::http::Response<Answer<WarpBody>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, mut request: Request<B>) -> Self::Future {
        if request.version() == Version::HTTP_2 {
            self.activity.has_pings();
        }
        let answering = self.activity.answer();
        let mut seen = Seen {
            route: Route::of(request.uri().path()),
            method: name_of(request.method()),
            id: request_id::of(request.headers()),
            caller: None,
            refused: None,
            from: client_address::of(self.peer, request.headers(), &self.trusted_proxies),
            about: None,
            started: Instant::now(),
        };
        seen.about = self.trail.about(seen.route, seen.method, request.uri());
        let head = request.method() == Method::HEAD;
        let shows_page = seen.route.is_page() && page::wants_html(request.headers());
        let cors = self.cors.meet(request.headers());
        let early = match cors.preflight(request.method(), seen.route, request.headers()) {
            Some(answer) => Some(answer),
            None => match self.admit(&seen, &request) {
                Ok(caller) => {
                    seen.caller = caller;
                    None
                }
                Err(refused) => {
                    seen.refused = refused.who;
                    let problem = *refused.problem;
                    Some(match shows_page {
                        true => page::refused(problem, request.uri()),
                        false => problem.into_response(),
                    })
                }
            },
        };
        if let Some(caller) = &seen.caller {
            // For the handlers that know how much more than one request it is, and which segments it is about.
            if let Some(limiter) = &caller.limiter {
                request.extensions_mut().insert(Arc::clone(limiter));
            }
            request.extensions_mut().insert(caller.reach.clone());
        }
        if seen.route == Route::Ready {
            let shown = self.gate.shows_details(request.headers());
            request.extensions_mut().insert(ShowsDetails(shown));
        }
        if seen.route == Route::Events {
            // For the handler whose answer outlasts it.
            request.extensions_mut().insert(Arc::clone(&self.activity));
            if let Some(caller) = &seen.caller {
                let standing = self.gate.standing(request.headers(), caller);
                let id = caller.id;
                let extensions = request.extensions_mut();
                standing.map(|standing| extensions.insert(Listener { id, standing }));
            }
        }
        if head {
            // Answered like GET; what differs is made up for below.
            *request.method_mut() = Method::GET;
        }
        let span = tracing::debug_span!(
            "request",
            request_id = seen.id.to_str().unwrap_or("-"),
            method = seen.method,
            route = seen.route.template(),
        );
        let web = self.clone();
        let answer = async move {
            let _answering = answering;
            let mut response = match early {
                Some(answer) => answer,
                None => web.route(request).await,
            };
            if shows_page {
                response = page::for_people(response);
            }
            if head {
                response = without_body(response);
            }
            let hold = web.unread.admit(response.body());
            let hold = hold.unwrap_or_else(|problem| {
                response = problem.into_response();
                None
            });
            cors.mark(response.headers_mut());
            web.finish(&seen, &mut response);
            // Events may take any time.
            let taking = (seen.route != Route::Events).then(|| web.activity.take());
            Ok(response.map(|body| Answer::new(body, hold, taking)))
        };
        Box::pin(answer.instrument(span))
    }
}

impl Web {
    /// Who sent the request, unless it is refused before any handler sees it. What is at a path is no secret, so
    /// a path that does not exist says so to everybody.
    fn admit<B>(&self, seen: &Seen, request: &Request<B>) -> Result<Option<Caller>, Refused> {
        let (uri, headers) = (request.uri(), request.headers());
        host::of(request.version(), uri, headers)?;
        match seen.route {
            Route::Unknown if route::has_slash_in_name(uri.path()) => {
                Err(Problem::slash_in_name().into())
            }
            Route::Unknown => Err(Problem::not_found().into()),
            route if !route.takes(seen.method) => {
                Err(Problem::method_not_allowed(route.methods()).into())
            }
            route => {
                self.visitors.admit(route, seen.method, uri, headers)?;
                let (access, by_cookie) =
                    (route.access(seen.method), route.takes_cookie(seen.method));
                let caller = self.gate.admit(access, by_cookie, headers)?;
                query::check(route, uri.query())?;
                if let Some(caller) = &caller {
                    let checked = reach::check(route, seen.method, uri, &caller.reach);
                    checked.map_err(|problem| {
                        let problem = self.gate.refuse("segment", problem);
                        Refused::of(problem, Some(&caller.name))
                    })?;
                }
                Ok(caller)
            }
        }
    }

    async fn route<B>(&self, request: Request<B>) -> Response
    where
        B: Body + Send + Sync + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let routes = TowerToHyperService::new(warp::service(self.routes.clone()));
        // What a handler leaves behind when it panics is dropped with its request; what requests share is
        // behind locks that don't poison, and stores refuse to go on from a state that they can't trust.
        let answer = AssertUnwindSafe(async move { routes.call(request).await });
        match answer.catch_unwind().await {
            Ok(Ok(response)) => response,
            Err(_) => {
                self.metrics.http.panics.inc();
                let cause = "a handler panicked; standard error has its message";
                Problem::internal().caused_by(&cause).into_response()
            }
        }
    }
}

/// A label of a bounded set: a client may send any text as a method.
fn name_of(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// The head of an answer as GET would have it.
fn without_body(response: Response) -> Response {
    let length = response.body().size_hint().exact();
    let (mut parts, _) = response.into_parts();
    if let Some(length) = length {
        parts
            .headers
            .insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    let mut empty = StatusCode::OK.into_response();
    *empty.status_mut() = parts.status;
    *empty.headers_mut() = parts.headers;
    *empty.extensions_mut() = parts.extensions;
    empty
}
