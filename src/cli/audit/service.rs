//! An audit over HTTP: compares the count that a service returns with the one that it returns for `fresh=true`.
//!
//! It is weaker than an audit of the store and the cache. The API does not report which users left the window, so a count
//! has no lower bound once a slot has passed. A request for a fresh count also renews the cached one. It is the only
//! possible audit if the store and the cache are inside the service.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::sleep;

use crate::cli::Failure;
use crate::cli::args::SegmentsArgs;
use crate::cli::client::Client;
use crate::cli::segments;
use domain::cache::Cached;
use domain::store::{PairStore, StoreError};
use domain::{Count, Segment, TimeFrame, Timestamp, Window};
use tools::audit::{Against, Evidence, Finding, Verdict, judge};

/// The number of attempts per segment before a difference counts as unexplained.
const ATTEMPTS: u32 = 4;
/// The pause after the first attempt. It grows linearly.
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Deserialize)]
struct CountResponse {
    users: u64,
    as_of: String,
    source: String,
    pending: Option<u64>,
}

/// A service that is audited.
pub(super) struct Service {
    client: Client,
    frame: TimeFrame,
    window: Window,
    against: Option<Arc<dyn PairStore>>,
}

impl Service {
    /// An audit of the service at `client` over a window of `frame`.
    pub(super) fn new(
        client: Client,
        frame: TimeFrame,
        window: Window,
        against: Option<Arc<dyn PairStore>>,
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
            let finding = self.attempt(segment).await?;
            if finding.is_explained() || attempt == ATTEMPTS {
                return Ok(finding);
            }
            sleep(PAUSE * attempt).await;
            attempt += 1;
        }
    }

    async fn attempt(&self, segment: &Segment) -> Result<Finding, Failure> {
        let (given, source) = self.count(segment, false).await?;
        let (fresh, _) = self.count(segment, true).await?;
        let mut finding = Finding {
            segment: segment.clone(),
            cached: None,
            recount: fresh.count,
            verdict: Verdict::Live,
            against: None,
        };
        if source != "store" {
            finding.cached = Some(given);
            finding.verdict = self.judge(&given, &fresh.count);
        }
        finding.against = self.compare(segment, given.count, fresh.count).await?;
        Ok(finding)
    }

    fn judge(&self, given: &Cached, fresh: &Count) -> Verdict {
        let slot = |instant| self.frame.resolution().slot_of(instant);
        judge(&Evidence {
            cached: given.count.users,
            cached_slot: slot(given.count.as_of),
            pending: given.pending,
            recounted: fresh.users,
            recounted_slot: slot(fresh.as_of),
            left: None,
        })
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
        let failed = |error: StoreError| Failure::failed(error.to_string());
        let counted = other.count(segment, self.window, fresh.as_of).await;
        let users = counted.map_err(failed)?.users;
        // Either response may match, since the service keeps recording pairs between the two requests.
        let agrees = users == fresh.users || users == given.users;
        Ok(Some(Against { users, agrees }))
    }

    async fn count(&self, segment: &Segment, fresh: bool) -> Result<(Cached, String), Failure> {
        let window = format!("{}s", self.window.seconds());
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
        let cached = Cached {
            count: Count {
                users: response.users,
                as_of,
            },
            pending: response.pending,
        };
        Ok((cached, response.source))
    }
}
