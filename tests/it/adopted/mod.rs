//! Clients of other programs: InfluxDB's write endpoints, analytics libraries, CloudEvents.

mod influxdb;
mod line_protocol;
mod messages;
mod recorded;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::auth::Scope;
use tempfile::TempDir;

use crate::support::app::{App, Response};
use crate::support::tokens::{app_with_token, token};

/// A token with scope `write` and `read`, as a client would be given.
const TOKEN: &str = "hc_0123456789abcdefghijklmnopqrstuvwxyz";

/// A service that requires a token and accepts [`TOKEN`].
async fn app() -> (App, TempDir) {
    app_with_token(token("client", TOKEN, &[Scope::Write, Scope::Read])).await
}

fn basic(name: &str, password: &str) -> String {
    format!(
        "Basic {}",
        BASE64_STANDARD.encode(format!("{name}:{password}"))
    )
}

/// POST with an `Authorization` header, unless it is empty.
async fn post(app: &App, target: &str, authorization: &str, body: impl Into<String>) -> Response {
    let headers = [("authorization", authorization)];
    let headers = &headers[usize::from(authorization.is_empty())..];
    app.send_body_with(reqwest::Method::POST, target, headers, body.into())
        .await
}

/// The users of a segment.
async fn users(app: &App, segment: &str) -> u64 {
    let target = format!("/v1/segments/{segment}/count");
    let authorization = format!("Bearer {TOKEN}");
    let headers = [("authorization", authorization.as_str())];
    let response = app.send_with(reqwest::Method::GET, &target, &headers).await;
    response.json["users"].as_u64().unwrap()
}
