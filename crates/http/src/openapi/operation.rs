//! One operation: the description of its resource, and what all operations have in common.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::{Operation, OperationBuilder, Parameter};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::{
    Content, ContentBuilder, ObjectBuilder, Ref, RefOr, Required, Response, ResponseBuilder,
    Schema, SecurityRequirement, Type,
};
use warp::http::StatusCode;

use super::codes::{self, Code};
use super::{parameters, schema};
use crate::access::Access;
use crate::auth::Scope;

const UNCHANGED: &str = "\
The content has one of the tags in `If-None-Match`: what a client acts on is unchanged. The header `headcount-as-of` of a count \
or a list has the instant for which that holds.";

const CSV: &str = "\
RFC 4180, in UTF-8, with a header row. Names are unchanged: one that begins with `=`, `+`, `-` or `@` is a formula to a \
spreadsheet that does not import the column as text.";

/// The member of an error response that lists its codes, for programs: generators ignore it, so one schema of errors suffices.
const ERROR_CODES: &str = "x-error-codes";

/// The description of an operation by its resource.
pub(crate) struct Described {
    operation: OperationBuilder,
    /// The schemas that it refers to, with their names.
    pub(crate) schemas: Vec<(String, RefOr<Schema>)>,
    codes: Vec<Code>,
    /// The schema of errors from the handler, if they are JSON in the form of another service.
    foreign_error: Option<Ref>,
}

impl Described {
    /// `id` becomes the name of the operation in generated clients, so it never changes.
    pub(crate) fn new(id: &str, tag: &str, summary: &str, about: &str) -> Self {
        let operation = OperationBuilder::new()
            .operation_id(Some(id))
            .tag(tag)
            .summary(Some(summary))
            .description(Some(about));
        Self {
            operation,
            schemas: Vec::new(),
            codes: Vec::new(),
            foreign_error: None,
        }
    }

    /// Adds the schema of `T` to the document, and returns a reference to it.
    pub(crate) fn refer<T: ToSchema>(&mut self) -> Ref {
        T::schemas(&mut self.schemas);
        self.schemas.push((T::name().into_owned(), T::schema()));
        Ref::from_schema_name(T::name())
    }

    pub(crate) fn takes(mut self, parameter: Parameter) -> Self {
        self.operation = self.operation.parameter(parameter);
        self
    }

    /// Adds a required body of one media type.
    pub(crate) fn body(mut self, media: &str, about: &str, content: Content) -> Self {
        let body = RequestBodyBuilder::new()
            .description(Some(about))
            .required(Some(Required::True))
            .content(media, content);
        self.operation = self.operation.request_body(Some(body.build()));
        self
    }

    /// Adds a JSON response with `status`.
    pub(crate) fn answers<T: ToSchema>(mut self, status: u16, about: &str, example: Value) -> Self {
        let schema = self.refer::<T>();
        let content = ContentBuilder::new()
            .schema(Some(schema))
            .example(Some(example));
        self.answer(status, about, "application/json", content.build())
    }

    /// Adds a response with `status` that is not JSON.
    pub(crate) fn answers_with(self, status: u16, about: &str, media: &[&str]) -> Self {
        let response = media.iter().fold(plain(about), |response, media| {
            let schema = match *media {
                "application/json" => schema::any_object(),
                _ => schema::text(),
            };
            response.content(*media, Content::new(Some(schema)))
        });
        self.respond(status, response)
    }

    /// Adds a 200 that is JSON or CSV, as the request prefers, and the code of a request that accepts neither.
    pub(crate) fn answers_also_as_csv<T: ToSchema>(
        mut self,
        about: &str,
        example: Value,
        csv: &str,
    ) -> Self {
        let response = self.in_two_ways::<T>(about, example, csv);
        self.respond(200, response).fails(&[codes::NOT_ACCEPTABLE])
    }

    /// The same with an entity tag, and the 304 for a client that knows it.
    pub(crate) fn answers_tagged<T: ToSchema>(
        mut self,
        about: &str,
        example: Value,
        csv: &str,
    ) -> Self {
        let tag = || Ref::new("#/components/headers/EntityTag");
        let response = self.in_two_ways::<T>(about, example, csv);
        self.takes(parameters::if_none_match())
            .respond(200, response.header_ref("etag", tag()))
            .respond(304, plain(UNCHANGED).header_ref("etag", tag()))
            .fails(&[codes::NOT_ACCEPTABLE])
    }

