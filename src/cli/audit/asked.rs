//! An audit through a service: its answer as readers get it, beside the one that it counts for `fresh=true`.
//!
//! It is a weaker audit than one at the store and the cache. Who left the window can't be asked over HTTP, so once a
//! slot has passed nothing bounds a count from below; and asking for a fresh count renews the cached one. It is what
//! there is where store and cache live in the service.

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

/// How often a segment is asked for before a difference counts as unexplained.
const LOOKS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Deserialize)]
struct Answer {
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
    /// The service that `client` speaks to, over a window of `frame`.
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
            Segment::new(name).map_err(|error| self.client.nonsense(&error).into())
        });
        names.collect()
    }

    pub(super) async fn audit(&self, segment: &Segment) -> Result<Finding, Failure> {
        let mut look = 1;
        loop {
            let finding = self.look_at(segment).await?;
            if finding.is_explained() || look == LOOKS {
                return Ok(finding);
            }
            sleep(PAUSE * look).await;
            look += 1;
        }
    }

    async fn look_at(&self, segment: &Segment) -> Result<Finding, Failure> {
        let (given, source) = self.ask(segment, false).await?;
        let (fresh, _) = self.ask(segment, true).await?;
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
        // A number that the service had when it was asked first is as good: it goes on meanwhile.
        let agrees = users == fresh.users || users == given.users;
        Ok(Some(Against { users, agrees }))
    }

    async fn ask(&self, segment: &Segment, fresh: bool) -> Result<(Cached, String), Failure> {
        let window = format!("{}s", self.window.seconds());
        let mut query = vec![("window", window.as_str())];
        if fresh {
            query.push(("fresh", "true"));
        }
        let document = self.client.get_of(segment, "count", &query).await?;
        let answer =
            Answer::deserialize(&document).map_err(|error| self.client.nonsense(&error))?;
        let as_of: Timestamp = answer
            .as_of
            .parse()
            .map_err(|error: jiff::Error| self.client.nonsense(&error))?;
        let cached = Cached {
            count: Count {
                users: answer.users,
                as_of,
            },
            pending: answer.pending,
        };
        Ok((cached, answer.source))
    }
}
