//! User ids, as the segmentation service assigns them.

use std::borrow::Cow;
use std::fmt;

use super::hidden::Hidden;

/// The longest user id, in bytes.
const MAX_BYTES: usize = 256;

/// A user id: 1 to 256 bytes of UTF-8 without control characters.
///
/// It borrows where possible, so that parsing a request does not copy ids. `Debug` hides the id, so that a log line
/// can't contain one by accident.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct UserId<'a>(Cow<'a, str>);

/// The reason why a string is not a valid user id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUserId {
    /// The string is empty.
    #[error("user_id is empty; give 1 to {MAX_BYTES} bytes")]
    Empty,
    /// The string is too long.
    #[error("user_id has {0} bytes; at most {MAX_BYTES} are allowed")]
    TooLong(usize),
    /// The string contains a control character.
    #[error("user_id has a control character")]
    ControlCharacter,
    /// The string begins or ends with white space.
    #[error("user_id begins or ends with white space, which makes it a different user: remove it")]
    OuterWhiteSpace,
    /// The string contains an invisible character.
    #[error("user_id has the character {0}, which makes it a different user: remove it")]
    Hidden(Hidden),
}

impl<'a> UserId<'a> {
    /// Validates `text` and wraps it.
    pub fn new(text: impl Into<Cow<'a, str>>) -> Result<Self, InvalidUserId> {
        let text = text.into();
        if text.is_empty() {
            return Err(InvalidUserId::Empty);
        }
        if text.len() > MAX_BYTES {
            return Err(InvalidUserId::TooLong(text.len()));
        }
        if has_control_character(&text) {
            return Err(InvalidUserId::ControlCharacter);
        }
        Ok(Self(text))
    }

    /// Like [`new`](Self::new), but also rejects what new pairs may not contain: outer white space and invisible
    /// characters. Ids that former versions recorded may contain them; such users can still be looked up and erased.
    pub fn received(text: impl Into<Cow<'a, str>>) -> Result<Self, InvalidUserId> {
        let id = Self::new(text)?;
        if id.as_str().trim().len() != id.as_str().len() {
            return Err(InvalidUserId::OuterWhiteSpace);
        }
        match Hidden::first_in(id.as_str()) {
            Some(hidden) => Err(InvalidUserId::Hidden(hidden)),
            None => Ok(id),
        }
    }

    /// The id for a hash: its 32 hexadecimal digits.
    pub fn from_hash(hash: u128) -> UserId<'static> {
        UserId(Cow::Owned(format!("{hash:032x}")))
    }

    /// Wraps a string that was validated before, as in a [`Batch`](super::Batch).
    pub(super) fn trusted(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// The id as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same id with an owned string.
    pub fn into_owned(self) -> UserId<'static> {
        UserId(Cow::Owned(self.0.into_owned()))
    }
}

impl fmt::Debug for UserId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserId(..)")
    }
}

/// Whether `text` has a character of Unicode's class Cc. Plain ASCII is checked byte by byte.
pub(super) fn has_control_character(text: &str) -> bool {
    if text.is_ascii() {
        return text.bytes().any(|byte| byte.is_ascii_control());
    }
    text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_people_use() {
        for text in [
            "u104010",
            "0",
            "Юля",
            "🙂",
            "a b",
            "%2F",
            "../../etc",
            &"x".repeat(256),
        ] {
            assert_eq!(UserId::new(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn refuses_with_the_reason() {
        assert_eq!(UserId::new("").unwrap_err(), InvalidUserId::Empty);
        assert_eq!(
            UserId::new("x".repeat(257)).unwrap_err(),
            InvalidUserId::TooLong(257)
        );
        for text in ["a\nb", "\0", "a\u{85}é", "\u{7f}"] {
            assert_eq!(
                UserId::new(text).unwrap_err(),
                InvalidUserId::ControlCharacter
            );
        }
    }

    #[test]
    fn ids_that_look_like_others_are_known_but_not_received() {
        for text in ["u1 ", " u1", "   ", "u1\u{a0}", "\u{feff}u1", "u\u{200b}1"] {
            assert!(UserId::new(text).is_ok(), "{text:?}");
            assert!(UserId::received(text).is_err(), "{text:?}");
        }
        assert_eq!(UserId::received("a b").unwrap().as_str(), "a b");
    }

    #[test]
    fn debug_hides_the_id() {
        assert!(!format!("{:?}", UserId::new("secret").unwrap()).contains("secret"));
    }
}
