//! InfluxDB's write endpoints, for clients of InfluxDB: `POST /api/v2/write`, `POST /write`, and what they ask before.
//!
//! A request with some bad lines is a success, because agents drop all lines of one that is refused: the bad ones are counted in
//! the metrics. It is refused only if it has nothing else.

use std::sync::Arc;

use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::ContentBuilder;
use utoipa::openapi::path::Parameter;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use warp::http::{HeaderMap, StatusCode};
use warp::reply::{Reply, Response};

use super::intake::{Intake, Taken};
use crate::access::Access;
use crate::auth::Scope;
use crate::media::Format;
use crate::openapi::{Described, codes, parameters, schema};
use crate::parse::line_protocol::Precision;
use crate::problem::Problem;
use crate::query::Query;
use crate::reply::json as json_response;
use crate::resource::{Kind, Names, Operation, Resource};

pub(super) static WRITE: Resource = Resource {
    template: "/api/v2/write",
    parameters: &["org", "orgID", "bucket", "precision"],
    operations: &[Operation::post(Access::Needs(Scope::Write))
        .names(Names::Filtered)
        .by_client_token()
        .described(describe)],
    kind: Kind::Plain,
};

pub(super) static WRITE_1: Resource = Resource {
    template: "/write",
    parameters: &["db", "rp", "precision", "consistency", "u", "p"],
    operations: &[Operation::post(Access::Needs(Scope::Write))
        .names(Names::Filtered)
        .by_client_token()
        .described(describe_1)],
    kind: Kind::Plain,
};

pub(super) static PING: Resource = Resource {
    template: "/ping",
    parameters: &["verbose"],
    operations: &[Operation::get(Access::Open)
        .public()
        .described(describe_ping)],
    kind: Kind::Probe,
};

pub(super) static HEALTH: Resource = Resource {
    template: "/health",
    parameters: &[],
    operations: &[Operation::get(Access::Open)
        .public()
        .described(describe_health)],
    kind: Kind::Probe,
};

const VERSION: HeaderName = HeaderName::from_static("x-influxdb-version");
const BUILD: HeaderName = HeaderName::from_static("x-influxdb-build");

/// The version of InfluxDB whose endpoints these are. Clients of version 1 compare it.
const SPOKEN: &str = "2.9.1";
/// The names of precisions; those of minutes and hours are of version 1.
const PRECISIONS: [&str; 8] = ["ns", "us", "ms", "s", "n", "u", "m", "h"];
const HEALTHY: Health = Health {
    name: "headcount",
    message: "ready for writes",
    status: "pass",
    version: env!("CARGO_PKG_VERSION"),
};

/// A refused request as InfluxDB's clients read it.
#[derive(Serialize, ToSchema)]
#[schema(as = InfluxError)]
struct Refusal<'a> {
    code: &'a str,
    message: &'a str,
    /// The same as `message`, for clients of version 1.
    error: &'a str,
}

/// The process responds.
#[derive(Serialize, ToSchema)]
#[schema(as = InfluxHealth)]
struct Health {
    name: &'static str,
    message: &'static str,
    status: &'static str,
    version: &'static str,
}

pub(super) fn handler(intake: &Arc<Intake>) -> BoxedFilter<(Response,)> {
    intake.handler(format, respond)
}

pub(super) fn ping_handler() -> BoxedFilter<(Response,)> {
    warp::get()
        .map(|| {
            let mut response = StatusCode::NO_CONTENT.into_response();
            let headers = response.headers_mut();
            headers.insert(VERSION, HeaderValue::from_static(SPOKEN));
            headers.insert(BUILD, HeaderValue::from_static("headcount"));
            response
        })
        .boxed()
}

pub(super) fn health_handler() -> BoxedFilter<(Response,)> {
    warp::get().map(|| json_response(&HEALTHY)).boxed()
}

/// The content type is not considered, because clients send many.
fn format(_: &HeaderMap, query: &Query) -> Result<Format, Problem> {
    let name = query.text("precision")?.unwrap_or_default();
    let precision = Precision::of(name);
    precision.map(Format::LineProtocol).ok_or_else(|| {
        let names = PRECISIONS.join(", ");
        Problem::invalid_parameter("precision", format!("must be one of {names}"))
    })
}

