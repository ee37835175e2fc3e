//! `GET /v1/segments/{segment}/count`: the count of one segment.

use std::hash::{Hash, Hasher};
use std::iter;
use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use crate::access::Access;
use crate::auth::Scope;
use crate::covered::CoveredFields;
use crate::document::{Document, tagged};
use crate::openapi::{Described, codes, parameters, schema};
use crate::problem::Problem;
use crate::query::Query;
use crate::reply::{age_seconds, rfc3339};
use crate::representation::Representation;
use crate::resource::{Kind, Names, Operation, Resource};
use domain::{Segment, Timestamp};
use engine::Headcount;
use engine::counts::CountResult;

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
#[derive(Serialize, ToSchema)]
#[schema(as = Count)]
pub(super) struct CountResponse<'a> {
    segment: &'a str,
    /// Distinct users, exact as of `as_of`. Null if they are withheld.
    #[schema(required)]
    users: Option<u64>,
    window_seconds: u64,
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    as_of: Timestamp,
    /// How long ago `as_of` was, to the millisecond.
    #[schema(minimum = 0)]
    age_seconds: f64,
    /// Where the number came from.
    #[schema(schema_with = schema::source)]
    source: &'static str,
    /// Whether every source failed, so that this is the last known count.
    stale: bool,
    /// False if no pair of this segment was received within the configured window: perhaps the name is misspelled.
    known: bool,
    /// Whether the count is withheld, because it would tell a group of fewer than `min_users` users apart.
    withheld: bool,
    #[serde(flatten)]
    covered: CoveredFields,
}

pub(super) fn handler(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    super::of_segment(app, get)
}

/// A row of the CSV.
#[derive(Serialize)]
struct Row<'a> {
    segment: &'a str,
    users: Option<u64>,
    window_seconds: u64,
    #[serde(serialize_with = "rfc3339")]
    as_of: Timestamp,
    age_seconds: f64,
    source: &'static str,
    stale: bool,
    known: bool,
    withheld: bool,
}

/// A count that changes no number has the same tag, whatever its instant, age and source.
impl Hash for CountResponse<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            segment,
            users,
            window_seconds,
            as_of: _,
            age_seconds: _,
            source: _,
            stale,
            known,
            withheld,
            covered,
        } = self;
        (
            segment,
            users,
            window_seconds,
            stale,
            known,
            withheld,
            covered,
        )
            .hash(state);
    }
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
        iter::once(Row {
            segment: self.segment,
            users: self.users,
            window_seconds: self.window_seconds,
            as_of: self.as_of,
            age_seconds: self.age_seconds,
            source: self.source,
            stale: self.stale,
            known: self.known,
            withheld: self.withheld,
        })
    }

    fn covered(&self) -> Option<CoveredFields> {
        Some(self.covered)
    }

    fn file_name(&self) -> String {
        format!("count-{}", self.segment)
    }

    fn as_of(&self) -> Option<Timestamp> {
        Some(self.as_of)
    }
}

async fn get(
    app: Arc<Headcount>,
    name: String,
    query: Query,
    representation: Representation,
) -> Result<Response, Problem> {
    let segment = crate::path::segment(&name, &query)?;
    let window = query.window_of_count(&app, &segment)?;
    let fresh = query.flag("fresh")?;
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
    let now = app.clock().now();
    let document = document(&segment, &answer, shown, known, covered, now);
    app.metrics().counts.age.observe(document.age_seconds);
    tagged(&document, representation)
}

fn document<'a>(
    segment: &'a Segment,
    answer: &CountResult,
    shown: Option<u64>,
    known: bool,
    covered: CoveredFields,
    now: Timestamp,
) -> CountResponse<'a> {
    CountResponse {
        segment: segment.as_str(),
        users: shown,
        window_seconds: answer.window.seconds(),
        as_of: answer.count.as_of,
        age_seconds: age_seconds(answer.count.as_of, now),
        source: answer.source.as_str(),
        stale: answer.stale,
        known,
        withheld: shown.is_none(),
        covered,
    }
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
