//! `/v1/segments/{segment}`: the settings of one segment, and its removal.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::ContentBuilder;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::{Reply, Response};

use super::Request;
use super::users::ErasedFrom;
use crate::access::Access;
use crate::audit::AuditOutcome;
use crate::auth::Scope;
use crate::body::Limits;
use crate::openapi::{Described, codes, parameters};
use crate::problem::Problem;
use crate::query::{Query, query, window_length};
use crate::reply::{json, rfc3339};
use crate::resource::{Audited, Kind, Names, Operation, Resource, part};
use crate::settings::HttpSettings;
use domain::text::duration_text;
use domain::{Segment, Timestamp};
use engine::Headcount;
use engine::segments::{InvalidSettings, SegmentSettings, SettingsError};

pub(super) static SEGMENT: Resource = Resource {
    template: "/v1/segments/{segment}",
    parameters: &["segment"],
    operations: &[
        Operation::get(Access::Needs(Scope::Read))
            .names(Names::InPath(2))
            .by_cookie()
            .described(describe_get),
        Operation::put(Access::Needs(Scope::Admin))
            .names(Names::InPath(2))
            .audited(Audited::SetSegment)
            .described(describe_put),
        Operation::delete(Access::Needs(Scope::Admin))
            .names(Names::InPath(2))
            .audited(Audited::DeleteSegment)
            .described(describe_delete),
    ],
    kind: Kind::Plain,
};

/// The maximum size of the settings of a segment in bytes. The longest description and group take 1,200.
const MAX_BODY: u64 = 16 * 1024;

/// The settings of a segment. What is left out or null has its default.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SettingsOfSegment)]
pub(super) struct Body {
    /// The default window of the segment's counts: a duration such as `7d`, a multiple of the resolution, and at most the
    /// configured window, which is the default.
    #[schema(examples("7d"))]
    window: Option<String>,
    /// A description for people: at most 1,000 bytes without control characters.
    #[schema(max_length = 1000)]
    description: Option<String>,
    /// The group in which lists show the segment. The rules of a segment's name apply.
    #[schema(max_length = 128)]
    group: Option<String>,
}

/// The settings of a segment.
#[derive(Serialize, ToSchema)]
#[schema(as = Segment)]
pub(super) struct SegmentDocument<'a> {
    segment: &'a str,
    /// The segment's own window, as a duration. Null if it has none: then the configured one applies.
    #[schema(required)]
    window: Option<String>,
    /// The window of counts that state none.
    window_seconds: u64,
    #[schema(required)]
    description: Option<&'a str>,
    #[schema(required)]
    group: Option<&'a str>,
}

/// The receipt of a removal.
#[derive(Serialize, ToSchema)]
pub(super) struct DeletedSegment<'a> {
    segment: &'a str,
    /// The number of users that the segment had.
    users: u64,
    /// The instant of the removal. Pairs that were received before it are erased; later ones count.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    deleted_at: Timestamp,
    /// Every place that held, or may hold, data of the segment.
    places: Vec<ErasedFrom>,
}

pub(super) fn handler(app: &Arc<Headcount>, settings: &HttpSettings) -> BoxedFilter<(Response,)> {
    let limits = Arc::new(Limits::new(MAX_BODY, settings.header_timeout));
    let changed = Arc::clone(app);
    let put = warp::put()
        .and(part(2))
        .and(query())
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .then(move |name: String, query: Query, headers, body| {
            let (app, limits) = (Arc::clone(&changed), Arc::clone(&limits));
            async move {
                let put = async {
                    let segment = crate::path::segment(&name, &query)?;
                    let body = limits.read_object(&headers, body).await?;
                    put(&app, &segment, body).await
                };
                put.await.unwrap_or_else(Reply::into_response)
            }
        });
    let delete = super::on(warp::delete(), app, delete);
    let changes = put.or(delete).unify();
    let get = super::on(warp::get(), app, get);
    get.or(changes).unify().boxed()
}

async fn get(app: Arc<Headcount>, request: Request) -> Result<Response, Problem> {
    let segment = request.segment()?;
    let settings = app.segments().settings(&segment);
    Ok(document(&app, &segment, &settings))
}

async fn put(app: &Headcount, segment: &Segment, body: Body) -> Result<Response, Problem> {
    let window = body.window.as_deref().map(window_length).transpose()?;
    let settings = SegmentSettings::new(app.frame(), window, body.description, body.group)?;
    app.segments().put(segment, settings.clone()).await?;
    let response = document(app, segment, &settings);
    let window = app.segments().window_of(segment).seconds();
    let done = format!("window_seconds={window}");
    Ok(AuditOutcome::on(response, done))
}

