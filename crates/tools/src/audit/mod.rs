//! Audits: compares cached counts with the store, and two stores with each other.
//!
//! Every segment is recounted now, in one or two stores as of one instant, and the cache is read after that. [bounds]
//! defines the allowed differences. A segment outside of the bounds is checked again a few times, because a slot may end
//! between two counts, and pairs may be in flight.

pub mod bounds;

use std::cmp::Ordering;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

pub use bounds::{Evidence, Verdict, judge};

use crate::transfer::{RetryPolicy, with_retries};
use domain::cache::{CacheError, CountCache};
use domain::store::{PairStore, StoreError};
use domain::{Clock, Count, Segment, Slot, TimeFrame, Timestamp, Window};

/// How often a segment is checked before a difference counts as unexplained.
const MAX_ATTEMPTS: u32 = 4;
/// The pause before the second attempt; each further pause is longer by this.
const PAUSE: Duration = Duration::from_millis(250);

/// Audits segments.
#[derive(Debug)]
pub struct Auditor {
    parts: AuditorParts,
}

/// The parts of an [`Auditor`].
#[derive(Debug)]
pub struct AuditorParts {
    /// The window and resolution.
    pub frame: TimeFrame,
    /// The window of the counts.
    pub window: Window,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The store that is recounted.
    pub store: Arc<dyn PairStore>,
    /// How long the store keeps pairs that have left the full window.
    pub keeping: Keeping,
    /// The cache whose counts are judged; `None` to compare only stores.
    pub cache: Option<Arc<dyn CountCache>>,
    /// The second store, with which the first one is compared.
    pub against: Option<Arc<dyn PairStore>>,
    /// How long to retry a store or cache that is unavailable.
    pub retry: RetryPolicy,
}

/// How long a store keeps pairs that no window reaches any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    /// The minimum time before `Headcount::archive` removes them.
    pub at_least: Duration,
    /// If the server removes them by itself: it removes whole groups, whose bounds are multiples of this since the Unix
    /// epoch.
    pub dropped_in_groups_of: Option<Duration>,
}

/// The result of the audit of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The segment.
    pub segment: Segment,
    /// The cached count.
    pub cached: Option<Count>,
    /// The count of the store.
    pub recount: Count,
    /// The verdict on the cached count.
    pub verdict: Verdict,
    /// The count of the second store, as of the same slot.
    pub against: Option<Against>,
}

/// A count of the second store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Against {
    /// The number of users.
    pub users: u64,
    /// Whether the first store had this number at some time during the comparison.
    pub agrees: bool,
}

impl Finding {
    /// Whether all differences are within their bounds.
    pub fn is_explained(&self) -> bool {
        self.verdict.is_explained() && self.against.is_none_or(|against| against.agrees)
    }
}

