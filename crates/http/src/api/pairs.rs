//! `POST /v1/pairs`: ingestion of pairs.

mod openapi;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::thread;

use bytes::{Buf, Bytes};
use futures::Stream;
use serde::Serialize;
use tokio::sync::Semaphore;
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::{HeaderMap, StatusCode};
use warp::reply::{Reply, Response};

use crate::access::Access;
use crate::auth::Limiter;
use crate::auth::Scope;
use crate::authorization;
use crate::body::{Limits, Received};
use crate::encoding::{Encoding, detect_compression};
use crate::media::Format;
use crate::openapi::schema;
use crate::parse::{self, BadBody, ItemError, Report};
use crate::problem::Problem;
use crate::reply::json_with;
use crate::resource::{Kind, Names, Operation, Resource};
use crate::settings::HttpSettings;
use domain::Reach;
use engine::Headcount;
use engine::ingest::{Admitted, Durability, Intake, PairError};

pub(super) static PAIRS: Resource = Resource {
    template: "/v1/pairs",
    parameters: &[],
    operations: &[Operation::post(Access::Needs(Scope::Write))
        .names(Names::Filtered)
        .described(openapi::describe)],
    kind: Kind::Plain,
};

/// A body above this size is parsed on a blocking thread, because it takes longer than a millisecond. A smaller body is
/// not worth the change of thread.
const LARGE: usize = 128 * 1024;
/// The least bytes of a pair with all its fields, for the capacity of buffers.
const BYTES_PER_PAIR: usize = 40;

/// The code of a valid pair that the store refuses.
const STORE_REFUSED: &str = "store_refused";
const STORE_REFUSED_MESSAGE: &str =
    "this pair is valid, but the store refuses it until an operator acts: do not retry before then";

struct Pairs {
    app: Arc<Headcount>,
    limits: Limits,
    /// One permit per processor: more large bodies parsed at a time would only take memory.
    parsers: Semaphore,
}

/// The limits of the caller's token. Without a token there are none.
struct Caller {
    limiter: Option<Arc<Limiter>>,
    reach: Reach,
}

/// The result of a body.
#[derive(Debug)]
struct Taken {
    accepted: usize,
    durability: Durability,
    report: Report,
}

/// The result of storing the pairs of a request.
#[derive(Serialize, ToSchema)]
#[schema(as = Accepted)]
pub(super) struct PairsResponse<'a> {
    /// Pairs that are durable now.
    accepted: usize,
    /// Items that were rejected.
    rejected: usize,
    /// `spooled` when the pairs wait on this instance's disk for the store; `stored` when the store has them, and live counts include
    /// them later.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::durable)]
    durable: Option<&'static str>,
    /// Why items were rejected: the first hundred errors.
    errors: &'a [ItemError],
    /// The number of rejected items by code, also of those that `errors` does not list.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(required = false)]
    codes: BTreeMap<&'static str, usize>,
    /// Warnings about accepted items that are probably wrong, such as a time in another field than `at`.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    #[schema(required = false)]
    warnings: &'a [String],
}

pub(super) fn handler(app: &Arc<Headcount>, settings: &HttpSettings) -> BoxedFilter<(Response,)> {
    let pairs = Arc::new(Pairs {
        app: Arc::clone(app),
        limits: Limits::new(settings.max_body, settings.header_timeout),
        parsers: Semaphore::new(thread::available_parallelism().map_or(1, usize::from)),
    });
    warp::post()
        .and(warp::header::headers_cloned())
        .and(caller())
        .and(warp::body::stream())
        .then(move |headers, caller, body| {
            let pairs = Arc::clone(&pairs);
            async move { pairs.post(headers, caller, body).await }
        })
        .boxed()
}

fn caller() -> impl Filter<Extract = (Caller,), Error = Infallible> + Copy {
    warp::ext::optional()
        .and(super::extension())
        .map(|limiter, reach| Caller { limiter, reach })
}

impl Pairs {
    async fn post<B: Buf, E>(
        &self,
        headers: HeaderMap,
        caller: Caller,
        body: impl Stream<Item = Result<B, E>>,
    ) -> Response {
        let taken = match self.take(&headers, caller, body).await {
            Ok(taken) => taken,
            Err(problem) => return problem.into_response(),
        };
        self.measure(&taken);
        taken.into_response()
    }

