//! Schemas that Rust types do not express: names with rules, and enumerations of strings.

use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::schema::{AnyOfBuilder, SchemaFormat, SchemaType};
use utoipa::openapi::{ArrayBuilder, KnownFormat, ObjectBuilder, Ref, RefOr, Schema, Type};

use domain::coverage::LossReason;
use engine::counts::Source;

use crate::auth::Scope;
use crate::parse::ItemError;

/// The schema of every error.
pub(crate) const PROBLEM: &str = "Problem";
/// The schema of the codes of errors.
pub(crate) const ERROR_CODE: &str = "ErrorCode";

/// The pattern of a segment. Its length of 1 to 128 bytes can be expressed only in characters.
const SEGMENT: &str = "\
^([^\\s\\\\\\u0000-\\u001f\\u007f-\\u009f]\
|[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\\\\\u0000-\\u001f\\u007f-\\u009f])$";
/// The pattern of a user id. Its length of 1 to 256 bytes can be expressed only in characters.
const USER_ID: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$";

pub(crate) fn segment() -> ObjectBuilder {
    named("SegmentName")
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
    named("UserId")
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
    let sources = [Source::Live, Source::Memory, Source::Cache, Source::Store];
    enumeration("Source", sources.map(Source::as_str))
        .description(Some("Where the numbers came from."))
}

pub(crate) fn loss_reason() -> ObjectBuilder {
    enumeration("LossReason", LossReason::ALL.map(LossReason::as_str))
}

pub(crate) fn durable() -> ObjectBuilder {
    enumeration("Durability", ["spooled", "stored"])
        .description(Some("`spooled`: the pairs wait on this instance's disk for the store. `stored`: the store has them, and live counts include them later."))
}

pub(crate) fn alive() -> ObjectBuilder {
    enumeration("Liveness", ["ok"])
}

pub(crate) fn readiness() -> ObjectBuilder {
    enumeration(
        "ReadinessStatus",
        ["ready", "degraded", "draining", "unavailable"],
    )
}

pub(crate) fn item_code() -> ObjectBuilder {
    let codes = [
        "malformed",
        "invalid_user_id",
        "invalid_segment",
        "invalid_at",
        "in_future",
        "expired",
        "too_many_segments",
        "forbidden_segment",
        "store_refused",
    ];
    enumeration("ItemErrorCode", codes).description(Some(
        "What is wrong with an item, for programs. A code never changes.",
    ))
}

/// The schema of every error: what all of them have, and the members that some codes add.
pub(crate) fn problem() -> ObjectBuilder {
    let count = |about: &str| number().description(Some(about));
    let codes = ObjectBuilder::new()
        .description(Some(
            "`empty`, `nothing_accepted`: the number of rejected items by code.",
        ))
        .additional_properties(Some(number()));
    let errors = ArrayBuilder::new()
        .items(Ref::from_schema_name(ItemError::name()))
        .description(Some(
            "`empty`, `nothing_accepted`: the first hundred errors.",
        ))
        .max_items(Some(100));
    ObjectBuilder::new()
        .description(Some("Why a request failed (RFC 9457). The members besides the first four belong to some codes."))
        .property("title", text().description(Some("The name of the status.")))
        .property(
            "status",
            number()
                .description(Some("The HTTP status of the response."))
                .minimum(Some(400_u64))
                .maximum(Some(599_u64)),
        )
        .property("code", Ref::from_schema_name(ERROR_CODE))
        .property("detail", text().description(Some("For people.")))
        .property("parameter", text().description(Some("`invalid_parameter`, `unknown_parameter`: the name of the parameter.")))
        .property("nearest", text().description(Some("`unknown_parameter`: the most similar parameter of the operation.")))
        .property("limit", count("`too_large`, `too_many_pairs`, `too_many_segments`, `rate_limited`: the limit."))
        .property("scope", enumeration("Scope", Scope::ALL.map(Scope::as_str)))
        .property("position", count("`invalid_expression`: the character with the mistake, from 1."))
        .property("accepted", count("`empty`, `nothing_accepted`: 0."))
        .property("rejected", count("`empty`, `nothing_accepted`: the number of rejected items."))
        .property("errors", errors)
        .property("codes", codes)
        .required("title")
        .required("status")
        .required("code")
        .required("detail")
        .examples([json!({
            "title": "Bad Request", "status": 400, "code": "unknown_parameter", "parameter": "windw", "nearest": "window",
            "detail": "this resource has no query parameter `windw`; did you mean `window`?"
        })])
}

/// The codes of all errors.
pub(crate) fn error_code(codes: impl IntoIterator<Item = &'static str>) -> ObjectBuilder {
    text()
        .description(Some(
            "What went wrong, for programs. A code never changes. `x-error-codes` of a response lists those that it can have, and its \
             description has the condition of each.",
        ))
        .enum_values(Some(codes))
}

/// Some JSON object.
pub(crate) fn any_object() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .title(Some("AnyObject"))
        .description(Some("An object with any members."))
}

/// Strings with a name in the document.
pub(crate) fn enumeration<const N: usize>(name: &str, texts: [&'static str; N]) -> ObjectBuilder {
    named(name).enum_values(Some(texts))
}

/// A string with a name in the document: see [`names`](super::names).
fn named(name: &str) -> ObjectBuilder {
    text().title(Some(name))
}

fn number() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0_u64))
}

pub(crate) fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}
