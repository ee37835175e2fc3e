//! A cache in memory that several instances share, each over its own connection, which can be made unavailable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use domain::cache::{CacheError, CountCache, KnownSegments, LockToken};
use domain::{Count, Segment, Window};
use parking_lot::Mutex;
use stores::memory::MemoryCache;

/// The shared state, which can be lost.
#[derive(Debug, Default, Clone)]
pub struct Backend(Arc<Mutex<Arc<MemoryCache>>>);

impl Backend {
    fn inner(&self) -> Arc<MemoryCache> {
        Arc::clone(&self.0.lock())
    }

    /// Loses everything, as FLUSHALL does.
    pub fn flush(&self) {
        *self.0.lock() = Arc::default();
    }
}

/// The connection of one instance.
#[derive(Debug, Default)]
pub struct SharedCache {
    backend: Backend,
    unavailable: AtomicBool,
    unlocks_fail: AtomicU64,
    lists: AtomicU64,
    notes: AtomicU64,
}

impl SharedCache {
    pub fn on(backend: &Backend) -> Self {
        Self {
            backend: backend.clone(),
            ..Self::default()
        }
    }

    pub fn set_unavailable(&self, unavailable: bool) {
        self.unavailable.store(unavailable, Ordering::SeqCst);
    }

    /// The next `number` unlocks fail.
    pub fn fail_unlocks(&self, number: u64) {
        self.unlocks_fail.store(number, Ordering::SeqCst);
    }

    /// How often the list of segments was requested.
    pub fn lists(&self) -> u64 {
        self.lists.load(Ordering::SeqCst)
    }

    /// How often segments were noted, whether or not it was available.
    pub fn notes(&self) -> u64 {
        self.notes.load(Ordering::SeqCst)
    }

    fn reach(&self) -> Result<Arc<MemoryCache>, CacheError> {
        match self.unavailable.load(Ordering::SeqCst) {
            true => Err(CacheError::Unavailable("switched off".to_owned())),
            false => Ok(self.backend.inner()),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl CountCache for SharedCache {
    async fn get(&self, segment: &Segment, window: Window) -> Result<Option<Count>, CacheError> {
        self.reach()?.get(segment, window).await
    }

    async fn note_segments(&self, segments: &[Segment]) -> Result<(), CacheError> {
        self.notes.fetch_add(1, Ordering::SeqCst);
        self.reach()?.note_segments(segments).await
    }

    async fn put(
        &self,
        segment: &Segment,
        window: Window,
        count: Count,
    ) -> Result<Count, CacheError> {
        self.reach()?.put(segment, window, count).await
    }

    async fn get_many(
        &self,
        segments: &[Segment],
        window: Window,
    ) -> Result<Vec<Option<Count>>, CacheError> {
        self.reach()?.get_many(segments, window).await
    }

    async fn segments(&self) -> Result<KnownSegments, CacheError> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        self.reach()?.segments().await
    }

    async fn knows(&self, segment: &Segment) -> Result<bool, CacheError> {
        self.reach()?.knows(segment).await
    }

    async fn complete_segments(&self, listed: &[Segment], ttl: Duration) -> Result<(), CacheError> {
        self.reach()?.complete_segments(listed, ttl).await
    }

    async fn remove_segment(&self, segment: &Segment) -> Result<(), CacheError> {
        self.reach()?.remove_segment(segment).await
    }

    async fn lock(&self, token: &LockToken, ttl: Duration) -> Result<bool, CacheError> {
        self.reach()?.lock(token, ttl).await
    }

    async fn unlock(&self, token: &LockToken) -> Result<(), CacheError> {
        let fail = |left: u64| left.checked_sub(1);
        let failing = &self.unlocks_fail;
        if failing
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, fail)
            .is_ok()
        {
            return Err(CacheError::Timeout);
        }
        self.reach()?.unlock(token).await
    }

    async fn note_run(&self, ago: Duration) -> Result<(), CacheError> {
        self.reach()?.note_run(ago).await
    }

    async fn last_run(&self) -> Result<Option<Duration>, CacheError> {
        self.reach()?.last_run().await
    }

    async fn ping(&self) -> Result<(), CacheError> {
        self.reach()?.ping().await
    }
}
