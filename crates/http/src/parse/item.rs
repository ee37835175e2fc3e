//! One item: a JSON object with a user id, a segment and optionally a time.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::instant::{parse_rfc3339, parse_unix};
use super::{Push, Report};
use super::{hints, plain};
use crate::openapi::schema;
use domain::Timestamp;

/// The raw fields of an item. Null is the same as missing.
#[derive(Deserialize, ToSchema)]
#[schema(as = Pair, description = "A user who was seen in a segment. Unknown fields are ignored; one given twice is an error.")]
pub(crate) struct Fields<'a> {
    #[serde(borrow)]
    #[schema(schema_with = schema::user_id, required)]
    user_id: Option<&'a RawValue>,
    #[serde(borrow)]
    #[schema(schema_with = schema::segment, required)]
    segment: Option<&'a RawValue>,
    #[serde(borrow)]
    #[schema(schema_with = schema::at)]
    at: Option<&'a RawValue>,
}

/// The user id, segment and time of an item.
pub(super) type Read<'a> = (Cow<'a, str>, Cow<'a, str>, Option<Timestamp>);

/// Why a field is missing or invalid, with its raw value.
enum InvalidField<'a> {
    NoUser,
    UserKind(&'a str),
    NoSegment,
    SegmentKind(&'a str),
    At(&'a str),
}

/// Parses the item in `text` and pushes it, or reports an error.
pub(super) fn take(text: &str, push: &mut impl Push, report: &mut Report) {
    // Fast path for the plainest form of an item. The JSON parser handles everything else.
    if let Some(item) = plain::read(text) {
        return push_item(item.user_id, item.segment, (item.at, None), push, report);
    }
    let start = text.trim_ascii_start();
    if !start.starts_with('{') {
        let hint = match start.starts_with('[') {
            true => ": send an array as application/json",
            false => "",
        };
        return report.reject("malformed", || {
            format!("an item must be a JSON object{hint}")
        });
    }
    let fields: Fields = match serde_json::from_str(text) {
        Ok(fields) => fields,
        Err(error) => return report.reject("malformed", || format!("not a valid pair: {error}")),
    };
    match fields.read() {
        Ok((user_id, segment, at)) => {
            let raw = fields.at.map(RawValue::get);
            if raw.is_none() {
                report.warn_of_misnamed_time(|| hints::other_time(text));
            }
            push_item(&user_id, &segment, (at, raw), push, report);
        }
        Err(wrong) => report.reject(wrong.code(), || wrong.message(text)),
    }
}

/// The result of the JSON parser for `text`.
#[cfg(test)]
pub(super) fn read_json(text: &str) -> Option<Read<'_>> {
    serde_json::from_str::<Fields>(text).ok()?.read().ok()
}

fn push_item(
    user_id: &str,
    segment: &str,
    (at, raw): (Option<Timestamp>, Option<&str>),
    push: &mut impl Push,
    report: &mut Report,
) {
    match push(user_id, segment, at) {
        Ok(()) => report.accept(),
        Err(error) => report.reject(error.code(), || match raw.and_then(hints::finer_unit) {
            Some(unit) if error.code() == "in_future" => {
                format!("{error}: it looks like unix time in {unit}, send seconds")
            }
            _ => error.to_string(),
        }),
    }
}

impl InvalidField<'_> {
    fn code(&self) -> &'static str {
        match self {
            Self::NoUser | Self::UserKind(_) => "invalid_user_id",
            Self::NoSegment | Self::SegmentKind(_) => "invalid_segment",
            Self::At(_) => "invalid_at",
        }
    }

    /// The error message for the item in `text`, with a hint at the likely mistake.
    fn message(&self, text: &str) -> String {
        const HALF: &str =
            "has half a surrogate pair (\\ud800 to \\udfff), which is not a character";
        match self {
            Self::NoUser => hints::missing_user(text),
            Self::NoSegment => hints::missing_segment(text),
            Self::UserKind(raw) if hints::has_lone_surrogate(raw) => format!("user_id {HALF}"),
            Self::UserKind(_) => "user_id must be a string or an integer".to_owned(),
            Self::SegmentKind(raw) if hints::has_lone_surrogate(raw) => format!("segment {HALF}"),
            Self::SegmentKind(raw) if raw.starts_with('[') => {
                "segment must be a string: send an item for each segment".to_owned()
            }
            Self::SegmentKind(_) => "segment must be a string".to_owned(),
            Self::At(raw) => match string(raw) {
                Some(text) => format!("at {}", hints::bad_instant(&text)),
                None if hints::has_lone_surrogate(raw) => format!("at {HALF}"),
                None => "at must be RFC 3339 in a string, or unix seconds as a number".to_owned(),
            },
        }
    }
}

impl<'a> Fields<'a> {
    fn read(&self) -> Result<Read<'a>, InvalidField<'a>> {
        Ok((self.user_id()?, self.segment()?, self.at()?))
    }

    fn user_id(&self) -> Result<Cow<'a, str>, InvalidField<'a>> {
        let raw = self.user_id.ok_or(InvalidField::NoUser)?.get();
        text_or_integer(raw).ok_or(InvalidField::UserKind(raw))
    }

    fn segment(&self) -> Result<Cow<'a, str>, InvalidField<'a>> {
        let raw = self.segment.ok_or(InvalidField::NoSegment)?.get();
        string(raw).ok_or(InvalidField::SegmentKind(raw))
    }

    fn at(&self) -> Result<Option<Timestamp>, InvalidField<'a>> {
        let Some(raw) = self.at.map(RawValue::get) else {
            return Ok(None);
        };
        let instant = match string(raw) {
            Some(text) => parse_rfc3339(&text),
            None => parse_unix(raw),
        };
        instant.map(Some).ok_or(InvalidField::At(raw))
    }
}

/// The value of a JSON string or the digits of an integer; `None` if `raw` is neither.
fn text_or_integer(raw: &str) -> Option<Cow<'_, str>> {
    if let Some(text) = string(raw) {
        return Some(text);
    }
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    let is_integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_integer.then(|| Cow::Borrowed(if raw == "-0" { "0" } else { raw }))
}

/// The value of a JSON string; `None` if `raw` is not a string or has a lone surrogate.
fn string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(raw).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}
