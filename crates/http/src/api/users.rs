//! `/v1/users/{user_id}`: which segments a user is in, and their erasure.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::Request;
use crate::access::Access;
use crate::audit::AuditOutcome;
use crate::auth::Scope;
use crate::covered::CoveredFields;
use crate::openapi::{Described, codes, parameters};
use crate::problem::Problem;
use crate::reply::{json, rfc3339, rfc3339_or_null};
use crate::resource::{Audited, Kind, Names, Operation, Resource};
use domain::{Membership, TimeFrame, Timestamp};
use engine::Headcount;
use engine::headcount::{Place, PlaceState, Receipt};

pub(super) static USER: Resource = Resource {
    template: "/v1/users/{user_id}",
    parameters: &["user_id"],
    operations: &[
        Operation::get(Access::Needs(Scope::Users))
            .names(Names::Filtered)
            .described(describe_get),
        Operation::delete(Access::Needs(Scope::Erase))
            .names(Names::Everything)
            .audited(Audited::Erase)
            .described(describe_delete),
    ],
    kind: Kind::Plain,
};

/// The segments that a user is in.
#[derive(Serialize, ToSchema)]
pub(super) struct Memberships<'a> {
    user_id: &'a str,
    segments: Vec<MembershipEntry<'a>>,
    #[serde(flatten)]
    covered: CoveredFields,
}

/// A segment that a user is in.
#[derive(Serialize, ToSchema)]
#[schema(as = Membership)]
struct MembershipEntry<'a> {
    segment: &'a str,
    /// The first instant of the slot in which the user was last seen.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    last_seen: Timestamp,
    /// The first instant at which the user is no longer counted.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    until: Timestamp,
}

/// The receipt of an erasure.
#[derive(Serialize, ToSchema)]
pub(super) struct Erased {
    /// The number of segments from which the user was erased.
    erased: u64,
    /// The instant of the erasure. Pairs that were received before it are erased; later ones count.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    erased_at: Timestamp,
    /// Every place that held, or may hold, data of the user.
    places: Vec<ErasedFrom>,
}

/// A place that held, or may hold, erased data.
#[derive(Serialize, ToSchema)]
pub(super) struct ErasedFrom {
    /// `store`, `spool`, `refused_pairs`, `other_instances`, `erasure_note`, `copies`, or the files of the store's server.
    place: &'static str,
    state: ErasedState,
    /// When the data is gone at the latest. Null if it is gone already, or if headcount does not control the place.
    #[serde(serialize_with = "rfc3339_or_null")]
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// An explanation for people.
    note: String,
}

/// `erased`: no such data is left. `pending`: it will be erased. `remains`: some data stays.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ErasedState {
    Erased,
    Pending,
    Remains,
}

impl From<Place> for ErasedFrom {
    fn from(place: Place) -> Self {
        Self {
            place: place.name,
            state: match place.state {
                PlaceState::Erased => ErasedState::Erased,
                PlaceState::Pending => ErasedState::Pending,
                PlaceState::Remains => ErasedState::Remains,
            },
            until: place.until,
            note: place.note,
        }
    }
}

pub(super) fn handler(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    let delete = super::on(warp::delete(), app, delete);
    reading_handler(app).or(delete).unify().boxed()
}

/// Without erasures.
pub(super) fn reading_handler(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    super::on(warp::get(), app, get)
}

async fn get(app: Arc<Headcount>, request: Request) -> Result<Response, Problem> {
    let user = request.user(2)?;
    let memberships = app.memberships(user.clone()).await?;
    let segments = memberships
        .iter()
        .filter(|membership| request.reach.covers(membership.segment.as_str()))
        .map(|membership| entry(membership, app.frame()));
    Ok(json(&Memberships {
        user_id: user.as_str(),
        segments: segments.collect(),
        covered: CoveredFields::of(&app, app.frame().full_window(), app.clock().now()),
    }))
}

fn entry<'a>(membership: &'a Membership, frame: &TimeFrame) -> MembershipEntry<'a> {
    MembershipEntry {
        segment: membership.segment.as_str(),
        last_seen: frame.resolution().start_of(membership.last_seen),
        until: frame.leaves_at(membership.last_seen),
    }
}

async fn delete(app: Arc<Headcount>, request: Request) -> Result<Response, Problem> {
    let receipt = app.forget(request.user(2)?).await?;
    Ok(Erased::of(receipt))
}

impl Erased {
    /// The response with a receipt, and the outcome for the audit trail.
    pub(super) fn of(receipt: Receipt) -> Response {
        let done = format!("erased={}", receipt.erased);
        let response = json(&Self {
            erased: receipt.erased,
            erased_at: receipt.at,
            places: receipt.places.into_iter().map(ErasedFrom::from).collect(),
        });
        AuditOutcome::on(response, done)
    }
}

fn describe_get() -> Described {
    Described::new(
        "getUser",
        "users",
        "List the segments of a user",
        "The list of an unknown user is empty.",
    )
    .takes(parameters::user_id())
    .takes(parameters::user_id_beside())
    .answers::<Memberships<'static>>(
        200,
        "The segments that the user is in.",
        serde_json::json!({"user_id": "u104010", "segments": [{
            "segment": "sports", "last_seen": "2026-11-21T08:00:00Z", "until": "2026-12-05T08:00:00Z"
        }], "covered_since": "2026-11-01T00:00:00Z", "complete": true}),
    )
    .fails(&[codes::INVALID_USER_ID, codes::INVALID_PARAMETER, codes::UNAVAILABLE])
}

fn describe_delete() -> Described {
    Described::new(
        "deleteUser",
        "users",
        "Erase a user",
        "Erases the user from all segments and from this instance's disk at once; other instances follow. The response is a \
         receipt. Safe to repeat; repeat it after an error.",
    )
    .takes(parameters::user_id())
    .takes(parameters::user_id_beside())
    .answers::<Erased>(
        200,
        "The user is erased.",
        serde_json::json!({
            "erased": 2,
            "erased_at": "2026-11-29T12:00:00.25Z",
            "places": [
                {"place": "store", "state": "erased", "until": null, "note": "every pair of the user"},
                {"place": "embedded_files", "state": "remains", "until": "2026-11-29T13:00:00.25Z",
                 "note": "the erased pairs, with hashes in place of user ids, until the next snapshot"}
            ]
        }),
    )
    .fails(&[codes::INVALID_USER_ID, codes::INVALID_PARAMETER, codes::UNAVAILABLE])
}
