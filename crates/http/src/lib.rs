//! The HTTP service: ingestion of pairs, counts, administration, health, metrics and the web page.
//!
//! Each resource has a file, which turns a request into a call of [`Headcount`] and the result into a response or a
//! [`problem`]. [`service`] and [`authorization`] hold what all requests share: ids, tokens, logs, metrics, refusals.
//! [`server`] holds what all connections share.

mod activity;
mod admin;
mod audit;
pub mod auth;
mod authorization;
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
mod health;
mod host;
mod media;
mod metrics;
mod monitored_stream;
pub mod networks;
mod openapi;
mod origin;
mod page;
mod pairs;
pub mod parse;
mod path;
mod problem;
mod query;
mod reply;
mod request_id;
mod request_timer;
mod response_budget;
mod route;
mod segment_access;
mod segments;
mod server;
mod service;
mod session;
pub mod settings;
mod transport;
mod trend;
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
use authorization::Authorizer;
use engine::Headcount;
use problem::Problem;
use route::{Access, Route};

/// All routes. The busiest ones come first, because warp tries them in order. Cancelling `stop` makes the service
/// report that it is not ready. Cancelling `closing` ends the event streams.
fn routes(
    app: &Arc<Headcount>,
    settings: &HttpSettings,
    authorizer: Authorizer,
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
        .or(health::route(
            app,
            authorizer.auth(),
            health::Role::Service,
            stop,
        ))
        .unify()
        .or(metrics::route(app))
        .unify()
        .or(admin::route(app))
        .unify()
        .or(docs::route())
        .unify()
        .or(page::route(app, settings, authorizer))
        .unify()
        .recover(unmatched)
        .unify()
        .boxed()
}

/// Only the health and metrics routes, for a process that does not serve the API.
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

/// The method, path template and required scope of every resource. `None` needs no token, which is the default of
/// `/metrics`.
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

/// The OpenAPI document of the service as `/openapi.json` returns it: indented JSON with a trailing line feed.
///
/// # Errors
///
/// Never in practice: the document has only strings and numbers.
pub fn openapi() -> Result<String, serde_json::Error> {
    openapi::text()
}

/// Handlers return problems themselves. Only a request that matches no route gets here.
async fn unmatched(_: Rejection) -> Result<Response, Infallible> {
    Ok(Problem::not_found().into_response())
}
