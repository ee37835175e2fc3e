//! Whether cached counts are what the store holds, and whether two stores hold the same.
//!
//! Every segment is recounted now, in one or two stores as of one instant, and the cache is read after that. What may
//! differ is told by [bounds]; what breaks a bound is looked at again a few times, since pairs may be on their way
//! between the store and the cache just then.

pub mod bounds;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

pub use bounds::{Evidence, Verdict, judge};

use crate::transfer::{Patience, patiently};
use domain::cache::{CacheError, Cached, CountCache};
use domain::store::{PairStore, StoreError};
use domain::{Clock, Count, Segment, Slot, TimeFrame, Timestamp, Window};

/// How often a segment is looked at before a difference counts as unexplained.
const LOOKS: u32 = 4;
/// The pause before the second look; each further one is longer by as much.
const PAUSE: Duration = Duration::from_millis(250);

/// Looks at segments.
#[derive(Debug)]
pub struct Auditor {
    parts: AuditorParts,
}

/// What an auditor is made of.
#[derive(Debug)]
pub struct AuditorParts {
    /// The window and resolution.
    pub frame: TimeFrame,
    /// The window that is counted.
    pub window: Window,
    /// Where "now" comes from.
    pub clock: Arc<dyn Clock>,
    /// What is recounted.
    pub store: Arc<dyn PairStore>,
    /// Until when the store still holds pairs that have left the full window.
    pub keeping: Keeping,
    /// Whose counts are judged; `None` to compare stores only.
    pub cache: Option<Arc<dyn CountCache>>,
    /// What the store is compared with.
    pub against: Option<Arc<dyn PairStore>>,
    /// How long a store or cache that can't answer is asked again.
    pub patience: Patience,
}

/// How long a store holds pairs that no window reaches any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    /// For so long at least: [`archive`](engine::Headcount::archive) leaves them in peace.
    pub at_least: Duration,
    /// A server that drops them by itself drops whole groups, which begin and end at multiples of this since the epoch.
    pub dropped_in_groups_of: Option<Duration>,
}

/// What was found about a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The segment.
    pub segment: Segment,
    /// What the cache has.
    pub cached: Option<Cached>,
    /// What the store counts.
    pub recount: Count,
    /// What the cached count is worth.
    pub verdict: Verdict,
    /// What the other store counts, as of the same slot.
    pub against: Option<Against>,
}

/// A count of the second store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Against {
    /// Users.
    pub users: u64,
    /// Whether it is a number that the first store had while both were asked.
    pub agrees: bool,
}

impl Finding {
    /// Whether something allows all that was found.
    pub fn is_explained(&self) -> bool {
        self.verdict.is_explained() && self.against.is_none_or(|against| against.agrees)
    }
}

