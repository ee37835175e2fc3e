//! CORS: which web pages of other origins may read responses (the CORS protocol of the Fetch standard).
//!
//! A page of another origin sends its token in a header that it sets itself. So no response allows credentials that
//! browsers add on their own: there is no `Access-Control-Allow-Credentials`.

use warp::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    HeaderMap, HeaderValue, ORIGIN, VARY,
};
use warp::http::{Method, StatusCode};
use warp::reply::{Reply, Response};

use super::resource::Resource;
use crate::settings::Cors;

/// Request headers of this API for which browsers need permission.
const REQUEST_HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-encoding, content-type, x-request-id");
/// Response headers that a page may read besides the safelisted ones.
const ANSWER_HEADERS: HeaderValue =
    HeaderValue::from_static("retry-after, www-authenticate, x-request-id");
/// Seconds that a browser may cache a preflight. A change of the setting may take these ten minutes.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// The CORS policy.
#[derive(Debug, Clone)]
pub(super) struct Policy(Cors);

/// The policy for one request.
#[derive(Debug)]
pub(super) struct Met {
    /// The value of `Access-Control-Allow-Origin`.
    allowed: Option<HeaderValue>,
    /// Whether responses differ by origin, which caches must know (`Vary`).
    varies: bool,
}

impl Policy {
    pub(super) fn new(cors: Cors) -> Self {
        Self(cors)
    }

    /// The policy for a request with these headers.
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
    /// The response to a preflight, which the browser sends on its own and without a token. `None` for other requests.
    pub(super) fn preflight(
        &self,
        method: &Method,
        route: &Resource,
        headers: &HeaderMap,
    ) -> Option<Response> {
        let asks = method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if !asks || self.allowed.is_none() || !route.exists() {
            return None;
        }
        let mut response = StatusCode::NO_CONTENT.into_response();
        let answer = response.headers_mut();
        if let Ok(methods) = HeaderValue::try_from(route.allow()) {
            answer.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        }
        answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
        answer.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        Some(response)
    }

    /// Adds the headers that let the page read a response.
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
