//! The OpenAPI 3.1 document of the service.
//!
//! Each resource describes its operations beside its handler; [`api`](crate::api) lists them, so that a route can't be left out.
//! Schemas are derived by the types that are serialised. What all operations share (refusals, headers, security) is added in
//! [`operation`].

pub(crate) mod codes;
mod operation;
pub(crate) mod parameters;
pub(crate) mod schema;

pub(crate) use operation::Described;

use serde_json::Value;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    Components, ComponentsBuilder, Header, HttpMethod, InfoBuilder, License, OpenApiBuilder,
    PathsBuilder, Type, tag::TagBuilder,
};

use super::access::Access;

const ABOUT: &str = "\
How many distinct users are in a segment now? Pairs of a user and a segment come in by `POST /v1/pairs`; a user \
stays in a segment for a window after they were last seen there; counts are exact, and say as of when.

Every answer has an `x-request-id`, the one of the request where that has a plain one. Errors are problem documents \
(RFC 9457) whose `code` never changes. A path that is not listed is answered with 404 `not_found`, a method that is \
not listed with 405 `method_not_allowed` and `Allow`; `HEAD` is answered wherever `GET` is, like it and without \
a body. A query parameter that an operation does not list is `unknown_parameter`; one given twice is `invalid_parameter`.

Clients and proxies take `.` and `..` out of a path, also percent-encoded. A segment or user of that name is given by the \
parameter `segment` or `user_id`, beside a path that has `-` in place of the name: `/v1/segments/-/count?segment=..`.

Where the service asks for tokens, each operation names the scope that it needs; no scope includes another. A \
service without tokens asks nobody, and then 401, 403 and `rate_limited` do not occur.";

const BEARER: &str = "\
An opaque token (`headcount token new`), or a JWT signed with the configured key, with `exp` and its scopes in `scope`. \
The scopes are `read`, `write`, `users` (look up a person), `erase` (erase one) and `admin` (refresh, archive). A token may \
be bound to segments (`headcount token new --segments`, the claim `segments`: names, or beginnings of names with `*` at \
the end): lists and events then have those alone, and other segments are `forbidden_segment`.";

/// The document as indented JSON with sorted keys: every build of the same source returns the same string.
///
/// # Errors
///
/// Never in practice: the document has only strings and numbers.
pub(crate) fn text(
    operations: impl Iterator<Item = Documented>,
) -> Result<String, serde_json::Error> {
    let mut document = serde_json::to_value(document(operations))?;
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
    for operation in operations {
        let (method, described) = match operation.method {
            "POST" => (HttpMethod::Post, operation.described.fails(codes::UNSAFE)),
            "DELETE" => (HttpMethod::Delete, operation.described.fails(codes::UNSAFE)),
            _ => (HttpMethod::Get, operation.described),
        };
        components = components.schemas_from_iter(described.schemas.clone());
        let described = described.operation(operation.access);
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
        .components(Some(shared(components)))
        .build()
}

fn tags() -> impl Iterator<Item = utoipa::openapi::Tag> {
    [
        ("pairs", "The way in"),
        ("counts", "The way out"),
        ("users", "One user at a time"),
        (
            "admin",
            "Work that a scheduler starts; all of it may be started twice or not at all",
        ),
        ("operations", "How the process is, and what it can do"),
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
                "Names the request in the log: the request's own `x-request-id` if it is a plain one, else a new one.",
            ),
        )
        .header(
            "RetryAfter",
            header(seconds, "In how many seconds to send the request again."),
        )
        .header(
            "Challenge",
            header(text(), "What token is needed, and what was wrong with the one given (RFC 6750)."),
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
