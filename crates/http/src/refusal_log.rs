//! A log line with target `access` for each request that is refused, for other reasons than those of the audit trail: so that an
//! operator sees that a client sends to the wrong path or in the wrong format. It has nothing that the client wrote but the
//! method and the first parts of an unknown path: headers, the query and the body may hold credentials, a path a user id.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;
use warp::reply::Response;

use super::audit::{AuditEvent, is_refusal};
use super::line_limit::LineLimit;
use super::problem::Code;

/// The first parts of paths of which the second part is a word of the API too, never a value.
const NAMESPACES: [&str; 3] = ["v1", "v2", "api"];
/// A longer part of a path is left out.
const MAX_PART: usize = 32;

/// Writes the lines. Cloning is cheap.
#[derive(Debug, Clone)]
pub(super) struct RefusalLog {
    limit: Arc<Mutex<LineLimit>>,
}

impl RefusalLog {
    pub(super) fn new() -> Self {
        Self {
            limit: Arc::new(Mutex::new(LineLimit::new(Instant::now()))),
        }
    }

    /// Writes the line of a request to `path` with its response, if it was refused.
    pub(super) fn write(&self, event: &AuditEvent<'_>, path: &str, response: &Response) {
        let status = response.status();
        if !status.is_client_error() {
            return;
        }
        let code = response.extensions().get::<Code>();
        let code = code.map_or("", |Code(code)| code);
        if is_refusal(status, code) {
            return;
        }
        let Some(left_out) = self.limit.lock().next(event.from, Instant::now()) else {
            return;
        };
        let unknown;
        let path = match event.route.exists() {
            true => event.route.template,
            false => {
                unknown = shortened(path);
                &unknown
            }
        };
        tracing::info!(
            target: "access",
            method = event.method,
            path,
            status = status.as_u16(),
            code,
            who = event.who.unwrap_or("-"),
            from = %event.from,
            request_id = event.request_id,
            left_out,
            "request refused"
        );
    }
}

/// The begin of an unknown path, which may hold a user id: its first part, and the second one behind a namespace.
fn shortened(path: &str) -> String {
    let mut parts = path.split('/').skip(1);
    let first = parts.next().unwrap_or_default();
    let mut short = part(first);
    if let Some(second) = parts.next() {
        short += &match NAMESPACES.contains(&first) {
            true => part(second),
            false => "/...".to_owned(),
        };
        if NAMESPACES.contains(&first) && parts.next().is_some() {
            short += "/...";
        }
    }
    short
}

/// A part of a path behind its slash, if it looks like a word of an API.
fn part(part: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    match part.len() <= MAX_PART && part.bytes().all(plain) {
        true => format!("/{part}"),
        false => "/...".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_path_is_shown_as_far_as_it_has_no_values() {
        for (path, shown) in [
            ("/", "/"),
            ("/pairs", "/pairs"),
            ("/v1/user", "/v1/user"),
            ("/api/v2/delete", "/api/v2/..."),
            ("/v1/users/u104010/x", "/v1/users/..."),
            ("/users/alice", "/users/..."),
            ("/alice@example.org", "/..."),
            ("/v1/alice@example.org", "/v1/..."),
            ("/a%0Ab", "/..."),
            ("*", "/"),
        ] {
            assert_eq!(shortened(path), shown, "{path}");
        }
        assert_eq!(shortened(&format!("/{}", "a".repeat(33))), "/...");
    }
}