/// Why a segment could not be audited.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The store failed.
    #[error("the store: {0}")]
    Store(StoreError),
    /// The second store failed.
    #[error("the second store: {0}")]
    Against(StoreError),
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl Auditor {
    /// Creates an auditor.
    pub fn new(parts: AuditorParts) -> Self {
        Self { parts }
    }

    /// The segments of both stores and the cache, sorted by name.
    pub async fn segments(&self) -> Result<Vec<Segment>, AuditError> {
        let now = self.parts.clock.now();
        let store = &self.parts.store;
        let listed = with_retries(&self.parts.retry, async || store.segments(now).await);
        let mut segments = listed.await.map_err(AuditError::Store)?;
        if let Some(against) = &self.parts.against {
            let listed = with_retries(&self.parts.retry, async || against.segments(now).await);
            segments.extend(listed.await.map_err(AuditError::Against)?);
        }
        if let Some(cache) = &self.parts.cache {
            let known = self.query_cache(async || cache.segments().await).await?;
            segments.extend(known.names);
        }
        segments.sort_unstable();
        segments.dedup();
        Ok(segments)
    }

    /// Audits one segment, with further attempts while a difference is unexplained.
    pub async fn audit(&self, segment: &Segment) -> Result<Finding, AuditError> {
        let mut attempt = 1;
        loop {
            let finding = self.examine(segment).await?;
            let is_settled = finding.is_explained() && finding.verdict != Verdict::Newer;
            if is_settled || attempt == MAX_ATTEMPTS {
                return Ok(finding);
            }
            sleep(PAUSE * attempt).await;
            attempt += 1;
        }
    }

    async fn examine(&self, segment: &Segment) -> Result<Finding, AuditError> {
        let (recount, against) = self.recount(segment).await?;
        let mut finding = Finding {
            segment: segment.clone(),
            cached: None,
            recount,
            verdict: Verdict::NotCached,
            against,
        };
        let Some(cache) = &self.parts.cache else {
            return Ok(finding);
        };
        let window = self.parts.window;
        let cached = self.query_cache(async || cache.get(segment, window).await);
        let Some(cached) = cached.await? else {
            return Ok(finding);
        };
        finding.cached = Some(cached);
        let (mut seen, mut left) = (None, None);
        match recount.users.cmp(&cached.users) {
            Ordering::Greater => seen = self.seen(segment, cached.as_of, recount).await?,
            Ordering::Less => left = self.left(segment, cached.as_of, recount.as_of).await?,
            Ordering::Equal => {}
        }
        finding.verdict = judge(&Evidence {
            cached: cached.users,
            cached_slot: self.slot_of(cached.as_of),
            recounted: recount.users,
            recounted_slot: self.slot_of(recount.as_of),
            seen,
            left,
            // Counts of the store are cached, so what it hides is in neither of both counts. Live counts are not cached.
            hidden: 0,
        });
        Ok(finding)
    }

    /// Counts both stores as of one slot. The first store is counted twice: it had every number between the two counts
    /// meanwhile.
    async fn recount(&self, segment: &Segment) -> Result<(Count, Option<Against>), AuditError> {
        let mut as_of = self.parts.clock.now();
        loop {
            let first = self.count(segment, as_of).await?;
            let Some(other) = &self.parts.against else {
                return Ok((first, None));
            };
            let window = self.parts.window;
            let counted = with_retries(&self.parts.retry, async || {
                other.count(segment, window, as_of).await
            });
            let theirs = counted.await.map_err(AuditError::Against)?;
            let again = self.count(segment, as_of).await?;
            let slots = [first, theirs, again].map(|count| self.slot_of(count.as_of));
            if slots.iter().all(|slot| *slot == slots[0]) {
                let lowest = first.users.min(again.users);
                let highest = first.users.max(again.users);
                let agrees = (lowest..=highest).contains(&theirs.users);
                let against = Against {
                    users: theirs.users,
                    agrees,
                };
                return Ok((again, Some(against)));
            }
            // A store that has seen a later instant counts as of that one, so all are counted again as of it.
            let latest = first.as_of.max(theirs.as_of).max(again.as_of);
            self.parts.clock.not_before(latest);
            as_of = self.parts.clock.now().max(latest);
        }
    }

    async fn count(&self, segment: &Segment, as_of: Timestamp) -> Result<Count, AuditError> {
        let (store, window) = (&self.parts.store, self.parts.window);
        let counted = with_retries(&self.parts.retry, async || {
            store.count(segment, window, as_of).await
        });
        counted.await.map_err(AuditError::Store)
    }

    /// The number of users with a pair in the slot of `since` or later. The slots end with the present one, and not with that of
    /// the recount: a store that keeps only the latest slot of a pair may have moved users on.
    async fn seen(
        &self,
        segment: &Segment,
        since: Timestamp,
        recount: Count,
    ) -> Result<Option<u64>, AuditError> {
        let now = self.parts.clock.now().max(recount.as_of);
        let (first, last) = (self.slot_of(since), self.slot_of(now));
        let slots = (last.number() + 1).saturating_sub(first.number());
        match u32::try_from(slots) {
            Ok(0) => Ok(None),
            Ok(slots) if slots <= self.parts.window.slots() => {
                self.count_in(segment, first..=last).await
            }
            // Every slot of the window is new.
            _ => Ok(Some(recount.users)),
        }
    }

    /// The number of users with a pair in the slots that left the window between two instants. `None` unless the store is
    /// certain to still have all these pairs.
    async fn left(
        &self,
        segment: &Segment,
        earlier: Timestamp,
        later: Timestamp,
    ) -> Result<Option<u64>, AuditError> {
        let Some(slots) = self.slots_left(earlier, later) else {
            return Ok(None);
        };
        self.count_in(segment, slots).await
    }

    /// The number of users with a pair in these slots. `None` if the store counts as of another slot instead.
    async fn count_in(
        &self,
        segment: &Segment,
        slots: RangeInclusive<Slot>,
    ) -> Result<Option<u64>, AuditError> {
        let (first, last) = (slots.start().number(), slots.end().number());
        let resolution = self.parts.frame.resolution();
        let length = Duration::from_secs((last - first + 1) * u64::from(resolution.seconds()));
        let Ok(window) = self.parts.frame.window(length) else {
            return Ok(None);
        };
        let (store, as_of) = (&self.parts.store, resolution.start_of(*slots.end()));
        let counted = with_retries(&self.parts.retry, async || {
            store.count(segment, window, as_of).await
        });
        let count = counted.await.map_err(AuditError::Store)?;
        Ok((self.slot_of(count.as_of) == *slots.end()).then_some(count.users))
    }

    /// The slots that left the window, unless the store may have removed pairs from them.
    fn slots_left(&self, earlier: Timestamp, later: Timestamp) -> Option<RangeInclusive<Slot>> {
        let window = self.parts.window;
        let then = *window.slots_as_of(self.slot_of(earlier)).start();
        let now = *window.slots_as_of(self.slot_of(later)).start();
        let last = Slot::new(now.number().checked_sub(1)?);
        if then > last || last.number() - then.number() + 1 >= u64::from(window.slots()) {
            return None;
        }
        let full = self.parts.frame.full_window();
        let is_in_reach = then >= *full.slots_as_of(self.slot_of(later)).start();
        let is_held = is_in_reach || self.holds_still(then..=last, later);
        is_held.then_some(then..=last)
    }

    fn holds_still(&self, slots: RangeInclusive<Slot>, now: Timestamp) -> bool {
        let (frame, keeping) = (&self.parts.frame, self.parts.keeping);
        let since = now.duration_since(frame.leaves_at(*slots.start()));
        if Duration::try_from(since).unwrap_or(Duration::ZERO) >= keeping.at_least {
            return false;
        }
        let Some(group) = keeping.dropped_in_groups_of else {
            return true;
        };
        // A group is dropped once its end has left the window: no end of a group may lie within the slots.
        let group = i64::try_from(group.as_secs().max(1)).unwrap_or(i64::MAX);
        let group_of = |slot: Slot| frame.resolution().start_of(slot).as_second() / group;
        group_of(*slots.start()) == group_of(Slot::new(slots.end().number() + 1))
    }

    fn slot_of(&self, instant: Timestamp) -> Slot {
        self.parts.frame.resolution().slot_of(instant)
    }

    /// Retries a call to the cache, whose own timeout is only tens of milliseconds.
    async fn query_cache<T>(
        &self,
        mut call: impl AsyncFnMut() -> Result<T, CacheError>,
    ) -> Result<T, CacheError> {
        let deadline = tokio::time::Instant::now() + self.parts.retry.retry_for;
        loop {
            match call().await {
                Err(CacheError::Unavailable(_) | CacheError::Timeout)
                    if tokio::time::Instant::now() < deadline =>
                {
                    sleep(PAUSE).await;
                }
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests;
