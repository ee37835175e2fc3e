//! `POST /v1/users/{user_id}/merge`: a user becomes another one.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::ContentBuilder;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::{Reply, Response};

use crate::access::Access;
use crate::audit::{self, AuditOutcome};
use crate::auth::Scope;
use crate::body::Limits;
use crate::openapi::{Described, codes, parameters};
use crate::problem::Problem;
use crate::query::{Query, query};
use crate::reply::json;
use crate::resource::{Audited, Kind, Names, Operation, Resource, part};
use crate::settings::HttpSettings;
use domain::UserId;
use engine::Headcount;
use engine::headcount::MergeError;

pub(super) static MERGE: Resource = Resource {
    template: "/v1/users/{user_id}/merge",
    parameters: &["user_id"],
    operations: &[Operation::post(Access::Needs(Scope::Admin))
        .names(Names::Everything)
        .audited(Audited::Merge)
        .described(describe)],
    kind: Kind::Plain,
};

/// The maximum size of a body in bytes. The longest id takes 1,600 if each character is escaped.
const MAX_BODY: u64 = 4 * 1024;
/// The `Retry-After` when too many users were merged.
const RETRY_TOO_MANY: Duration = Duration::from_hours(1);

/// The user into whom another one is merged.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MergeRequest)]
pub(super) struct Body {
    /// The id that replaces the one in the path: a string of 1 to 256 bytes without control characters.
    into: String,
}

/// The result of a merge.
#[derive(Serialize, ToSchema)]
#[schema(as = Merged)]
pub(super) struct Merged {
    /// The number of segments that the merged user was in. 0 if the merge was done before.
    merged: u64,
}

pub(super) fn handler(app: &Arc<Headcount>, settings: &HttpSettings) -> BoxedFilter<(Response,)> {
    let limits = Arc::new(Limits::new(MAX_BODY, settings.header_timeout));
    let app = Arc::clone(app);
    warp::post()
        .and(part(2))
        .and(query())
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .then(move |id: String, query: Query, headers, body| {
            let (app, limits) = (Arc::clone(&app), Arc::clone(&limits));
            async move {
                let merge = async {
                    let from = crate::path::user(&id, &query)?;
                    let body: Body = limits.read_object(&headers, body).await?;
                    merge(&app, from, UserId::received(body.into)?).await
                };
                merge.await.unwrap_or_else(Reply::into_response)
            }
        })
        .boxed()
}

async fn merge(app: &Headcount, from: UserId<'_>, into: UserId<'_>) -> Result<Response, Problem> {
    let merged = app.merge(from, into.clone()).await?;
    let done = format!("merged={merged} into={}", audit::hash_of(app, into));
    Ok(AuditOutcome::on(json(&Merged { merged }), done))
}

impl From<MergeError> for Problem {
    fn from(error: MergeError) -> Self {
        let detail = error.to_string();
        match error {
            MergeError::SameUser => Self::bad_request("same_user", detail),
            MergeError::TooMany => Self::unavailable(detail, RETRY_TOO_MANY),
            MergeError::Store(error) => error.into(),
        }
    }
}

fn describe() -> Described {
    let mut described = Described::new(
        "mergeUser",
        "admin",
        "Merge a user into another one",
        "Every visit of the user in the path becomes a visit of the user in the body, and the later last visit counts in each segment. \
         Pairs of the merged user that are received later count for the other one too, for the length of the window. Safe to repeat; \
         repeat it after an error.",
    );
    let into = ContentBuilder::new()
        .schema(Some(described.refer::<Body>()))
        .example(Some(serde_json::json!({"into": "u104010"})));
    let about = "The other user; unknown fields are refused.";
    described
        .body("application/json", about, into.build())
        .takes(parameters::user_id())
        .takes(parameters::user_id_beside())
        .answers::<Merged>(
            200,
            "The user in the path is in no segment any more.",
            serde_json::json!({"merged": 2}),
        )
        .fails(&[
            codes::INVALID_USER_ID,
            codes::INVALID_PARAMETER,
            codes::SAME_USER,
            codes::UNSUPPORTED,
            codes::UNAVAILABLE,
        ])
        .fails(codes::OBJECT)
        .fails(codes::BODY)
}
