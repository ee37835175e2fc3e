//! The embedded store: pairs in the memory of this process, durable on the disk of this machine. See [`state`].
//!
//! The directory also holds `user_key` (the digest of that setting) and `lock`.

mod merges;
mod open;
mod options;
mod user_key;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;

pub use self::options::EmbeddedOptions;
use domain::overlap::{Overlap, TopOverlaps, TopQuestion};
use domain::store::{Archived, PairStore, Remains, StoreError, check_property};
use domain::{
    Batch, Count, Erasure, Expression, FingerprintKey, Floor, Flow, Membership, Segment, SetCount,
    Slot, TimeFrame, Timestamp, TrendPoint, UserId, Window,
};
use index::Fingerprint;
use state::{DurableState, State};
use wal::{Log, LogStats};

/// The embedded store. See the [module](self).
#[derive(Debug)]
pub struct EmbeddedStore {
    frame: TimeFrame,
    durable: DurableState,
    closed: AtomicBool,
}

/// Statistics of the store, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddedStats {
    /// Segments held, those with only expired pairs included.
    pub segments: u64,
    /// Pairs held, expired ones included.
    pub pairs: u64,
    /// The estimated memory of the index, in bytes.
    pub index_bytes: u64,
    /// The files of the write-ahead log.
    pub log: LogStats,
    /// The age of the newest snapshot; `None` before the first.
    pub snapshot_age: Option<Duration>,
    /// Snapshots that failed since the store was opened.
    pub snapshot_failures: u64,
}

impl EmbeddedStore {
    /// The slot as of which counts are at least: of the newest pair, or the time of the latest change or snapshot if that is
    /// later. Later counts move it.
    pub fn head(&self) -> Slot {
        self.state().index.head()
    }

    /// Returns the current statistics.
    pub fn stats(&self) -> EmbeddedStats {
        let index = self.state().index.stats();
        EmbeddedStats {
            segments: index.segments,
            pairs: index.pairs,
            index_bytes: index.bytes,
            log: self.log().stats(),
            snapshot_age: self.durable.snapshotter().age(),
            snapshot_failures: self.durable.snapshotter().failures(),
        }
    }

    /// Takes a snapshot now and removes the log files that it covers. Writes continue meanwhile.
    pub async fn snapshot(&self) -> Result<(), StoreError> {
        self.check_open()?;
        let taken = tokio::task::spawn_blocking(self.durable.snapshotter().take()).await;
        Ok(taken.map_err(|error| StoreError::Unavailable(error.to_string()))??)
    }

    fn state(&self) -> &State {
        self.durable.state()
    }

    fn log(&self) -> &Log {
        self.durable.log()
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) {
            Err(StoreError::Closed)
        } else {
            Ok(())
        }
    }

    fn slot(&self, instant: Timestamp) -> Slot {
        self.frame.resolution().slot_of(instant)
    }
}

#[async_trait]
impl PairStore for EmbeddedStore {
    async fn record(&self, batch: &Batch) -> Result<(), StoreError> {
        self.check_open()?;
        for record in state::records(batch, self.durable.key()) {
            self.durable.append(record).await?;
        }
        Ok(())
    }

    fn advance(&self, now: Timestamp) {
        self.state().index.advance(self.slot(now));
    }

    async fn count(
        &self,
        segment: &Segment,
        window: Window,
        as_of: Timestamp,
    ) -> Result<Count, StoreError> {
        self.check_open()?;
        self.count_now(segment, window, as_of)
            .ok_or(StoreError::Closed)
    }

    fn is_live(&self) -> bool {
        true
    }

    fn count_now(&self, segment: &Segment, window: Window, as_of: Timestamp) -> Option<Count> {
        self.check_open().ok()?;
        let asked = self.slot(as_of);
        let (users, effective) = self
            .state()
            .index
            .count(segment.as_str(), window.slots(), asked);
        let as_of = self.frame.resolution().counted_as_of(as_of, effective);
        Some(Count { users, as_of })
    }

    async fn count_set(
        &self,
        expression: &Expression,
        window: Window,
        floor: Floor,
        as_of: Timestamp,
    ) -> Result<SetCount, StoreError> {
        self.check_open()?;
        let questions = self.durable.questions();
        questions.count_set(expression, window, floor, as_of).await
    }

    async fn overlap(
        &self,
        segments: &[Segment],
        window: Window,
        fresh: bool,
        as_of: Timestamp,
    ) -> Result<Overlap, StoreError> {
        self.check_open()?;
        let questions = self.durable.questions();
        questions.overlap(segments, window, fresh, as_of).await
    }

    async fn top_overlaps(
        &self,
        question: TopQuestion,
        window: Window,
        fresh: bool,
        as_of: Timestamp,
    ) -> Result<TopOverlaps, StoreError> {
        self.check_open()?;
        let questions = self.durable.questions();
        questions.top_overlaps(question, window, fresh, as_of).await
    }

    fn flow(
        &self,
        segment: &Segment,
        spans: &[Range<Slot>],
        as_of: Timestamp,
    ) -> Result<Vec<Option<Flow>>, StoreError> {
        self.check_open()?;
        let as_of = self.slot(as_of);
        Ok(self.state().index.flow(segment.as_str(), spans, as_of))
    }

