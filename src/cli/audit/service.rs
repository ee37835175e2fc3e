//! An audit over HTTP: compares the count that a service returns with the one that it returns for `fresh=true`.
//!
//! It is weaker than an audit of the store and the cache. The API does not report which users left the window, so a count
//! has no lower bound once a slot has passed. A request for a fresh count also renews the cached one. It is the only
//! possible audit if the store and the cache are inside the service.
//!
//! A live count is fresh itself. It is compared with the store of `--against`, which counts between two live counts of one
//! slot: pairs that are recorded meanwhile lie between these, so the store's count is at least the first one, less the users
//! that the store hides, and at most the second one.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::sleep;

use crate::cli::Failure;
use crate::cli::args::SegmentsArgs;
use crate::cli::client::Client;
use crate::cli::output::sanitized;
use crate::cli::segments;
use domain::store::PairStore;
use domain::{Count, Segment, Slot, TimeFrame, Timestamp, Window};
use tools::audit::{Against, Evidence, Finding, Verdict, judge};

/// The number of attempts per segment before a difference counts as unexplained.
const ATTEMPTS: u32 = 4;
/// The pause after the first attempt. It grows linearly.
const PAUSE: Duration = Duration::from_millis(250);
/// A pair is in the live count at the latest this long after it is in the store, or its request was not answered yet.
const IN_FLIGHT: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct CountResponse {
    /// Missing if the service withholds it.
    users: Option<u64>,
    as_of: String,
    source: String,
}

/// A service that is audited.
pub(super) struct Service {
    client: Client,
    frame: TimeFrame,
    window: Window,
    against: Option<Other>,
}

/// The store of `--against`.
pub(super) struct Other {
    pub(super) store: Arc<dyn PairStore>,
    /// Whether users of one segment, slot and offset are one point of it.
    pub(super) hides_users: bool,
}

impl Service {
    /// An audit of the service at `client` over a window of `frame`.
    pub(super) fn new(
        client: Client,
        frame: TimeFrame,
        window: Window,
        against: Option<Other>,
    ) -> Self {
        Self {
            client,
            frame,
            window,
            against,
        }
    }

    pub(super) async fn segments(&self) -> Result<Vec<Segment>, Failure> {
        let all = SegmentsArgs::everything();
        let listed = segments::all(&self.client, &all).await?;
        let names = listed.iter().map(|row| {
            let name = row["segment"].as_str().unwrap_or_default();
            Segment::new(name).map_err(|error| self.client.unexpected(&error).into())
        });
        names.collect()
    }

    pub(super) async fn audit(&self, segment: &Segment) -> Result<Finding, Failure> {
        let mut attempt = 1;
        loop {
            let finding = self.attempt(segment, attempt > 1).await?;
            if finding.is_explained() || attempt == ATTEMPTS {
                return Ok(finding);
            }
            sleep(PAUSE * attempt).await;
            attempt += 1;
        }
    }

    async fn attempt(&self, segment: &Segment, is_repeated: bool) -> Result<Finding, Failure> {
        let (given, source) = self.count(segment, self.window, false).await?;
        if source == "live" {
            return self.compare_live(segment, is_repeated).await;
        }
        let (fresh, _) = self.count(segment, self.window, true).await?;
        let mut finding = Finding {
            segment: segment.clone(),
            cached: None,
            recount: fresh,
            verdict: Verdict::Live,
            against: None,
        };
        if source != "store" {
            finding.cached = Some(given);
            finding.verdict = judge(&Evidence {
                cached: given.users,
                cached_slot: self.slot(given),
                recounted: fresh.users,
                recounted_slot: self.slot(fresh),
                seen: self.seen(segment, given, fresh).await?,
                left: None,
                hidden: 0,
            });
        }
        finding.against = self.compare(segment, given, fresh).await?;
        Ok(finding)
    }

