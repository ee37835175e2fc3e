//! A real store behind a switch: not live, so that the read path has to go the long way, and away when told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use headcount::domain::{Batch, Count, Membership, Segment, Timestamp, TrendPoint, UserId, Window};
use headcount::store::{Archived, PairStore, StoreError};
use tokio::sync::Semaphore;

/// Passes calls on to the store inside, unless it is switched off.
#[derive(Debug)]
pub struct SwitchableStore {
    inner: Arc<dyn PairStore>,
    away: AtomicBool,
    counts: AtomicU64,
    /// Counts wait for a permit, so that a test can hold them up.
    gate: Semaphore,
    /// So do lists.
    list_gate: Semaphore,
}

impl SwitchableStore {
    pub fn new(inner: Arc<dyn PairStore>) -> Self {
        let gate = Semaphore::new(Semaphore::MAX_PERMITS);
        Self {
            inner,
            away: AtomicBool::new(false),
            counts: AtomicU64::new(0),
            gate,
            list_gate: Semaphore::new(Semaphore::MAX_PERMITS),
        }
    }

    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    /// How many counts were asked for.
    pub fn counts(&self) -> u64 {
        self.counts.load(Ordering::SeqCst)
    }

    /// Holds up counts until `release`.
    pub fn hold(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub fn release(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS);
    }

    /// Holds up lists for good.
    pub fn hold_lists(&self) {
        self.list_gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    fn reach(&self) -> Result<&dyn PairStore, StoreError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("switched off".to_owned()));
        }
        Ok(&*self.inner)
    }
}

#[async_trait]
impl PairStore for SwitchableStore {
    async fn record(&self, batch: &Batch) -> Result<(), StoreError> {
        self.reach()?.record(batch).await
    }

    async fn count(
        &self,
        segment: &Segment,
        window: Window,
        as_of: Timestamp,
    ) -> Result<Count, StoreError> {
        self.counts.fetch_add(1, Ordering::SeqCst);
        let _permit = self.gate.acquire().await.unwrap();
        self.reach()?.count(segment, window, as_of).await
    }

    async fn segments(&self, as_of: Timestamp) -> Result<Vec<Segment>, StoreError> {
        let _permit = self.list_gate.acquire().await.unwrap();
        self.reach()?.segments(as_of).await
    }

    async fn memberships(
        &self,
        user: &UserId<'_>,
        as_of: Timestamp,
    ) -> Result<Vec<Membership>, StoreError> {
        self.reach()?.memberships(user, as_of).await
    }

    async fn forget(&self, user: &UserId<'_>, as_of: Timestamp) -> Result<u64, StoreError> {
        self.reach()?.forget(user, as_of).await
    }

    async fn archive(&self, as_of: Timestamp, limit: u64) -> Result<Archived, StoreError> {
        self.reach()?.archive(as_of, limit).await
    }

    async fn record_trend(&self, points: &[TrendPoint]) -> Result<(), StoreError> {
        self.reach()?.record_trend(points).await
    }

    async fn trend(
        &self,
        segment: &Segment,
        window: Window,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Count>, StoreError> {
        self.reach()?.trend(segment, window, from, to).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.reach()?.ping().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}
