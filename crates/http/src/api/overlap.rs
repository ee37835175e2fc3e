//! `GET /v1/overlap` and `GET /v1/overlap/top`: the users that segments have in common.

use std::collections::HashSet;
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
use crate::openapi::{Described, codes, parameters};
use crate::problem::Problem;
use crate::reply::json;
use crate::resource::{Kind, Names, Operation, Resource};
use domain::overlap::{
    MAX_NAMED, MAX_PAIRS, MAX_SEGMENTS, OverlapMatrix, OverlapOrder, PairOverlap, TopQuestion,
};
use domain::store::StoreError;
use domain::{Floor, Segment};
use engine::Headcount;

const DEFAULT_PAIRS: usize = 20;

pub(super) static OVERLAP: Resource = Resource {
    template: "/v1/overlap",
    parameters: &["segment", "window", "fresh", "min_users"],
    operations: &[Operation::get(Access::Needs(Scope::Read))
        .names(Names::InQuery)
        .by_cookie()
        .described(describe)],
    kind: Kind::Plain,
};

pub(super) static TOP: Resource = Resource {
    template: "/v1/overlap/top",
    parameters: &["by", "limit", "at_least", "window", "fresh", "min_users"],
    operations: &[Operation::get(Access::Needs(Scope::Read))
        .names(Names::Filtered)
        .by_cookie()
        .described(describe_top)],
    kind: Kind::Plain,
};

/// The users in common of each pair of segments.
#[derive(Serialize, ToSchema)]
#[schema(as = Overlap)]
struct OverlapResponse<'a> {
    /// The segments, in the order in which they were asked for.
    segments: Vec<&'a str>,
    /// Row by row, the users in both segments; on the diagonal, those of the segment. Null if it is withheld, because it
    /// would reveal a group of fewer than `min_users` users.
    both: Vec<Vec<Option<u64>>>,
    /// The distinct users of all segments, not only of the named ones. Null for a token that is bound to segments, and with
    /// `min_users`.
    #[schema(required)]
    everybody: Option<u64>,
    #[serde(flatten)]
    certificate: Certificate,
    /// The segments of which no pair was received within the configured window: perhaps they are misspelled.
    unknown: Vec<&'a str>,
    #[serde(flatten)]
    covered: CoveredFields,
}

/// The pairs of segments that have most in common.
#[derive(Serialize, ToSchema)]
#[schema(as = TopOverlaps)]
struct TopResponse<'a> {
    pairs: Vec<Pair<'a>>,
    /// The distinct users of all segments. Null for a token that is bound to segments, and with `min_users`.
    #[schema(required)]
    everybody: Option<u64>,
    #[serde(flatten)]
    certificate: Certificate,
    #[serde(flatten)]
    covered: CoveredFields,
}

/// Two segments.
#[derive(Serialize, ToSchema)]
#[schema(as = PairOverlap)]
struct Pair<'a> {
    a: &'a str,
    b: &'a str,
    /// The users in both.
    both: u64,
    users_a: u64,
    users_b: u64,
    /// The Jaccard index: the users in both, divided by the users in at least one; from 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    jaccard: f64,
    /// The lift: how many times more users are in both than if the segments were independent. Null if `everybody` is null.
    #[schema(required, minimum = 0)]
    lift: Option<f64>,
}

pub(super) fn handler(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    super::on(warp::get(), app, get)
}

async fn get(app: Arc<Headcount>, request: Request) -> Result<Response, Problem> {
    let Request { query, reach, .. } = &request;
    let segments = query.segments("segment", MAX_NAMED)?;
    let distinct: HashSet<&Segment> = segments.iter().collect();
    if segments.len() < 2 || distinct.len() < segments.len() {
        let detail = "must be given for two segments or more, each once";
        return Err(Problem::invalid_parameter("segment", detail));
    }
    let floor = query.floor(app.counts().floor())?;
    let window = query.window_of_sets(app.frame(), floor)?;
    let fresh = query.flag("fresh")?;
    let counted = app.counts().overlap(&segments, window, fresh).await;
    let counted = counted.map_err(problem)?;
    let unknown = app.unseen(&segments).await;
    let matrix = &counted.value;
    Ok(json(&OverlapResponse {
        segments: segments.iter().map(Segment::as_str).collect(),
        both: shown(matrix, floor),
        everybody: Some(matrix.everybody()).filter(|_| reach.is_every() && !floor.is_on()),
        certificate: Certificate::of(&counted, app.clock().now()),
        unknown: unknown.into_iter().map(Segment::as_str).collect(),
        covered: CoveredFields::of(&app, window, counted.as_of),
    }))
}

/// The matrix without what `floor` withholds.
fn shown(matrix: &OverlapMatrix, floor: Floor) -> Vec<Vec<Option<u64>>> {
    let segments = matrix.segments();
    let everybody = matrix.everybody();
    let users = |at| matrix.both(at, at);
    let cell = |row: usize, column: usize| {
        let both = matrix.both(row, column);
        let is_shown = match row == column {
            true => !floor.hides_group(both),
            false => PairOverlap::new(
                (&segments[row], users(row)),
                (&segments[column], users(column)),
                both,
            )
            .is_above(floor, everybody),
        };
        is_shown.then_some(both)
    };
    let all = 0..segments.len();
    all.clone()
        .map(|row| all.clone().map(|column| cell(row, column)).collect())
        .collect()
}

pub(super) fn top_handler(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    super::on(warp::get(), app, get_top)
}

