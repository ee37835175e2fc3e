//! The OpenAPI 3.1 document, generated from the routes and from the types of their responses.
//!
//! [`Route`] lists the operations and the scope of each. [`resources`] describes them in an exhaustive match, so that no
//! route can be left out. Schemas are derived by the types of the responses. [`operation`] adds what all operations
//! share: error responses, headers and security.

mod codes;
mod operation;
mod pairs;
mod parameters;
mod resources;
pub(super) mod schema;

use serde_json::Value;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    Components, ComponentsBuilder, Header, HttpMethod, InfoBuilder, License, OpenApiBuilder,
    PathsBuilder, Type, tag::TagBuilder,
};

use super::route::Route;
use operation::Described;

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
pub(crate) fn text() -> Result<String, serde_json::Error> {
    let mut document = serde_json::to_value(document())?;
    require_headers(&mut document);
    let mut text = serde_json::to_string_pretty(&document)?;
    text.push('\n');
    Ok(text)
}

fn document() -> utoipa::openapi::OpenApi {
    let mut components = ComponentsBuilder::new();
    let mut paths = PathsBuilder::new().build();
    for route in Route::ALL {
        for method in route.methods().split(", ") {
            // HEAD is omitted. It is GET without a body, and would only double the document.
            let Some((method_type, described)) = describe(route, method) else {
                continue;
            };
            components = components.schemas_from_iter(described.schemas.clone());
            let operation = described.operation(route.access(method));
            paths.add_path_operation(route.template(), vec![method_type], operation);
        }
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

fn describe(route: Route, method: &str) -> Option<(HttpMethod, Described)> {
    let method_type = match method {
        "GET" => HttpMethod::Get,
        "POST" => HttpMethod::Post,
        "DELETE" => HttpMethod::Delete,
        _ => return None,
    };
    let described = resources::described(route, method)?;
    let described = match method {
        "GET" => described,
        _ => described.fails(codes::UNSAFE),
    };
    Some((method_type, described))
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
