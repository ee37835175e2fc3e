//! The OpenAPI 3.1 document of the service.
//!
//! Each resource describes its operations beside its handler; [`api`](crate::api) lists them, so that a route can't be left out.
//! Schemas are derived by the types that are serialised. What all operations share (refusals, headers, security) is added in
//! [`operation`].

pub(crate) mod codes;
mod names;
mod operation;
pub(crate) mod parameters;
pub(crate) mod schema;

pub(crate) use operation::Described;

use std::collections::BTreeSet;

use serde_json::Value;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    Components, ComponentsBuilder, Header, HttpMethod, InfoBuilder, License, OpenApiBuilder,
    PathsBuilder, Type, tag::TagBuilder,
};

use super::access::Access;

const ABOUT: &str = "\
How many distinct users are in a segment now? `POST /v1/pairs` receives pairs of a user and a segment. A user stays in a \
segment for a window after they were last seen there. Counts are exact, and each has the instant at which it was exact.

Every response has an `x-request-id`: that of the request if it is valid, else a new one. Errors are problem documents (RFC \
9457), the schema `Problem`, whose `code` never changes. A path that is not listed gets 404 `not_found`. A method that is not listed gets 405 \
`method_not_allowed` with `Allow`. `HEAD` is supported wherever `GET` is, and returns the same response without a body. A \
query parameter that an operation does not list is `unknown_parameter`; a repeated one is `invalid_parameter`.

Counts, lists and trends are JSON, or CSV with `Accept: text/csv`. They have an `etag`: a request with `If-None-Match` gets 304 while \
the numbers are unchanged. No cache may keep a response (`cache-control: no-store`), so a client keeps the tag and the content itself.

Clients and proxies remove `.` and `..` from a path, also percent-encoded. For a segment or user with such a name, send `-` \
in place of the name in the path, and the name in the parameter `segment` or `user_id`: `/v1/segments/-/count?segment=..`.

If the service requires tokens, each operation names the scope that it needs; no scope includes another. If it does not, \
401, `insufficient_scope`, `forbidden_segment` and `rate_limited` do not occur.";

const BEARER: &str = "\
An opaque token (`headcount token new`), or a JWT signed with the configured key, with `exp` and its scopes in `scope`. The \
scopes are `read`, `write`, `users` (look up a user), `erase` (erase one), `export` (list the users of a segment) and `admin` (refresh, archive, set and remove a \
segment, erase a user from one, state since when counts are complete). A token may be bound to segments (`headcount token new \
--segments`, the claim `segments`: names, or prefixes of names followed by `*`). Lists and events then contain only those \
segments, and other segments are `forbidden_segment`.";

/// The document as indented JSON with sorted keys: every build of the same source returns the same string.
///
/// # Errors
///
/// Two different schemas have the same name, which a test rules out.
pub(crate) fn text(
    operations: impl Iterator<Item = Documented>,
) -> Result<String, serde_json::Error> {
    let mut document = serde_json::to_value(document(operations))?;
    names::name_shared(&mut document)?;
    require_headers(&mut document);
    let mut text = serde_json::to_string_pretty(&document)?;
    text.push('\n');
    Ok(text)
}

/// An operation for the document.
pub(crate) struct Documented {
    pub(crate) template: &'static str,
    pub(crate) method: &'static str,
    pub(crate) access: Access,
    pub(crate) described: Described,
}

fn document(operations: impl Iterator<Item = Documented>) -> utoipa::openapi::OpenApi {
    let mut components = ComponentsBuilder::new();
    let mut paths = PathsBuilder::new().build();
    // Those of paths and methods that do not exist belong to no operation.
    let mut codes = BTreeSet::from([codes::NOT_FOUND.code, codes::METHOD_NOT_ALLOWED]);
    for operation in operations {
        let (method, described) = match operation.method {
            "POST" => (HttpMethod::Post, operation.described.fails(codes::UNSAFE)),
            "PUT" => (HttpMethod::Put, operation.described.fails(codes::UNSAFE)),
            "DELETE" => (HttpMethod::Delete, operation.described.fails(codes::UNSAFE)),
            _ => (HttpMethod::Get, operation.described),
        };
        components = components.schemas_from_iter(described.schemas.clone());
        let described = described.operation(operation.access, &mut codes);
        paths.add_path_operation(operation.template, vec![method], described);
    }
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("headcount")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(ABOUT))
                .license(Some(License::new(env!("CARGO_PKG_LICENSE"))))
                .build(),
        )
        .tags(Some(tags()))
        .paths(paths)
        .components(Some(shared(
            components
                .schema(schema::PROBLEM, schema::problem())
                .schema(schema::ERROR_CODE, schema::error_code(codes)),
        )))
        .build()
}

fn tags() -> impl Iterator<Item = utoipa::openapi::Tag> {
    [
        ("pairs", "Sending pairs"),
        (
            "clients of other programs",
            "Pairs from clients of InfluxDB, Segment, RudderStack, PostHog and Snowplow, unchanged",
        ),
        ("counts", "Reading counts"),
        ("users", "One user at a time"),
        (
            "admin",
            "Maintenance for a scheduler; each operation is safe to repeat and safe to skip",
        ),
        (
            "operations",
            "The state of the process, and its documentation",
        ),
    ]
    .into_iter()
    .map(|(name, about)| {
        TagBuilder::new()
            .name(name)
            .description(Some(about))
            .build()
    })
}

/// The components that are not derived from types.
fn shared(components: ComponentsBuilder) -> Components {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(BEARER))
        .build();
    let header = |schema: utoipa::openapi::ObjectBuilder, about: &str| {
        let mut header = Header::new(schema);
        header.description = Some(about.to_owned());
        header
    };
    let text = || utoipa::openapi::ObjectBuilder::new().schema_type(Type::String);
    let seconds = utoipa::openapi::ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1_u64));
    components
        .security_scheme("bearer", SecurityScheme::Http(bearer))
        .header(
            "RequestId",
            header(
                text().min_length(Some(1)).max_length(Some(64)),
                "The id of the request in the log: its own `x-request-id` if that is 1 to 64 of the characters A-Z a-z 0-9 \
                 . _ -, else a new one.",
            ),
        )
        .header(
            "EntityTag",
            header(
                text(),
                "The tag of the content, for `If-None-Match`. It is weak: it covers what a client acts on, and not the instant, \
                 the age and the source of a count.",
            ),
        )
        .header(
            "RetryAfter",
            header(seconds, "The number of seconds to wait before a retry."),
        )
        .header(
            "Challenge",
            header(text(), "The token that is needed, and what is wrong with the given one (RFC 6750)."),
        )
        .build()
}

/// Marks each shared header as `required`, which `utoipa` does not support.
fn require_headers(document: &mut Value) {
    let headers = document.pointer_mut("/components/headers");
    let headers = headers.and_then(Value::as_object_mut);
    for header in headers.into_iter().flat_map(|headers| headers.values_mut()) {
        if let Some(header) = header.as_object_mut() {
            header.insert("required".to_owned(), true.into());
        }
    }
}