/// Why a segment could not be looked at.
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
    /// An auditor from its parts.
    pub fn new(parts: AuditorParts) -> Self {
        Self { parts }
    }

    /// All segments that any side knows, sorted by name.
    pub async fn segments(&self) -> Result<Vec<Segment>, AuditError> {
        let now = self.parts.clock.now();
        let store = &self.parts.store;
        let listed = patiently(&self.parts.patience, async || store.segments(now).await);
        let mut segments = listed.await.map_err(AuditError::Store)?;
        if let Some(against) = &self.parts.against {
            let listed = patiently(&self.parts.patience, async || against.segments(now).await);
            segments.extend(listed.await.map_err(AuditError::Against)?);
        }
        if let Some(cache) = &self.parts.cache {
            let known = self.ask_cache(async || cache.segments().await).await?;
            segments.extend(known.names);
        }
        segments.sort_unstable();
        segments.dedup();
        Ok(segments)
    }

    /// Looks at one segment, again and again while what it sees is not explained.
    pub async fn audit(&self, segment: &Segment) -> Result<Finding, AuditError> {
        let mut look = 1;
        loop {
            let finding = self.look_at(segment).await?;
            let is_settled = finding.is_explained() && finding.verdict != Verdict::Newer;
            if is_settled || look == LOOKS {
                return Ok(finding);
            }
            sleep(PAUSE * look).await;
            look += 1;
        }
    }

    async fn look_at(&self, segment: &Segment) -> Result<Finding, AuditError> {
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
        // Only now: what was pending before the recount may be in it.
        let window = self.parts.window;
        let cached = self.ask_cache(async || cache.get(segment, window).await);
        let Some(cached) = cached.await? else {
            return Ok(finding);
        };
        finding.cached = Some(cached);
        finding.verdict = judge(&Evidence {
            cached: cached.count.users,
            cached_slot: self.slot_of(cached.count.as_of),
            pending: cached.pending,
            recounted: recount.users,
            recounted_slot: self.slot_of(recount.as_of),
            left: self
                .left(segment, cached.count.as_of, recount.as_of)
                .await?,
        });
        Ok(finding)
    }

    /// Counts in both stores as of one slot. The first one is asked twice: a number between its two answers is one
    /// that it had meanwhile.
    async fn recount(&self, segment: &Segment) -> Result<(Count, Option<Against>), AuditError> {
        let mut as_of = self.parts.clock.now();
        loop {
            let first = self.count(segment, as_of).await?;
            let Some(other) = &self.parts.against else {
                return Ok((first, None));
            };
            let window = self.parts.window;
            let counted = patiently(&self.parts.patience, async || {
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
            // A store that has seen a later instant answers for that one: all do then.
            let latest = first.as_of.max(theirs.as_of).max(again.as_of);
            self.parts.clock.not_before(latest);
            as_of = self.parts.clock.now().max(latest);
        }
    }

    async fn count(&self, segment: &Segment, as_of: Timestamp) -> Result<Count, AuditError> {
        let (store, window) = (&self.parts.store, self.parts.window);
        let counted = patiently(&self.parts.patience, async || {
            store.count(segment, window, as_of).await
        });
        counted.await.map_err(AuditError::Store)
    }

    /// Users with a pair in the slots that left the window between two instants, if the store surely holds them all.
    async fn left(
        &self,
        segment: &Segment,
        earlier: Timestamp,
        later: Timestamp,
    ) -> Result<Option<u64>, AuditError> {
        let Some(slots) = self.slots_left(earlier, later) else {
            return Ok(None);
        };
        let (first, last) = (slots.start().number(), slots.end().number());
        let resolution = self.parts.frame.resolution();
        let length = Duration::from_secs((last - first + 1) * u64::from(resolution.seconds()));
        let Ok(window) = self.parts.frame.window(length) else {
            return Ok(None);
        };
        let (store, as_of) = (&self.parts.store, resolution.start_of(*slots.end()));
        let counted = patiently(&self.parts.patience, async || {
            store.count(segment, window, as_of).await
        });
        let count = counted.await.map_err(AuditError::Store)?;
        // A store that no longer answers for that instant answers for another.
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
        // A group is dropped once its end has left the window: no end may lie where the slots do.
        let group = i64::try_from(group.as_secs().max(1)).unwrap_or(i64::MAX);
        let group_of = |slot: Slot| frame.resolution().start_of(slot).as_second() / group;
        group_of(*slots.start()) == group_of(Slot::new(slots.end().number() + 1))
    }

    fn slot_of(&self, instant: Timestamp) -> Slot {
        self.parts.frame.resolution().slot_of(instant)
    }

    /// The cache gives up within tens of milliseconds; here there is time.
    async fn ask_cache<T>(
        &self,
        mut ask: impl AsyncFnMut() -> Result<T, CacheError>,
    ) -> Result<T, CacheError> {
        let give_up_at = tokio::time::Instant::now() + self.parts.patience.retry_for;
        loop {
            match ask().await {
                Err(CacheError::Unavailable(_) | CacheError::Timeout)
                    if tokio::time::Instant::now() < give_up_at =>
                {
                    sleep(PAUSE).await;
                }
                answer => return answer,
            }
        }
    }
}

#[cfg(test)]
mod tests;
