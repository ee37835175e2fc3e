//! The read path and the refresher over a store and a cache that a test can block, with a clock that the test controls.

use std::sync::Arc;
use std::time::Duration;

use domain::cache::CountCache;
use domain::store::PairStore;
use domain::{BatchBuilder, Clock, ManualClock, Segment, TimeFrame, Timestamp, UserId, Window};
use engine::counts::{CountResult, Counts, CountsParts, Listed};
use engine::ingest::SegmentGuard;
use engine::refresher::{Outcome, Refresher, RefresherParts};
use engine::segments::SegmentCatalog;
use headcount::config::Settings;
use headcount::wiring;
use supervisor::Supervisor;
use telemetry::Metrics;

use super::shared_cache::{Backend, SharedCache};
use super::switchable::SwitchableStore;

/// `cache_ttl` of a rig.
pub const CACHE_TTL: Duration = Duration::from_secs(600);

/// One instance.
pub struct Rig {
    pub clock: Arc<ManualClock>,
    pub store: Arc<SwitchableStore>,
    pub cache: Arc<SharedCache>,
    pub backend: Backend,
    pub refresher: Arc<Refresher>,
    pub counts: Arc<Counts>,
    pub frame: TimeFrame,
    pub supervisor: Supervisor,
    _directory: Option<Arc<tempfile::TempDir>>,
}

impl Rig {
    pub async fn new() -> Self {
        Self::with(2, Duration::ZERO).await
    }

    /// An instance that counts `parallelism` segments concurrently, and repeats responses for `memory_ttl`.
    pub async fn with(parallelism: usize, memory_ttl: Duration) -> Self {
        Self::with_store(parallelism, memory_ttl, SwitchableStore::new).await
    }

    pub async fn with_store(
        parallelism: usize,
        memory_ttl: Duration,
        switchable: impl FnOnce(Arc<dyn PairStore>) -> SwitchableStore,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings::with([("data_dir", directory.path().to_str().unwrap())]).unwrap();
        let clock = Arc::new(ManualClock::new(
            Timestamp::from_second(1_800_000_000).unwrap(),
        ));
        let metrics = Arc::<Metrics>::default();
        let opened = wiring::open_store(&settings, &metrics).await.unwrap();
        let store = Arc::new(switchable(opened.store));
        let mut rig = Self::on(
            clock,
            store,
            &Backend::default(),
            settings.frame,
            parallelism,
            memory_ttl,
        );
        rig._directory = Some(Arc::new(directory));
        rig
    }

    /// Another instance with the same store and cache.
    pub fn another_instance(&self) -> Self {
        let (clock, store) = (Arc::clone(&self.clock), Arc::clone(&self.store));
        Self::on(clock, store, &self.backend, self.frame, 2, Duration::ZERO)
    }

    fn on(
        clock: Arc<ManualClock>,
        store: Arc<SwitchableStore>,
        backend: &Backend,
        frame: TimeFrame,
        parallelism: usize,
        memory_ttl: Duration,
    ) -> Self {
        let metrics = Arc::<Metrics>::default();
        let cache = Arc::new(SharedCache::on(backend));
        let supervisor = Supervisor::new(metrics.runtime.panic_counter());
        let catalog = SegmentCatalog::new(store.clone(), frame, 10_000);
        let catalog = Arc::new(catalog);
        let refresher = Arc::new(Refresher::new(RefresherParts {
            live: None,
            segments: catalog.clone(),
            frame,
            clock: clock.clone(),
            store: store.clone(),
            cache: cache.clone(),
            guard: Arc::new(SegmentGuard::new(10_000)),
            metrics: metrics.clone(),
            windows: vec![frame.full_window()],
            parallelism,
            supervisor: supervisor.clone(),
        }));
        let counts = Arc::new(Counts::new(CountsParts {
            live: None,
            probes: Arc::default(),
            segments: catalog,
            frame,
            clock: clock.clone(),
            store: store.clone(),
            cache: cache.clone(),
            refresher: refresher.clone(),
            metrics,
            cache_ttl: CACHE_TTL,
            memory_ttl,
            renew_after: Duration::from_secs(60),
            floor: domain::Floor::default(),
        }));
        Self {
            clock,
            store,
            cache,
            backend: backend.clone(),
            refresher,
            counts,
            frame,
            supervisor,
            _directory: None,
        }
    }

    /// Records users and notes the segment, as ingest does.
    pub async fn record(&self, users: &[&str], segment: &str) {
        self.record_in(users, &[segment]).await;
    }

    /// The same users in each segment.
    pub async fn record_in(&self, users: &[&str], segments: &[&str]) {
        let mut builder = BatchBuilder::default();
        let slot = self.frame.resolution().slot_of(self.clock.now());
        for segment in segments {
            for user in users {
                let user = UserId::new(*user).unwrap();
                builder.push_pair(&user, segment, slot).unwrap();
            }
        }
        self.store.record(&builder.finish()).await.unwrap();
        let segments: Vec<_> = segments.iter().map(|text| name(text)).collect();
        self.cache.note_segments(&segments).await.unwrap();
    }

    pub fn full(&self) -> Window {
        self.frame.full_window()
    }

    pub fn minutes(&self, number: u64) -> Window {
        self.frame.window(Duration::from_secs(60 * number)).unwrap()
    }

    pub async fn get(&self, segment: &str) -> CountResult {
        let result = self.counts.get(&name(segment), self.full(), false).await;
        result.unwrap()
    }

    pub async fn fresh(&self, segment: &str) -> CountResult {
        let result = self.counts.get(&name(segment), self.full(), true).await;
        result.unwrap()
    }

    pub async fn list(&self) -> Arc<[Listed]> {
        self.counts.list(self.full()).await.unwrap()
    }

    /// Refreshes all segments, which must succeed. Returns the numbers of counted and of failed segments.
    pub async fn refresh(&self) -> (u64, u64) {
        match self.refresher.run(None).await.unwrap() {
            Outcome::Done(report) => (report.refreshed, report.failed),
            skipped => panic!("{skipped:?}"),
        }
    }

    /// Waits until the store has received this many counts.
    pub async fn wait_for_counts(&self, number: usize) {
        while self.store.counts() < number {
            tokio::task::yield_now().await;
        }
    }
}

pub fn name(segment: &str) -> Segment {
    Segment::new(segment).unwrap()
}

/// Runs every task that is ready.
pub async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