    /// The number of users with a pair in the slots from that of `given` to that of `fresh`. `None` when unknown.
    async fn seen(
        &self,
        segment: &Segment,
        given: Count,
        fresh: Count,
    ) -> Result<Option<u64>, Failure> {
        let slots = (self.slot(fresh).number() + 1).checked_sub(self.slot(given).number());
        let Some(slots @ 1..) = slots.filter(|_| fresh.users > given.users) else {
            return Ok(None);
        };
        if slots >= u64::from(self.window.slots()) {
            // Every slot of the window is new.
            return Ok(Some(fresh.users));
        }
        let length = Duration::from_secs(slots * u64::from(self.frame.resolution().seconds()));
        let Ok(window) = self.frame.window(length) else {
            return Ok(None);
        };
        let (seen, _) = self.count(segment, window, true).await?;
        Ok((self.slot(seen) == self.slot(fresh)).then_some(seen.users))
    }

    /// Compares live counts with the other store, if there is one. The first attempt does not wait for pairs in flight.
    async fn compare_live(
        &self,
        segment: &Segment,
        waits_for_pairs: bool,
    ) -> Result<Finding, Failure> {
        let (before, _) = self.count(segment, self.window, true).await?;
        let mut finding = Finding {
            segment: segment.clone(),
            cached: None,
            recount: before,
            verdict: Verdict::Live,
            against: None,
        };
        let Some(other) = &self.against else {
            return Ok(finding);
        };
        let counted = other.store.count(segment, self.window, before.as_of).await;
        let counted = counted.map_err(|error| Failure::failed(error.to_string()))?;
        if waits_for_pairs {
            sleep(IN_FLIGHT).await;
        }
        let (after, _) = self.count(segment, self.window, true).await?;
        let slots = [before, counted, after].map(|count| self.slot(count));
        let hidden = match other.hides_users {
            true => domain::hidden_at_most([before.users], self.frame.resolution()),
            false => 0,
        };
        let verdict = judge(&Evidence {
            cached: before.users,
            cached_slot: slots[0],
            recounted: counted.users,
            recounted_slot: slots[1],
            seen: Some(after.users.saturating_sub(before.users)),
            left: None,
            hidden,
        });
        finding.recount = after;
        finding.against = Some(Against {
            users: counted.users,
            agrees: slots.iter().all(|slot| *slot == slots[0]) && verdict.is_explained(),
        });
        Ok(finding)
    }

    fn slot(&self, count: Count) -> Slot {
        self.frame.resolution().slot_of(count.as_of)
    }

    async fn compare(
        &self,
        segment: &Segment,
        given: Count,
        fresh: Count,
    ) -> Result<Option<Against>, Failure> {
        let Some(other) = &self.against else {
            return Ok(None);
        };
        let counted = other.store.count(segment, self.window, fresh.as_of).await;
        let counted = counted.map_err(|error| Failure::failed(error.to_string()))?;
        let users = counted.users;
        // Either response may match, since the service keeps recording pairs between the two requests.
        let agrees = users == fresh.users || users == given.users;
        Ok(Some(Against { users, agrees }))
    }

    async fn count(
        &self,
        segment: &Segment,
        window: Window,
        fresh: bool,
    ) -> Result<(Count, String), Failure> {
        let window = format!("{}s", window.seconds());
        let mut query = vec![("window", window.as_str())];
        if fresh {
            query.push(("fresh", "true"));
        }
        let document = self.client.get_of(segment, "count", &query).await?;
        let response = CountResponse::deserialize(&document)
            .map_err(|error| self.client.unexpected(&error))?;
        let as_of: Timestamp = response
            .as_of
            .parse()
            .map_err(|error: jiff::Error| self.client.unexpected(&error))?;
        let users = response.users.ok_or_else(|| {
            let name = sanitized(segment.as_str());
            Failure::failed(format!(
                "the service withholds the count of `{name}` (setting min_users): audit the store without `--url`"
            ))
        })?;
        let count = Count { users, as_of };
        Ok((count, response.source))
    }
}
