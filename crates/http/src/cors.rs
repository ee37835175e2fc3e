//! Web pages of other origins: which of them a browser may let ask (the CORS protocol of the Fetch standard).
//!
//! Tokens travel in a header that a page sets itself, so no answer ever allows what browsers send along by
//! themselves: there is no `Access-Control-Allow-Credentials`, for the wildcard least of all.

use warp::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    HeaderMap, HeaderValue, ORIGIN, VARY,
};
use warp::http::{Method, StatusCode};
use warp::reply::{Reply, Response};

use super::route::Route;
use crate::settings::Cors;

/// The headers that our requests have and that browsers ask for.
const REQUEST_HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-encoding, content-type, x-request-id");
/// The headers of our answers that a page may read besides the common ones.
const ANSWER_HEADERS: HeaderValue =
    HeaderValue::from_static("retry-after, www-authenticate, x-request-id");
/// How many seconds a browser may remember a preflight: no page notices a change that took ten minutes.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// What a request's `Origin` may do.
#[derive(Debug, Clone)]
pub(super) struct Policy(Cors);

/// The part of the policy that one request meets.
#[derive(Debug)]
pub(super) struct Met {
    /// The value of `Access-Control-Allow-Origin`.
    allowed: Option<HeaderValue>,
    /// Whether answers differ by origin, which caches must know.
    varies: bool,
}

impl Policy {
    pub(super) fn new(cors: Cors) -> Self {
        Self(cors)
    }

    /// What applies to a request with these headers.
    pub(super) fn meet(&self, headers: &HeaderMap) -> Met {
        let origin = headers.get(ORIGIN);
        let allowed = match &self.0 {
            Cors::Off => None,
            Cors::Any => origin.map(|_| HeaderValue::from_static("*")),
            Cors::Of(origins) => origin
                .filter(|origin| {
                    origins
                        .iter()
                        .any(|known| known.as_bytes() == origin.as_bytes())
                })
                .cloned(),
        };
        Met {
            allowed,
            varies: matches!(self.0, Cors::Of(_)),
        }
    }
}

impl Met {
    /// The answer to a preflight: a question of the browser's own, which carries no token.
    pub(super) fn preflight(
        &self,
        method: &Method,
        route: Route,
        headers: &HeaderMap,
    ) -> Option<Response> {
        let asks = method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if !asks || self.allowed.is_none() || route == Route::Unknown {
            return None;
        }
        let mut response = StatusCode::NO_CONTENT.into_response();
        let answer = response.headers_mut();
        let methods = HeaderValue::from_static(route.methods());
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
        answer.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        Some(response)
    }

    /// Adds what the browser needs to let the page see an answer.
    pub(super) fn mark(self, answer: &mut HeaderMap) {
        if self.varies {
            answer.append(VARY, HeaderValue::from_static("origin"));
        }
        if let Some(origin) = self.allowed {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, ANSWER_HEADERS);
        }
    }
}
