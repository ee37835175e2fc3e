//! How pairs come in, whatever the format: a body is read, decompressed, parsed and stored.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::thread;

use bytes::{Buf, Bytes};
use futures::stream::{self, Stream, StreamExt};
use tokio::sync::Semaphore;
use tracing::Instrument;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::HeaderMap;
use warp::reply::Response;

use crate::auth::Limiter;
use crate::authorization::{self, Authorizer};
use crate::body::{Limits, Received};
use crate::encoding::{Encoding, detect_compression};
use crate::media::Format;
use crate::parse::messages::Merge;
use crate::parse::{self, BadBody, Report};
use crate::problem::Problem;
use crate::query::{Query, query};
use crate::settings::{HttpSettings, PairNames};
use domain::store::StoreError;
use domain::{Reach, Timestamp, UserId};
use engine::Headcount;
use engine::headcount::MergeError;
use engine::ingest::{Admitted, Durability, PairError};
use telemetry::traces;

/// A body above this size is parsed on a blocking thread, because it takes longer than a millisecond. A smaller body is
/// not worth the change of thread.
const LARGE: usize = 128 * 1024;
/// The least bytes of a pair with all its fields, for the capacity of buffers.
const BYTES_PER_PAIR: usize = 40;

/// The merges of one body that run at a time.
const MERGES_AT_ONCE: usize = 8;

/// The code of a valid pair that the store refuses.
const STORE_REFUSED: &str = "store_refused";
const STORE_REFUSED_MESSAGE: &str =
    "this pair is valid, but the store refuses it until an operator acts: do not retry before then";

/// The one way in for pairs. All resources that accept pairs share its limits.
pub(super) struct Intake {
    app: Arc<Headcount>,
    authorizer: Authorizer,
    names: Arc<PairNames>,
    limits: Limits,
    /// One permit per processor: more large bodies parsed at a time would only take memory.
    parsers: Semaphore,
}

/// The limits of the caller's token.
#[derive(Debug)]
struct Caller {
    limiter: Option<Arc<Limiter>>,
    /// The segments that the token allows. `None` without a token in the head of the request.
    reach: Option<Reach>,
}

/// The result of a body.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) accepted: usize,
    pub(super) durability: Durability,
    pub(super) report: Report,
}

impl Intake {
    pub(super) fn new(
        app: &Arc<Headcount>,
        settings: &HttpSettings,
        authorizer: Authorizer,
    ) -> Self {
        Self {
            app: Arc::clone(app),
            authorizer,
            names: Arc::new(settings.pair_names.clone()),
            limits: Limits::new(settings.max_body, settings.header_timeout),
            parsers: Semaphore::new(thread::available_parallelism().map_or(1, usize::from)),
        }
    }

    /// A handler for POST of bodies in the format that `format` returns. `respond` makes the response.
    pub(super) fn handler(
        self: &Arc<Self>,
        format: impl Fn(&HeaderMap, &Query) -> Result<Format, Problem> + Clone + Send + Sync + 'static,
        respond: impl Fn(Result<Taken, Problem>) -> Response + Clone + Send + Sync + 'static,
    ) -> BoxedFilter<(Response,)> {
        let intake = Arc::clone(self);
        warp::post()
            .and(warp::header::headers_cloned())
            .and(query())
            .and(caller())
            .and(warp::body::stream())
            .then(move |headers: HeaderMap, query: Query, caller, body| {
                let intake = Arc::clone(&intake);
                let format = format(&headers, &query);
                let respond = respond.clone();
                async move { respond(intake.take(&headers, format, caller, body).await) }
            })
            .boxed()
    }

