//! Compares the replica with the store's own counts, one segment after the other, and reads a segment again if they differ.
//!
//! The store counts between two counts of the replica in the same slot. Pairs that are recorded meanwhile lie between them, so
//! the store's count is at least the first and at most the second, less what the store hides and an erasure removes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{StreamExt, future, stream};
use tokio::time::{sleep, timeout};

use super::hydration::Hydration;
use super::{Replica, Sources};
use domain::feed::{Append, WriterId};
use domain::store::StoreError;
use domain::{Segment, Slot, Timestamp};

/// How often each segment is compared.
const ROUND: Duration = Duration::from_hours(24);
/// The shortest pause between two segments.
const MIN_PAUSE: Duration = Duration::from_secs(10);
/// The pause before the first segment, and after one that could not be compared.
const PAUSE: Duration = Duration::from_mins(1);
/// A pair is in the feed at the latest this long after it is in the store, or its request was not answered yet.
const IN_FLIGHT: Duration = Duration::from_secs(1);
/// How long the second count of the replica may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Comparisons of a segment before a difference is believed: an erasure may come between, and a slot may end.
const ATTEMPTS: u32 = 3;
/// Segments that are compared at a time on request. Each waits for a second between two counts of the replica.
const CONCURRENT: usize = 8;

/// The result of a comparison of all segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuditReport {
    /// Segments that were compared.
    pub compared: u64,
    /// Segments that could not be compared.
    pub failed: u64,
    /// Segments that differed by more than the store explains, and were read again.
    pub differences: u64,
}

/// The result of a comparison of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audited {
    /// It has the users of the store, as far as the store tells.
    Equal,
    /// It differed, and was read again.
    Healed,
    /// It could not be compared.
    Unknown,
}

/// The difference of a segment that the store does not explain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Difference {
    /// The replica has this many users less than the store.
    Lacks(u64),
    /// The replica has this many users more than the store.
    Exceeds(u64),
}

/// Compares until it is dropped.
pub(super) async fn keep_auditing(replica: Arc<Replica>, sources: Sources) {
    let hydration = Hydration {
        replica: &replica,
        sources: &sources,
    };
    future::join(hydration.audit_in_rounds(), hydration.audit_suspected()).await;
}

impl Replica {
    /// Compares all segments now, or one, and reads those that differ again. `None` if the replica can't tell now.
    pub async fn audit_now(
        &self,
        sources: &Sources,
        only: Option<&Segment>,
    ) -> Option<AuditReport> {
        let hydration = &Hydration {
            replica: self,
            sources,
        };
        let full = self.frame.full_window();
        let segments = match only {
            Some(only) => vec![only.clone()],
            None => self.list(full)?.into_iter().map(|(s, _)| s).collect(),
        };
        let mut report = AuditReport::default();
        let mut audits = stream::iter(segments)
            .map(|segment| async move { hydration.audit_and_tell(&segment).await })
            .buffer_unordered(CONCURRENT);
        while let Some(audited) = audits.next().await {
            match audited {
                Ok(Audited::Equal) => report.compared += 1,
                Ok(Audited::Healed) => {
                    report.compared += 1;
                    report.differences += 1;
                }
                Ok(Audited::Unknown) => report.failed += 1,
                Err(error) => {
                    tracing::warn!(%error, "a segment can't be compared with the store now");
                    report.failed += 1;
                }
            }
        }
        Some(report)
    }
}

