//! Successful JSON responses.

use serde::{Serialize, Serializer};
use warp::http::header::{CONTENT_TYPE, HeaderValue};
use warp::http::{Response, StatusCode};
use warp::reply::Reply;

use super::problem::Problem;
use domain::Timestamp;

/// 200 with `value` as JSON.
pub(super) fn json(value: &impl Serialize) -> warp::reply::Response {
    json_with(StatusCode::OK, value)
}

/// `value` as JSON under `status`.
pub(super) fn json_with(status: StatusCode, value: &impl Serialize) -> warp::reply::Response {
    match serde_json::to_vec(value) {
        Ok(body) => {
            let mut response = Response::new(body).into_response();
            *response.status_mut() = status;
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(CONTENT_TYPE, json);
            response
        }
        Err(error) => Problem::internal().caused_by(&error).into_response(),
    }
}

/// How long before `now` an answer was exact. Millisecond precision: finer digits would only be noise.
pub(super) fn age_seconds(as_of: Timestamp, now: Timestamp) -> f64 {
    let age = now.as_millisecond().saturating_sub(as_of.as_millisecond());
    age.max(0) as f64 / 1000.0
}

/// Serialises an instant in RFC 3339, for `serialize_with`.
pub(super) fn rfc3339<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

/// Serialises an instant in RFC 3339, or null, for `serialize_with`.
pub(super) fn rfc3339_or_null<S: Serializer>(
    at: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => rfc3339(at, serializer),
        None => serializer.serialize_none(),
    }
}
