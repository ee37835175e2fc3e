//! `DELETE /v1/segments/{segment}/users/{user_id}`: erases a user from one segment.

use std::sync::Arc;

use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::Request;
use super::users::Erased;
use crate::access::Access;
use crate::auth::Scope;
use crate::openapi::{Described, codes, parameters};
use crate::problem::Problem;
use crate::resource::{Audited, Kind, Names, Operation, Resource};
use engine::Headcount;

pub(super) static SEGMENT_USER: Resource = Resource {
    template: "/v1/segments/{segment}/users/{user_id}",
    parameters: &["segment", "user_id"],
    operations: &[Operation::delete(Access::Needs(Scope::Admin))
        .names(Names::InPath(2))
        .audited(Audited::EraseFromSegment)
        .described(describe)],
    kind: Kind::Plain,
};

pub(super) fn handler(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    super::on(warp::delete(), app, delete)
}

async fn delete(app: Arc<Headcount>, request: Request) -> Result<Response, Problem> {
    let (segment, user) = (request.segment()?, request.user(4)?);
    let receipt = app.forget_in(&segment, user).await?;
    Ok(Erased::of(receipt))
}

fn describe() -> Described {
    Described::new(
        "deleteSegmentUser",
        "admin",
        "Erase a user from a segment",
        "The user stays in all other segments. A pair that is received afterwards counts again. The response is a receipt. Safe to \
         repeat; repeat it after an error.",
    )
    .takes(parameters::segment())
    .takes(parameters::segment_beside())
    .takes(parameters::user_id())
    .takes(parameters::user_id_beside())
    .answers::<Erased>(
        200,
        "The user is not in the segment.",
        serde_json::json!({
            "erased": 1,
            "erased_at": "2026-11-29T12:00:00.25Z",
            "places": [
                {"place": "store", "state": "erased", "until": null, "note": "every pair of the user in this segment"}
            ]
        }),
    )
    .fails(&[
        codes::INVALID_SEGMENT,
        codes::INVALID_USER_ID,
        codes::INVALID_PARAMETER,
        codes::UNSUPPORTED,
        codes::UNAVAILABLE,
    ])
}
