//! Authentication and authorization: every route, tokens, JWTs, rate limits, and web pages of other origins.

mod cors;
mod cross_site;
mod jwt;
mod keys;
mod public;
mod rate_limits;
mod routes;
mod segments;
mod streams;
mod tokens_file;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use domain::Timestamp;
use headcount::config::Settings;
use http::auth::{self, Scope, Token};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::app::{App, NOON, Response};
use crate::support::jwt::{Signer, pem, unsigned};
use crate::support::tokens;

const SECRET: &str = "a secret that is long enough, by far";
const DEADLINE: Duration = Duration::from_secs(120);
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

/// Every route of the service: method, template, a path, the scope, and the status with a valid token.
const ROUTES: &[(&str, &str, &str, Option<Scope>, u16)] = &[
    // The request has no body and no content type.
    ("POST", "/v1/pairs", "/v1/pairs", Some(Scope::Write), 415),
    (
        "POST",
        "/v1/pairs/ndjson",
        "/v1/pairs/ndjson",
        Some(Scope::Write),
        400,
    ),
    (
        "POST",
        "/api/v2/write",
        "/api/v2/write",
        Some(Scope::Write),
        400,
    ),
    ("POST", "/write", "/write", Some(Scope::Write), 400),
    ("POST", "/v1/batch", "/v1/batch", Some(Scope::Write), 400),
    ("POST", "/v1/import", "/v1/import", Some(Scope::Write), 400),
    ("POST", "/v1/track", "/v1/track", Some(Scope::Write), 400),
    (
        "POST",
        "/v1/identify",
        "/v1/identify",
        Some(Scope::Write),
        400,
    ),
    ("POST", "/v1/page", "/v1/page", Some(Scope::Write), 400),
    ("POST", "/v1/screen", "/v1/screen", Some(Scope::Write), 400),
    ("POST", "/v1/group", "/v1/group", Some(Scope::Write), 400),
    ("POST", "/v1/alias", "/v1/alias", Some(Scope::Write), 400),
    ("POST", "/batch/", "/batch/", Some(Scope::Write), 400),
    (
        "POST",
        "/com.snowplowanalytics.snowplow/tp2",
        "/com.snowplowanalytics.snowplow/tp2",
        Some(Scope::Write),
        400,
    ),
    ("GET", "/ping", "/ping", None, 204),
    ("HEAD", "/ping", "/ping", None, 204),
    ("GET", "/health", "/health", None, 200),
    ("HEAD", "/health", "/health", None, 200),
    (
        "GET",
        "/v1/segments/{segment}/count",
        "/v1/segments/a/count",
        Some(Scope::Read),
        200,
    ),
    (
        "HEAD",
        "/v1/segments/{segment}/count",
        "/v1/segments/a/count",
        Some(Scope::Read),
        200,
    ),
    (
        "GET",
        "/v1/count",
        "/v1/count?expr=a",
        Some(Scope::Read),
        200,
    ),
    (
        "HEAD",
        "/v1/count",
        "/v1/count?expr=a",
        Some(Scope::Read),
        200,
    ),
    (
        "GET",
        "/v1/segments",
        "/v1/segments",
        Some(Scope::Read),
        200,
    ),
    (
        "HEAD",
        "/v1/segments",
        "/v1/segments",
        Some(Scope::Read),
        200,
    ),
    (
        "GET",
        "/v1/segments/{segment}/trend",
        "/v1/segments/a/trend",
        Some(Scope::Read),
        200,
    ),
    (
        "HEAD",
        "/v1/segments/{segment}/trend",
        "/v1/segments/a/trend",
        Some(Scope::Read),
        200,
    ),
    (
        "GET",
        "/v1/segments/{segment}",
        "/v1/segments/a",
        Some(Scope::Read),
        200,
    ),
    (
        "HEAD",
        "/v1/segments/{segment}",
        "/v1/segments/a",
        Some(Scope::Read),
        200,
    ),
    (
        "GET",
        "/v1/segments/{segment}/flow",
        "/v1/segments/a/flow",
        Some(Scope::Read),
        200,
    ),
    (
        "HEAD",
        "/v1/segments/{segment}/flow",
        "/v1/segments/a/flow",
        Some(Scope::Read),
        200,
    ),
    ("GET", "/combine", "/combine", Some(Scope::Read), 200),
    ("HEAD", "/combine", "/combine", Some(Scope::Read), 200),
    ("GET", "/compare", "/compare", Some(Scope::Read), 200),
    ("HEAD", "/compare", "/compare", Some(Scope::Read), 200),
    ("GET", "/overlaps", "/overlaps", Some(Scope::Read), 200),
    ("HEAD", "/overlaps", "/overlaps", Some(Scope::Read), 200),
    (
        "GET",
        "/segments.csv",
        "/segments.csv",
        Some(Scope::Read),
        200,
    ),
    (
        "HEAD",
        "/segments.csv",
        "/segments.csv",
        Some(Scope::Read),
        200,
    ),
    ("GET", "/status", "/status", Some(Scope::Read), 200),
    ("HEAD", "/status", "/status", Some(Scope::Read), 200),
    (
        "GET",
        "/trends.csv",
        "/trends.csv?segment=a",
        Some(Scope::Read),
        200,
    ),
    (
        "HEAD",
        "/trends.csv",
        "/trends.csv?segment=a",
        Some(Scope::Read),
        200,
    ),
    (
        "GET",
        "/v1/overlap",
        "/v1/overlap?segment=a&segment=b",
        Some(Scope::Read),
        200,
    ),
    (
        "GET",
        "/v1/overlap/top",
        "/v1/overlap/top",
        Some(Scope::Read),
        200,
    ),
    (
        "HEAD",
        "/v1/overlap",
        "/v1/overlap?segment=a&segment=b",
        Some(Scope::Read),
        200,
    ),
    (
        "HEAD",
        "/v1/overlap/top",
        "/v1/overlap/top",
        Some(Scope::Read),
        200,
    ),
    ("POST", "/v1/trends", "/v1/trends", Some(Scope::Read), 415),
    // The request has no body and no content type.
    (
        "PUT",
        "/v1/segments/{segment}",
        "/v1/segments/a",
        Some(Scope::Admin),
        415,
    ),
    (
        "DELETE",
        "/v1/segments/{segment}",
        "/v1/segments/a",
        Some(Scope::Admin),
        200,
    ),
    // Exports are off.
    (
        "GET",
        "/v1/segments/{segment}/users",
        "/v1/segments/a/users",
        Some(Scope::Export),
        404,
    ),
    (
        "HEAD",
        "/v1/segments/{segment}/users",
        "/v1/segments/a/users",
        Some(Scope::Export),
        404,
    ),
    (
        "DELETE",
        "/v1/segments/{segment}/users/{user_id}",
        "/v1/segments/a/users/u1",
        Some(Scope::Admin),
        200,
    ),
    // An invalid segment name, because a stream would not end.
    (
        "GET",
        "/v1/events",
        "/v1/events?segment=%20",
        Some(Scope::Read),
        400,
    ),
    ("HEAD", "/v1/events", "/v1/events", Some(Scope::Read), 200),
    (
        "POST",
        "/v1/users/{user_id}/merge",
        "/v1/users/u/merge",
        Some(Scope::Admin),
        415,
    ),
    (
        "GET",
        "/v1/users/{user_id}",
        "/v1/users/u1",
        Some(Scope::Users),
        200,
    ),
    (
        "HEAD",
        "/v1/users/{user_id}",
        "/v1/users/u1",
        Some(Scope::Users),
        200,
    ),
    (
        "DELETE",
        "/v1/users/{user_id}",
        "/v1/users/u1",
        Some(Scope::Erase),
        200,
    ),
    (
        "POST",
        "/v1/admin/refresh",
        "/v1/admin/refresh",
        Some(Scope::Admin),
        200,
    ),
    (
        "POST",
        "/v1/admin/archive",
        "/v1/admin/archive",
        Some(Scope::Admin),
        200,
    ),
    (
        "GET",
        "/v1/coverage",
        "/v1/coverage",
        Some(Scope::Read),
        200,
    ),
    (
        "HEAD",
        "/v1/coverage",
        "/v1/coverage",
        Some(Scope::Read),
        200,
    ),
    (
        "PUT",
        "/v1/admin/coverage",
        "/v1/admin/coverage?since=2026-01-01",
        Some(Scope::Admin),
        200,
    ),
    ("GET", "/healthz", "/healthz", None, 200),
    ("HEAD", "/healthz", "/healthz", None, 200),
    ("GET", "/readyz", "/readyz", None, 200),
    ("HEAD", "/readyz", "/readyz", None, 200),
    ("GET", "/metrics", "/metrics", None, 200),
    ("HEAD", "/metrics", "/metrics", None, 200),
    (
        "GET",
        "/metrics/segments",
        "/metrics/segments",
        Some(Scope::Read),
        200,
    ),
    (
        "HEAD",
        "/metrics/segments",
        "/metrics/segments",
        Some(Scope::Read),
        200,
    ),
    ("GET", "/openapi.json", "/openapi.json", None, 200),
    ("HEAD", "/openapi.json", "/openapi.json", None, 200),
    ("GET", "/docs", "/docs", None, 200),
    ("HEAD", "/docs", "/docs", None, 200),
    ("GET", "/docs/{file}", "/docs/headcount.js", None, 200),
    ("HEAD", "/docs/{file}", "/docs/headcount.js", None, 200),
    ("GET", "/", "/", Some(Scope::Read), 200),
    ("HEAD", "/", "/", Some(Scope::Read), 200),
    (
        "GET",
        "/segments/{segment}",
        "/segments/a",
        Some(Scope::Read),
        200,
    ),
    (
        "HEAD",
        "/segments/{segment}",
        "/segments/a",
        Some(Scope::Read),
        200,
    ),
    ("GET", "/sign-in", "/sign-in", None, 200),
    ("HEAD", "/sign-in", "/sign-in", None, 200),
    // The request has no `Origin`, which the page's own form sends.
    ("POST", "/sign-in", "/sign-in", None, 403),
    ("POST", "/sign-out", "/sign-out", None, 403),
    ("GET", "/assets/{file}", "/assets/page.css", None, 200),
    ("HEAD", "/assets/{file}", "/assets/page.css", None, 200),
];

