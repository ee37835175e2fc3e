//! `GET /v1/segments/{segment}/users`: the users of a segment by name, as a stream of lines.
//!
//! The users are read page by page, in the order of their ids, each page only when the client has taken the previous one. So a slow client
//! holds one page in memory, and the last id that a client has is the place to continue.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{self, BoxStream, Stream, StreamExt};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::filters::path::FullPath;
use warp::http::StatusCode;
use warp::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use warp::reply::{Reply, Response};

use super::events::Subscriber;
use crate::access::Access;
use crate::audit::AuditOutcome;
use crate::auth::Scope;
use crate::authorization::Grant;
use crate::covered::CoveredFields;
use crate::openapi::{Described, codes, parameters};
use crate::path;
use crate::problem::Problem;
use crate::query::{Query, query};
use crate::reply::rfc3339;
use crate::resource::{Audited, Kind, Names, Operation, Resource, part_of};
use crate::settings::{HttpSettings, Switch};
use domain::store::StoreError;
use domain::{Segment, Slot, Timestamp, Window};
use engine::Headcount;
use engine::headcount::UsersPage;

pub(super) static SEGMENT_USERS: Resource = Resource {
    template: "/v1/segments/{segment}/users",
    parameters: &["segment", "window", "after", "limit"],
    operations: &[Operation::get(Access::Needs(Scope::Export))
        .names(Names::InPath(2))
        .audited(Audited::Export)
        .described(describe)],
    kind: Kind::Export,
};

/// Users of a page: with ids of 20 bytes 9 MB, with the longest 34 MB. Each page reads the segment once.
const PAGE_USERS: usize = 100_000;
/// Exports at a time in this process: their pages take at most 68 MB.
const MAX_EXPORTS: usize = 2;
/// `Retry-After` while that many are under way.
const RETRY_FULL: Duration = Duration::from_secs(10);
/// Users of a chunk of the response.
const CHUNK_USERS: usize = 500;
/// The time between two blank lines while a page is read, so that neither the server nor a proxy ends the response.
const HEARTBEAT: Duration = Duration::from_secs(5);
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// A user of a segment: one line of the response.
#[derive(Serialize, ToSchema)]
#[schema(as = ExportedUser)]
struct ExportedUser<'a> {
    /// The id as the store has it: a keyed hash if `user_key` is set.
    user_id: &'a str,
    /// The first instant of the slot in which the user was last seen.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    last_seen: Timestamp,
    /// The first instant at which the user is no longer counted.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    until: Timestamp,
}

/// Why an export ended early. Its client receives a response without an end.
#[derive(Debug, thiserror::Error)]
enum CutShort {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the token is no longer valid")]
    Token,
    #[error("a line can't be written: {0}")]
    Line(#[from] serde_json::Error),
}

/// What is read.
#[derive(Clone)]
struct Question {
    app: Arc<Headcount>,
    segment: Segment,
    window: Window,
}

type Reading = Pin<Box<dyn Future<Output = Result<UsersPage, StoreError>> + Send>>;

/// One response.
struct Export {
    question: Question,
    /// The users of the present page that are not sent yet.
    page: std::collections::btree_map::IntoIter<Box<str>, Slot>,
    /// The next page, while it is read.
    reading: Option<Reading>,
    /// The last user of the present page.
    after: Option<Box<str>>,
    /// Users that may still be read.
    left: usize,
    grant: Option<Grant>,
    _turn: OwnedSemaphorePermit,
}

pub(super) fn handler(app: &Arc<Headcount>, settings: &HttpSettings) -> BoxedFilter<(Response,)> {
    let (app, is_on) = (Arc::clone(app), settings.export == Switch::On);
    let turns = Arc::new(Semaphore::new(MAX_EXPORTS));
    warp::get()
        .and(warp::path::full())
        .and(query())
        .and(warp::ext::optional())
        .then(
            move |path: FullPath, query: Query, subscriber: Option<Subscriber>| {
                let (app, turns) = (Arc::clone(&app), Arc::clone(&turns));
                async move {
                    if !is_on {
                        return off().into_response();
                    }
                    let grant = subscriber.map(|subscriber| subscriber.grant);
                    let exported = get(app, &path, &query, grant, turns).await;
                    exported.unwrap_or_else(Reply::into_response)
                }
            },
        )
        .boxed()
}

async fn get(
    app: Arc<Headcount>,
    path: &FullPath,
    query: &Query,
    grant: Option<Grant>,
    turns: Arc<Semaphore>,
) -> Result<Response, Problem> {
    let segment = path::segment(part_of(path, 2), query)?;
    let window = query.window_of_count(&app, &segment)?;
    let after = query.text("after")?.map(Box::from);
    let limit = query.limit("limit", 1_000_000_000, usize::MAX)?;
    check_floor(&app, &segment, window).await?;
    let full = || Problem::busy(format!("{MAX_EXPORTS} exports are under way"), RETRY_FULL);
    let turn = turns.try_acquire_owned().map_err(|_| full())?;
    let outcome = if after.is_some() { "resumed" } else { "begun" };
    let covered = CoveredFields::of(&app, window, app.clock().now());
    let question = Question {
        app,
        segment,
        window,
    };
    let mut export = Export {
        question,
        page: UsersPage::new().into_iter(),
        reading: None,
        after,
        left: limit,
        grant,
        _turn: turn,
    };
    // Before the response begins, so that its errors are problems.
    let first = export.read().await?;
    export.turn_to(first);
    let mut response = warp::reply::stream(Lines::of(export)).into_response();
    let headers = response.headers_mut();
    let ndjson = HeaderValue::from_static("application/x-ndjson");
    headers.insert(CONTENT_TYPE, ndjson);
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    covered.insert_into(headers);
    Ok(AuditOutcome::on(response, outcome.to_owned()))
}

fn off() -> Problem {
    let detail = "exports are off: an operator turns them on with the setting export = \"on\"";
    Problem::new(StatusCode::NOT_FOUND, codes::EXPORT_OFF.code, detail)
}

/// Refuses a segment whose count a privacy floor withholds: names reveal more than the count.
async fn check_floor(app: &Headcount, segment: &Segment, window: Window) -> Result<(), Problem> {
    let counts = app.counts();
    if !counts.floor().is_on() {
        return Ok(());
    }
    let counted = counts.get(segment, window, false).await?;
    match counts.shown(segment, &counted).await {
        Some(_) => Ok(()),
        None => {
            let code = codes::TOO_FEW_USERS;
            Err(Problem::new(StatusCode::NOT_FOUND, code.code, code.when))
        }
    }
}

impl Export {
    /// Reads the next page.
    fn read(&self) -> Reading {
        let (question, after) = (self.question.clone(), self.after.clone());
        let most = PAGE_USERS.min(self.left);
        Box::pin(async move {
            let Question {
                app,
                segment,
                window,
            } = question;
            app.users_page(&segment, window, after.as_deref(), most)
                .await
        })
    }

