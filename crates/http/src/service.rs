//! The decorator around all routes: request ids, authorization, spans, the access log, the audit trail and metrics.

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
use warp::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use warp::http::{Method, Request, StatusCode, Version};
use warp::reply::{Reply, Response};

use super::activity::Activity;
use super::api::events::Subscriber;
use super::api::health::ShowsDetails;
use super::api::{self, Routes};
use super::audit::{AuditEvent, AuditTrail};
use super::authorization::{Authorizer, Refused};
use super::client_address;
use super::cors::Policy;
use super::host;
use super::origin::OriginPolicy;
use super::page;
use super::problem::{Cause, Problem};
use super::query;
use super::request_id;
use super::resource::{Kind, Resource};
use super::response_budget::{BudgetedBody, ResponseBudget, WarpBody};
use super::segment_access;
use crate::auth::Caller;
use crate::networks::Networks;
use telemetry::Metrics;

/// All routes, decorated. Cloning is cheap.
#[derive(Clone)]
pub(super) struct Web {
    routes: Routes,
    authorizer: Authorizer,
    origin_policy: OriginPolicy,
    cors: Policy,
    metrics: Arc<Metrics>,
    audit_trail: AuditTrail,
    trusted_proxies: Arc<Networks>,
    /// Shared by all connections.
    response_budget: ResponseBudget,
    /// Of the connection that this clone serves.
    activity: Arc<Activity>,
    /// The address at the other end of that connection.
    peer: IpAddr,
}

/// The parts of a [`Web`] that connections share.
pub(super) struct WebParts {
    pub(super) routes: Routes,
    pub(super) authorizer: Authorizer,
    pub(super) origin_policy: OriginPolicy,
    pub(super) cors: Policy,
    pub(super) metrics: Arc<Metrics>,
    pub(super) audit_trail: AuditTrail,
    pub(super) trusted_proxies: Networks,
}

/// Set on responses that do not have them. `no-store`: counts change all the time, and some need a token, so no cache may
/// keep them. `nosniff`: a browser must not guess another type than `content-type`.
const DEFAULT_HEADERS: [(HeaderName, HeaderValue); 2] = [
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
];

/// A request as logs and metrics record it.
struct RequestInfo {
    route: &'static Resource,
    method: &'static str,
    id: HeaderValue,
    caller: Option<Caller>,
    /// The name of the caller of a refused request, if known.
    refused: Option<Arc<str>>,
    from: IpAddr,
    /// The user or segment that it is about, if the audit trail records it.
    about: Option<String>,
    started: Instant,
}

impl Web {
    pub(super) fn new(parts: WebParts) -> Self {
        Self {
            routes: parts.routes,
            authorizer: parts.authorizer,
            origin_policy: parts.origin_policy,
            cors: parts.cors,
            metrics: parts.metrics,
            audit_trail: parts.audit_trail,
            trusted_proxies: Arc::new(parts.trusted_proxies),
            response_budget: ResponseBudget::new(),
            activity: Arc::default(),
            peer: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        }
    }

    /// The service for a new connection from `peer`, and the activity of that connection.
    pub(super) fn for_connection(&self, peer: IpAddr) -> (Self, Arc<Activity>) {
        let activity = Arc::<Activity>::default();
        let service = Self {
            activity: Arc::clone(&activity),
            peer,
            ..self.clone()
        };
        (service, activity)
    }

