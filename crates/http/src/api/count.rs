//! `GET /v1/segments/{segment}/count`: the count of one segment.

use std::iter;
use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::Request;
use crate::access::Access;
use crate::auth::Scope;
use crate::certificate::Certificate;
use crate::covered::CoveredFields;
use crate::document::{Document, tagged};
use crate::openapi::{Described, codes, parameters};
use crate::problem::Problem;
use crate::resource::{Kind, Names, Operation, Resource};
use domain::Timestamp;
use engine::Headcount;

pub(super) static COUNT: Resource = Resource {
    template: "/v1/segments/{segment}/count",
    parameters: &["window", "fresh", "segment"],
    operations: &[Operation::get(Access::Needs(Scope::Read))
        .names(Names::InPath(2))
        .by_cookie()
        .also_as_csv()
        .described(describe)],
    kind: Kind::Plain,
};

/// A count, with its age and its source.
#[derive(Serialize, Hash, ToSchema)]
#[schema(as = Count)]
pub(super) struct CountResponse<'a> {
    segment: &'a str,
    /// Distinct users, exact as of `as_of`. Null if they are withheld.
    #[schema(required)]
    users: Option<u64>,
    #[serde(flatten)]
    certificate: Certificate,
    /// False if no pair of this segment was received within the configured window: perhaps the name is misspelled.
    known: bool,
    /// Whether the count is withheld, because it would reveal a group of fewer than `min_users` users.
    withheld: bool,
    #[serde(flatten)]
    covered: CoveredFields,
}

pub(super) fn handler(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    super::on(warp::get(), app, get)
}

impl Document for CountResponse<'_> {
    const COLUMNS: &'static [&'static str] = &[
        "segment",
        "users",
        "window_seconds",
        "as_of",
        "age_seconds",
        "source",
        "stale",
        "known",
        "withheld",
    ];

    fn rows(&self) -> impl Iterator<Item: Serialize> {
        let certificate = &self.certificate;
        iter::once((
            self.segment,
            self.users,
            certificate.window_seconds,
            certificate.as_of.to_string(),
            certificate.age_seconds,
            certificate.source,
            certificate.stale,
            self.known,
            self.withheld,
        ))
    }

    fn covered(&self) -> Option<CoveredFields> {
        Some(self.covered)
    }

    fn file_name(&self) -> String {
        format!("count-{}", self.segment)
    }

    fn as_of(&self) -> Option<Timestamp> {
        Some(self.certificate.as_of)
    }
}

async fn get(app: Arc<Headcount>, request: Request) -> Result<Response, Problem> {
    let segment = request.segment()?;
    let window = request.query.window_of_count(&app, &segment)?;
    let fresh = request.query.flag("fresh")?;
    let at_once = if fresh {
        None
    } else {
        app.counts().get_now(&segment, window)
    };
    let answer = match at_once {
        Some(answer) => answer,
        None => app.counts().get(&segment, window, fresh).await?,
    };
    let known = answer.count.users > 0 || app.knows(&segment).await;
    let shown = app.counts().shown(&segment, &answer).await;
    let covered = CoveredFields::of(&app, window, answer.count.as_of);
    let certificate = Certificate::of_count(&answer, app.clock().now());
    app.metrics().counts.age.observe(certificate.age_seconds);
    let document = CountResponse {
        segment: segment.as_str(),
        users: shown,
        certificate,
        known,
        withheld: shown.is_none(),
        covered,
    };
    tagged(&document, request.representation)
}

fn describe() -> Described {
    Described::new(
        "getCount",
        "counts",
        "Count the users of a segment",
        "The count of an unknown segment is 0.",
    )
    .takes(parameters::segment())
    .takes(parameters::segment_beside())
    .takes(parameters::window())
    .takes(parameters::fresh())
    .answers_tagged::<CountResponse<'static>>(
        "The count.",
        serde_json::json!({
            "segment": "sports", "users": 123, "window_seconds": 1_209_600, "as_of": "2026-11-21T08:00:00Z",
            "age_seconds": 0.8, "source": "memory", "stale": false, "known": true, "withheld": false,
             "covered_since": "2026-11-01T00:00:00Z", "complete": true
        }),
        "segment,users,window_seconds,as_of,age_seconds,source,stale,known,withheld\r\n\
         sports,123,1209600,2026-11-21T08:00:00Z,0.8,memory,false,true,false\r\n",
    )
    .fails(&[codes::INVALID_SEGMENT, codes::INVALID_WINDOW, codes::INVALID_PARAMETER, codes::UNAVAILABLE])
}
