//! Entity tags, and 304 for clients that know the current content (RFC 9110, sections 8.8.3 and 13.1.2).
//!
//! A tag is weak: it covers what a client acts on, such as users and `stale`, and not the instant and the age of a count,
//! which differ in every response. A 304 has the instant in the header [`AS_OF`].

use std::hash::{Hash, Hasher};

use siphasher::sip::SipHasher13;
use warp::http::StatusCode;
use warp::http::header::{
    CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH,
};
use warp::reply::{Reply, Response};

use super::representation::unquoted;

/// The instant at which all numbers of a response were exact, or a later one each.
pub(super) const AS_OF: HeaderName = HeaderName::from_static("headcount-as-of");

/// The tag of `content`. All instances return the same tag for the same content, because the hash has no key: a client may
/// reach another instance with each request.
pub(super) fn of(content: &impl Hash) -> Option<HeaderValue> {
    let mut hasher = SipHasher13::new();
    content.hash(&mut hasher);
    // A formatter would take five times as long as the hash.
    let mut tag = *b"W/\"0123456789abcdef\"";
    base16ct::lower::encode(&hasher.finish().to_be_bytes(), &mut tag[3..19]).ok()?;
    HeaderValue::from_bytes(&tag).ok()
}

/// The `If-None-Match` headers of a request.
///
/// The crate `headers` is not used: its debug builds panic at a tag with a space or a quote.
pub(super) fn known_tags(headers: &HeaderMap) -> Vec<HeaderValue> {
    headers.get_all(IF_NONE_MATCH).iter().cloned().collect()
}

/// `response`, or 304 without its body if the client knows the content by one of its tags.
pub(super) fn unless_known(response: Response, known: &[HeaderValue]) -> Response {
    let tag = response.headers().get(ETAG);
    let tag = tag.and_then(|tag| tag.to_str().ok());
    let is_known = tag.is_some_and(|tag| known.iter().any(|given| names(given, tag)));
    if response.status() != StatusCode::OK || !is_known {
        return response;
    }
    let mut not_modified = StatusCode::NOT_MODIFIED.into_response();
    *not_modified.headers_mut() = response.headers().clone();
    for name in [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_DISPOSITION] {
        not_modified.headers_mut().remove(name);
    }
    not_modified
}

/// Whether `given` is `*`, or lists `tag`. The comparison is weak. A string that is not a tag matches nothing.
fn names(given: &HeaderValue, tag: &str) -> bool {
    let given = given.to_str().unwrap_or_default();
    let opaque = |tag| str::strip_prefix(tag, "W/").unwrap_or(tag);
    given.trim() == "*" || unquoted(given, ',').any(|given| opaque(given.trim()) == opaque(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(tag: &str) -> Response {
        let mut response = warp::http::Response::new("[]").into_response();
        response.headers_mut().insert(ETAG, tag.parse().unwrap());
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        let instant = HeaderValue::from_static("2026-11-21T12:00:00Z");
        response.headers_mut().insert(AS_OF, instant);
        response
    }

    fn status(tag: &str, given: &[&str]) -> u16 {
        let mut headers = HeaderMap::new();
        for value in given {
            headers.append(IF_NONE_MATCH, value.parse().unwrap());
        }
        let response = unless_known(tagged(tag), &known_tags(&headers));
        let (length, headers) = (
            hyper::body::Body::size_hint(response.body()).exact(),
            response.headers(),
        );
        let is_304 = response.status() == 304;
        assert_eq!(length == Some(0), is_304, "{given:?}");
        assert_eq!(headers.contains_key(CONTENT_TYPE), !is_304, "{given:?}");
        assert!(headers.contains_key(ETAG) && headers.contains_key(AS_OF));
        response.status().as_u16()
    }

    #[test]
    fn a_client_that_knows_the_content_gets_304() {
        for (given, expected) in [
            (&[][..], 200),
            (&["*"], 304),
            (&["W/\"1f\""], 304),
            // The comparison is weak: a proxy may have made the tag strong or weak.
            (&["\"1f\""], 304),
            (&["\"a,b\", W/\"1f\""], 304),
            (&["\"a\"", "W/\"b\"  ,W/\"1f\""], 304),
            (&["W/\"1F\""], 200),
            (&["1f"], 200),
            (&["W/\"1f"], 200),
            (&["\"a, W/\"1f\""], 200),
            (&[""], 200),
            (&[","], 200),
            (&["\"\\\"1f\""], 200),
            (&["\"a b\", \"1f\""], 304),
            (&["*, \"a\""], 200),
        ] {
            assert_eq!(status("W/\"1f\"", given), expected, "{given:?}");
        }
    }

    #[test]
    fn only_a_success_becomes_304() {
        let mut headers = HeaderMap::new();
        headers.insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
        let tags = known_tags(&headers);
        let without_tag = unless_known(StatusCode::OK.into_response(), &tags);
        assert_eq!(without_tag.status(), 200);
        let mut failed = tagged("W/\"1\"");
        *failed.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        assert_eq!(unless_known(failed, &tags).status(), 500);
    }

    #[test]
    fn a_tag_is_the_same_on_every_instance() {
        assert_eq!(of(&("sports", 3_u64)), of(&("sports", 3_u64)));
        assert_ne!(of(&("sports", 3_u64)), of(&("sports", 4_u64)));
        // Instances of several versions serve behind one load balancer during an update.
        assert_eq!(of(&7_u64).unwrap(), "W/\"6634b0bda4fe8a7b\"");
    }
}