    async fn take<B: Buf, E>(
        &self,
        headers: &HeaderMap,
        format: Result<Format, Problem>,
        caller: Caller,
        body: impl Stream<Item = Result<B, E>>,
    ) -> Result<Taken, Problem> {
        let encoding = Encoding::of(headers);
        let body = self.limits.read(headers, body).await?;
        let (format, encoding) = (format?, encoding?);
        if body.bytes.is_empty() {
            if self.has_token_in_body(&format, &caller) {
                self.authorizer.authorize_by_body(None)?;
            }
            return Err(BadBody::Empty.into());
        }
        // Checked before parsing, so that a full queue spends no CPU on a body that it would refuse.
        self.app.ingest().check_capacity()?;
        let parsing =
            tracing::debug_span!(target: traces::TARGET, "parse", bytes = body.bytes.len());
        let parsed = self.parse(format, encoding, body, caller);
        let (batch, mut report, limiter) = parsed.instrument(parsing).await?;
        if let Some(limiter) = limiter {
            // Bad items are charged too, because they cost as much to parse.
            let charged = limiter.pairs(report.items);
            charged.map_err(|limited| {
                authorization::rate_limit_problem(limited, "pairs", self.app.metrics())
            })?;
        }
        let pairs = batch.len();
        // Without an acceptable pair this only checks that pairs can be kept. The response is a refusal either way.
        let kept = self.app.ingest().accept(batch).await?;
        report.refuse_accepted(&kept.refused, STORE_REFUSED, STORE_REFUSED_MESSAGE);
        let taken = Taken {
            accepted: pairs - kept.refused.len(),
            durability: kept.durability,
            report,
        };
        self.measure(&taken);
        self.merge(&taken.report.merges).await?;
        Ok(taken)
    }

    /// Merges users as messages say. A merge that can't be done now fails the request, which is sent again; one that can't be done at
    /// all is ignored.
    async fn merge(&self, merges: &[Merge]) -> Result<(), Problem> {
        // Of several merges of one user the last one holds.
        let latest: HashMap<&str, &str> = merges
            .iter()
            .map(|merge| (merge.from.as_str(), merge.into.as_str()))
            .collect();
        let merging = latest.into_iter().filter_map(|(from, into)| {
            let [from, into] = [from, into].map(|id| UserId::received(id.to_owned()).ok());
            Some(self.app.merge(from?, into?))
        });
        let merging: Vec<_> = merging.collect();
        let mut merged = stream::iter(merging).buffer_unordered(MERGES_AT_ONCE);
        while let Some(merged) = merged.next().await {
            match merged {
                Ok(_) | Err(MergeError::SameUser) => {}
                Err(MergeError::Store(error)) if is_temporary(&error) => return Err(error.into()),
                Err(error) => tracing::warn!(%error, "users are not merged as a message says"),
            }
        }
        Ok(())
    }

    /// Whether the token is in the body: the format has it there, and the head of the request has none.
    fn has_token_in_body(&self, format: &Format, caller: &Caller) -> bool {
        let may = matches!(format, Format::Messages(dialect) if dialect.has_token_in_body());
        may && caller.reach.is_none() && self.authorizer.is_on()
    }

    async fn parse(
        &self,
        format: Format,
        encoding: Encoding,
        body: Received,
        caller: Caller,
    ) -> Result<Parsed, Problem> {
        let max_body = self.limits.max_body;
        let by_body = self.has_token_in_body(&format, &caller);
        let parser = Parser {
            format,
            by_body: by_body.then(|| self.authorizer.clone()),
            intake: self
                .app
                .ingest()
                .intake(body.bytes.len() / BYTES_PER_PAIR + 1),
            caller,
            names: Arc::clone(&self.names),
            now: self.app.clock().now(),
        };
        if encoding == Encoding::Identity && body.bytes.len() <= LARGE {
            return parser.parse(&body.bytes);
        }
        let internal = |error: &dyn ToString| Problem::internal().caused_by(&error.to_string());
        let _turn = self
            .parsers
            .acquire()
            .await
            .map_err(|error| internal(&error))?;
        let work = move || {
            let bytes = match encoding {
                Encoding::Identity => body.bytes.clone(),
                _ => Bytes::from(encoding.decode(&body.bytes, max_body)?),
            };
            parser.parse(&bytes)
        };
        // The task is owned by this request, which awaits it. It always ends, because its input is bounded.
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| internal(&error))?
    }

    fn measure(&self, taken: &Taken) {
        let metrics = &self.app.metrics().ingest;
        if taken.accepted > 0 {
            let spooled = taken.durability == Durability::Spooled;
            metrics.accepted(taken.accepted, spooled);
        }
        for (code, pairs) in &taken.report.rejected {
            metrics.rejected.with([*code]).inc_by(*pairs as u64);
        }
        metrics.ignored.inc_by(taken.report.ignored as u64);
    }
}

