//! Error responses: RFC 9457 problem documents with a stable code.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use warp::http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use warp::http::{Response, StatusCode};
use warp::reply::Reply;

use crate::openapi::codes;
use domain::store::StoreError;
use domain::{InvalidSegment, InvalidUserId};
use engine::counts::CountError;
use engine::ingest::IngestError;

/// A failed request. `code` is for programs and never changes; `detail` is for people.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<String>,
}

/// The code of a problem, for the audit trail: an extension of the response.
#[derive(Debug, Clone, Copy)]
pub(super) struct Code(pub(super) &'static str);

/// The internal cause of a problem, for the log: an extension of the response, never sent to the client.
#[derive(Debug, Clone)]
pub(super) struct Cause(pub(super) String);

/// The `detail` of a problem, for pages that show it as HTML: an extension of the response.
#[derive(Debug, Clone)]
pub(super) struct Detail(pub(super) String);

/// Why a request failed (RFC 9457). Its schema, with the members of all codes, is [`schema::problem`](crate::openapi::schema::problem).
#[derive(Serialize)]
struct ProblemDocument<'a> {
    title: &'a str,
    /// The HTTP status of the response.
    status: u16,
    /// For programs; never changes.
    code: &'a str,
    /// For people.
    detail: &'a str,
    #[serde(flatten)]
    members: &'a Map<String, Value>,
}

impl Problem {
    /// A problem. `detail` is a sentence for people that says how to fix the request.
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            members: Map::new(),
            headers: Vec::new(),
            cause: None,
        }
    }

    /// 400.
    pub(super) fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// A query parameter whose value can't be used.
    pub(super) fn invalid_parameter(name: &str, detail: impl AsRef<str>) -> Self {
        let detail = format!("{name}: {}", detail.as_ref());
        Self::bad_request("invalid_parameter", detail).member("parameter", name)
    }

    /// A query parameter that the resource does not have. `known` are its parameters.
    pub(super) fn unknown_parameter(name: &str, known: &[&str], nearest: Option<&str>) -> Self {
        // A client may send a name of any length. 64 characters are enough to find it.
        let name: String = name.chars().take(64).collect();
        let instead = match (nearest, known) {
            (Some(nearest), _) => format!("did you mean `{nearest}`?"),
            (None, []) => "it has none".to_owned(),
            (None, known) => format!("it has {}", known.join(", ")),
        };
        let detail = format!("this resource has no query parameter `{name}`; {instead}");
        let problem =
            Self::bad_request("unknown_parameter", detail).member("parameter", name.as_str());
        match nearest {
            Some(nearest) => problem.member("nearest", nearest),
            None => problem,
        }
    }

    /// 404: no such resource.
    pub(super) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "there is nothing at this path",
        )
    }

    /// 404: the path would be known if the slash in a name were percent-encoded.
    pub(super) fn slash_in_name() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "there is nothing at this path: a slash within a name is written as %2F",
        )
    }

    /// 405, with the allowed methods.
    pub(super) fn method_not_allowed(allow: &str) -> Self {
        let detail = format!("this resource supports {allow}");
        let problem = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            codes::METHOD_NOT_ALLOWED,
            detail,
        );
        match HeaderValue::try_from(allow) {
            Ok(allow) => problem.header(ALLOW, allow),
            // Names of methods always fit.
            Err(_) => problem,
        }
    }

    /// 413.
    pub(super) fn too_large(limit: u64) -> Self {
        let detail = format!("the body may have at most {limit} bytes, after decompression too");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail).member("limit", limit)
    }

    /// 415.
    pub(super) fn unsupported(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            detail,
        )
    }

    /// 501: neither the store nor live counts can do what is asked for.
    pub(super) fn not_implemented(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "unsupported", detail)
    }

    /// 429: too much work is in flight.
    pub(super) fn busy(detail: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", detail).retry_after(retry_after)
    }

    /// 503.
    pub(super) fn unavailable(detail: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail).retry_after(retry_after)
    }

    /// 500: a defect of the service.
    pub(super) fn internal() -> Self {
        let detail = "an internal error occurred; the log has details under this request id";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// Whether a body was refused because of its size or of the memory that it needs.
    pub(super) fn is_about_size(&self) -> bool {
        matches!(
            self.status,
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS
        )
    }

    /// The status of the response.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The code for programs.
    pub(super) fn code(&self) -> Code {
        Code(self.code)
    }

    /// The sentence for people.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// Adds a member to the document.
    pub(super) fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// Keeps `cause` for the log.
    pub(super) fn caused_by(mut self, cause: &impl ToString) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// Adds a header.
    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The same with another status.
    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// Sets `Retry-After`.
    pub(super) fn retry_after(self, after: Duration) -> Self {
        // Whole seconds, rounded up: 0 would allow an immediate retry.
        let seconds = after.as_millis().div_ceil(1000).max(1);
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
        self.header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    #[cfg(test)]
    pub(super) fn summary(&self) -> (u16, &'static str) {
        (self.status.as_u16(), self.code)
    }
}

impl Reply for Problem {
    fn into_response(self) -> warp::reply::Response {
        let document = ProblemDocument {
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            members: &self.members,
        };
        // Strings and numbers with string keys always serialise.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Response::new(body).into_response();
        *response.status_mut() = self.status;
        let problem = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(CONTENT_TYPE, problem);
        response.headers_mut().extend(self.headers);
        response.extensions_mut().insert(Code(self.code));
        response.extensions_mut().insert(Detail(self.detail));
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(Cause(cause));
        }
        response
    }
}

