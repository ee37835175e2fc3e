//! Names in paths: percent-decoded once, then validated by the domain types.
//!
//! Clients and proxies remove `.` and `..` from a path, also percent-encoded (RFC 3986, section 5.2.4; the URL standard), so
//! no path can address a segment or user of that name. Such a name goes into the query, and the path has `-` in its place.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::problem::Problem;
use super::query::Query;
use domain::{Segment, UserId, percent};

/// The placeholder in a path for a name that is in the query.
const PLACEHOLDER: &str = "-";
/// All but the unreserved characters of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The segment of a request: in its path, or in the parameter `segment`.
pub(super) fn segment(raw: &str, query: &Query) -> Result<Segment, Problem> {
    match from_query(raw, query, "segment")? {
        Some(name) => Ok(Segment::new(name)?),
        None => segment_in_path(raw),
    }
}

/// The user of a request: in its path, or in the parameter `user_id`.
pub(super) fn user(raw: &str, query: &Query) -> Result<UserId<'static>, Problem> {
    match from_query(raw, query, "user_id")? {
        Some(id) => Ok(UserId::new(id.to_owned())?),
        None => user_in_path(raw),
    }
}

/// The name in the parameter `name`. The path must then have the placeholder: with two names, either choice may be wrong.
fn from_query<'q>(raw: &str, query: &'q Query, name: &str) -> Result<Option<&'q str>, Problem> {
    let given = query.text(name)?;
    match given {
        Some(_) if raw != PLACEHOLDER => {
            let detail = format!("needs a path that has `{PLACEHOLDER}` in place of the name");
            Err(Problem::invalid_parameter(name, detail))
        }
        given => Ok(given),
    }
}

/// The address of a resource of a segment: `before`, the name and `after`.
pub(super) fn of_segment(before: &str, segment: &str, after: &str) -> String {
    match needs_a_query(segment) {
        true => format!("{before}/{PLACEHOLDER}{after}?segment={}", encode(segment)),
        false => format!("{before}/{}{after}", encode(segment)),
    }
}

/// Whether `name` can't be in a path.
pub(super) fn needs_a_query(name: &str) -> bool {
    matches!(name, "." | "..")
}

/// Appends `parameter`, which is already encoded, to `address`.
pub(super) fn with(address: &str, parameter: &str) -> String {
    let joint = if address.contains('?') { '&' } else { '?' };
    format!("{address}{joint}{parameter}")
}

/// The segment in a part of a path.
fn segment_in_path(raw: &str) -> Result<Segment, Problem> {
    let invalid = |detail: String| Problem::bad_request("invalid_segment", detail);
    let name = decode(raw).map_err(|error| invalid(format!("segment {error}")))?;
    Ok(Segment::new(&name)?)
}

/// The user in a part of a path.
fn user_in_path(raw: &str) -> Result<UserId<'static>, Problem> {
    let invalid = |detail: String| Problem::bad_request("invalid_user_id", detail);
    let id = decode(raw).map_err(|error| invalid(format!("user_id {error}")))?;
    Ok(UserId::new(id.into_owned())?)
}

/// Percent-encodes everything but unreserved characters, since a name may have slashes and question marks.
pub(super) fn encode(name: &str) -> String {
    utf8_percent_encode(name, RESERVED).to_string()
}

/// Why a part of a path can't be decoded. The message completes a sentence that names the part.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum BadPath {
    #[error("has a % without two hexadecimal digits after it; a percent sign is written as %25")]
    Escape,
    #[error("is not UTF-8 once percent-decoded")]
    Utf8,
}

fn decode(raw: &str) -> Result<Cow<'_, str>, BadPath> {
    let decoded = percent::decode(raw).ok_or(BadPath::Escape)?;
    decoded.decode_utf8().map_err(|_| BadPath::Utf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_decoded_once() {
        for (raw, name) in [
            ("sports", "sports"),
            ("..%2F..%2Fetc", "../../etc"),
            ("%252F", "%2F"),
            ("a%2fb", "a/b"),
            ("100%25", "100%"),
            ("%F0%9F%8F%80", "🏀"),
            ("a+b", "a+b"),
            ("a%20b", "a b"),
        ] {
            assert_eq!(segment_in_path(raw).unwrap().as_str(), name);
        }
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        for name in [
            "sports",
            "a/b?c#d%41",
            "a b+c",
            "<script>\"'&",
            "שלום",
            "🏀",
        ] {
            let encoded = encode(name);
            assert!(encoded.is_ascii() && !encoded.contains(['/', '?', '#', '<', '"', ' ']));
            assert_eq!(segment_in_path(&encoded).unwrap().as_str(), name);
        }
        assert_eq!(encode("aZ09-._~"), "aZ09-._~");
        assert_eq!(
            encode("!$'()*,;=:@[]{}|^`\\"),
            "%21%24%27%28%29%2A%2C%3B%3D%3A%40%5B%5D%7B%7D%7C%5E%60%5C"
        );
    }

    #[test]
    fn names_that_no_path_can_have_stand_beside_it() {
        let query = |name: &str| Query::of(&[("segment", name), ("user_id", name)]);
        for name in [".", "..", "a/b", "-"] {
            assert_eq!(segment("-", &query(name)).unwrap().as_str(), name);
            assert_eq!(user("-", &query(name)).unwrap().as_str(), name);
        }
        let nothing = Query::default();
        assert_eq!(segment("-", &nothing).unwrap().as_str(), "-");
        let both = segment("sports", &query("news")).unwrap_err();
        assert_eq!(both.summary(), (400, "invalid_parameter"));
        let bad = segment("-", &query(" ")).unwrap_err();
        assert_eq!(bad.summary(), (400, "invalid_segment"));
        assert_eq!(of_segment("/segments", "a/b", ""), "/segments/a%2Fb");
        let address = of_segment("/v1/segments", "..", "/count");
        assert_eq!(address, "/v1/segments/-/count?segment=..");
        let address = with(&address, "window=7d");
        assert_eq!(address, "/v1/segments/-/count?segment=..&window=7d");
    }

    #[test]
    fn bad_names_are_the_clients_mistake() {
        for raw in [
            "%", "%2", "%zz", "100%", "%ff", "%C3", "%00", "%20a", "a%5C", "%+1",
        ] {
            assert_eq!(
                segment_in_path(raw).unwrap_err().summary(),
                (400, "invalid_segment"),
                "{raw}"
            );
        }
        assert_eq!(
            user_in_path("%00").unwrap_err().summary(),
            (400, "invalid_user_id")
        );
        assert_eq!(
            user_in_path(&"x".repeat(257)).unwrap_err().summary(),
            (400, "invalid_user_id")
        );
    }
}
