//! The id of each request, by which a response can be found in the log.

use warp::http::header::{HeaderMap, HeaderName, HeaderValue};

/// The header of the id, in requests and responses.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A longer id is replaced, because it would only fill the log.
const MAX_BYTES: usize = 64;

/// The client's id if it is plain, otherwise a new one.
pub(super) fn of(headers: &HeaderMap) -> HeaderValue {
    match headers.get(REQUEST_ID) {
        Some(given) if is_plain(given.as_bytes()) => given.clone(),
        _ => generate(),
    }
}

fn is_plain(id: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=MAX_BYTES).contains(&id.len()) && id.iter().all(plain)
}

/// 16 random hexadecimal digits: an id only has to be unique among the requests of a few days.
fn generate() -> HeaderValue {
    let number = fastrand::u64(..);
    let mut digits = [0; 16];
    for (place, digit) in digits.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (60 - 4 * place)) as usize & 0xf];
    }
    HeaderValue::from_bytes(&digits).unwrap_or(HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_ids_are_kept_and_others_replaced() {
        let kept = |given: &str| {
            let headers = HeaderMap::from_iter([(REQUEST_ID, given.parse().unwrap())]);
            of(&headers) == given
        };
        assert!(kept("0191f3e2-9a_b.C"));
        assert!(kept(&"a".repeat(64)));
        for bad in ["", "a b", "a\tb", "<script>", "é", &"a".repeat(65)] {
            assert!(!kept(bad), "{bad}");
        }
        let new = of(&HeaderMap::new());
        assert_eq!(new.len(), 16);
        assert_ne!(new, of(&HeaderMap::new()));
    }
}