async fn get_top(app: Arc<Headcount>, request: Request) -> Result<Response, Problem> {
    let Request { query, reach, .. } = &request;
    let order = match query.text("by")? {
        None => OverlapOrder::default(),
        Some(text) => text
            .parse()
            .map_err(|_| Problem::invalid_parameter("by", "must be both, jaccard or lift"))?,
    };
    let limit = query.limit("limit", MAX_PAIRS, DEFAULT_PAIRS)?;
    let at_least = query.number("at_least")?.unwrap_or(1);
    let floor = query.floor(app.counts().floor())?;
    let window = query.window_of_sets(app.frame(), floor)?;
    let fresh = query.flag("fresh")?;
    let question = TopQuestion {
        order,
        limit,
        at_least,
        floor,
        reach: reach.clone(),
    };
    let counted = app.counts().top_overlaps(question, window, fresh).await;
    let counted = counted.map_err(top_problem)?;
    let (pairs, everybody) = &counted.value;
    // A bound token may not see the number of all users. With a floor, it would have to be compared with each segment.
    let shown_everybody = Some(*everybody).filter(|_| reach.is_every() && !floor.is_on());
    let pairs = pairs.iter().map(|pair| Pair {
        a: pair.a.as_str(),
        b: pair.b.as_str(),
        both: pair.both,
        users_a: pair.users_a,
        users_b: pair.users_b,
        jaccard: pair.jaccard(),
        // It would reveal the number of all users.
        lift: shown_everybody.and_then(|everybody| pair.lift(everybody)),
    });
    Ok(json(&TopResponse {
        pairs: pairs.collect(),
        everybody: shown_everybody,
        certificate: Certificate::of(&counted, app.clock().now()),
        covered: CoveredFields::of(&app, window, counted.as_of),
    }))
}

/// The problem of a request about sets of users.
pub(crate) fn problem(error: StoreError) -> Problem {
    match error {
        StoreError::Unsupported(_) => Problem::not_implemented(
            "this store can't compare the users of segments; the embedded store can, and so can any other store with live \
             counts (the setting `live`)",
        )
        .caused_by(&error),
        error => error.into(),
    }
}

/// The problem of the question about all pairs.
fn top_problem(error: StoreError) -> Problem {
    match error {
        StoreError::Rejected(_) => Problem::bad_request(
            "too_many_segments",
            format!("at most {MAX_SEGMENTS} segments are compared with each other: name the segments of interest in /v1/overlap"),
        )
        .member("limit", MAX_SEGMENTS)
        .caused_by(&error),
        error => problem(error),
    }
}

fn describe() -> Described {
    Described::new(
        "getOverlap",
        "counts",
        "Count the users that segments have in common",
        "The users in both segments of each pair: `both[i][j]` for the segments `i` and `j`. It may be of a few seconds ago, \
         unless it is `fresh`. It needs the embedded store or live counts.",
    )
    .takes(parameters::required(parameters::segments(
        "A segment that is compared with the others; the parameter is given at least twice.",
        MAX_NAMED,
    )))
    .takes(parameters::window_of_sets())
    .takes(parameters::fresh())
    .takes(parameters::min_users())
    .answers::<OverlapResponse<'static>>(
        200,
        "The overlap of each pair.",
        serde_json::json!({
            "segments": ["news", "sports"], "both": [[200, 80], [80, 123]], "everybody": 1000,
            "window_seconds": 1_209_600, "as_of": "2026-11-21T08:00:00Z", "age_seconds": 0.8, "source": "store",
            "stale": false, "unknown": [],
            "covered_since": "2026-11-01T00:00:00Z", "complete": true
        }),
    )
    .fails(&[codes::INVALID_SEGMENT, codes::INVALID_WINDOW, codes::INVALID_PARAMETER, codes::UNAVAILABLE, codes::NO_SETS])
}

fn describe_top() -> Described {
    Described::new(
        "getTopOverlaps",
        "counts",
        "List the pairs of segments that have most in common",
        "Of all pairs of segments, those with most users in both, or with the greatest Jaccard index or lift. It may be of a few \
         seconds ago, unless it is `fresh`. It needs the embedded store or live counts.",
    )
    .takes(parameters::by())
    .takes(parameters::limit("The maximum number of pairs. The default is 20.", MAX_PAIRS))
    .takes(parameters::at_least())
    .takes(parameters::window_of_sets())
    .takes(parameters::fresh())
    .takes(parameters::min_users())
    .answers::<TopResponse<'static>>(
        200,
        "The pairs, best first.",
        serde_json::json!({
            "pairs": [{
                "a": "news", "b": "sports", "both": 80, "users_a": 200, "users_b": 123, "jaccard": 0.329, "lift": 3.25
            }],
            "everybody": 1000, "window_seconds": 1_209_600, "as_of": "2026-11-21T08:00:00Z", "age_seconds": 0.8,
            "source": "store", "stale": false,
            "covered_since": "2026-11-01T00:00:00Z", "complete": true
        }),
    )
    .fails(&[
        codes::INVALID_WINDOW,
        codes::INVALID_PARAMETER,
        codes::TOO_MANY_SEGMENTS,
        codes::UNAVAILABLE,
        codes::NO_SETS,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Cause;
    use warp::reply::Reply;

    #[test]
    fn only_the_question_about_all_pairs_has_too_many_segments() {
        let rejected = || StoreError::Rejected("why".to_owned());
        assert_eq!(
            top_problem(rejected()).summary(),
            (400, "too_many_segments")
        );
        assert_eq!(problem(rejected()).summary(), (500, "internal"));
        let unsupported = || StoreError::Unsupported("why");
        assert_eq!(top_problem(unsupported()).summary(), (501, "unsupported"));
        for problem in [top_problem(rejected()), problem(unsupported())] {
            let response = problem.into_response();
            let cause = response.extensions().get::<Cause>();
            assert!(cause.is_some_and(|cause| cause.0.contains("why")));
        }
    }
}
