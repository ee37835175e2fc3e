//! The decorator around all routes: request ids, refusals, spans, the access log and metrics.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::body::Body;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tracing::Instrument;
use warp::filters::BoxedFilter;
use warp::http::header::{CONTENT_LENGTH, HeaderValue};
use warp::http::{Method, Request, StatusCode};
use warp::reply::{Reply, Response};

use super::problem::{Cause, Problem};
use super::request_id;
use super::route::Route;
use crate::telemetry::Metrics;

/// All routes, decorated. Cloning is cheap.
#[derive(Clone)]
pub(super) struct Web {
    routes: BoxedFilter<(Response,)>,
    metrics: Arc<Metrics>,
    /// Whether a request has come, per connection.
    begun: Arc<AtomicBool>,
}

/// What the log and metrics say of a request.
struct Seen {
    route: Route,
    method: &'static str,
    id: HeaderValue,
    started: Instant,
}

impl Web {
    pub(super) fn new(routes: BoxedFilter<(Response,)>, metrics: Arc<Metrics>) -> Self {
        Self {
            routes,
            metrics,
            begun: Arc::default(),
        }
    }

    /// The same service for another connection, and the flag that says whether a request has come there.
    pub(super) fn for_connection(&self) -> (Self, Arc<AtomicBool>) {
        let begun = Arc::new(AtomicBool::new(false));
        let service = Self {
            begun: Arc::clone(&begun),
            ..self.clone()
        };
        (service, begun)
    }

    fn finish(&self, seen: &Seen, response: &mut Response) {
        let headers = response.headers_mut();
        headers.insert(request_id::REQUEST_ID, seen.id.clone());
        let took = seen.started.elapsed();
        let (route, status) = (seen.route.template(), response.status().as_u16());
        self.metrics.request(route, seen.method, status, took);
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let request_id = seen.id.to_str().unwrap_or("-");
        let method = seen.method;
        if response.status().is_server_error() {
            let cause = response.extensions().get::<Cause>();
            let cause = cause.map_or("", |Cause(cause)| cause.as_str());
            tracing::warn!(
                request_id,
                method,
                route,
                status,
                took_us,
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
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn call(&self, mut request: Request<B>) -> Self::Future {
        self.begun.store(true, Ordering::Relaxed);
        let seen = Seen {
            route: Route::of(request.uri().path()),
            method: name_of(request.method()),
            id: request_id::of(request.headers()),
            started: Instant::now(),
        };
        let head = request.method() == Method::HEAD;
        let refusal = match seen.route {
            Route::Unknown => Some(Problem::not_found()),
            route if !route.takes(seen.method) => {
                Some(Problem::method_not_allowed(route.methods()))
            }
            _ => None,
        };
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
            let mut response = match refusal {
                Some(problem) => problem.into_response(),
                None => web.route(request).await,
            };
            if head {
                response = without_body(response);
            }
            web.finish(&seen, &mut response);
            Ok(response)
        };
        Box::pin(answer.instrument(span))
    }
}

impl Web {
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
                self.metrics.panic();
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
