//! The HTTP service: ingestion of pairs, counts, administration, health, metrics and the web page.
//!
//! Each resource has a file, which turns a request into a call of [`Headcount`](engine::Headcount) and the result into a response or a
//! [`problem`]. [`service`] and [`authorization`] hold what all requests share: ids, tokens, logs, metrics, refusals.
//! [`server`] holds what all connections share.

mod access;
mod access_log;
mod activity;
mod api;
mod audit;
pub mod auth;
mod authorization;
mod body;
mod certificate;
mod client_address;
mod cookie;
mod cors;
mod covered;
mod cursor;
mod delivered_body;
mod document;
mod encoding;
mod entity_tag;
#[cfg(test)]
mod fuzz;
mod host;
mod line_limit;
mod media;
mod middleware;
mod monitored_stream;
pub mod networks;
mod openapi;
mod origin;
mod page;
pub mod parse;
mod path;
mod problem;
mod query;
mod refusal_log;
mod reply;
mod representation;
mod request_id;
mod request_timer;
mod resource;
mod response_budget;
mod segment_access;
mod server;
mod service;
mod session;
pub mod settings;
mod transport;

pub use server::{Drained, Listeners, serve, serve_health, serve_live};

use auth::Scope;

/// The method, path template and required scope of every resource. `None` needs no token, which is the default of
/// `/metrics`.
pub fn resources() -> impl Iterator<Item = (&'static str, &'static str, Option<Scope>)> {
    api::operations()
}

/// The OpenAPI document of the service as `/openapi.json` returns it: indented JSON with a trailing line feed.
///
/// # Errors
///
/// Never in practice: the document has only strings and numbers.
pub fn openapi() -> Result<String, serde_json::Error> {
    openapi::text(api::documented())
}
