//! What analytics libraries send: those of Segment and RudderStack (`POST /v1/batch`, `/v1/track` and so on), PostHog and Snowplow.
//!
//! The write key is a token with scope `write`. Libraries of Segment and RudderStack send it as the user name of Basic
//! authentication; PostHog's have it in the body; with Snowplow it is the id of the application.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::ContentBuilder;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::{Reply, Response};

use super::Route;
use super::intake::{Intake, Taken};
use super::pairs::refusal;
use crate::access::Access;
use crate::auth::Scope;
use crate::media::Format;
use crate::openapi::{Described, codes, schema};
use crate::parse::messages::Dialect;
use crate::problem::Problem;
use crate::reply::json as json_response;
use crate::resource::{Kind, Names, Operation, Resource};

/// Resources, each with its path, the dialect of its bodies, and the function that describes it.
macro_rules! resources {
    ($($name:ident = $path:literal, $dialect:expr, $describe:expr;)*) => {
        $(pub(super) static $name: Resource = Resource {
            template: $path,
            parameters: &[],
            operations: &[Operation::post(access($dialect))
                .names(Names::Filtered)
                .by_client_token()
                .described($describe)],
            kind: Kind::Plain,
        };)*

        pub(super) fn handlers(intake: &Arc<Intake>) -> impl Iterator<Item = Route> {
            let all = [$((&$name, $dialect)),*];
            all.into_iter().map(|(resource, dialect)| (resource, handler(intake, dialect)))
        }
    };
}

resources! {
    BATCH = "/v1/batch", Dialect::Batch, || describe_batch("postBatch", "Store a batch of messages");
    IMPORT = "/v1/import", Dialect::Batch, || describe_batch("postImport", "Store a batch of old messages");
    TRACK = "/v1/track", Dialect::Message("track"), || describe_one("track");
    IDENTIFY = "/v1/identify", Dialect::Message("identify"), || describe_one("identify");
    PAGE = "/v1/page", Dialect::Message("page"), || describe_one("page");
    SCREEN = "/v1/screen", Dialect::Message("screen"), || describe_one("screen");
    GROUP = "/v1/group", Dialect::Message("group"), || describe_one("group");
    ALIAS = "/v1/alias", Dialect::Message("alias"), || describe_one("alias");
    POSTHOG = "/batch/", Dialect::PostHog, describe_posthog;
    SNOWPLOW = "/com.snowplowanalytics.snowplow/tp2", Dialect::Snowplow, describe_snowplow;
}

/// The messages were taken.
#[derive(Serialize, ToSchema)]
#[schema(as = MessagesAccepted)]
struct Accepted {
    success: bool,
    /// What PostHog's libraries expect.
    status: u8,
}

const fn access(dialect: Dialect) -> Access {
    match dialect.has_token_in_body() {
        true => Access::InBody,
        false => Access::Needs(Scope::Write),
    }
}

/// The content type is not considered: RudderStack's library for Node sends JSON as a form.
fn handler(intake: &Arc<Intake>, dialect: Dialect) -> BoxedFilter<(Response,)> {
    intake.handler(move |_: &_, _: &_| Ok(Format::Messages(dialect)), respond)
}

/// A batch with some bad messages is a success, because libraries drop all messages of one that is refused.
fn respond(taken: Result<Taken, Problem>) -> Response {
    match taken {
        Err(problem) => problem.into_response(),
        Ok(taken) if taken.has_only_bad_items() => refusal(&taken)
            .with_status(StatusCode::BAD_REQUEST)
            .into_response(),
        Ok(_) => json_response(&Accepted {
            success: true,
            status: 1,
        }),
    }
}

/// Where the libraries of Segment and RudderStack have what matters.
const MEMBERS: &str = "\
The user is `userId`, else `anonymousId`. The segment is `properties.segment`, else the name of the event (a setting has the order); a \
message without one is ignored. The time is `timestamp`, else `originalTimestamp`, corrected if `sentAt` shows that the sender's clock is \
off by more than a minute. `identify` with both ids and `alias` merge two users, unless the token is bound to segments. The token is the user name of Basic authentication. \
A bad message does not affect the others, and is counted in the metrics.";

fn describe_batch(id: &str, summary: &str) -> Described {
    let batch = json!({"batch": [example("track")], "sentAt": "2026-11-21T08:00:00Z"});
    described(id, summary, MEMBERS, batch).fails(&[codes::NOT_STORED_OR_MERGED])
}

fn describe_one(kind: &'static str) -> Described {
    let mut id = "post".to_owned();
    id.extend(kind.chars().take(1).map(|first| first.to_ascii_uppercase()));
    id.extend(kind.chars().skip(1));
    let summary = format!("Store a message of the type `{kind}`");
    // A message may have another type than its path.
    described(&id, &summary, MEMBERS, example(kind)).fails(&[codes::NOT_STORED_OR_MERGED])
}

fn example(kind: &str) -> Value {
    let mut message =
        json!({"type": kind, "userId": "u104010", "timestamp": "2026-11-21T08:00:00Z"});
    if let Some(members) = message.as_object_mut() {
        let more = match kind {
            "track" => ("event", json!("Viewed")),
            "group" => ("groupId", json!("g1")),
            "identify" => ("anonymousId", json!("a17")),
            "alias" => ("previousId", json!("a17")),
            _ => ("name", json!("Home")),
        };
        members.insert(more.0.to_owned(), more.1);
        members.insert("properties".to_owned(), json!({"segment": "sports"}));
    }
    message
}

fn describe_posthog() -> Described {
    let about = "Events of PostHog's libraries. The user is `distinct_id`, the segment `properties.segment`, else the name of the event, \
                 unless it begins with `$`. `$identify` and `$create_alias` merge two users. The token is `api_key`.";
    let event = json!({"event": "viewed", "distinct_id": "u104010", "properties": {"segment": "sports"}, "timestamp": "2026-11-21T08:00:00Z"});
    let batch = json!({"api_key": "TOKEN", "batch": [event], "sent_at": "2026-11-21T08:00:00Z"});
    described(
        "postPostHogBatch",
        "Store a batch of events of PostHog",
        about,
        batch,
    )
    .fails(&[codes::NOT_STORED_OR_MERGED])
}

fn describe_snowplow() -> Described {
    let about = "Events of Snowplow's trackers, with POST. The user is `uid`, else `duid` or `nuid`. A structured event of the category \
                 `segment` has the segment as its action; otherwise the action is the name of the event. The token is the id of the \
                 application, `aid`.";
    let event = json!({"e": "se", "se_ca": "segment", "se_ac": "sports", "uid": "u104010", "aid": "TOKEN", "dtm": "1795262400000"});
    let schema = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4";
    let payload = json!({"schema": schema, "data": [event]});
    let summary = "Store events of Snowplow";
    described("postSnowplow", summary, about, payload).fails(&[codes::NOT_STORED])
}

fn described(id: &str, summary: &str, about: &str, example: Value) -> Described {
    let content = ContentBuilder::new()
        .schema(Some(schema::any_object()))
        .example(Some(example));
    Described::new(id, "clients of other programs", summary, about)
        .body(
            "application/json",
            "JSON with any content type, plain or with `Content-Encoding: gzip` or `zstd`.",
            content.build(),
        )
        .answers::<Accepted>(
            200,
            "The pairs are durable, or there were none. A message that can't be accepted does not change the status.",
            json!({"success": true, "status": 1}),
        )
        .fails(codes::FOREIGN)
        .fails(codes::STORING)
        .fails(codes::BODY)
}