fn caller() -> impl Filter<Extract = (Caller,), Error = Infallible> + Copy {
    warp::ext::optional()
        .and(warp::ext::optional())
        .map(|limiter, reach| Caller { limiter, reach })
}

/// What a body has, and the limiter of its caller.
type Parsed = (Admitted, Report, Option<Arc<Limiter>>);

/// What the parser of a body needs.
struct Parser {
    format: Format,
    intake: engine::ingest::Intake,
    caller: Caller,
    /// Checks the token in the body, if it is there.
    by_body: Option<Authorizer>,
    names: Arc<PairNames>,
    now: Timestamp,
}

impl Parser {
    fn parse(mut self, body: &[u8]) -> Result<Parsed, Problem> {
        if let Some(coding) = detect_compression(body) {
            return Err(BadBody::Compressed(coding).into());
        }
        self.authorize(body)?;
        let (reach, mut intake) = (self.caller.reach.unwrap_or_default(), self.intake);
        let mut push = |user: &str, segment: &str, at| match reach.covers(segment) {
            true => intake.push(user, segment, at),
            false => Err(PairError::Forbidden),
        };
        let (names, push) = (&self.names, &mut push);
        let mut report = match self.format {
            Format::Lines => parse::ndjson(body, push),
            Format::Json => parse::json(body, push)?,
            Format::LineProtocol(precision) => {
                parse::line_protocol::lines(body, &names.lines, precision, push)
            }
            Format::Messages(dialect) => {
                parse::messages::messages(body, dialect, &names.messages, self.now, push)?
            }
            Format::EventData(attributes) => parse::cloud_events::binary(body, &attributes, push)?,
            Format::Events => parse::cloud_events::structured(body, push)?,
        };
        if !reach.is_every() {
            // A merge is about all segments.
            report.merges.clear();
        }
        Ok((intake.finish(), report, self.caller.limiter))
    }

    fn authorize(&mut self, body: &[u8]) -> Result<(), Problem> {
        let (Some(authorizer), Format::Messages(dialect)) = (&self.by_body, &self.format) else {
            return Ok(());
        };
        let token = parse::messages::token(body, *dialect)?;
        let caller = authorizer.authorize_by_body(token.as_deref())?;
        self.caller = Caller {
            limiter: caller.limiter,
            reach: Some(caller.reach),
        };
        Ok(())
    }
}

/// Whether the same call may succeed later.
fn is_temporary(error: &StoreError) -> bool {
    !matches!(
        error,
        StoreError::Unsupported(_)
            | StoreError::Rejected(_)
            | StoreError::Partly(_)
            | StoreError::Damaged(_)
    )
}

impl From<BadBody> for Problem {
    fn from(error: BadBody) -> Self {
        Self::bad_request("malformed", error.to_string())
    }
}

impl Taken {
    /// Whether the body has items, and each of them is refused.
    pub(super) fn has_only_bad_items(&self) -> bool {
        let report = &self.report;
        let is_good = self.accepted > 0 || report.ignored > 0 || !report.merges.is_empty();
        report.items > 0 && !is_good
    }

    /// The numbers of rejected items by code.
    pub(super) fn codes(&self) -> BTreeMap<&'static str, usize> {
        self.report.rejected.iter().copied().collect()
    }
}
