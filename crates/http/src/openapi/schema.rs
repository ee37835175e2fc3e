//! Schemas that Rust types do not express: names with rules, and enumerations of strings.

use serde_json::json;
use utoipa::openapi::schema::{AnyOfBuilder, SchemaFormat, SchemaType};
use utoipa::openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, Type};

use domain::coverage::LossReason;
use engine::counts::Source;

/// The pattern of a segment. Its length of 1 to 128 bytes can be expressed only in characters.
const SEGMENT: &str = "\
^([^\\s\\\\\\u0000-\\u001f\\u007f-\\u009f]\
|[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\\\\\u0000-\\u001f\\u007f-\\u009f])$";
/// The pattern of a user id. Its length of 1 to 256 bytes can be expressed only in characters.
const USER_ID: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$";

pub(crate) fn segment() -> ObjectBuilder {
    text()
        .description(Some(
            "1 to 128 bytes of UTF-8 without control characters, leading or trailing white space or a trailing backslash. \
             In a pair, invisible characters are not allowed either.",
        ))
        .min_length(Some(1))
        .max_length(Some(128))
        .pattern(Some(SEGMENT))
        .examples([json!("sports")])
}

pub(crate) fn user_id_text() -> ObjectBuilder {
    text()
        .description(Some(
            "1 to 256 bytes of UTF-8 without control characters. In a pair, leading and trailing white space and invisible \
             characters are not allowed either.",
        ))
        .min_length(Some(1))
        .max_length(Some(256))
        .pattern(Some(USER_ID))
        .examples([json!("u104010")])
}

pub(crate) fn user_id() -> RefOr<Schema> {
    AnyOfBuilder::new()
        .description(Some(
            "A string, or an integer, which is the same as its decimal string.",
        ))
        .item(user_id_text())
        .item(ObjectBuilder::new().schema_type(Type::Integer))
        .into()
}

pub(crate) fn at() -> RefOr<Schema> {
    let either = SchemaType::from_iter([Type::String, Type::Number, Type::Null]);
    ObjectBuilder::new()
        .schema_type(either)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .description(Some(
            "When the user was seen: RFC 3339, or unix seconds as a number, fractions allowed. The default is now.",
        ))
        .examples([json!("2026-11-21T08:00:00Z"), json!(1_795_262_400)])
        .into()
}

/// An optional member of a body that may be a string or a number, as the parameter of a query is.
pub(crate) fn text_or_number(about: &str, example: serde_json::Value) -> ObjectBuilder {
    let either = SchemaType::from_iter([Type::String, Type::Number, Type::Null]);
    ObjectBuilder::new()
        .schema_type(either)
        .description(Some(about))
        .examples([example])
}

pub(crate) fn source() -> ObjectBuilder {
    one_of([Source::Live, Source::Memory, Source::Cache, Source::Store].map(Source::as_str))
}

pub(crate) fn loss_reason() -> ObjectBuilder {
    one_of(LossReason::ALL.map(LossReason::as_str))
}

pub(crate) fn durable() -> ObjectBuilder {
    one_of(["spooled", "stored"])
}

pub(crate) fn alive() -> ObjectBuilder {
    one_of(["ok"])
}

pub(crate) fn readiness() -> ObjectBuilder {
    one_of(["ready", "degraded", "draining", "unavailable"])
}

pub(crate) fn item_code() -> ObjectBuilder {
    one_of([
        "malformed",
        "invalid_user_id",
        "invalid_segment",
        "invalid_at",
        "in_future",
        "expired",
        "too_many_segments",
        "forbidden_segment",
        "store_refused",
    ])
}

pub(crate) fn one_of<const N: usize>(texts: [&'static str; N]) -> ObjectBuilder {
    text().enum_values(Some(texts))
}

pub(crate) fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}
