//! `POST /v1/trends`: past counts of many segments. It is a POST because names of a thousand segments don't fit a URL.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::{ArrayBuilder, Content, ContentBuilder, ObjectBuilder, Ref};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::{Reply, Response};

use super::trend::{COLUMNS, Range, TrendResponse, check_is_kept, too_many_points};
use crate::access::Access;
use crate::auth::Scope;
use crate::authorization;
use crate::body::Limits;
use crate::covered::CoveredFields;
use crate::document::{Document, untagged};
use crate::openapi::{Described, codes, schema};
use crate::problem::Problem;
use crate::query::Query;
use crate::representation::Representation;
use crate::resource::{Kind, Names, Operation, Resource};
use crate::settings::HttpSettings;
use domain::{Reach, Segment};
use engine::Headcount;

pub(super) static TRENDS: Resource = Resource {
    template: "/v1/trends",
    parameters: &[],
    operations: &[Operation::post(Access::Needs(Scope::Read))
        .names(Names::Filtered)
        .by_cookie()
        .also_as_csv()
        .described(describe)],
    kind: Kind::Plain,
};

/// Most segments of a request.
const MAX_SEGMENTS: usize = 1_000;
/// Most points of a response, about 10 MB: a thousand segments over a week by the hour are 168,000.
const MAX_POINTS: usize = 200_000;
/// Trends that are read from the store concurrently, as counts of a list are.
const CONCURRENT_TRENDS: usize = 16;
/// The largest body: a thousand of the longest names take 768 KB if each byte is escaped.
const MAX_BODY: u64 = 1 << 20;

/// Which trends to return.
#[derive(Deserialize, ToSchema)]
#[schema(as = TrendsRequest)]
#[serde(deny_unknown_fields)]
struct TrendsRequest {
    #[schema(schema_with = segments_schema)]
    segments: Vec<String>,
    #[schema(schema_with = window_schema)]
    window: Option<Scalar>,
    #[schema(schema_with = from_schema)]
    from: Option<Scalar>,
    #[schema(schema_with = to_schema)]
    to: Option<Scalar>,
    #[schema(schema_with = step_schema)]
    step: Option<Scalar>,
}

/// A value that may be a string or a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Number(serde_json::Number),
}

/// Trends, in the order of the request.
#[derive(Serialize, Hash, ToSchema)]
#[schema(as = TrendList)]
struct TrendsResponse<'a> {
    trends: Vec<TrendResponse<'a>>,
}

impl Document for TrendsResponse<'_> {
    const COLUMNS: &'static [&'static str] = COLUMNS;

    fn rows(&self) -> impl Iterator<Item: Serialize> {
        self.trends.iter().flat_map(TrendResponse::rows)
    }

    fn covered(&self) -> Option<CoveredFields> {
        let covered = self.trends.iter().filter_map(TrendResponse::covered);
        covered.reduce(CoveredFields::and)
    }

    fn file_name(&self) -> String {
        "trends".to_owned()
    }
}

impl TrendsRequest {
    /// The segments, each once, in order.
    fn segments(&self) -> Result<Vec<Segment>, Problem> {
        if !(1..=MAX_SEGMENTS).contains(&self.segments.len()) {
            let detail = format!("must have 1 to {MAX_SEGMENTS} names");
            return Err(Problem::invalid_parameter("segments", detail));
        }
        let mut segments = Vec::with_capacity(self.segments.len());
        let mut seen = std::collections::HashSet::new();
        for name in &self.segments {
            let segment = Segment::new(name)?;
            if seen.insert(name) {
                segments.push(segment);
            }
        }
        Ok(segments)
    }

    /// The other members, as the query of a single trend has them.
    fn query(&self) -> Query {
        let members = [
            ("window", &self.window),
            ("from", &self.from),
            ("to", &self.to),
            ("step", &self.step),
        ];
        let given = members.into_iter().filter_map(|(name, value)| {
            let text = match value.as_ref()? {
                Scalar::Text(text) => text.clone(),
                Scalar::Number(number) => number.to_string(),
            };
            Some((name.to_owned(), text))
        });
        given.collect()
    }
}

pub(super) fn handler(app: &Arc<Headcount>, settings: &HttpSettings) -> BoxedFilter<(Response,)> {
    let app = Arc::clone(app);
    let max_body = MAX_BODY.min(settings.max_body);
    let limits = Arc::new(Limits::new(max_body, settings.header_timeout));
    warp::post()
        .and(warp::header::headers_cloned())
        .and(super::extension())
        .and(super::extension())
        .and(warp::body::stream())
        .then(move |headers, reach: Reach, representation, body| {
            let (app, limits) = (Arc::clone(&app), Arc::clone(&limits));
            async move {
                let post = async {
                    let request = limits.read_object(&headers, body).await?;
                    post(&app, &request, &reach, representation).await
                };
                post.await.unwrap_or_else(Reply::into_response)
            }
        })
        .boxed()
}