    fn turn_to(&mut self, page: UsersPage) {
        let is_last = page.len() < PAGE_USERS.min(self.left);
        self.left = if is_last { 0 } else { self.left - page.len() };
        self.after = page.last_key_value().map(|(user, _)| user.clone());
        self.page = page.into_iter();
    }

    /// The next lines; `None` after the last user. A blank line while a page is read.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, CutShort> {
        let may = |grant: &Grant| grant.is_valid_for(Scope::Export);
        if !self.grant.as_ref().is_none_or(may) {
            return Err(CutShort::Token);
        }
        let chunk = self.chunk()?;
        if !chunk.is_empty() {
            return Ok(Some(chunk));
        }
        if self.left == 0 {
            return Ok(None);
        }
        let mut reading = match self.reading.take() {
            Some(reading) => reading,
            None => self.read(),
        };
        tokio::select! {
            page = &mut reading => {
                self.turn_to(page?);
                let chunk = self.chunk()?;
                Ok((!chunk.is_empty()).then_some(chunk))
            }
            () = tokio::time::sleep(HEARTBEAT) => {
                self.reading = Some(reading);
                Ok(Some(b"\n".to_vec()))
            }
        }
    }

    fn chunk(&mut self) -> Result<Vec<u8>, serde_json::Error> {
        let mut lines = Vec::new();
        let (window, resolution) = (self.question.window, self.question.window.resolution());
        for (user, slot) in self.page.by_ref().take(CHUNK_USERS) {
            let leaves = Slot::new(slot.number() + u64::from(window.slots()));
            let line = ExportedUser {
                user_id: &user,
                last_seen: resolution.start_of(slot),
                until: resolution.start_of(leaves),
            };
            serde_json::to_writer(&mut lines, &line)?;
            lines.push(b'\n');
        }
        Ok(lines)
    }
}

/// The lines of an export. hyper polls for one chunk at a time, when the connection has capacity for it. The lock is never taken:
/// warp requires that a stream can be shared between threads, which a read from a store can't.
struct Lines(Mutex<BoxStream<'static, Result<Vec<u8>, CutShort>>>);

impl Lines {
    fn of(export: Export) -> Self {
        let lines = stream::try_unfold(export, |mut export| async move {
            match export.next().await {
                Ok(chunk) => Ok(chunk.map(|chunk| (chunk, export))),
                Err(error) => {
                    tracing::warn!(%error, "an export ended early; its client can resume it");
                    Err(error)
                }
            }
        });
        Self(Mutex::new(lines.boxed()))
    }
}

impl Stream for Lines {
    type Item = Result<Vec<u8>, CutShort>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.get_mut().as_mut().poll_next(cx)
    }
}

fn describe() -> Described {
    let mut described = Described::new(
        "getSegmentUsers",
        "users",
        "List the users of a segment",
        "NDJSON: each line is an `ExportedUser`, in the order of the bytes of the ids; ignore blank lines, which keep the connection open. \
         A response without a proper end is incomplete: continue with the last received id as `after`. A user who is in the window \
         throughout is listed exactly once, also over several requests. One who enters meanwhile may be missing, and one who leaves \
         meanwhile may be listed. Off unless the setting `export` is `on`.",
    );
    described.refer::<ExportedUser<'static>>();
    described
        .takes(parameters::segment())
        .takes(parameters::segment_beside())
        .takes(parameters::window())
        .takes(parameters::after())
        .takes(parameters::limit(
            "The maximum number of users. The default is all.",
            1_000_000_000,
        ))
        .answers_with(200, "The users.", &["application/x-ndjson"])
        .fails(&[
            codes::INVALID_SEGMENT,
            codes::INVALID_WINDOW,
            codes::INVALID_PARAMETER,
            codes::EXPORT_OFF,
            codes::TOO_FEW_USERS,
            codes::EXPORTS_FULL,
            codes::NO_NAMES,
            codes::UNAVAILABLE,
        ])
}