fn respond(taken: Result<Taken, Problem>) -> Response {
    let taken = match taken {
        Ok(taken) => taken,
        Err(problem) => return refused(problem),
    };
    match taken.report.errors.first() {
        Some(error) if taken.has_only_bad_items() => {
            let number = error.index + 1;
            let detail = format!("no point was accepted; point {number}: {}", error.message);
            refused(Problem::bad_request("nothing_accepted", detail))
        }
        _ => StatusCode::NO_CONTENT.into_response(),
    }
}

/// The problem as InfluxDB would send it.
fn refused(problem: Problem) -> Response {
    let code = match problem.status() {
        StatusCode::UNAUTHORIZED => "unauthorized",
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::PAYLOAD_TOO_LARGE => "request too large",
        StatusCode::TOO_MANY_REQUESTS => "too many requests",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        StatusCode::INTERNAL_SERVER_ERROR => "internal error",
        _ => "invalid",
    };
    let refusal = Refusal {
        code,
        message: problem.detail(),
        error: problem.detail(),
    };
    // Strings always serialise.
    let body = serde_json::to_vec(&refusal).unwrap_or_default();
    let mut response = problem.into_response();
    *response.body_mut() = body.into();
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

fn describe() -> Described {
    let parameters = ["org", "orgID", "bucket"].map(parameters::without_effect);
    described(
        "writeInfluxDb2",
        "Store points of clients of InfluxDB 2",
        parameters,
    )
}

fn describe_1() -> Described {
    let parameters = ["db", "rp", "consistency", "u"].map(parameters::without_effect);
    described(
        "writeInfluxDb1",
        "Store points of clients of InfluxDB 1",
        parameters,
    )
}

fn described<const N: usize>(id: &str, summary: &str, ignored: [Parameter; N]) -> Described {
    let described = Described::new(
        id,
        "clients of other programs",
        summary,
        "Line protocol, as InfluxDB reads it. A point of the measurement `pair` with the segment in the tag `segment` and the user in \
         the field `user` is a pair; other points are ignored (settings have these names). Lines that can't be read do not affect \
         the others, and are counted in the metrics. The token is sent as `Authorization: Token`, as the password of Basic \
         authentication, or in the parameter `p`. Other parameters are ignored.",
    );
    let line = ContentBuilder::new()
        .schema(Some(schema::text()))
        .example(Some(
            "pair,segment=sports user=\"u104010\" 1795262400000000000\n".into(),
        ));
    let with_parameters = ignored.into_iter().fold(described, Described::takes);
    with_parameters
        .takes(parameters::precision(PRECISIONS))
        .takes(parameters::client_password())
        .body(
            "text/plain",
            "Plain, or with `Content-Encoding: gzip` or `zstd`.",
            line.build(),
        )
        .answers_with(
            204,
            "The pairs are durable, or there were only other points. A pair that can't be accepted does not change the status.",
            &[],
        )
        .fails_also_as::<Refusal<'static>>()
        .fails(&[codes::INVALID_PARAMETER, codes::NOT_STORED])
        .fails(codes::FOREIGN)
        .fails(codes::STORING)
        .fails(codes::BODY)
}

fn describe_ping() -> Described {
    let about = "What clients of InfluxDB 1 ask before they write.";
    let tag = "clients of other programs";
    Described::new(
        "pingInfluxDb",
        tag,
        "Check that the process responds",
        about,
    )
    .takes(parameters::without_effect("verbose"))
    .answers_with(204, "The process responds.", &[])
}

fn describe_health() -> Described {
    let about =
        "What clients of InfluxDB 2 ask before they write. `GET /readyz` says what can be served.";
    let tag = "clients of other programs";
    Described::new(
        "healthInfluxDb",
        tag,
        "Check that the process responds",
        about,
    )
    .answers::<Health>(200, "The process responds.", json!(HEALTHY))
}