async fn post(
    app: &Headcount,
    request: &TrendsRequest,
    reach: &Reach,
    representation: Representation,
) -> Result<Response, Problem> {
    let segments = request.segments()?;
    if !segments
        .iter()
        .all(|segment| reach.covers(segment.as_str()))
    {
        return Err(authorization::forbidden_segment());
    }
    let query = request.query();
    let range = Range::of(&query, app)?;
    let windows = segments
        .iter()
        .map(|segment| query.window_of_count(app, segment))
        .collect::<Result<Vec<_>, _>>()?;
    let reading: Vec<_> = segments
        .iter()
        .zip(&windows)
        .map(|(segment, window)| range.trend(app, segment, *window))
        .collect();
    let mut reading = stream::iter(reading).buffered(CONCURRENT_TRENDS);
    let (mut trends, mut points) = (Vec::with_capacity(segments.len()), 0);
    while let Some(trend) = reading.try_next().await? {
        points += trend.points.len();
        if points > MAX_POINTS {
            return Err(too_many_points(
                "the first trends together",
                points,
                MAX_POINTS,
            ));
        }
        trends.push(trend);
    }
    if let (Some(segment), Some(window), 0) = (segments.first(), windows.first(), points) {
        check_is_kept(app, segment, *window)?;
    }
    untagged(&TrendsResponse { trends }, representation)
}

fn describe() -> Described {
    let mut described = Described::new(
        "postTrends",
        "counts",
        "List past counts of many segments",
        "Each trend is the one of `GET /v1/segments/{segment}/trend`. All have at most 200,000 points together, and one at most \
         10,000. A window that is not recounted and has no points gets 400 `invalid_window`.",
    );
    let request = described.refer::<TrendsRequest>();
    described
        .body("application/json", BODY, content(request))
        .answers_also_as_csv::<TrendsResponse<'static>>(
            "The trends, in the order of the request.",
            json!({"trends": [{
                "segment": "sports", "window_seconds": 1_209_600,
                "points": [{"at": "2026-11-21T08:00:00Z", "users": 123, "entered": 5, "left": 2}], "known": true,
                "covered_since": "2026-11-01T00:00:00Z", "complete": true
            }]}),
            "segment,window_seconds,at,users,entered,left\r\nsports,1209600,2026-11-21T08:00:00Z,123,5,2\r\n",
        )
        .fails(codes::OBJECT)
        .fails(codes::BODY)
        .fails(&[
            codes::INVALID_SEGMENT,
            codes::INVALID_WINDOW,
            codes::INVALID_PARAMETER,
            codes::TOO_MANY_POINTS,
            codes::UNAVAILABLE,
        ])
}

fn segments_schema() -> ArrayBuilder {
    ArrayBuilder::new()
        .description(Some("A name that is given twice counts once."))
        .items(schema::segment())
        .min_items(Some(1))
        .max_items(Some(MAX_SEGMENTS))
}

fn window_schema() -> ObjectBuilder {
    let about = "The window of the counts: a duration such as `7d`, or a number of seconds. The default is each segment's own window, if it has \
                 one, or else the configured one.";
    schema::text_or_number(about, json!("7d"))
}

fn from_schema() -> ObjectBuilder {
    let about = "The first instant: RFC 3339 or unix seconds. The default is a day before `to`.";
    schema::text_or_number(about, json!("2026-11-20T08:00:00Z"))
}

fn to_schema() -> ObjectBuilder {
    let about = "The last instant: RFC 3339 or unix seconds. The default is now.";
    schema::text_or_number(about, json!("2026-11-21T08:00:00Z"))
}

fn step_schema() -> ObjectBuilder {
    let about =
        "Return only the last point of each step: a duration such as `1h`, or a number of seconds.";
    schema::text_or_number(about, json!("1h"))
}

const BODY: &str = "\
UTF-8, plain or with `Content-Encoding: gzip` or `zstd`; at most 1 MiB, also after decompression. An unknown member is an error.";

fn content(request: Ref) -> Content {
    let example = json!({
        "segments": ["sports", "news"], "window": "7d", "from": "2026-11-14T00:00:00Z", "step": "1h"
    });
    ContentBuilder::new()
        .schema(Some(request))
        .example(Some(example))
        .build()
}