/// `Retry-After` while the store is unavailable. It is shorter while the store is only busy.
pub(super) const RETRY_UNAVAILABLE: Duration = Duration::from_secs(5);
const RETRY_BUSY: Duration = Duration::from_secs(1);

impl From<InvalidSegment> for Problem {
    fn from(error: InvalidSegment) -> Self {
        Self::bad_request("invalid_segment", error.to_string())
    }
}

impl From<InvalidUserId> for Problem {
    fn from(error: InvalidUserId) -> Self {
        Self::bad_request("invalid_user_id", error.to_string())
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let problem = match &error {
            StoreError::Busy(_) => Self::unavailable("the store is busy", RETRY_BUSY),
            StoreError::Throttled { retry_after, .. } => {
                Self::unavailable("the store is busy", *retry_after)
            }
            StoreError::Unsupported(_) => {
                Self::not_implemented("the configured store can't do that")
            }
            StoreError::Rejected(_) | StoreError::Partly(_) | StoreError::Damaged(_) => {
                Self::internal()
            }
            StoreError::Unavailable(_)
            | StoreError::Timeout(_)
            | StoreError::Full(_)
            | StoreError::NotSetUp(_)
            | StoreError::Closed => {
                Self::unavailable("the store can't respond now", RETRY_UNAVAILABLE)
            }
        };
        problem.caused_by(&error)
    }
}

impl From<CountError> for Problem {
    fn from(CountError(error): CountError) -> Self {
        error.into()
    }
}

impl From<IngestError> for Problem {
    fn from(error: IngestError) -> Self {
        let detail = error.to_string();
        match error {
            IngestError::Busy { retry_after } => Self::busy(detail, retry_after),
            IngestError::Unavailable { retry_after, cause } => {
                Self::unavailable(detail, retry_after).caused_by(&cause)
            }
            // Without `Retry-After`, because the store has to be repaired first.
            IngestError::Refused { cause } => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                Self::new(status, "store_refused", detail).caused_by(&cause)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn rendered(problem: Problem) -> (warp::http::response::Parts, Value) {
        let (parts, body) = problem.into_response().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts, serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn a_problem_is_a_document_with_a_code() {
        let problem = Problem::invalid_parameter("limit", "must be from 1 to 1000");
        let (parts, document) = rendered(problem).await;
        assert_eq!(parts.status, 400);
        assert_eq!(parts.headers[CONTENT_TYPE], "application/problem+json");
        assert_eq!(
            document,
            serde_json::json!({
                "title": "Bad Request",
                "status": 400,
                "code": "invalid_parameter",
                "detail": "limit: must be from 1 to 1000",
                "parameter": "limit",
            })
        );
    }

    #[tokio::test]
    async fn the_cause_stays_inside() {
        let error = StoreError::Unavailable("10.0.0.7 refused".into());
        let (parts, document) = rendered(error.into()).await;
        assert_eq!(parts.status, 503);
        assert_eq!(parts.headers[RETRY_AFTER], "5");
        assert!(!document.to_string().contains("10.0.0.7"));
        let cause = parts.extensions.get::<Cause>().unwrap();
        assert!(cause.0.contains("10.0.0.7"));
    }

    #[tokio::test]
    async fn what_the_store_will_never_take_is_not_asked_for_again() {
        let cause = StoreError::Rejected("field type conflict".into());
        let (parts, document) = rendered(IngestError::Refused { cause }.into()).await;
        assert_eq!(
            (parts.status.as_u16(), &document["code"]),
            (500, &"store_refused".into())
        );
        assert!(!parts.headers.contains_key(RETRY_AFTER));
    }

    #[tokio::test]
    async fn waiting_times_are_rounded_up_and_never_zero() {
        for (millis, seconds) in [(0, "1"), (200, "1"), (1000, "1"), (1001, "2")] {
            let problem = Problem::busy("", Duration::from_millis(millis));
            assert_eq!(rendered(problem).await.0.headers[RETRY_AFTER], seconds);
        }
    }
}
