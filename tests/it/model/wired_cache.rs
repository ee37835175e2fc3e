//! A cache behind a wire: the cache in memory, whose calls fail like those of a server.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::cache::{CacheError, CountCache, KnownSegments, LockToken};
use domain::{Count, Segment, Window};
use parking_lot::Mutex;
use stores::memory::MemoryCache;

use super::steps::{Call, Fate};
use super::wire::{Course, Wire};

/// How long a call waits for its response. It may be executed later all the same.
const PATIENCE: Duration = Duration::from_millis(50);

/// The cache that all instances share.
#[derive(Debug, Default)]
pub struct CacheBackend {
    cache: Mutex<Arc<MemoryCache>>,
}

impl CacheBackend {
    fn inner(&self) -> Arc<MemoryCache> {
        Arc::clone(&self.cache.lock())
    }

    /// Loses all data.
    pub fn flush(&self) {
        *self.cache.lock() = Arc::default();
    }
}

#[derive(Debug)]
pub struct WiredCache {
    cache_backend: Arc<CacheBackend>,
    wire: Arc<Wire>,
}

impl WiredCache {
    pub fn new(cache_backend: &Arc<CacheBackend>, wire: &Arc<Wire>) -> Self {
        Self {
            cache_backend: Arc::clone(cache_backend),
            wire: Arc::clone(wire),
        }
    }

    async fn via<T: Send + 'static, F>(
        &self,
        kind: Call,
        call: impl FnOnce(Arc<MemoryCache>) -> F + Send + 'static,
    ) -> Result<T, CacheError>
    where
        F: Future<Output = Result<T, CacheError>> + Send,
    {
        let cache_backend = Arc::clone(&self.cache_backend);
        match self.wire.course(kind) {
            Course::Passes => call(cache_backend.inner()).await,
            Course::Fails(Fate::ResponseLost) => {
                let _ = call(cache_backend.inner()).await;
                Err(CacheError::Timeout)
            }
            Course::Fails(_) => Err(CacheError::Unavailable("switched off".to_owned())),
            Course::WaitsBefore(waiting) => {
                let wire = Arc::clone(&self.wire);
                let late = tokio::spawn(async move {
                    wire.wait(waiting).await;
                    call(cache_backend.inner()).await
                });
                match tokio::time::timeout(PATIENCE, late).await {
                    Ok(answer) => answer.unwrap(),
                    Err(_) => Err(CacheError::Timeout),
                }
            }
            Course::WaitsAfter(waiting) => {
                let answer = call(cache_backend.inner()).await;
                let waited = tokio::time::timeout(PATIENCE, self.wire.wait(waiting)).await;
                waited.map_or(Err(CacheError::Timeout), |()| answer)
            }
            Course::Never => std::future::pending().await,
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl CountCache for WiredCache {
    async fn get(&self, segment: &Segment, window: Window) -> Result<Option<Count>, CacheError> {
        let segment = segment.clone();
        let get = async move |cache: Arc<MemoryCache>| cache.get(&segment, window).await;
        self.via(Call::Get, get).await
    }

    async fn get_many(
        &self,
        segments: &[Segment],
        window: Window,
    ) -> Result<Vec<Option<Count>>, CacheError> {
        let segments = segments.to_vec();
        let get = async move |cache: Arc<MemoryCache>| cache.get_many(&segments, window).await;
        self.via(Call::Get, get).await
    }

    async fn note_segments(&self, segments: &[Segment]) -> Result<(), CacheError> {
        let segments = segments.to_vec();
        let note = async move |cache: Arc<MemoryCache>| cache.note_segments(&segments).await;
        self.via(Call::Note, note).await
    }

    async fn put(
        &self,
        segment: &Segment,
        window: Window,
        count: Count,
    ) -> Result<Count, CacheError> {
        let segment = segment.clone();
        let put = async move |cache: Arc<MemoryCache>| cache.put(&segment, window, count).await;
        self.via(Call::Put, put).await
    }

    async fn segments(&self) -> Result<KnownSegments, CacheError> {
        let list = async move |cache: Arc<MemoryCache>| {
            let mut known = cache.segments().await?;
            // A fixed order, so that a seed gives the same case.
            known.names.sort_unstable();
            Ok(known)
        };
        self.via(Call::CacheList, list).await
    }

    async fn knows(&self, segment: &Segment) -> Result<bool, CacheError> {
        let segment = segment.clone();
        let knows = async move |cache: Arc<MemoryCache>| cache.knows(&segment).await;
        self.via(Call::Other, knows).await
    }

    async fn complete_segments(&self, listed: &[Segment], ttl: Duration) -> Result<(), CacheError> {
        let listed = listed.to_vec();
        let complete =
            async move |cache: Arc<MemoryCache>| cache.complete_segments(&listed, ttl).await;
        self.via(Call::Complete, complete).await
    }

    async fn remove_segment(&self, segment: &Segment) -> Result<(), CacheError> {
        let segment = segment.clone();
        let remove = async move |cache: Arc<MemoryCache>| cache.remove_segment(&segment).await;
        self.via(Call::Remove, remove).await
    }

    async fn lock(&self, token: &LockToken, ttl: Duration) -> Result<bool, CacheError> {
        let token = token.clone();
        let lock = async move |cache: Arc<MemoryCache>| cache.lock(&token, ttl).await;
        self.via(Call::Lock, lock).await
    }

    async fn unlock(&self, token: &LockToken) -> Result<(), CacheError> {
        let token = token.clone();
        let unlock = async move |cache: Arc<MemoryCache>| cache.unlock(&token).await;
        self.via(Call::Unlock, unlock).await
    }

    async fn note_run(&self, ago: Duration) -> Result<(), CacheError> {
        let note = async move |cache: Arc<MemoryCache>| cache.note_run(ago).await;
        self.via(Call::Other, note).await
    }

    async fn last_run(&self) -> Result<Option<Duration>, CacheError> {
        let ask = async move |cache: Arc<MemoryCache>| cache.last_run().await;
        self.via(Call::Other, ask).await
    }

    async fn ping(&self) -> Result<(), CacheError> {
        let ping = async move |cache: Arc<MemoryCache>| cache.ping().await;
        self.via(Call::Other, ping).await
    }
}
