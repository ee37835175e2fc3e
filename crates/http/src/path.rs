//! Names in paths: one percent-decoding, then the domain's own check.
//!
//! Clients and proxies take `.` and `..` out of a path, percent-encoded too (RFC 3986, section 5.2.4; the URL standard), so
//! that no path reaches a segment or user of that name. Such a name goes into the query, beside the path: the path then
//! says `-` in its place.

use std::borrow::Cow;

use super::problem::Problem;
use super::query::Query;
use domain::{Segment, UserId};

/// What a path says in place of a name that the query has.
const BESIDE: &str = "-";

/// The segment that a request names: in its path, or in the parameter `segment`.
pub(super) fn segment(raw: &str, query: &Query) -> Result<Segment, Problem> {
    match beside(raw, query, "segment")? {
        Some(name) => Segment::new(name)
            .map_err(|error| Problem::bad_request("invalid_segment", error.to_string())),
        None => segment_in_path(raw),
    }
}

/// The user that a request names: in its path, or in the parameter `user_id`.
pub(super) fn user(raw: &str, query: &Query) -> Result<UserId<'static>, Problem> {
    match beside(raw, query, "user_id")? {
        Some(id) => UserId::new(id.to_owned())
            .map_err(|error| Problem::bad_request("invalid_user_id", error.to_string())),
        None => user_in_path(raw),
    }
}

/// The name that the parameter `name` gives. The path must leave it room: two names would be a mistake that no choice
/// between them mends.
fn beside<'q>(raw: &str, query: &'q Query, name: &str) -> Result<Option<&'q str>, Problem> {
    let given = query.text(name)?;
    match given {
        Some(_) if raw != BESIDE => {
            let detail = format!("goes with a path that has `{BESIDE}` in place of the name");
            Err(Problem::invalid_parameter(name, detail))
        }
        given => Ok(given),
    }
}

/// The address of what belongs to a segment: `before`, its name and `after`.
pub(super) fn of_segment(before: &str, segment: &str, after: &str) -> String {
    match needs_a_query(segment) {
        true => format!("{before}/{BESIDE}{after}?segment={}", encode(segment)),
        false => format!("{before}/{}{after}", encode(segment)),
    }
}

/// Whether no path can have `name`.
pub(super) fn needs_a_query(name: &str) -> bool {
    matches!(name, "." | "..")
}

/// `address` with another parameter, encoded already.
pub(super) fn with(address: &str, parameter: &str) -> String {
    let joint = if address.contains('?') { '&' } else { '?' };
    format!("{address}{joint}{parameter}")
}

/// The segment that a part of a path names.
fn segment_in_path(raw: &str) -> Result<Segment, Problem> {
    let invalid = |detail: String| Problem::bad_request("invalid_segment", detail);
    let name = decode(raw).map_err(|error| invalid(format!("segment {error}")))?;
    Segment::new(&name).map_err(|error| invalid(error.to_string()))
}

/// The user that a part of a path names.
fn user_in_path(raw: &str) -> Result<UserId<'static>, Problem> {
    let invalid = |detail: String| Problem::bad_request("invalid_user_id", detail);
    let id = decode(raw).map_err(|error| invalid(format!("user_id {error}")))?;
    UserId::new(id.into_owned()).map_err(|error| invalid(error.to_string()))
}

/// A name as part of a path: everything but unreserved characters is percent-encoded, since a name may hold
/// slashes and question marks.
pub(super) fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Why a part of a path can't be decoded. Completes a sentence that names the part.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum BadPath {
    #[error("has a % that two hexadecimal digits must follow; a percent sign itself is %25")]
    Escape,
    #[error("is not UTF-8 once percent-decoded")]
    Utf8,
}

/// Undoes percent-encoding once, as RFC 3986 has it: `%252F` is the text `%2F`, and `+` is itself.
fn decode(raw: &str) -> Result<Cow<'_, str>, BadPath> {
    if !raw.contains('%') {
        return Ok(Cow::Borrowed(raw));
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || {
            let digit = char::from(bytes.next()?).to_digit(16)?;
            u8::try_from(digit).ok()
        };
        match (digit(), digit()) {
            (Some(high), Some(low)) => decoded.push(high << 4 | low),
            _ => return Err(BadPath::Escape),
        }
    }
    let text = String::from_utf8(decoded).map_err(|_| BadPath::Utf8)?;
    Ok(Cow::Owned(text))
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
    }

    #[test]
    fn names_that_no_path_can_have_stand_beside_it() {
        let beside = |name: &str| Query::of(&[("segment", name), ("user_id", name)]);
        for name in [".", "..", "a/b", "-"] {
            assert_eq!(segment("-", &beside(name)).unwrap().as_str(), name);
            assert_eq!(user("-", &beside(name)).unwrap().as_str(), name);
        }
        let nothing = Query::default();
        assert_eq!(segment("-", &nothing).unwrap().as_str(), "-");
        let both = segment("sports", &beside("news")).unwrap_err();
        assert_eq!(both.summary(), (400, "invalid_parameter"));
        let bad = segment("-", &beside(" ")).unwrap_err();
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
