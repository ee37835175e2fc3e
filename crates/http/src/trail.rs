//! The audit trail: one log line, at info under the target `audit`, for each request that erases, recounts or archives, and
//! for each that is refused for its token. Who, what, from where, and what came of it; no token, and no user but a hash.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use warp::http::{StatusCode, Uri};
use warp::reply::Response;

use super::path;
use super::problem::Code;
use super::query::Query;
use super::route::Route;
use crate::auth::Digest;
use engine::Headcount;

/// Refusals are counted anew after this time.
const PERIOD: Duration = Duration::from_secs(60);
/// Lines for refusals of one address in that time.
const PER_ADDRESS: u32 = 10;
/// Lines for refusals of all addresses in that time: 36 MB a day at most, with 250 bytes each. Metrics count them all.
const FOR_ALL: u32 = 100;
/// Hexadecimal digits of a user's hash: 64 bits tell users apart, and a shorter text is easier to read.
const HASH_DIGITS: usize = 16;

/// What a handler says of what it did, for the line of its request. Travels beside the response, never in it.
#[derive(Debug, Clone)]
pub(super) struct Done(pub(super) String);

/// Writes the lines.
#[derive(Clone)]
pub(super) struct Trail {
    /// Knows how users are called in the store; none where no user can be named.
    app: Option<Arc<Headcount>>,
    refusals: Arc<Mutex<Refusals>>,
}

/// A request as the trail has it.
pub(super) struct Act<'a> {
    pub(super) route: Route,
    pub(super) method: &'static str,
    /// The name of the token or the subject of the JWT, where it was rightly presented.
    pub(super) who: Option<&'a str>,
    pub(super) from: IpAddr,
    pub(super) request_id: &'a str,
    /// Whom or what the request is about.
    pub(super) about: Option<&'a str>,
}

impl Trail {
    pub(super) fn new(app: Option<Arc<Headcount>>) -> Self {
        Self {
            app,
            refusals: Arc::new(Mutex::new(Refusals::new(Instant::now()))),
        }
    }

    /// Whom or what a request is about, if the trail has a line for it.
    pub(super) fn about(&self, route: Route, method: &str, uri: &Uri) -> Option<String> {
        action(route, method)?;
        match route {
            Route::User => {
                let part = uri.path().rsplit('/').next()?;
                let query = Query::parse(uri.query().unwrap_or_default());
                let user = path::user(part, &query).ok()?;
                let app = self.app.as_ref()?;
                let stored = app.ingest().identity().of(user);
                let mut hash = Digest::of(stored.as_str().as_bytes()).to_string();
                hash.truncate(HASH_DIGITS);
                Some(format!("user {hash}"))
            }
            Route::Refresh => {
                let query = uri.query().unwrap_or_default();
                let mut pairs = form_urlencoded::parse(query.as_bytes());
                let named = pairs.find(|(key, _)| key == "segment");
                Some(match named {
                    // Quoted: it may be no name at all.
                    Some((_, name)) => format!("segment {name:.128?}"),
                    None => "all segments".to_owned(),
                })
            }
            _ => None,
        }
    }

    /// The line of an answered request, if there is one.
    pub(super) fn write(&self, act: &Act<'_>, response: &Response) {
        let status = response.status();
        let code = response.extensions().get::<Code>();
        let code = code.map_or("", |Code(code)| code);
        if is_refusal(status, code) {
            self.refused(act, status, code);
        } else if let Some(action) = action(act.route, act.method) {
            let done = response.extensions().get::<Done>();
            let outcome = match done {
                Some(Done(outcome)) => outcome.as_str(),
                None if code.is_empty() => "done",
                None => code,
            };
            tracing::info!(
                target: "audit",
                action,
                about = act.about.unwrap_or("all"),
                who = act.who.unwrap_or("-"),
                from = %act.from,
                request_id = act.request_id,
                status = status.as_u16(),
                outcome,
                "done at somebody's request"
            );
        }
    }

    fn refused(&self, act: &Act<'_>, status: StatusCode, code: &str) {
        let Some(left_out) = self.refusals.lock().next(act.from, Instant::now()) else {
            return;
        };
        tracing::info!(
            target: "audit",
            action = "refusal",
            route = act.route.template(),
            method = act.method,
            who = act.who.unwrap_or("-"),
            from = %act.from,
            request_id = act.request_id,
            status = status.as_u16(),
            outcome = code,
            left_out,
            "refused"
        );
    }
}

/// What the trail calls a request that it has a line for.
fn action(route: Route, method: &str) -> Option<&'static str> {
    match (route, method) {
        (Route::User, "DELETE") => Some("erase"),
        (Route::Refresh, "POST") => Some("refresh"),
        (Route::Archive, "POST") => Some("archive"),
        _ => None,
    }
}

/// Whether the token was to blame. A full queue is not.
fn is_refusal(status: StatusCode, code: &str) -> bool {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST => true,
        StatusCode::TOO_MANY_REQUESTS => code == "rate_limited",
        _ => false,
    }
}

/// Bounds the lines for refusals: a flood of them must neither fill a disk nor hide those of others.
struct Refusals {
    since: Instant,
    by_address: HashMap<IpAddr, u32>,
    lines: u32,
    /// Refusals without a line since the last one that has one.
    left_out: u64,
}

impl Refusals {
    fn new(since: Instant) -> Self {
        Self {
            since,
            by_address: HashMap::new(),
            lines: 0,
            left_out: 0,
        }
    }

    /// Whether a refusal of `from` gets a line, and how many got none before it.
    fn next(&mut self, from: IpAddr, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since) >= PERIOD {
            *self = Self {
                left_out: self.left_out,
                ..Self::new(now)
            };
        }
        // In this order: an address that gets no line takes no memory.
        if self.lines >= FOR_ALL {
            self.left_out += 1;
            return None;
        }
        let of_address = self.by_address.entry(from).or_default();
        if *of_address >= PER_ADDRESS {
            self.left_out += 1;
            return None;
        }
        *of_address += 1;
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn a_flood_of_refusals_is_cut_and_counted() {
        let began = Instant::now();
        let mut refusals = Refusals::new(began);
        let flood = (0..1_000).filter(|_| refusals.next(address(1), began).is_some());
        assert_eq!(flood.count(), PER_ADDRESS as usize);
        assert_eq!(
            refusals.next(address(2), began),
            Some(990),
            "others are still heard"
        );
        let many: usize = (3..=250)
            .map(|last| {
                (0..5)
                    .filter(|_| refusals.next(address(last), began).is_some())
                    .count()
            })
            .sum();
        assert_eq!(many, (FOR_ALL - PER_ADDRESS - 1) as usize);
        assert!(refusals.by_address.len() <= FOR_ALL as usize);
        let later = began + PERIOD;
        assert!(
            refusals
                .next(address(1), later)
                .is_some_and(|left_out| left_out > 1_000)
        );
        assert_eq!(refusals.next(address(1), later), Some(0));
    }

    #[test]
    fn a_full_queue_is_no_refusal() {
        assert!(is_refusal(StatusCode::TOO_MANY_REQUESTS, "rate_limited"));
        assert!(!is_refusal(StatusCode::TOO_MANY_REQUESTS, "busy"));
        assert!(!is_refusal(StatusCode::NOT_FOUND, "not_found"));
    }
}
