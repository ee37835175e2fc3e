//! Strict percent-decoding.

use percent_encoding::{PercentDecode, percent_decode_str};

/// Percent-decodes `text` once, as RFC 3986 specifies: `%252F` is the string `%2F`, and `+` is a plus sign. `None` if two
/// hexadecimal digits do not follow a `%`: `percent_encoding` would leave such a percent sign as it is.
pub fn decode(text: &str) -> Option<PercentDecode<'_>> {
    let is_escape = |rest: &str| {
        let digits = rest.bytes().take(2).filter(u8::is_ascii_hexdigit);
        digits.count() == 2
    };
    let valid = text.split('%').skip(1).all(is_escape);
    valid.then(|| percent_decode_str(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percent_sign_needs_two_digits() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("a+b", b"a+b"),
            ("%252F%2f", b"%2F/"),
            ("%ff%00", b"\xff\0"),
            ("%41b%43", b"AbC"),
            ("\u{e9}", "\u{e9}".as_bytes()),
        ] {
            let decoded: Option<Vec<u8>> = decode(text).map(Iterator::collect);
            assert_eq!(decoded.as_deref(), Some(bytes), "{text}");
        }
        for bad in [
            "%", "%2", "%zz", "%2z", "%z2", "100%", "%%41", "%4%31", "%+1", "% 1", "%2\u{e9}",
            "%\u{e9}", "%41%",
        ] {
            assert!(decode(bad).is_none(), "{bad}");
        }
    }
}
