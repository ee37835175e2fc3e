//! CORS: which web pages of other origins may read responses (the CORS protocol of the Fetch standard).
//!
//! A page of another origin sends its token in a header that it sets itself. So no response allows credentials that
//! browsers add on their own: there is no `Access-Control-Allow-Credentials`.

use std::time::Duration;

use tower_http::cors::{AllowOrigin, CorsLayer};
use warp::http::Method;
use warp::http::header::{
    AUTHORIZATION, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LINK,
    ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE,
};

use super::covered::{COMPLETE, COVERED_SINCE};
use super::entity_tag::AS_OF;
use super::request_id::REQUEST_ID;
use crate::settings::Cors;

/// How long a browser may cache a preflight. A change of the setting may take as long.
const MAX_AGE: Duration = Duration::from_mins(10);

/// The layer that responds to preflights and marks responses; `None` if no other origin may read them.
pub(super) fn layer(cors: &Cors) -> Option<CorsLayer> {
    let origins = match cors {
        Cors::Off => return None,
        Cors::Any => AllowOrigin::any(),
        Cors::Of(origins) => {
            let origins = origins.clone();
            AllowOrigin::predicate(move |origin, _| {
                origins
                    .iter()
                    .any(|known| known.as_bytes() == origin.as_bytes())
            })
        }
    };
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::DELETE,
        ])
        .allow_headers([
            AUTHORIZATION,
            CONTENT_ENCODING,
            CONTENT_TYPE,
            IF_NONE_MATCH,
            REQUEST_ID,
        ])
        .expose_headers([
            AS_OF,
            COMPLETE,
            COVERED_SINCE,
            CONTENT_DISPOSITION,
            ETAG,
            LINK,
            RETRY_AFTER,
            WWW_AUTHENTICATE,
            REQUEST_ID,
        ])
        .max_age(MAX_AGE)
        .vary([ORIGIN]);
    Some(layer)
}