    fn in_two_ways<T: ToSchema>(
        &mut self,
        about: &str,
        example: Value,
        csv: &str,
    ) -> ResponseBuilder {
        let schema = self.refer::<T>();
        let json = ContentBuilder::new()
            .schema(Some(schema))
            .example(Some(example));
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(CSV));
        let csv = ContentBuilder::new()
            .schema(Some(text))
            .example(Some(csv.into()));
        plain(about)
            .content("application/json", json.build())
            .content("text/csv", csv.build())
    }

    fn answer(self, status: u16, about: &str, media: &str, content: Content) -> Self {
        self.respond(status, plain(about).content(media, content))
    }

    fn respond(mut self, status: u16, response: ResponseBuilder) -> Self {
        self.operation = self.operation.response(status.to_string(), response);
        self
    }

    /// Adds error codes.
    pub(crate) fn fails(mut self, codes: &[Code]) -> Self {
        self.codes.extend_from_slice(codes);
        self
    }

    /// Says that errors may also be JSON as another service sends it.
    pub(crate) fn fails_also_as<T: ToSchema>(mut self) -> Self {
        self.foreign_error = Some(self.refer::<T>());
        self
    }

    /// The complete operation, with the security requirement and error responses of `access`. Its codes are added to `known`.
    pub(super) fn operation(
        mut self,
        access: Access,
        known: &mut BTreeSet<&'static str>,
    ) -> Operation {
        self.codes.extend_from_slice(codes::EVERYWHERE);
        let (scope, asks_always) = match access {
            Access::Open => (None, true),
            Access::Metrics => (Some(Scope::Read), false),
            Access::InBody => (Some(Scope::Write), false),
            Access::Needs(scope) => (Some(scope), true),
        };
        if let Some(scope) = scope {
            self.codes.extend_from_slice(codes::WITH_A_TOKEN);
            let needs = SecurityRequirement::new("bearer", [scope.as_str()]);
            self.operation = self.operation.security(needs);
            if !asks_always {
                self.operation = self.operation.security(SecurityRequirement::default());
            }
        }
        let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
        for code in std::mem::take(&mut self.codes) {
            by_status.entry(code.status).or_default().push(code);
        }
        for (status, codes) in by_status {
            known.extend(codes.iter().map(|code| code.code));
            let mut response = problem(status, &codes);
            if let Some(schema) = &self.foreign_error {
                let content = RefOr::T(Content::new(Some(schema.clone())));
                response
                    .content
                    .insert("application/json".to_owned(), content);
            }
            self.operation = self.operation.response(status.to_string(), response);
        }
        let mut operation = self.operation.build();
        if scope.is_none() {
            // An empty list means that no token is required. A missing list would inherit the global requirement.
            operation.security = Some(Vec::new());
        }
        operation
    }
}

fn plain(about: &str) -> ResponseBuilder {
    ResponseBuilder::new()
        .description(about)
        .header_ref("x-request-id", Ref::new("#/components/headers/RequestId"))
}

/// The response for all problems with one status. Its description has the condition of each code.
fn problem(status: u16, answered: &[Code]) -> Response {
    let title = StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason());
    let title = title.unwrap_or("Error");
    let mut about = format!("{title}:\n");
    for code in answered {
        about += &format!("\n- `{}`: {}", code.code, code.when);
    }
    let names: BTreeSet<_> = answered.iter().map(|code| code.code).collect();
    let names = ExtensionsBuilder::new().add(ERROR_CODES, Vec::from_iter(names));
    let problem = Ref::from_schema_name(schema::PROBLEM);
    let mut response = plain(&about)
        .content("application/problem+json", Content::new(Some(problem)))
        .extensions(Some(names.build()));
    // A cross-site request is refused with any token, so its response has no challenge.
    let has_a_challenge = answered.iter().all(|code| code.code != codes::CROSS_SITE);
    if matches!(status, 401 | 403) && has_a_challenge {
        let challenge = Ref::new("#/components/headers/Challenge");
        response = response.header_ref("www-authenticate", challenge);
    }
    if matches!(status, 429 | 503) {
        response = response.header_ref("retry-after", Ref::new("#/components/headers/RetryAfter"));
    }
    response.build()
}
