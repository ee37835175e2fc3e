//! The parsers of bodies with pairs, one per format. Items are parsed one by one, and a bad item does not affect the others.

pub mod cloud_events;
pub mod hints;
mod instant;
mod item;
pub mod line_protocol;
pub mod messages;
mod plain;
mod report;
mod rest;
mod scalar;

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde_json::value::RawValue;

use domain::Timestamp;
use engine::ingest::PairError;

pub(super) use hints::bad_instant;
pub(super) use instant::parse_either as parse_instant;
pub use instant::parse_rfc3339;
pub(super) use item::Fields;
pub use report::{ItemError, Report};

/// Why a whole body is refused.
#[derive(Debug, thiserror::Error)]
pub enum BadBody {
    /// It has no bytes but white space.
    #[error("the body is empty")]
    Empty,
    /// It is compressed, but `content-encoding` is missing, or it is compressed more than once.
    #[error("the body is {0}: send the header `content-encoding: {0}`, once")]
    Compressed(&'static str),
    /// It is not UTF-8, as JSON must be.
    #[error("the body is not UTF-8 from byte {0} on")]
    NotUtf8(usize),
    /// It is NDJSON, which has another content type.
    #[error(
        "the body has more than one object: send one object per line as application/x-ndjson, or an array of them"
    )]
    Lines,
    /// It is not JSON. The parser's message has a position but no content.
    #[error("the body is not JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    /// It is JSON, but neither an object nor an array.
    #[error("the body must be an object or an array of objects")]
    Shape,
}

/// Receives the user id, the segment and the instant of each pair, and validates them.
pub trait Push: FnMut(&str, &str, Option<Timestamp>) -> Result<(), PairError> {}
impl<F: FnMut(&str, &str, Option<Timestamp>) -> Result<(), PairError>> Push for F {}

/// Parses one object a line (NDJSON). Blank lines are skipped.
pub fn ndjson(body: &[u8], push: &mut impl Push) -> Report {
    let mut report = Report::default();
    match std::str::from_utf8(without_bom(body)) {
        Ok(text) => {
            for line in text.split('\n') {
                one_line(line, push, &mut report);
            }
        }
        // Only the lines that are not UTF-8 are refused.
        Err(_) => {
            for line in without_bom(body).split(|byte| *byte == b'\n') {
                match std::str::from_utf8(line) {
                    Ok(line) => one_line(line, push, &mut report),
                    Err(_) => report.reject("malformed", || "the line is not UTF-8".to_owned()),
                }
            }
        }
    }
    report
}

fn one_line(line: &str, push: &mut impl Push, report: &mut Report) {
    if !line.trim_ascii().is_empty() {
        item::take(line, push, report);
    }
}

/// Parses one object or an array of objects.
///
/// # Errors
///
/// If the whole body is not JSON. Pairs that were pushed before must then be discarded.
pub fn json(body: &[u8], push: &mut impl Push) -> Result<Report, BadBody> {
    let text = text_of(body)?;
    let mut report = Report::default();
    each_object(text, |object| item::take(object, push, &mut report))?;
    Ok(report)
}

/// Passes the object in `text`, or each element of the array in it, to `take`.
fn each_object(text: &str, mut take: impl FnMut(&str)) -> Result<(), BadBody> {
    match text.trim_ascii_start().as_bytes().first() {
        Some(b'{') => {
            let object: &RawValue = match serde_json::from_str(text) {
                Ok(object) => object,
                Err(_) if is_several(text) => return Err(BadBody::Lines),
                Err(error) => return Err(error.into()),
            };
            take(object.get());
        }
        Some(b'[') => {
            let mut items = serde_json::Deserializer::from_str(text);
            serde::Deserializer::deserialize_seq(&mut items, Each(take))?;
            items.end()?;
        }
        _ => {
            serde_json::from_str::<&RawValue>(text)?;
            return Err(BadBody::Shape);
        }
    }
    Ok(())
}

/// Passes each element of an array to a function.
struct Each<F>(F);

impl<'de, F: FnMut(&str)> Visitor<'de> for Each<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        while let Some(item) = items.next_element::<&RawValue>()? {
            (self.0)(item.get());
        }
        Ok(())
    }
}

/// Whether `text` begins with two objects.
fn is_several(text: &str) -> bool {
    let mut objects = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let mut next_is_object = || {
        let next = objects.next().and_then(Result::ok);
        next.is_some_and(|object| object.get().starts_with('{'))
    };
    next_is_object() && next_is_object()
}

/// The text of a body of JSON.
fn text_of(body: &[u8]) -> Result<&str, BadBody> {
    let body = without_bom(body);
    if body.trim_ascii().is_empty() {
        return Err(BadBody::Empty);
    }
    std::str::from_utf8(body).map_err(|error| BadBody::NotUtf8(error.valid_up_to()))
}

/// Removes a byte order mark, which some programs write.
fn without_bom(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body)
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
