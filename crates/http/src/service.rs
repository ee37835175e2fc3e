//! The service behind the middleware: admission, routing, the audit trail and the budget of unread responses.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use hyper::body::Body;
use tower::ServiceExt;
use tower_http::request_id::RequestId;
use warp::http::header::{CONTENT_LENGTH, HeaderValue};
use warp::http::{Method, Request, StatusCode};
use warp::reply::{Reply, Response};

use super::activity::Activity;
use super::api::events::Subscriber;
use super::api::health::ShowsDetails;
use super::api::{self, Routes};
use super::audit::{AuditEvent, AuditTrail};
use super::authorization::{Authorizer, Refused};
use super::client_address;
use super::entity_tag;
use super::host;
use super::origin::OriginPolicy;
use super::page;
use super::problem::Problem;
use super::query;
use super::refusal_log::RefusalLog;
use super::representation::Representation;
use super::request_id;
use super::resource::{Kind, Resource};
use super::response_budget::{BudgetedBody, ResponseBudget, WarpBody};
use super::segment_access;
use crate::auth::Caller;
use crate::networks::Networks;
use telemetry::Metrics;

/// All routes with admission. Shared by all connections.
pub(super) struct Web {
    pub(super) routes: Routes,
    pub(super) authorizer: Authorizer,
    pub(super) origin_policy: OriginPolicy,
    pub(super) metrics: Arc<Metrics>,
    pub(super) audit_trail: AuditTrail,
    pub(super) refusal_log: RefusalLog,
    pub(super) trusted_proxies: Networks,
    pub(super) response_budget: ResponseBudget,
}

/// The connection of a request.
#[derive(Debug, Clone)]
pub(super) struct ConnectionInfo {
    pub(super) activity: Arc<Activity>,
    /// The address at the other end.
    pub(super) peer: IpAddr,
    pub(super) entrance: Entrance,
}

/// The address at which a connection came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entrance {
    /// That of the setting `listen`, which serves everything.
    Internal,
    /// That of the setting `public_listen`.
    Public,
}

/// Where a request comes from and goes to: an extension that the middleware adds.
#[derive(Debug, Clone)]
pub(super) struct RequestContext {
    pub(super) connection: ConnectionInfo,
    pub(super) route: &'static Resource,
}

/// A handled request, for the access log: an extension of its response.
#[derive(Debug, Clone)]
pub(super) struct Handled {
    pub(super) route: &'static Resource,
    pub(super) method: &'static str,
    /// The name of the caller, if known.
    pub(super) caller: Option<Arc<str>>,
}

/// What admission found out about a request.
struct Admitted {
    caller: Option<Caller>,
    /// The representation that the client prefers.
    representation: Representation,
    /// The response, if no handler may see the request.
    refusal: Option<Response>,
    /// The name of the caller, also of a refused one, if known.
    name: Option<Arc<str>>,
}

