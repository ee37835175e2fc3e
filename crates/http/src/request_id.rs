//! The id of each request, by which a response can be found in the log.

use tower_http::request_id::{MakeRequestId, RequestId};
use warp::http::Request;
use warp::http::header::{HeaderMap, HeaderName, HeaderValue};

/// The header of the id, in requests and responses.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A longer id is replaced, because it would only fill the log.
const MAX_BYTES: usize = 64;

/// Removes an id that is not plain, so that the request gets a new one.
pub(super) fn remove_implausible(headers: &mut HeaderMap) {
    let given = headers.get(REQUEST_ID);
    if given.is_some_and(|given| !is_plain(given.as_bytes())) {
        headers.remove(REQUEST_ID);
    }
}

fn is_plain(id: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=MAX_BYTES).contains(&id.len()) && id.iter().all(plain)
}

/// Makes ids of 16 random hexadecimal digits: an id only has to be unique among the requests of a few days.
#[derive(Debug, Clone, Copy)]
pub(super) struct Random;

impl MakeRequestId for Random {
    fn make_request_id<B>(&mut self, _: &Request<B>) -> Option<RequestId> {
        let id = HeaderValue::try_from(format!("{:016x}", fastrand::u64(..)));
        id.ok().map(RequestId::new)
    }
}

/// An id as logs have it.
pub(super) fn as_str(id: Option<&HeaderValue>) -> &str {
    id.and_then(|id| id.to_str().ok()).unwrap_or("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_ids_are_kept_and_others_removed() {
        let kept = |given: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(given).unwrap());
            remove_implausible(&mut headers);
            headers.contains_key(REQUEST_ID)
        };
        assert!(kept("0191f3e2-9a_b.C"));
        assert!(kept(&"a".repeat(64)));
        for bad in ["", "a b", "a\tb", "<script>", "é", &"a".repeat(65)] {
            assert!(!kept(bad), "{bad}");
        }
    }

    #[test]
    fn new_ids_differ() {
        let new = || Random.make_request_id(&Request::new(())).unwrap();
        assert_eq!(new().header_value().len(), 16);
        assert_ne!(new().header_value(), new().header_value());
    }
}