/// A tokens file. The secret of a token is its name followed by `-token`.
struct TokensFile {
    path: PathBuf,
    _folder: TempDir,
}

impl TokensFile {
    fn new(tokens: &[Token]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = Self {
            path: folder.path().join("tokens.toml"),
            _folder: folder,
        };
        auth::edit(&file.path, |_| Ok(())).unwrap();
        tokens.iter().for_each(|token| file.add(token.clone()));
        file
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    fn add(&self, token: Token) {
        auth::edit(&self.path, |tokens| tokens.add(token)).unwrap();
    }
}

fn token(name: &str, scopes: &[Scope]) -> Token {
    tokens::token(name, &format!("{name}-token"), scopes)
}

fn bearer(name: &str) -> String {
    format!("Bearer {name}-token")
}

async fn send_as(app: &App, method: &str, path: &str, authorization: Option<&str>) -> Response {
    let method = method.parse().unwrap();
    match authorization {
        Some(value) => {
            app.send_with(method, path, &[("authorization", value)])
                .await
        }
        None => app.send(method, path).await,
    }
}

/// Fails unless `response` is a refusal with this status, code and challenge. A response to HEAD has no body to check.
fn assert_refused(response: &Response, method: &str, status: u16, code: &str, challenge: &str) {
    let given = response.headers["www-authenticate"].to_str().unwrap();
    assert_eq!(
        (response.status, given),
        (status, challenge),
        "{response:?}"
    );
    if method != "HEAD" {
        assert_eq!(response.problem(), (status, code));
    }
}

/// Calls `probe` until it returns a value. Fails after `DEADLINE`, which is far beyond the expected time.
async fn poll<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn status_of(app: &App, name: &str) -> u16 {
    send_as(app, "GET", "/v1/segments", Some(&bearer(name)))
        .await
        .status
}

async fn wait_for_status(app: &App, name: &str, status: u16) {
    let reached = async || (status_of(app, name).await == status).then_some(());
    poll(&format!("{status} for {name}"), reached).await;
}
