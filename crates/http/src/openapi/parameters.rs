//! The parameters of paths and queries.

use serde_json::json;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{ArrayBuilder, ObjectBuilder, Required, Type};

use super::schema::{self, enumeration, text};

pub(crate) fn segment() -> Parameter {
    in_path(
        "segment",
        "The segment's name, percent-encoded.",
        schema::segment(),
    )
}

pub(crate) fn user_id() -> Parameter {
    in_path(
        "user_id",
        "The user's id, percent-encoded.",
        schema::user_id_text(),
    )
}

pub(crate) fn segment_beside() -> Parameter {
    query(
        "segment",
        "The segment's name if the path has `-` in its place: for the names `.` and `..`, which a path can't contain.",
        schema::segment(),
    )
}

pub(crate) fn user_id_beside() -> Parameter {
    query(
        "user_id",
        "The user's id if the path has `-` in its place: for the ids `.` and `..`, which a path can't contain.",
        schema::user_id_text(),
    )
}

pub(crate) fn expr() -> Parameter {
    required(query(
        "expr",
        "A set of segments: names with `AND`, `OR`, `NOT` and parentheses, in capitals. Names with blanks, quotes or \
         parentheses are written in double quotes. `*` is everybody in any segment. `NOT` binds tighter than `AND`, and \
         `AND` tighter than `OR`. At most 4,096 bytes, 64 names, and 32 parentheses within each other.",
        text()
            .max_length(Some(4096))
            .examples([json!("\"front page\" AND (news OR sports)")]),
    ))
}

/// A parameter of another service, which has no effect.
pub(crate) fn without_effect(name: &str) -> Parameter {
    query(name, "Accepted, and without effect.", text())
}

pub(crate) fn precision(names: [&'static str; 8]) -> Parameter {
    query(
        "precision",
        "The unit of timestamps: nanoseconds by default.",
        enumeration("InfluxPrecision", names),
    )
}

pub(crate) fn client_password() -> Parameter {
    query(
        "p",
        "The token, for a client that sends it neither as `Authorization: Token` nor as the password of Basic authentication.",
        text(),
    )
}

pub(crate) fn window() -> Parameter {
    query(
        "window",
        "The window of the counts: a duration such as `7d` or `90m`, or a number of seconds. It must be a multiple of the \
         resolution, and at most the configured window. The default is the segment's own window, if it has one, or else the \
         configured one.",
        text().examples([json!("7d")]),
    )
}

/// Segments have no window of their own in a question about sets of users.
pub(crate) fn window_of_sets() -> Parameter {
    query(
        "window",
        "The window of the counts: a duration such as `7d` or `90m`, or a number of seconds. It must be a multiple of the \
         resolution, and at most the configured window, which is the default. The own windows of segments do not apply.",
        text().examples([json!("7d")]),
    )
}

pub(crate) fn fresh() -> Parameter {
    query(
        "fresh",
        "Skip the caches and count in the store.",
        enumeration("Flag", ["true", "false", "1", "0", ""])
            .description(Some("`true`, `1` or an empty string is yes.")),
    )
}

pub(crate) fn prefix() -> Parameter {
    query(
        "prefix",
        "Only segments whose name begins with this string.",
        text().examples([json!("sp")]),
    )
}

pub(crate) fn sort() -> Parameter {
    query(
        "sort",
        "The order: by name, or most users first.",
        enumeration("ListOrder", ["name", "users"]).default(Some(json!("name"))),
    )
}

pub(crate) fn limit(about: &str, maximum: usize) -> Parameter {
    let number = number().minimum(Some(1_u64));
    query("limit", about, number.maximum(Some(maximum as u64)))
}

pub(crate) fn cursor() -> Parameter {
    query(
        "cursor",
        "The `next` of an earlier response with the same `sort`; the list continues from there.",
        text(),
    )
}

pub(crate) fn after() -> Parameter {
    query(
        "after",
        "Only users whose id is greater, by its bytes: the last `user_id` that was received, to continue after it.",
        text().examples([json!("u104010")]),
    )
}

pub(crate) fn since() -> Parameter {
    required(query(
        "since",
        "The store has every pair that was seen since then: an instant in RFC 3339 or unix seconds, or a day, which stands for \
         its start in UTC. It must not be in the future.",
        text().examples([json!("2026-11-15")]),
    ))
}

pub(crate) fn from() -> Parameter {
    query(
        "from",
        "The first instant: RFC 3339 or unix seconds. The default is a day before `to`.",
        text().examples([json!("2026-11-20T08:00:00Z")]),
    )
}

pub(crate) fn to() -> Parameter {
    query(
        "to",
        "The last instant: RFC 3339 or unix seconds. The default is now.",
        text().examples([json!("2026-11-21T08:00:00Z")]),
    )
}

pub(crate) fn step() -> Parameter {
    query(
        "step",
        "Return only the last point of each step: a duration such as `1h`, at least a second.",
        text().examples([json!("1h")]),
    )
}

pub(crate) fn flow_step() -> Parameter {
    query(
        "step",
        "The length of a step: a duration such as `1h`, a multiple of the resolution. The default is an hour.",
        text().examples([json!("1h")]),
    )
}

pub(crate) fn only_segment() -> Parameter {
    query("segment", "Recount only this segment.", schema::segment())
}

pub(crate) fn by() -> Parameter {
    query(
        "by",
        "The order: most users in both first, or the greatest Jaccard index, or the greatest lift.",
        enumeration("OverlapOrder", ["both", "jaccard", "lift"]).default(Some(json!("both"))),
    )
}

pub(crate) fn at_least() -> Parameter {
    query(
        "at_least",
        "Only pairs with at least this many users in both. Without it, two segments with the same single user come first by Jaccard index and lift.",
        number().default(Some(json!(1))),
    )
}

pub(crate) fn min_users() -> Parameter {
    query(
        "min_users",
        "Withhold every number that would reveal a group of fewer users. A higher setting `min_users` takes precedence.",
        number().default(Some(json!(0))),
    )
}

fn number() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0_u64))
}

/// Segments: the parameter may be repeated, up to `most` times.
pub(crate) fn segments(about: &str, most: usize) -> Parameter {
    let several = ArrayBuilder::new()
        .items(schema::segment())
        .max_items(Some(most));
    ParameterBuilder::new()
        .name("segment")
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(about))
        .schema(Some(several))
        .build()
}

pub(crate) fn required(mut parameter: Parameter) -> Parameter {
    parameter.required = Required::True;
    parameter
}

pub(crate) fn part_of_name() -> Parameter {
    query(
        "q",
        "Only segments whose name has this part. Upper and lower case are the same.",
        text().examples([json!("ports")]),
    )
}

pub(crate) fn if_none_match() -> Parameter {
    ParameterBuilder::new()
        .name("If-None-Match")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "The `etag` of the content that the client has, or several, or `*`. The response is 304 if the content has one of them.",
        ))
        .schema(Some(text()))
        .build()
}

pub(crate) fn last_event_id() -> Parameter {
    ParameterBuilder::new()
        .name("Last-Event-ID")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "The `id` of the last received event; the stream continues after it. If the instance no longer knows the id, \
             the stream begins with `event: reset`.",
        ))
        .schema(Some(text()))
        .build()
}

fn in_path(name: &str, about: &str, schema: ObjectBuilder) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(about))
        .schema(Some(schema))
        .build()
}

fn query(name: &str, about: &str, schema: ObjectBuilder) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(about))
        .schema(Some(schema))
        .build()
}