    async fn take<B: Buf, E>(
        &self,
        headers: &HeaderMap,
        caller: Caller,
        body: impl Stream<Item = Result<B, E>>,
    ) -> Result<Taken, Problem> {
        let format = Format::of(headers);
        let encoding = Encoding::of(headers);
        let body = self.limits.read(headers, body).await?;
        let (format, encoding) = (format?, encoding?);
        if body.bytes.is_empty() {
            return Err(BadBody::Empty.into());
        }
        // Checked before parsing, so that a full queue spends no CPU on a body that it would refuse.
        self.app.ingest().check_capacity()?;
        let (batch, mut report) = self.parse(format, encoding, body, caller.reach).await?;
        if let Some(limiter) = caller.limiter {
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
        Ok(Taken {
            accepted: pairs - kept.refused.len(),
            durability: kept.durability,
            report,
        })
    }

    async fn parse(
        &self,
        format: Format,
        encoding: Encoding,
        body: Received,
        reach: Reach,
    ) -> Result<(Admitted, Report), Problem> {
        let max_body = self.limits.max_body;
        if encoding == Encoding::Identity && body.bytes.len() <= LARGE {
            return parse(format, &body.bytes, self.intake(body.bytes.len()), &reach);
        }
        let intake = self.intake(body.bytes.len());
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
            parse(format, &bytes, intake, &reach)
        };
        // The task is owned by this request, which awaits it. It always ends, because its input is bounded.
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| internal(&error))?
    }

    fn intake(&self, bytes: usize) -> Intake {
        self.app.ingest().intake(bytes / BYTES_PER_PAIR + 1)
    }

    fn measure(&self, taken: &Taken) {
        let metrics = self.app.metrics();
        if taken.accepted > 0 {
            let spooled = taken.durability == Durability::Spooled;
            metrics.ingest.accepted(taken.accepted, spooled);
        }
        for (code, pairs) in &taken.report.rejected {
            let rejected = metrics.ingest.rejected.with([*code]);
            rejected.inc_by(*pairs as u64);
        }
    }
}

fn parse(
    format: Format,
    body: &[u8],
    mut intake: Intake,
    reach: &Reach,
) -> Result<(Admitted, Report), Problem> {
    if let Some(coding) = detect_compression(body) {
        return Err(BadBody::Compressed(coding).into());
    }
    let mut push = |user: &str, segment: &str, at| match reach.covers(segment) {
        true => intake.push(user, segment, at),
        false => Err(PairError::Forbidden),
    };
    let report = match format {
        Format::Lines => parse::ndjson(body, &mut push),
        Format::Json => parse::json(body, &mut push)?,
    };
    Ok((intake.finish(), report))
}

impl From<BadBody> for Problem {
    fn from(error: BadBody) -> Self {
        Self::bad_request("malformed", error.to_string())
    }
}

impl Taken {
    fn into_response(self) -> Response {
        let rejected = self.report.rejected();
        if self.accepted == 0 {
            return self.refusal(rejected).into_response();
        }
        let (status, durable) = match self.durability {
            Durability::Stored => (StatusCode::OK, None),
            Durability::Uncounted => (StatusCode::ACCEPTED, Some("stored")),
            Durability::Spooled => (StatusCode::ACCEPTED, Some("spooled")),
        };
        let answer = PairsResponse {
            accepted: self.accepted,
            rejected,
            durable,
            errors: &self.report.errors,
            codes: self.codes(),
            warnings: &self.report.warnings,
        };
        json_with(status, &answer)
    }

    fn codes(&self) -> BTreeMap<&'static str, usize> {
        self.report.rejected.iter().copied().collect()
    }

    fn refusal(self, rejected: usize) -> Problem {
        let (code, detail) = if self.report.items == 0 {
            ("empty", "the body has no pairs")
        } else {
            (
                "nothing_accepted",
                "no pair in the body was accepted: see errors for the reasons",
            )
        };
        let errors = serde_json::to_value(&self.report.errors).unwrap_or_default();
        let codes = serde_json::to_value(self.codes()).unwrap_or_default();
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
            .member("accepted", 0)
            .member("rejected", rejected)
            .member("errors", errors)
            .member("codes", codes)
    }
}
