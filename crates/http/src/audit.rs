//! The audit trail: one log line, with level info and target `audit`, for each request that erases, merges, refreshes, archives, changes settings or
//! states since when counts are complete, and for each request that is refused because of its token or origin. A line has the caller, the action, the address and
//! the outcome. It never has a token, and of a user only a hash.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;
use warp::http::{StatusCode, Uri};
use warp::reply::Response;

use super::line_limit::LineLimit;
use super::path;
use super::problem::Code;
use super::query::Query;
use super::resource::{Audited, Resource};
use crate::auth::Digest;
use domain::UserId;
use engine::Headcount;

/// Hexadecimal digits of a user's hash: 64 bits tell users apart, and a short string is easier to read.
const HASH_DIGITS: usize = 16;

/// The outcome that a handler reports for the audit trail: an extension of the response, never sent to the client.
#[derive(Debug, Clone)]
pub(super) struct AuditOutcome(pub(super) String);

impl AuditOutcome {
    /// Adds the outcome to `response`.
    pub(super) fn on(mut response: Response, outcome: String) -> Response {
        response.extensions_mut().insert(Self(outcome));
        response
    }
}

/// Writes the audit trail. Cloning is cheap.
#[derive(Clone)]
pub(super) struct AuditTrail {
    /// For the ids that users have in the store. `None` in a process whose routes name no user.
    app: Option<Arc<Headcount>>,
    refusals: Arc<Mutex<LineLimit>>,
}

/// A request as the audit trail records it.
pub(super) struct AuditEvent<'a> {
    pub(super) route: &'static Resource,
    pub(super) method: &'static str,
    /// The name of the token or the subject of the JWT, if it was valid.
    pub(super) who: Option<&'a str>,
    pub(super) from: IpAddr,
    pub(super) request_id: &'a str,
    /// The user or segment that the request is about.
    pub(super) about: Option<&'a str>,
}

impl AuditTrail {
    pub(super) fn new(app: Option<Arc<Headcount>>) -> Self {
        Self {
            app,
            refusals: Arc::new(Mutex::new(LineLimit::new(Instant::now()))),
        }
    }

    /// The user or segment that a request is about, if the request is recorded.
    pub(super) fn about(&self, route: &Resource, method: &str, uri: &Uri) -> Option<String> {
        match action(route, method)? {
            Audited::Erase => {
                let hash = self.user_hash(uri, uri.path().rsplit('/').next()?)?;
                Some(format!("user {hash}"))
            }
            Audited::Merge => {
                let hash = self.user_hash(uri, uri.path().split('/').nth(3)?)?;
                Some(format!("user {hash}"))
            }
            Audited::Refresh => {
                let query = uri.query().unwrap_or_default();
                let mut pairs = form_urlencoded::parse(query.as_bytes());
                let named = pairs.find(|(key, _)| key == "segment");
                Some(match named {
                    // Quoted, because it may be an invalid name.
                    Some((_, name)) => format!("segment {name:.128?}"),
                    None => "all segments".to_owned(),
                })
            }
            Audited::SetSegment | Audited::DeleteSegment | Audited::Export => {
                let segment = segment_of(uri)?;
                Some(format!("segment {segment}"))
            }
            Audited::EraseFromSegment => {
                let part = uri.path().rsplit('/').next()?;
                let (segment, hash) = (segment_of(uri)?, self.user_hash(uri, part)?);
                Some(format!("segment {segment} user {hash}"))
            }
            Audited::Archive | Audited::Coverage => None,
        }
    }

    /// A hash of the user in this part of the path.
    fn user_hash(&self, uri: &Uri, part: &str) -> Option<String> {
        let query = Query::parse(uri.query().unwrap_or_default());
        let user = path::user(part, &query).ok()?;
        Some(hash_of(self.app.as_ref()?, user))
    }

    /// Writes the line of a request with its response, if the request is recorded.
    pub(super) fn write(&self, event: &AuditEvent<'_>, response: &Response) {
        let status = response.status();
        let code = response.extensions().get::<Code>();
        let code = code.map_or("", |Code(code)| code);
        if is_refusal(status, code) {
            self.refused(event, status, code);
        } else if let Some(action) = action(event.route, event.method) {
            let done = response.extensions().get::<AuditOutcome>();
            let outcome = match done {
                Some(AuditOutcome(outcome)) => outcome.as_str(),
                None if code.is_empty() => "done",
                None => code,
            };
            tracing::info!(
                target: "audit",
                action = action.as_str(),
                about = event.about.unwrap_or("all"),
                who = event.who.unwrap_or("-"),
                from = %event.from,
                request_id = event.request_id,
                status = status.as_u16(),
                outcome,
                "done on request"
            );
        }
    }

    fn refused(&self, event: &AuditEvent<'_>, status: StatusCode, code: &str) {
        let Some(left_out) = self.refusals.lock().next(event.from, Instant::now()) else {
            return;
        };
        tracing::info!(
            target: "audit",
            action = "refusal",
            route = event.route.template,
            method = event.method,
            who = event.who.unwrap_or("-"),
            from = %event.from,
            request_id = event.request_id,
            status = status.as_u16(),
            outcome = code,
            left_out,
            "refused"
        );
    }
}

/// The hash that stands for a user.
pub(super) fn hash_of(app: &Headcount, user: UserId<'_>) -> String {
    let stored = app.ingest().identity().of(user);
    let mut hash = Digest::of(stored.as_str().as_bytes()).to_string();
    hash.truncate(HASH_DIGITS);
    hash
}

/// The segment in the path of a request, quoted.
fn segment_of(uri: &Uri) -> Option<String> {
    let part = uri.path().split('/').nth(3)?;
    let query = Query::parse(uri.query().unwrap_or_default());
    let segment = path::segment(part, &query).ok()?;
    Some(format!("{:?}", segment.as_str()))
}

/// The `action` of a request that is recorded.
fn action(route: &Resource, method: &str) -> Option<Audited> {
    route.operation(method)?.audited
}

/// Whether the request was refused because of its token or origin. A full queue is no refusal.
pub(super) fn is_refusal(status: StatusCode, code: &str) -> bool {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST => true,
        StatusCode::TOO_MANY_REQUESTS => code == "rate_limited",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_is_no_refusal() {
        assert!(is_refusal(StatusCode::TOO_MANY_REQUESTS, "rate_limited"));
        assert!(!is_refusal(StatusCode::TOO_MANY_REQUESTS, "busy"));
        assert!(!is_refusal(StatusCode::NOT_FOUND, "not_found"));
    }
}
