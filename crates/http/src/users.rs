//! `/v1/users/{user_id}`: which segments a user is in, and their erasure.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use warp::filters::BoxedFilter;
use warp::reply::{Reply, Response};
use warp::{Filter, path};

use super::audit::AuditOutcome;
use super::problem::Problem;
use super::query::{Query, query};
use super::reply::{json, rfc3339, rfc3339_or_null};
use domain::Reach;
use domain::{Membership, TimeFrame, Timestamp};
use engine::Headcount;
use engine::headcount::{Place, PlaceState};

/// Where a user is counted.
#[derive(Serialize, ToSchema)]
pub(super) struct Memberships<'a> {
    user_id: &'a str,
    segments: Vec<MembershipEntry<'a>>,
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

/// What an erasure came to: a receipt.
#[derive(Serialize, ToSchema)]
pub(super) struct Erased {
    /// In how many segments the user was.
    erased: u64,
    /// When. What was received by then is erased; what comes later counts.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    erased_at: Timestamp,
    /// Every place that had, or may have, something of the user.
    places: Vec<ErasedFrom>,
}

/// A place that had, or may have, something of an erased user.
#[derive(Serialize, ToSchema)]
struct ErasedFrom {
    /// `store`, `spool`, `refused_pairs`, `other_instances`, `erasure_note`, `copies`, or the files of the store's server.
    place: &'static str,
    state: ErasedState,
    /// When nothing is left there at the latest; `null` where that is done, or not in headcount's hands.
    #[serde(serialize_with = "rfc3339_or_null")]
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// What that means, in words.
    note: String,
}

/// `erased`: nothing of the user is there. `pending`: it will be erased. `remains`: something stays.
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

pub(super) fn route(app: &Arc<Headcount>) -> BoxedFilter<(Response,)> {
    let (reader, eraser) = (Arc::clone(app), Arc::clone(app));
    let get = path!("v1" / "users" / String)
        .and(warp::get())
        .and(query())
        .and(warp::ext::optional())
        .then(move |id: String, query: Query, reach: Option<Reach>| {
            let app = Arc::clone(&reader);
            async move {
                get(&app, &id, &query, &reach.unwrap_or_default())
                    .await
                    .unwrap_or_else(Reply::into_response)
            }
        });
    let delete = path!("v1" / "users" / String)
        .and(warp::delete())
        .and(query())
        .then(move |id: String, query: Query| {
            let app = Arc::clone(&eraser);
            async move {
                delete(&app, &id, &query)
                    .await
                    .unwrap_or_else(Reply::into_response)
            }
        });
    get.or(delete).unify().boxed()
}

async fn get(app: &Headcount, id: &str, query: &Query, reach: &Reach) -> Result<Response, Problem> {
    let user = super::path::user(id, query)?;
    let memberships = app.memberships(user.clone()).await?;
    let segments = memberships
        .iter()
        .filter(|membership| reach.covers(membership.segment.as_str()))
        .map(|membership| entry(membership, app.frame()));
    Ok(json(&Memberships {
        user_id: user.as_str(),
        segments: segments.collect(),
    }))
}

fn entry<'a>(membership: &'a Membership, frame: &TimeFrame) -> MembershipEntry<'a> {
    MembershipEntry {
        segment: membership.segment.as_str(),
        last_seen: frame.resolution().start_of(membership.last_seen),
        until: frame.leaves_at(membership.last_seen),
    }
}

async fn delete(app: &Headcount, id: &str, query: &Query) -> Result<Response, Problem> {
    let receipt = app.forget(super::path::user(id, query)?).await?;
    let done = AuditOutcome(format!("erased={}", receipt.erased));
    let mut response = json(&Erased {
        erased: receipt.erased,
        erased_at: receipt.at,
        places: receipt.places.into_iter().map(ErasedFrom::from).collect(),
    });
    response.extensions_mut().insert(done);
    Ok(response)
}
