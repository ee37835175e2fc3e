//! `GET /v1/segments/{segment}/flow`: how many users entered and left one segment.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::Request;
use crate::access::Access;
use crate::auth::Scope;
use crate::covered::CoveredFields;
use crate::document::{Document, tagged};
use crate::openapi::{Described, codes, parameters};
use crate::problem::Problem;
use crate::reply::rfc3339;
use crate::resource::{Kind, Names, Operation, Resource};
use domain::Timestamp;
use domain::store::StoreError;
use engine::FlowSteps;
use engine::Headcount;
use engine::counts::FlowStep;

pub(super) static FLOW: Resource = Resource {
    template: "/v1/segments/{segment}/flow",
    parameters: &["from", "to", "step", "segment"],
    operations: &[Operation::get(Access::Needs(Scope::Read))
        .names(Names::InPath(2))
        .by_cookie()
        .also_as_csv()
        .described(describe)],
    kind: Kind::Plain,
};

/// The default length of a step.
const DEFAULT_STEP: u64 = 3_600;

/// How many users entered and left a segment over the configured window, in steps of time, oldest first.
#[derive(Serialize, Hash, ToSchema)]
#[schema(as = Flow)]
struct FlowResponse<'a> {
    segment: &'a str,
    window_seconds: u64,
    step_seconds: u64,
    steps: Vec<Step>,
    /// False if no pair was received within the configured window: perhaps the name is misspelled.
    known: bool,
    #[serde(flatten)]
    covered: CoveredFields,
}

/// How many users entered and left in a step. The count at its end is the count at its start, plus `entered`, minus `left`.
#[derive(Serialize, Hash, ToSchema)]
#[schema(as = FlowStep)]
struct Step {
    /// The start of the step.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// How many users entered; null if that is not known: before counting began, in an old step that is not of whole hours,
    /// or with `min_users`.
    #[schema(required)]
    entered: Option<u64>,
    /// How many users left, or were erased; null under the same conditions as `entered`.
    #[schema(required)]
    left: Option<u64>,
}

impl Document for FlowResponse<'_> {
    const COLUMNS: &'static [&'static str] = &["segment", "step_seconds", "at", "entered", "left"];

    fn rows(&self) -> impl Iterator<Item: Serialize> {
        self.steps.iter().map(|step| {
            let at = step.at.to_string();
            (self.segment, self.step_seconds, at, step.entered, step.left)
        })
    }

    fn covered(&self) -> Option<CoveredFields> {
        Some(self.covered)
    }

    fn file_name(&self) -> String {
        format!("flow-{}", self.segment)
    }
}

pub(super) fn handler(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    super::on(warp::get(), app, get)
}

async fn get(app: Arc<Headcount>, request: Request) -> Result<Response, Problem> {
    let query = &request.query;
    let segment = request.segment()?;
    let (from, to) = query.time_range(app.clock().now())?;
    let resolution = u64::from(app.frame().resolution().seconds());
    let default = Duration::from_secs(DEFAULT_STEP.next_multiple_of(resolution));
    let step = query.step("step")?.unwrap_or(default);
    let Some(steps) = FlowSteps::new(from, to, step, app.frame().resolution()) else {
        let detail = format!("must be a multiple of the resolution, {resolution} s");
        return Err(Problem::invalid_parameter("step", detail));
    };
    // The default range is shorter if it has too many steps.
    if query.text("from")?.is_some() && steps.omits(from) {
        let detail = format!(
            "there are more than {} steps: use a longer step or a shorter time",
            FlowSteps::MAX
        );
        return Err(Problem::bad_request("too_many_points", detail));
    }
    let flow = app.counts().flow(&segment, &steps).await.map_err(problem)?;
    let window = app.frame().full_window();
    let response = FlowResponse {
        segment: segment.as_str(),
        window_seconds: window.seconds(),
        step_seconds: steps.length().as_secs(),
        steps: flow.iter().map(shown).collect(),
        known: app.knows(&segment).await,
        covered: CoveredFields::of(&app, window, to),
    };
    tagged(&response, request.representation)
}

fn shown(step: &FlowStep) -> Step {
    Step {
        at: step.at,
        entered: step.flow.map(|flow| flow.entered),
        left: step.flow.map(|flow| flow.left),
    }
}

fn problem(error: StoreError) -> Problem {
    match error {
        StoreError::Unsupported(_) => Problem::not_implemented(
            "this store does not count who enters and leaves a segment; the embedded store does, and so does any other store with \
             live counts (the setting `live`)",
        )
        .caused_by(&error),
        error => error.into(),
    }
}

fn describe() -> Described {
    Described::new(
        "getFlow",
        "counts",
        "List how many users entered and left",
        "How many users entered and left a segment over the configured window, in each step of time from `from` to `to`. Steps are \
         aligned to the unix epoch. It needs the embedded store or live counts. Every slot of the resolution is known for 1,440 \
         slots, a day by default; after that, steps of whole hours for the length of the window.",
    )
    .takes(parameters::segment())
    .takes(parameters::segment_beside())
    .takes(parameters::from())
    .takes(parameters::to())
    .takes(parameters::flow_step())
    .answers_tagged::<FlowResponse<'static>>(
        "The steps, oldest first.",
        serde_json::json!({
            "segment": "sports", "window_seconds": 1_209_600, "step_seconds": 3_600,
            "steps": [{"at": "2026-11-21T08:00:00Z", "entered": 7, "left": 4}], "known": true,
            "covered_since": "2026-11-01T00:00:00Z", "complete": true
        }),
        "segment,step_seconds,at,entered,left\r\nsports,3600,2026-11-21T08:00:00Z,7,4\r\n",
    )
    .fails(&[
        codes::INVALID_SEGMENT,
        codes::INVALID_PARAMETER,
        codes::TOO_MANY_STEPS,
        codes::UNAVAILABLE,
        codes::NO_FLOW,
    ])
}
