//! `/healthz` and `/readyz`: the probes of supervisors and load balancers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::Response;

use crate::access::Access;
use crate::auth::Auth;
use crate::openapi::{Described, schema};
use crate::reply::{json, json_with};
use crate::resource::{Kind, Operation, Resource};
use engine::Headcount;
use engine::readiness::{self, Readiness};

pub(super) static HEALTH: Resource = Resource {
    template: "/healthz",
    parameters: &[],
    operations: &[Operation::get(Access::Open).described(describe_health)],
    kind: Kind::Probe,
};

pub(super) static READY: Resource = Resource {
    template: "/readyz",
    parameters: &[],
    operations: &[Operation::get(Access::Open).described(describe_ready)],
    kind: Kind::Probe,
};

/// The process responds.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    #[schema(schema_with = schema::alive)]
    status: &'static str,
}

/// Whether the service can accept pairs and serve counts now, and the state of each component.
#[derive(Serialize, ToSchema)]
#[schema(as = Readiness)]
pub(super) struct ReadinessResponse<'a> {
    #[schema(schema_with = schema::readiness)]
    status: &'static str,
    /// Whether pairs can be stored.
    writes: bool,
    /// Whether counts can be served, if only the last known ones.
    reads: bool,
    /// Each component by its name: `store`, `cache`, `spool`, `live`, `refresher`, `clock`, `tokens_file`, `jwt_keys`,
    /// and `foreign_points` if another program writes into the store.
    #[schema(value_type = BTreeMap<String, Component>)]
    components: BTreeMap<&'static str, Component<'a>>,
}

/// The state of one component.
#[derive(Serialize, ToSchema)]
struct Component<'a> {
    /// Whether it worked when it was last checked.
    ok: bool,
    /// The time since then. The store and the cache are checked every second, beside the requests; the state of the others is in
    /// memory, and their age is 0.
    age_seconds: f64,
    /// What is wrong, or worth knowing. If the service requires tokens, only a token with scope `read` or `admin` gets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<&'a str>,
}

/// Whether a request may see details of components, which have host names and system errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShowsDetails(pub(crate) bool);

/// The task of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Serves the API. Ready while it accepts pairs or serves counts.
    Service,
    /// Only refreshes the cache. Ready while refreshes complete.
    Worker,
    /// Keeps live counts. Ready once it has all of them.
    LiveProcess,
}

pub(super) fn health_handler() -> BoxedFilter<(Response,)> {
    warp::get().map(|| json(&Health { status: "ok" })).boxed()
}

/// Once `stop` is cancelled, the response is `draining` with 503.
pub(super) fn ready_handler(
    app: &Arc<Headcount>,
    auth: &Arc<Auth>,
    role: Role,
    stop: CancellationToken,
) -> BoxedFilter<(Response,)> {
    let (app, auth) = (Arc::clone(app), Arc::clone(auth));
    warp::get()
        .and(warp::ext::optional())
        .then(move |details: Option<ShowsDetails>| {
            let (app, auth, stop) = (Arc::clone(&app), Arc::clone(&auth), stop.clone());
            let details = details.is_some_and(|ShowsDetails(shown)| shown);
            async move {
                let mut readiness = app.readiness();
                readiness.components.extend(files(&auth));
                answer(&readiness, role, stop.is_cancelled(), details)
            }
        })
        .boxed()
}

/// The files of tokens and keys as components. With a broken file the service stays ready, but revocations in the file
/// have no effect.
pub(crate) fn files(auth: &Auth) -> impl Iterator<Item = readiness::Component> {
    auth.files().map(|(name, broken)| readiness::Component {
        name,
        ok: !broken,
        age: Duration::ZERO,
        detail: broken.then(|| {
            "can't be read or used: previously loaded content stays valid, and revocations have no effect"
                .to_owned()
        }),
    })
}

fn answer(readiness: &Readiness, role: Role, draining: bool, details: bool) -> Response {
    let all_well = readiness.components.iter().all(|component| component.ok);
    let is_of_use = match role {
        Role::Service => readiness.writes || readiness.reads,
        Role::Worker => readiness.recounts,
        Role::LiveProcess => readiness.live,
    };
    let status = match is_of_use {
        _ if draining => "draining",
        false => "unavailable",
        true if all_well && readiness.writes && readiness.reads => "ready",
        true => "degraded",
    };
    let code = match status {
        "ready" | "degraded" => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let components = readiness.components.iter().map(|component| {
        let shown = Component {
            ok: component.ok,
            age_seconds: component.age.as_millis() as f64 / 1000.0,
            detail: component.detail.as_deref().filter(|_| details),
        };
        (component.name, shown)
    });
    json_with(
        code,
        &ReadinessResponse {
            status,
            writes: readiness.writes,
            reads: readiness.reads,
            components: components.collect(),
        },
    )
}

fn describe_health() -> Described {
    Described::new(
        "getHealth",
        "operations",
        "Check that the process responds",
        "A liveness probe. It does not depend on the store.",
    )
    .answers::<Health>(
        200,
        "The process responds.",
        serde_json::json!({"status": "ok"}),
    )
}

fn describe_ready() -> Described {
    let example = |status: &str, up: bool| serde_json::json!({"status": status, "writes": up, "reads": up, "components": {"store": {"ok": up, "age_seconds": 0.4}}});
    Described::new(
        "getReady",
        "operations",
        "Check what can be served now",
        "A readiness probe for load balancers, with the last known state of each component. It waits for none of them.",
    )
    .answers::<ReadinessResponse<'static>>(
        200,
        "Pairs or counts can be served.",
        example("ready", true),
    )
    .answers::<ReadinessResponse<'static>>(
        503,
        "Neither can be served, or the service is about to stop.",
        example("unavailable", false),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn shown(writes: bool, reads: bool, draining: bool) -> (u16, String) {
        shown_by(Role::Service, [writes, reads, true], draining).await
    }

    async fn shown_by(
        role: Role,
        [writes, reads, recounts]: [bool; 3],
        draining: bool,
    ) -> (u16, String) {
        let readiness = Readiness {
            writes,
            reads,
            recounts,
            live: false,
            components: vec![engine::readiness::Component {
                name: "store",
                ok: writes,
                age: Duration::from_millis(400),
                detail: Some("10.0.0.7 refused".to_owned()),
            }],
        };
        let (parts, body) = answer(&readiness, role, draining, false).into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            document["components"]["store"],
            serde_json::json!({"ok": writes, "age_seconds": 0.4})
        );
        (
            parts.status.as_u16(),
            document["status"].as_str().unwrap().to_owned(),
        )
    }

    #[tokio::test]
    async fn ready_while_anything_can_be_served() {
        assert_eq!(shown(true, true, false).await, (200, "ready".into()));
        assert_eq!(shown(false, true, false).await, (200, "degraded".into()));
        assert_eq!(shown(true, false, false).await, (200, "degraded".into()));
        assert_eq!(
            shown(false, false, false).await,
            (503, "unavailable".into())
        );
        assert_eq!(shown(true, true, true).await, (503, "draining".into()));
    }
    #[tokio::test]
    async fn a_worker_is_ready_while_its_rounds_go_on() {
        let shown = async |parts, draining| shown_by(Role::Worker, parts, draining).await;
        assert_eq!(shown([true; 3], false).await, (200, "ready".into()));
        assert_eq!(
            shown([false, false, true], false).await,
            (200, "degraded".into())
        );
        assert_eq!(
            shown([true, true, false], false).await,
            (503, "unavailable".into())
        );
        assert_eq!(shown([true; 3], true).await, (503, "draining".into()));
    }
}
