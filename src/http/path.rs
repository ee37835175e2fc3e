//! Names in paths: one percent-decoding, then the domain's own check.

use std::borrow::Cow;

use super::problem::Problem;
use crate::domain::{Segment, UserId};

/// The segment that a part of a path names.
pub(super) fn segment(raw: &str) -> Result<Segment, Problem> {
    let invalid = |detail: String| Problem::bad_request("invalid_segment", detail);
    let name = decode(raw).map_err(|error| invalid(format!("segment {error}")))?;
    Segment::new(&name).map_err(|error| invalid(error.to_string()))
}

/// The user that a part of a path names.
pub(super) fn user(raw: &str) -> Result<UserId<'static>, Problem> {
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
            assert_eq!(segment(raw).unwrap().as_str(), name);
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
            assert_eq!(segment(&encoded).unwrap().as_str(), name);
        }
    }

    #[test]
    fn bad_names_are_the_clients_mistake() {
        for raw in [
            "%", "%2", "%zz", "100%", "%ff", "%C3", "%00", "%20a", "a%5C", "%+1",
        ] {
            assert_eq!(
                segment(raw).unwrap_err().summary(),
                (400, "invalid_segment"),
                "{raw}"
            );
        }
        assert_eq!(user("%00").unwrap_err().summary(), (400, "invalid_user_id"));
        assert_eq!(
            user(&"x".repeat(257)).unwrap_err().summary(),
            (400, "invalid_user_id")
        );
    }
}