    fn finish(&self, info: &RequestInfo, response: &mut Response) {
        let headers = response.headers_mut();
        headers.insert(request_id::REQUEST_ID, info.id.clone());
        for (name, value) in DEFAULT_HEADERS {
            headers.entry(name).or_insert(value);
        }
        let took = info.started.elapsed();
        let (route, status) = (info.route.template, response.status().as_u16());
        self.metrics.http.request(route, info.method, status, took);
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let request_id = info.id.to_str().unwrap_or("-");
        let method = info.method;
        let who = info.caller.as_ref().map(|caller| &*caller.name);
        let who = who.or(info.refused.as_deref());
        let caller = who.unwrap_or("-");
        let event = AuditEvent {
            route: info.route,
            method,
            who,
            from: info.from,
            request_id,
            about: info.about.as_deref(),
        };
        self.audit_trail.write(&event, response);
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
    type Response = warp::http::Response<BudgetedBody<WarpBody>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, mut request: Request<B>) -> Self::Future {
        if request.version() == Version::HTTP_2 {
            self.activity.mark_http2();
        }
        let handling = self.activity.begin_request();
        let mut info = RequestInfo {
            route: api::find(request.uri().path()),
            method: name_of(request.method()),
            id: request_id::of(request.headers()),
            caller: None,
            refused: None,
            from: client_address::of(self.peer, request.headers(), &self.trusted_proxies),
            about: None,
            started: Instant::now(),
        };
        info.about = self
            .audit_trail
            .about(info.route, info.method, request.uri());
        let head = request.method() == Method::HEAD;
        let shows_page = (info.route.kind == Kind::Page) && page::wants_html(request.headers());
        let cors = self.cors.meet(request.headers());
        let early = match cors.preflight(request.method(), info.route, request.headers()) {
            Some(answer) => Some(answer),
            None => match self.admit(&info, &request) {
                Ok(caller) => {
                    info.caller = caller;
                    None
                }
                Err(refused) => {
                    info.refused = refused.who;
                    let problem = *refused.problem;
                    Some(match shows_page {
                        true => page::refused(problem, request.uri()),
                        false => problem.into_response(),
                    })
                }
            },
        };
        if let Some(caller) = &info.caller {
            // For the handlers that charge pairs to the rate limit, and that filter segments.
            if let Some(limiter) = &caller.limiter {
                request.extensions_mut().insert(Arc::clone(limiter));
            }
            request.extensions_mut().insert(caller.reach.clone());
        }
        if info.route.kind == Kind::Probe {
            let shown = self.authorizer.shows_details(request.headers());
            request.extensions_mut().insert(ShowsDetails(shown));
        }
        if info.route.kind == Kind::Stream {
            // For the handler of event streams, which outlast it.
            request.extensions_mut().insert(Arc::clone(&self.activity));
            if let Some(caller) = &info.caller {
                let grant = self.authorizer.grant(request.headers(), caller);
                let id = caller.id;
                let extensions = request.extensions_mut();
                grant.map(|grant| extensions.insert(Subscriber { id, grant }));
            }
        }
        if head {
            // Handled as GET; the body is removed below.
            *request.method_mut() = Method::GET;
        }
        let span = tracing::debug_span!(
            "request",
            request_id = info.id.to_str().unwrap_or("-"),
            method = info.method,
            route = info.route.template,
        );
        let web = self.clone();
        let answer = async move {
            let _handling = handling;
            let mut response = match early {
                Some(answer) => answer,
                None => web.route(info.route, request).await,
            };
            if shows_page {
                response = page::for_people(response);
            }
            if head {
                response = without_body(response);
            }
            let permit = web.response_budget.reserve(response.body());
            let permit = permit.unwrap_or_else(|problem| {
                response = problem.into_response();
                None
            });
            cors.mark(response.headers_mut());
            web.finish(&info, &mut response);
            // An event stream has no time limit.
            let delivery = (info.route.kind != Kind::Stream).then(|| web.activity.begin_delivery());
            Ok(response.map(|body| BudgetedBody::new(body, permit, delivery)))
        };
        Box::pin(answer.instrument(span))
    }
}

impl Web {
    /// The caller of the request, unless it is refused before any handler sees it. Which paths exist is no secret, so 404
    /// needs no token.
    fn admit<B>(
        &self,
        info: &RequestInfo,
        request: &Request<B>,
    ) -> Result<Option<Caller>, Refused> {
        let (uri, headers) = (request.uri(), request.headers());
        host::of(request.version(), uri, headers)?;
        let route = info.route;
        if !route.exists() {
            return Err(match api::has_slash_in_name(uri.path()) {
                true => Problem::slash_in_name().into(),
                false => Problem::not_found().into(),
            });
        }
        let Some(operation) = route.operation(info.method) else {
            return Err(Problem::method_not_allowed(&route.allow()).into());
        };
        let is_probe = route.kind == Kind::Probe;
        self.origin_policy
            .check(is_probe, info.method, uri, headers)?;
        let (access, by_cookie) = (operation.access, operation.takes_cookie);
        let caller = self.authorizer.authorize(access, by_cookie, headers)?;
        query::check(route.parameters, uri.query())?;
        if let Some(caller) = &caller {
            let checked = segment_access::check(operation.names, uri, &caller.reach);
            checked.map_err(|problem| {
                let problem = self.authorizer.refuse("segment", problem);
                Refused::of(problem, Some(&caller.name))
            })?;
        }
        Ok(caller)
    }

    async fn route<B>(&self, route: &'static Resource, request: Request<B>) -> Response
    where
        B: Body + Send + Sync + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Some(handler) = self.routes.handler(route) else {
            return Problem::not_found().into_response();
        };
        let handler = TowerToHyperService::new(warp::service(handler.clone()));
        // Unwind safe: a panicking handler's own state is dropped with its request, shared state is behind locks that
        // do not poison, and stores refuse to continue from a state that they can't trust.
        let answer = AssertUnwindSafe(async move { handler.call(request).await });
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

/// The metric label of a method. The set of labels is bounded, because a client may send any string as a method.
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

/// The response to HEAD: the head of the response to GET.
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