impl Web {
    /// The response to `request`, which has the extensions [`RequestContext`] and [`RequestId`].
    pub(super) async fn handle<B>(
        &self,
        mut request: Request<B>,
    ) -> Result<warp::http::Response<BudgetedBody<WarpBody>>, Infallible>
    where
        B: Body + Send + Sync + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let unspecified = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let (route, peer) = match request.extensions().get::<RequestContext>() {
            Some(context) => (context.route, context.connection.peer),
            None => (api::find(request.uri().path()), unspecified),
        };
        let method = name_of(request.method());
        let request_id = request.extensions().get::<RequestId>().cloned();
        let from = client_address::of(peer, request.headers(), &self.trusted_proxies);
        let unknown_path = (!route.exists()).then(|| request.uri().path().to_owned());
        let about = self.audit_trail.about(route, method, request.uri());
        let head = request.method() == Method::HEAD;
        let known_tags = entity_tag::known_tags(request.headers());
        let shows_page = route.kind == Kind::Page && page::wants_html(request.headers());
        let Admitted {
            caller,
            representation,
            refusal,
            name,
        } = self.admitted(route, method, shows_page, &request);
        let mut response = match refusal {
            Some(refusal) => refusal,
            None => {
                self.extend(route, caller.as_ref(), representation, &mut request);
                if head {
                    // Handled as GET; the body is removed below.
                    *request.method_mut() = Method::GET;
                }
                self.route(route, request).await
            }
        };
        // Most requests have none.
        if !known_tags.is_empty() && matches!(method, "GET" | "HEAD") {
            response = entity_tag::unless_known(response, &known_tags);
        }
        if shows_page {
            response = page::for_people(response);
        }
        if head {
            response = without_body(response);
        }
        let permit = self.response_budget.reserve(response.body());
        let permit = permit.unwrap_or_else(|problem| {
            response = problem.into_response();
            None
        });
        let event = AuditEvent {
            route,
            method,
            who: name.as_deref(),
            from,
            request_id: request_id::as_str(request_id.as_ref().map(RequestId::header_value)),
            about: about.as_deref(),
        };
        self.audit_trail.write(&event, &response);
        let unknown_path = unknown_path.as_deref().unwrap_or_default();
        self.refusal_log.write(&event, unknown_path, &response);
        response.extensions_mut().insert(Handled {
            route,
            method,
            caller: name,
        });
        Ok(response.map(|body| BudgetedBody::new(body, permit)))
    }

    fn admitted<B>(
        &self,
        route: &Resource,
        method: &str,
        shows_page: bool,
        request: &Request<B>,
    ) -> Admitted {
        match self.admit(route, method, request) {
            Ok((caller, representation)) => Admitted {
                name: caller.as_ref().map(|caller| Arc::clone(&caller.name)),
                caller,
                representation,
                refusal: None,
            },
            Err(refused) => {
                let problem = *refused.problem;
                Admitted {
                    caller: None,
                    representation: Representation::Json,
                    refusal: Some(match shows_page {
                        true => page::refused(problem, request.uri()),
                        false => problem.into_response(),
                    }),
                    name: refused.who,
                }
            }
        }
    }

    /// Adds what handlers need to know besides the request itself.
    fn extend<B>(
        &self,
        route: &Resource,
        caller: Option<&Caller>,
        representation: Representation,
        request: &mut Request<B>,
    ) {
        let details = match route.kind {
            Kind::Probe => Some(self.authorizer.shows_details(request.headers())),
            _ => None,
        };
        let subscriber = match (route.kind, caller) {
            (Kind::Stream | Kind::Export, Some(caller)) => {
                let grant = self.authorizer.grant(request.headers(), caller);
                grant.map(|grant| Subscriber {
                    id: caller.id,
                    grant,
                })
            }
            _ => None,
        };
        let extensions = request.extensions_mut();
        // Handlers return JSON without it.
        if representation != Representation::Json {
            extensions.insert(representation);
        }
        if let Some(caller) = caller {
            // For the handlers that charge pairs to the rate limit, and that filter segments.
            if let Some(limiter) = &caller.limiter {
                extensions.insert(Arc::clone(limiter));
            }
            extensions.insert(caller.reach.clone());
        }
        if let Some(shown) = details {
            extensions.insert(ShowsDetails(shown));
        }
        if let Some(subscriber) = subscriber {
            extensions.insert(subscriber);
        }
    }

    /// The caller of the request, unless it is refused before any handler sees it. Which paths exist is no secret, so 404
    /// needs no token. With it comes the representation of the response.
    fn admit<B>(
        &self,
        route: &Resource,
        method: &str,
        request: &Request<B>,
    ) -> Result<(Option<Caller>, Representation), Refused> {
        let (uri, headers) = (request.uri(), request.headers());
        host::of(request.version(), uri, headers)?;
        if !route.exists() {
            return Err(match api::has_slash_in_name(uri.path()) {
                true => Problem::slash_in_name().into(),
                false => Problem::not_found().into(),
            });
        }
        let Some(operation) = route.operation(method) else {
            return Err(Problem::method_not_allowed(&route.allow()).into());
        };
        let is_probe = route.kind == Kind::Probe;
        self.origin_policy.check(is_probe, method, uri, headers)?;
        let caller = self.authorizer.authorize(operation, uri, headers)?;
        // Libraries of other programs send more parameters than matter here.
        if !operation.takes_client_token {
            query::check(route.parameters, uri.query())?;
        }
        let representation = match operation.has_csv {
            true => Representation::of(headers)?,
            false => Representation::Json,
        };
        if let Some(caller) = &caller {
            let checked = segment_access::check(operation.names, uri, &caller.reach);
            checked.map_err(|problem| {
                let problem = self.authorizer.refuse("segment", problem);
                Refused::of(problem, Some(&caller.name))
            })?;
        }
        Ok((caller, representation))
    }

    async fn route<B>(&self, route: &'static Resource, request: Request<B>) -> Response
    where
        B: Body + Send + Sync + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Some(handler) = self.routes.handler(route) else {
            return Problem::not_found().into_response();
        };
        let handler = warp::service(handler.clone());
        // Unwind safe: a panicking handler's own state is dropped with its request, shared state is behind locks that
        // do not poison, and stores refuse to continue from a state that they can't trust.
        let answer = AssertUnwindSafe(handler.oneshot(request));
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
pub(super) fn name_of(method: &Method) -> &'static str {
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