impl Hydration<'_> {
    async fn audit_in_rounds(&self) {
        loop {
            sleep(PAUSE).await;
            let Some(list) = self.replica.list(self.replica.frame.full_window()) else {
                continue;
            };
            let segments = u32::try_from(list.len().max(1)).unwrap_or(u32::MAX);
            let pause = (ROUND / segments).max(MIN_PAUSE);
            for (segment, _) in list {
                if let Err(error) = self.audit_and_tell(&segment).await {
                    tracing::debug!(%error, "a segment can't be compared with the store now");
                    sleep(PAUSE).await;
                }
                sleep(pause).await;
            }
        }
    }

    /// Compares what another replica found to differ. What can't be compared is tried again after everything else.
    async fn audit_suspected(&self) {
        loop {
            self.replica.audit_requested.notified().await;
            let suspected = std::mem::take(&mut *self.replica.suspected.lock());
            let mut again = Vec::new();
            for segment in suspected {
                if let Ok(Audited::Unknown) | Err(_) = self.audit(&segment).await {
                    again.push(segment);
                }
            }
            if !again.is_empty() {
                self.replica.request_audit(&again);
                sleep(MIN_PAUSE).await;
            }
        }
    }

    /// Compares a segment. If it differs, other replicas probably lack the same, so they are told to compare it, too.
    async fn audit_and_tell(&self, segment: &Segment) -> Result<Audited, StoreError> {
        let audited = self.audit(segment).await?;
        if audited == Audited::Healed {
            let mut record = Vec::new();
            state::join(&mut record, &state::differing(segment));
            let append = Append {
                writer: WriterId::random(),
                sequence: 1,
                skips: false,
                record,
            };
            if let Err(error) = self.sources.feed.append(None, &append).await {
                tracing::warn!(%error, "other replicas can't be told that a segment differs; their own audits find it");
            }
        }
        Ok(audited)
    }

    /// Compares a segment, and reads it again if it differs.
    pub(super) async fn audit(&self, segment: &Segment) -> Result<Audited, StoreError> {
        let mut found = None;
        for _ in 0..ATTEMPTS {
            found = match self.compare(segment).await? {
                // The replica is behind, or a slot ended meanwhile.
                None => continue,
                Some(None) => {
                    self.replica.progress.audits.fetch_add(1, Ordering::Relaxed);
                    return Ok(Audited::Equal);
                }
                Some(found) => found,
            };
        }
        let Some(found) = found else {
            return Ok(Audited::Unknown);
        };
        let progress = &self.replica.progress;
        progress.audits.fetch_add(1, Ordering::Relaxed);
        progress.differences.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            segment = segment.as_str(),
            ?found,
            "a live count differs from the store; the segment is read again"
        );
        if matches!(found, Difference::Exceeds(_)) {
            // Reading only adds users. Until the segment is read, its counts come from the store.
            self.log(state::reset(segment)).await?;
        }
        self.cover(segment).await?;
        Ok(Audited::Healed)
    }

    /// The difference of a segment, if there is one; `None` if it can't be told now.
    async fn compare(&self, segment: &Segment) -> Result<Option<Option<Difference>>, StoreError> {
        let (replica, store) = (self.replica, &self.sources.store);
        let full = replica.frame.full_window();
        let Some(before) = replica.count(segment, full) else {
            return Ok(None);
        };
        let counted = store.count(segment, full, before.as_of).await?;
        sleep(IN_FLIGHT).await;
        let Ok(now) = self.sources.feed_now().await else {
            return Ok(None);
        };
        if timeout(TIMEOUT, replica.wait_for(now)).await.is_err() {
            return Ok(None);
        }
        let Some(after) = replica.count(segment, full) else {
            return Ok(None);
        };
        let slots =
            [before.as_of, counted.as_of, after.as_of].map(|at: Timestamp| replica.slot(at));
        if slots[0] != slots[1] || slots[0] != slots[2] {
            return Ok(None);
        }
        let lacking = counted.users.saturating_sub(after.users);
        if lacking > merged_at_most(counted.users) {
            return Ok(Some(Some(Difference::Lacks(lacking))));
        }
        let missing = before.users.saturating_sub(counted.users);
        let furthest = Slot::new(replica.furthest.load(Ordering::Relaxed));
        let is_explained =
            missing == 0 || slots[0] <= furthest || missing <= replica.hidden_at_most(segment);
        Ok(Some(
            (!is_explained).then_some(Difference::Exceeds(missing)),
        ))
    }
}

impl Replica {
    /// How many users of a segment a store may hide, by the slots of the index.
    fn hidden_at_most(&self, segment: &Segment) -> u64 {
        let full = self.frame.full_window();
        let head = self.state().index.head();
        let mut newer = 0;
        let in_slot = (1..=full.slots()).map(|slots| {
            let (users, _) = self.state().index.count(segment.as_str(), slots, head);
            let in_slot = users.saturating_sub(newer);
            newer = users;
            in_slot
        });
        domain::hidden_at_most(in_slot, self.frame.resolution())
    }
}

/// How many users the index may count as one with another, because they share a fingerprint of 48 bits. Of `n` users
/// `n^2 / 2^49` are expected to; the result is five standard deviations above that: 0 up to 4.5 million users.
fn merged_at_most(users: u64) -> u64 {
    let expected = users as f64 * users as f64 / 2_f64.powi(49);
    (expected + 5.0 * expected.sqrt()) as u64
}

#[cfg(test)]
mod tests {
    use super::merged_at_most;

    #[test]
    fn only_many_users_share_a_fingerprint() {
        for (users, merged) in [(0, 0), (4_500_000, 0), (5_000_000, 1), (100_000_000, 38)] {
            assert_eq!(merged_at_most(users), merged, "{users}");
        }
    }
}
