//! The audit trail: one log line, with level info and target `audit`, for each request that erases, refreshes, archives, changes settings or
//! states since when counts are complete, and for each request that is refused because of its token or origin. A line has the caller, the action, the address and
//! the outcome. It never has a token, and of a user only a hash.

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
use super::resource::{Audited, Resource};
use crate::auth::Digest;
use engine::Headcount;

/// The period of the limits on lines for refusals.
const PERIOD: Duration = Duration::from_secs(60);
/// Lines per period for refusals of one address.
const PER_ADDRESS: u32 = 10;
/// Lines per period for refusals of all addresses: at most 36 MB a day with 250 bytes a line. Metrics count all refusals.
const FOR_ALL: u32 = 100;
/// Hexadecimal digits of a user's hash: 64 bits tell users apart, and a short string is easier to read.
const HASH_DIGITS: usize = 16;

/// The outcome that a handler reports for the audit trail: an extension of the response, never sent to the client.
#[derive(Debug, Clone)]
pub(super) struct AuditOutcome(pub(super) String);

impl AuditOutcome {
    /// Adds the outcome to `response`.
    pub(super) fn on(mut response: Response, outcome: String) -> Response {
        response.extensions_mut().insert(Self(outcome));
        response
    }
}

/// Writes the audit trail. Cloning is cheap.
#[derive(Clone)]
pub(super) struct AuditTrail {
    /// For the ids that users have in the store. `None` in a process whose routes name no user.
    app: Option<Arc<Headcount>>,
    refusals: Arc<Mutex<Refusals>>,
}

/// A request as the audit trail records it.
pub(super) struct AuditEvent<'a> {
    pub(super) route: &'static Resource,
    pub(super) method: &'static str,
    /// The name of the token or the subject of the JWT, if it was valid.
    pub(super) who: Option<&'a str>,
    pub(super) from: IpAddr,
    pub(super) request_id: &'a str,
    /// The user or segment that the request is about.
    pub(super) about: Option<&'a str>,
}

impl AuditTrail {
    pub(super) fn new(app: Option<Arc<Headcount>>) -> Self {
        Self {
            app,
            refusals: Arc::new(Mutex::new(Refusals::new(Instant::now()))),
        }
    }

    /// The user or segment that a request is about, if the request is recorded.
    pub(super) fn about(&self, route: &Resource, method: &str, uri: &Uri) -> Option<String> {
        match action(route, method)? {
            Audited::Erase => {
                let hash = self.user_hash(uri)?;
                Some(format!("user {hash}"))
            }
            Audited::Refresh => {
                let query = uri.query().unwrap_or_default();
                let mut pairs = form_urlencoded::parse(query.as_bytes());
                let named = pairs.find(|(key, _)| key == "segment");
                Some(match named {
                    // Quoted, because it may be an invalid name.
                    Some((_, name)) => format!("segment {name:.128?}"),
                    None => "all segments".to_owned(),
                })
            }
            Audited::SetSegment | Audited::DeleteSegment => {
                let segment = segment_of(uri)?;
                Some(format!("segment {segment}"))
            }
            Audited::EraseFromSegment => {
                let (segment, hash) = (segment_of(uri)?, self.user_hash(uri)?);
                Some(format!("segment {segment} user {hash}"))
            }
            Audited::Archive | Audited::Coverage => None,
        }
    }

    /// A hash of the user in the last part of a path.
    fn user_hash(&self, uri: &Uri) -> Option<String> {
        let part = uri.path().rsplit('/').next()?;
        let query = Query::parse(uri.query().unwrap_or_default());
        let user = path::user(part, &query).ok()?;
        let app = self.app.as_ref()?;
        let stored = app.ingest().identity().of(user);
        let mut hash = Digest::of(stored.as_str().as_bytes()).to_string();
        hash.truncate(HASH_DIGITS);
        Some(hash)
    }

    /// Writes the line of a request with its response, if the request is recorded.
    pub(super) fn write(&self, event: &AuditEvent<'_>, response: &Response) {
        let status = response.status();
        let code = response.extensions().get::<Code>();
        let code = code.map_or("", |Code(code)| code);
        if is_refusal(status, code) {
            self.refused(event, status, code);
        } else if let Some(action) = action(event.route, event.method) {
            let done = response.extensions().get::<AuditOutcome>();
            let outcome = match done {
                Some(AuditOutcome(outcome)) => outcome.as_str(),
                None if code.is_empty() => "done",
                None => code,
            };
            tracing::info!(
                target: "audit",
                action = action.as_str(),
                about = event.about.unwrap_or("all"),
                who = event.who.unwrap_or("-"),
                from = %event.from,
                request_id = event.request_id,
                status = status.as_u16(),
                outcome,
                "done on request"
            );
        }
    }

    fn refused(&self, event: &AuditEvent<'_>, status: StatusCode, code: &str) {
        let Some(left_out) = self.refusals.lock().next(event.from, Instant::now()) else {
            return;
        };
        tracing::info!(
            target: "audit",
            action = "refusal",
            route = event.route.template,
            method = event.method,
            who = event.who.unwrap_or("-"),
            from = %event.from,
            request_id = event.request_id,
            status = status.as_u16(),
            outcome = code,
            left_out,
            "refused"
        );
    }
}

/// The segment in the path of a request, quoted.
fn segment_of(uri: &Uri) -> Option<String> {
    let part = uri.path().split('/').nth(3)?;
    let query = Query::parse(uri.query().unwrap_or_default());
    let segment = path::segment(part, &query).ok()?;
    Some(format!("{:?}", segment.as_str()))
}

/// The `action` of a request that is recorded.
fn action(route: &Resource, method: &str) -> Option<Audited> {
    route.operation(method)?.audited
}

/// Whether the request was refused because of its token or origin. A full queue is no refusal.
fn is_refusal(status: StatusCode, code: &str) -> bool {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST => true,
        StatusCode::TOO_MANY_REQUESTS => code == "rate_limited",
        _ => false,
    }
}

/// Limits the lines for refusals: a flood must neither fill a disk nor hide the refusals of other clients.
struct Refusals {
    since: Instant,
    by_address: HashMap<IpAddr, u32>,
    lines: u32,
    /// Refusals without a line since the last line.
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

    /// Whether a refusal of `from` gets a line: if so, the number of refusals without a line before it.
    fn next(&mut self, from: IpAddr, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since) >= PERIOD {
            *self = Self {
                left_out: self.left_out,
                ..Self::new(now)
            };
        }
        // The total is checked first, so that an address without a line takes no memory.
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
            "other addresses still get lines"
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
