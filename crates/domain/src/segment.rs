//! Segment names.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use super::hidden::Hidden;
use super::user_id::has_control_character;

/// The longest segment name, in bytes.
const MAX_BYTES: usize = 128;

/// A segment: 1 to 128 bytes of UTF-8 without control characters, outer white space or a trailing backslash.
///
/// The last two are invalid because InfluxDB's line protocol can't represent them in a tag. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Segment(Arc<str>);

/// The reason why a string is not a valid segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSegment {
    /// The string is empty.
    #[error("segment is empty; give 1 to {MAX_BYTES} bytes")]
    Empty,
    /// The string is too long.
    #[error("segment has {0} bytes; at most {MAX_BYTES} are allowed")]
    TooLong(usize),
    /// The string contains a control character.
    #[error("segment has a control character")]
    ControlCharacter,
    /// The string begins or ends with white space.
    #[error("segment begins or ends with white space")]
    OuterWhiteSpace,
    /// The string ends with a backslash.
    #[error("segment ends with a backslash")]
    TrailingBackslash,
    /// The string contains an invisible character.
    #[error("segment has the character {0}, which makes it look like another segment: remove it")]
    Hidden(Hidden),
}

impl Segment {
    /// Validates `text` and copies it.
    pub fn new(text: &str) -> Result<Self, InvalidSegment> {
        if text.is_empty() {
            return Err(InvalidSegment::Empty);
        }
        if text.len() > MAX_BYTES {
            return Err(InvalidSegment::TooLong(text.len()));
        }
        if has_control_character(text) {
            return Err(InvalidSegment::ControlCharacter);
        }
        if text.trim().len() != text.len() {
            return Err(InvalidSegment::OuterWhiteSpace);
        }
        if text.ends_with('\\') {
            return Err(InvalidSegment::TrailingBackslash);
        }
        Ok(Self(text.into()))
    }

    /// Like [`new`](Self::new), but also rejects invisible characters, which new pairs may not contain. Stores and readers
    /// accept them, because pairs that former versions recorded may contain them.
    pub fn received(text: &str) -> Result<Self, InvalidSegment> {
        let segment = Self::new(text)?;
        match Hidden::first_in(text) {
            Some(hidden) => Err(InvalidSegment::Hidden(hidden)),
            None => Ok(segment),
        }
    }

    /// The segment's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Segment {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_hostile_but_legal_names() {
        for text in [
            "sports",
            "../../etc",
            "%2F",
            "🏀",
            "100%",
            "a b,c=d\"e\\f",
            "${x}",
            "Спорт",
        ] {
            assert_eq!(Segment::new(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn refuses_with_the_reason() {
        assert_eq!(Segment::new("").unwrap_err(), InvalidSegment::Empty);
        assert_eq!(
            Segment::new(&"x".repeat(129)).unwrap_err(),
            InvalidSegment::TooLong(129)
        );
        assert_eq!(
            Segment::new("a\tb").unwrap_err(),
            InvalidSegment::ControlCharacter
        );
        assert_eq!(
            Segment::new(" a").unwrap_err(),
            InvalidSegment::OuterWhiteSpace
        );
        assert_eq!(
            Segment::new("a\u{a0}").unwrap_err(),
            InvalidSegment::OuterWhiteSpace
        );
        assert_eq!(
            Segment::new("a\\").unwrap_err(),
            InvalidSegment::TrailingBackslash
        );
        let twin = "sport\u{200b}s";
        assert!(Segment::new(twin).is_ok(), "one that a store has is read");
        let refused = Segment::received(twin).unwrap_err();
        assert!(refused.to_string().contains("U+200B"), "{refused}");
        assert!(Segment::received("👨\u{200d}👩\u{200d}👧").is_ok());
    }
}
