//! The fast path for items in their plainest form.
//!
//! It accepts an object of `user_id`, `segment` and `at`, each at most once, with strings without escapes and whole numbers.
//! Everything else is left to the JSON parser.

use super::instant::parse_rfc3339;
use super::rest::Rest;
use domain::Timestamp;

/// An item in its plainest form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plain<'a> {
    pub(super) user_id: &'a str,
    pub(super) segment: &'a str,
    pub(super) at: Option<Timestamp>,
}

/// Parses `text`; `None` leaves it to the JSON parser.
pub(super) fn read(text: &str) -> Option<Plain<'_>> {
    let mut rest = Rest::of(text);
    let (mut user_id, mut segment, mut at) = (None, None, None);
    rest.object(|rest, name| {
        match name {
            "user_id" if user_id.is_none() => user_id = Some(string_or_whole_number(rest)?),
            "segment" if segment.is_none() => segment = Some(rest.string()?),
            "at" if at.is_none() => at = Some(instant(rest)?),
            _ => return None,
        }
        Some(())
    })?;
    rest.is_blank().then_some(())?;
    Some(Plain {
        user_id: user_id?,
        segment: segment?,
        at,
    })
}

fn string_or_whole_number<'a>(rest: &mut Rest<'a>) -> Option<&'a str> {
    match rest.is_string() {
        true => rest.string(),
        false => rest.whole_number(),
    }
}

fn instant(rest: &mut Rest<'_>) -> Option<Timestamp> {
    if rest.is_string() {
        return parse_rfc3339(rest.string()?);
    }
    let seconds = rest.whole_number()?.parse().ok()?;
    Timestamp::from_second(seconds).ok()
}