    fn total_flow(&self, segment: &Segment, as_of: Timestamp) -> Option<(Count, Flow)> {
        self.check_open().ok()?;
        let index = &self.state().index;
        let total = index.total_flow(segment.as_str(), self.slot(as_of))?;
        let as_of = self.frame.resolution().counted_as_of(as_of, total.as_of);
        let users = total.users;
        Some((Count { users, as_of }, total.flow))
    }

    async fn segments(&self, as_of: Timestamp) -> Result<Vec<Segment>, StoreError> {
        self.check_open()?;
        let held = self.state().index.segments(self.slot(as_of));
        Ok(held.into_iter().map(|(segment, _)| segment).collect())
    }

    async fn memberships(
        &self,
        user: &UserId<'_>,
        as_of: Timestamp,
    ) -> Result<Vec<Membership>, StoreError> {
        self.check_open()?;
        let fingerprint = Fingerprint::of(user, self.durable.key());
        let held = self
            .state()
            .index
            .memberships(fingerprint, self.slot(as_of));
        Ok(held
            .into_iter()
            .map(|(segment, last_seen)| Membership { segment, last_seen })
            .collect())
    }

    async fn forget(&self, user: &UserId<'_>, as_of: Timestamp) -> Result<u64, StoreError> {
        self.check_open()?;
        let fingerprint = Fingerprint::of(user, self.durable.key());
        // Pairs that have expired by then do not count as erased.
        self.state().index.advance(self.slot(as_of));
        // Written even if there is nothing to erase: a pair of the user may be waiting in the log's queue.
        let at = self.durable.append(state::forget(fingerprint)).await?;
        Ok(self.state().take_erased(at))
    }

    async fn forget_in(
        &self,
        segment: &Segment,
        user: &UserId<'_>,
        as_of: Timestamp,
    ) -> Result<bool, StoreError> {
        self.check_open()?;
        let fingerprint = Fingerprint::of(user, self.durable.key());
        self.state().index.advance(self.slot(as_of));
        let record = state::forget_in(segment, fingerprint);
        let at = self.durable.append(record).await?;
        Ok(self.state().take_erased(at) > 0)
    }

    async fn forget_seen(
        &self,
        user: &UserId<'_>,
        seen: &[Membership],
        as_of: Timestamp,
    ) -> Result<u64, StoreError> {
        self.check_open()?;
        let fingerprint = Fingerprint::of(user, self.durable.key());
        self.state().index.advance(self.slot(as_of));
        let record = state::forget_seen(fingerprint, seen);
        let at = self.durable.append(record).await?;
        Ok(self.state().take_erased(at))
    }

    async fn drop_segment(
        &self,
        segment: &Segment,
        _windows: &[Window],
        as_of: Timestamp,
    ) -> Result<u64, StoreError> {
        self.check_open()?;
        self.state().index.advance(self.slot(as_of));
        let at = self.durable.append(state::drop_segment(segment)).await?;
        Ok(self.state().take_erased(at))
    }

    /// Does nothing, except for merges: no other instance has pairs that wait for this store.
    async fn note_erasure(&self, erasure: &Erasure) -> Result<(), StoreError> {
        self.check_open()?;
        if erasure.is_merge() {
            self.durable.log().append(self.merge_note(erasure)).await?;
        }
        Ok(())
    }

    async fn erasures(&self, since: Timestamp) -> Result<Vec<Erasure>, StoreError> {
        self.check_open()?;
        Ok(merges::since(&self.state().properties.lock(), since))
    }

    fn remains(&self, at: Timestamp) -> Vec<Remains> {
        vec![Remains {
            place: "embedded_files",
            what: "the erased pairs, with hashes under this directory's key in place of user ids, in the log and the newest \
                   snapshot, until the next snapshot"
                .to_owned(),
            until: at.checked_add(state::AFTER_ERASURE).ok(),
        }]
    }

    async fn fingerprint_key(&self) -> Result<FingerprintKey, StoreError> {
        self.check_open()?;
        Ok(self.durable.key())
    }

    async fn properties(&self, prefix: &str) -> Result<BTreeMap<String, String>, StoreError> {
        self.check_open()?;
        let properties = self.state().properties.lock();
        let found = properties.range(prefix.to_owned()..);
        let found = found.take_while(|(name, _)| name.starts_with(prefix));
        Ok(found
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect())
    }

    async fn set_property(&self, name: &str, value: Option<&str>) -> Result<(), StoreError> {
        check_property(name, value)?;
        self.check_open()?;
        self.durable
            .log()
            .append(state::property(name, value))
            .await?;
        Ok(())
    }

    async fn archive(&self, as_of: Timestamp, limit: u64) -> Result<Archived, StoreError> {
        self.check_open()?;
        let swept = self.state().index.sweep(self.slot(as_of), limit);
        Ok(Archived {
            removed: swept.removed,
            done: swept.done,
        })
    }

    async fn record_trend(&self, points: &[TrendPoint]) -> Result<(), StoreError> {
        self.check_open()?;
        // At most about 150 bytes a point: a record stays far below the limit of the log.
        for points in points.chunks(1 << 16) {
            self.durable.log().append(state::trend(points)).await?;
        }
        Ok(())
    }

    async fn trend(
        &self,
        segment: &Segment,
        window: Window,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Count>, StoreError> {
        self.check_open()?;
        Ok(self
            .state()
            .trends
            .lock()
            .read(segment, window.seconds(), from, to))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.check_open()?;
        Ok(self.log().check()?)
    }

    async fn close(&self) -> Result<(), StoreError> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        Ok(self.durable.close().await?)
    }
}

#[cfg(test)]
mod crashes;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
