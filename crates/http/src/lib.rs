//! HTTP: pairs in, counts out, and what keeps the service healthy.
//!
//! Each resource has its file, which turns a request into a call of [`Headcount`] and the outcome into an
//! answer or a [`problem`]. What all requests share (ids, tokens, log, metrics, refusals) is in [`service`] and
//! [`gate`], what all connections share in [`server`].

mod activity;
mod admin;
pub mod auth;
mod body;
mod client_address;
mod cookie;
mod cors;
mod count;
mod cursor;
mod docs;
mod encoding;
mod events;
#[cfg(test)]
mod fuzz;
mod gate;
mod health;
mod host;
mod idle;
mod media;
mod metrics;
pub mod networks;
mod openapi;
mod page;
mod pairs;
pub mod parse;
mod path;
mod problem;
mod query;
mod quiet;
mod reach;
mod reply;
mod request_id;
mod route;
mod segments;
mod server;
mod service;
mod session;
pub mod settings;
mod site;
mod trail;
mod transport;
mod trend;
mod unread;
mod users;

use std::convert::Infallible;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use warp::filters::BoxedFilter;
use warp::reply::{Reply, Response};
use warp::{Filter, Rejection};

pub use server::{Drained, serve, serve_health};

use crate::auth::{Auth, Scope};
use crate::settings::HttpSettings;
use engine::Headcount;
use gate::Gate;
use problem::Problem;
use route::{Access, Route};

/// All routes; the busiest come first, as each is tried in turn. Once `stop` is cancelled the service says that
/// it is not ready; once `closing` is, streams of events end.
fn routes(
    app: &Arc<Headcount>,
    settings: &HttpSettings,
    gate: Gate,
    stop: CancellationToken,
    closing: CancellationToken,
) -> BoxedFilter<(Response,)> {
    pairs::route(app, settings)
        .or(count::route(app))
        .unify()
        .or(segments::route(app))
        .unify()
        .or(trend::route(app))
        .unify()
        .or(events::route(app, settings, closing))
        .unify()
        .or(users::route(app))
        .unify()
        .or(health::route(app, gate.auth(), health::Role::Service, stop))
        .unify()
        .or(metrics::route(app))
        .unify()
        .or(admin::route(app))
        .unify()
        .or(docs::route())
        .unify()
        .or(page::route(app, settings, gate))
        .unify()
        .recover(unmatched)
        .unify()
        .boxed()
}

/// The routes that tell how a process is, and no others.
fn health_routes(
    app: &Arc<Headcount>,
    auth: &Arc<Auth>,
    stop: CancellationToken,
) -> BoxedFilter<(Response,)> {
    health::route(app, auth, health::Role::Worker, stop)
        .or(metrics::route(app))
        .unify()
        .recover(unmatched)
        .unify()
        .boxed()
}

/// The method and path template of everything that the service answers, and the scope that it asks for; `None` is
/// open to everybody, as /metrics is by default.
pub fn resources() -> impl Iterator<Item = (&'static str, &'static str, Option<Scope>)> {
    Route::ALL.into_iter().flat_map(|route| {
        route.methods().split(", ").map(move |method| {
            let scope = match route.access(method) {
                Access::Needs(scope) => Some(scope),
                Access::Open | Access::Metrics => None,
            };
            (method, route.template(), scope)
        })
    })
}

/// The OpenAPI document of the service, as /openapi.json answers it: indented JSON with a line feed at its end.
///
/// # Errors
///
/// Never in practice: all of it is texts and numbers.
pub fn openapi() -> Result<String, serde_json::Error> {
    openapi::text()
}

/// Handlers answer problems themselves; only a request that none took gets here.
async fn unmatched(_: Rejection) -> Result<Response, Infallible> {
    Ok(Problem::not_found().into_response())
}