async fn delete(app: Arc<Headcount>, request: Request) -> Result<Response, Problem> {
    let segment = request.segment()?;
    let receipt = app.delete_segment(&segment).await?;
    let response = json(&DeletedSegment {
        segment: segment.as_str(),
        users: receipt.erased,
        deleted_at: receipt.at,
        places: receipt.places.into_iter().map(ErasedFrom::from).collect(),
    });
    let done = format!("users={}", receipt.erased);
    Ok(AuditOutcome::on(response, done))
}

fn document(app: &Headcount, segment: &Segment, settings: &SegmentSettings) -> Response {
    let own = settings.window();
    json(&SegmentDocument {
        segment: segment.as_str(),
        window: own.map(|window| duration_text(window.seconds())),
        window_seconds: own.unwrap_or_else(|| app.frame().full_window()).seconds(),
        description: settings.description(),
        group: settings.group(),
    })
}

impl From<InvalidSettings> for Problem {
    fn from(error: InvalidSettings) -> Self {
        let code = match error {
            InvalidSettings::Window(_) => "invalid_window",
            InvalidSettings::LongDescription(_)
            | InvalidSettings::ControlCharacter
            | InvalidSettings::Group(_) => "invalid_settings",
        };
        Self::bad_request(code, error.to_string())
    }
}

impl From<SettingsError> for Problem {
    fn from(error: SettingsError) -> Self {
        match error {
            SettingsError::TooMany(_) => {
                Self::new(StatusCode::CONFLICT, "too_many_segments", error.to_string())
            }
            SettingsError::Store(error) => error.into(),
        }
    }
}

fn describe_delete() -> Described {
    Described::new(
        "deleteSegment",
        "admin",
        "Remove a segment",
        "Erases every pair of the segment, its trend and its settings, at once and for all instances; pairs in their spools are not \
         sent. Pairs that are received afterwards count again. The response is a receipt. Safe to repeat; repeat it after an error.",
    )
    .takes(parameters::segment())
    .takes(parameters::segment_beside())
    .answers::<DeletedSegment<'static>>(
        200,
        "The segment is removed.",
        serde_json::json!({
            "segment": "Black Friday",
            "users": 1_234,
            "deleted_at": "2026-11-29T12:00:00.25Z",
            "places": [
                {"place": "store", "state": "erased", "until": null, "note": "every pair of the segment"}
            ]
        }),
    )
    .fails(&[
        codes::INVALID_SEGMENT,
        codes::INVALID_PARAMETER,
        codes::UNSUPPORTED,
        codes::UNAVAILABLE,
    ])
}

fn example() -> serde_json::Value {
    serde_json::json!({
        "segment": "Black Friday", "window": "3d", "window_seconds": 259_200,
        "description": "Visitors of the offers", "group": "campaigns"
    })
}

fn describe_get() -> Described {
    Described::new(
        "getSegment",
        "counts",
        "Read the settings of a segment",
        "A segment without settings has the defaults, whether it is known or not.",
    )
    .takes(parameters::segment())
    .takes(parameters::segment_beside())
    .answers::<SegmentDocument<'static>>(200, "The settings.", example())
    .fails(&[codes::INVALID_SEGMENT, codes::INVALID_PARAMETER])
}

fn describe_put() -> Described {
    let mut described = Described::new(
        "putSegment",
        "admin",
        "Set the settings of a segment",
        "Replaces all settings of the segment, which need not have pairs yet. They apply in this instance at once, and in other \
         instances within 10 seconds. Safe to repeat.",
    );
    let settings = ContentBuilder::new()
        .schema(Some(described.refer::<Body>()))
        .example(Some(serde_json::json!({
            "window": "3d", "description": "Visitors of the offers", "group": "campaigns"
        })));
    let about = "The settings; unknown fields are refused.";
    described
        .body("application/json", about, settings.build())
        .takes(parameters::segment())
        .takes(parameters::segment_beside())
        .answers::<SegmentDocument<'static>>(200, "The settings are stored.", example())
        .fails(&[
            codes::INVALID_SEGMENT,
            codes::INVALID_PARAMETER,
            codes::INVALID_WINDOW,
            codes::UNAVAILABLE,
        ])
        .fails(codes::OBJECT)
        .fails(codes::SETTINGS)
        .fails(codes::BODY)
}
