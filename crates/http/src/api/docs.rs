//! `/openapi.json` and `/docs`: the OpenAPI document, and a viewer for it.
//!
//! Both need no token: they have no data, and nothing that is not in the public source. The viewer is not in the document, because
//! no program calls it.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use utoipa_swagger_ui::Config;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use warp::reply::{Reply, Response};

use crate::access::Access;
use crate::openapi::{self, Described};
use crate::problem::Problem;
use crate::resource::{Kind, Operation, Resource, part};

pub(super) static OPENAPI: Resource = Resource {
    template: "/openapi.json",
    parameters: &[],
    operations: &[Operation::get(Access::Open).described(describe_document)],
    kind: Kind::Plain,
};

pub(super) static DOCS: Resource = Resource {
    template: "/docs",
    parameters: &[],
    operations: &[Operation::get(Access::Open)],
    kind: Kind::Plain,
};

pub(super) static FILE: Resource = Resource {
    template: "/docs/{file}",
    parameters: &[],
    operations: &[Operation::get(Access::Open)],
    kind: Kind::Plain,
};

/// The files of the viewer: three of Swagger UI, and a start script of our own.
#[cfg(test)]
const FILES: [&str; 4] = [
    "swagger-ui.css",
    "swagger-ui-bundle.js",
    "favicon-32x32.png",
    "headcount.js",
];

const PAGE: &str = include_str!("docs/index.html");
const START: &str = include_str!("docs/headcount.js");
/// Allows only what this service serves, and the images that are embedded in Swagger UI's style sheet. No site may frame
/// the page.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

pub(super) fn document_handler() -> BoxedFilter<(Response,)> {
    let document = openapi::text(super::documented())
        .map(Bytes::from)
        .map_err(|error| error.to_string());
    warp::get()
        .map(move || match &document {
            Ok(text) => answer("application/json", text.clone()),
            Err(error) => Problem::internal().caused_by(error).into_response(),
        })
        .boxed()
}

pub(super) fn page_handler() -> BoxedFilter<(Response,)> {
    warp::get().map(page).boxed()
}

pub(super) fn file_handler() -> BoxedFilter<(Response,)> {
    warp::get()
        .and(part(1))
        .map(|name: String| file(&name))
        .boxed()
}

fn page() -> Response {
    let mut response = answer(
        "text/html; charset=utf-8",
        Bytes::from_static(PAGE.as_bytes()),
    );
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn file(name: &str) -> Response {
    let (kind, bytes) = match name {
        "headcount.js" => ("text/javascript", Bytes::from_static(START.as_bytes())),
        "swagger-ui.css" => ("text/css", of_the_viewer(name)),
        "swagger-ui-bundle.js" => ("text/javascript", of_the_viewer(name)),
        "favicon-32x32.png" => ("image/png", of_the_viewer(name)),
        _ => return Problem::not_found().into_response(),
    };
    let mut response = answer(kind, bytes);
    // Only for a day: the next version of the service may have other files under the same names.
    let day = HeaderValue::from_static("max-age=86400");
    response.headers_mut().insert(CACHE_CONTROL, day);
    response
}

/// An embedded file of Swagger UI. Empty if there is no file of that name, which a test rules out.
fn of_the_viewer(name: &str) -> Bytes {
    let served = utoipa_swagger_ui::serve(name, Arc::new(Config::default()));
    match served.ok().flatten().map(|file| file.bytes) {
        Some(Cow::Borrowed(bytes)) => Bytes::from_static(bytes),
        Some(Cow::Owned(bytes)) => Bytes::from(bytes),
        None => Bytes::new(),
    }
}

fn answer(kind: &'static str, body: Bytes) -> Response {
    let mut response = warp::http::Response::new(body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn describe_document() -> Described {
    Described::new(
        "getOpenApi",
        "operations",
        "Get this document",
        "The same document as `headcount openapi` prints. It contains no data and needs no token.",
    )
    .answers_with(200, "An OpenAPI 3.1 document.", &["application/json"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_viewer_has_all_its_files() {
        for name in FILES {
            let response = file(name);
            assert_eq!(response.status(), 200, "{name}");
            let length = hyper::body::Body::size_hint(response.body()).exact();
            assert!(length > Some(100), "{name}");
        }
        assert_eq!(file("index.html").status(), 404);
    }

    #[test]
    fn the_page_names_only_files_that_are_served() {
        for (_, rest) in PAGE
            .match_indices("docs/")
            .map(|(at, found)| PAGE.split_at(at + found.len()))
        {
            let name = rest.split('"').next().unwrap();
            assert!(FILES.contains(&name), "{name}");
        }
    }
}
