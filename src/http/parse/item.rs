//! One item: a JSON object with a user, a segment and perhaps a time.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{SeqAccess, Visitor};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::instant::{parse_rfc3339, parse_unix};
use super::plain;
use super::{Push, Report};
use crate::domain::Timestamp;
use crate::http::openapi::schema;

/// The fields of an item as they stand in the text; null is the same as missing.
#[derive(Deserialize, ToSchema)]
#[schema(as = Pair, description = "A user who was seen in a segment. Unknown fields are ignored; one given twice is an error.")]
pub(in crate::http) struct Fields<'a> {
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

/// The fields' values.
pub(super) type Read<'a> = (Cow<'a, str>, Cow<'a, str>, Option<Timestamp>);

/// Why a field's value can't be used: code and message.
type Wrong = (&'static str, &'static str);

/// Reads the item in `text` and pushes it, or reports why not.
pub(super) fn take(text: &str, push: &mut impl Push, report: &mut Report) {
    // Most items are written in the plainest way. What that reader doesn't know, the JSON parser decides.
    if let Some(item) = plain::read(text) {
        return offer(item.user_id, item.segment, item.at, push, report);
    }
    if !text.trim_ascii_start().starts_with('{') {
        return report.reject("malformed", || "an item must be a JSON object".to_owned());
    }
    let fields: Fields = match serde_json::from_str(text) {
        Ok(fields) => fields,
        Err(error) => return report.reject("malformed", || format!("not a pair: {error}")),
    };
    match fields.read() {
        Ok((user_id, segment, at)) => offer(&user_id, &segment, at, push, report),
        Err((code, message)) => report.reject(code, || message.to_owned()),
    }
}

/// What the JSON parser makes of `text`.
#[cfg(test)]
pub(super) fn read_json(text: &str) -> Option<Read<'_>> {
    serde_json::from_str::<Fields>(text).ok()?.read().ok()
}

fn offer(
    user_id: &str,
    segment: &str,
    at: Option<Timestamp>,
    push: &mut impl Push,
    report: &mut Report,
) {
    match push(user_id, segment, at) {
        Ok(()) => report.accept(),
        Err(error) => report.reject(error.code(), || error.to_string()),
    }
}

impl<'a> Fields<'a> {
    fn read(&self) -> Result<Read<'a>, Wrong> {
        Ok((self.user_id()?, self.segment()?, self.at()?))
    }

    fn user_id(&self) -> Result<Cow<'a, str>, Wrong> {
        let raw = self
            .user_id
            .ok_or(("invalid_user_id", "user_id is missing"))?
            .get();
        if let Some(text) = string(raw) {
            return Ok(text);
        }
        let digits = raw.strip_prefix('-').unwrap_or(raw);
        match digits.bytes().all(|byte| byte.is_ascii_digit()) {
            true if raw == "-0" => Ok(Cow::Borrowed("0")),
            true => Ok(Cow::Borrowed(raw)),
            false => Err(("invalid_user_id", "user_id must be a string or an integer")),
        }
    }

    fn segment(&self) -> Result<Cow<'a, str>, Wrong> {
        let raw = self
            .segment
            .ok_or(("invalid_segment", "segment is missing"))?;
        string(raw.get()).ok_or(("invalid_segment", "segment must be a string"))
    }

    fn at(&self) -> Result<Option<Timestamp>, Wrong> {
        let Some(raw) = self.at.map(RawValue::get) else {
            return Ok(None);
        };
        let instant = match string(raw) {
            Some(text) => parse_rfc3339(&text),
            None => parse_unix(raw),
        };
        let wrong = ("invalid_at", "at must be RFC 3339 or unix seconds");
        instant.map(Some).ok_or(wrong)
    }
}

/// The text of a JSON string; `None` when `raw` is something else, or has half a surrogate pair.
fn string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(raw).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// Takes each element of an array.
pub(super) struct Each<'p, P> {
    pub(super) push: &'p mut P,
    pub(super) report: &'p mut Report,
}

impl<'de, P: Push> Visitor<'de> for Each<'_, P> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of pairs")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(item) = items.next_element::<&RawValue>()? {
            take(item.get(), self.push, self.report);
        }
        Ok(())
    }
}
