//! Tasks that panic are reported to monitoring and started again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use domain::store::{Archived, PairStore, StoreError};
use domain::{
    Batch, Count, Erasure, ManualClock, Membership, Segment, Timestamp, TrendPoint, UserId, Window,
};
use engine::Headcount;
use engine::Opened;
use engine::readiness::Component;
use headcount::config::Settings;
use stores::memory::MemoryCache;
use telemetry::Metrics;

/// A store with one segment and one user, whose counts panic a given number of times. It has no threads, for which a
/// paused clock would not wait.
#[derive(Debug, Default)]
struct Panicking {
    left: AtomicU64,
}

#[async_trait]
impl PairStore for Panicking {
    async fn record(&self, _: &Batch) -> Result<(), StoreError> {
        Ok(())
    }

    async fn count(&self, _: &Segment, _: Window, as_of: Timestamp) -> Result<Count, StoreError> {
        let fewer = |left: u64| left.checked_sub(1);
        let panics = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer);
        assert!(panics.is_err(), "on purpose");
        Ok(Count { users: 1, as_of })
    }

    async fn segments(&self, _: Timestamp) -> Result<Vec<Segment>, StoreError> {
        Ok(vec![Segment::new("sports").unwrap()])
    }

    async fn memberships(
        &self,
        _: &UserId<'_>,
        _: Timestamp,
    ) -> Result<Vec<Membership>, StoreError> {
        Ok(Vec::new())
    }

    async fn forget(&self, _: &UserId<'_>, _: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn note_erasure(&self, _: &Erasure) -> Result<(), StoreError> {
        Ok(())
    }

    async fn erasures(&self, _: Timestamp) -> Result<Vec<Erasure>, StoreError> {
        Ok(Vec::new())
    }

    async fn archive(&self, _: Timestamp, _: u64) -> Result<Archived, StoreError> {
        Ok(Archived {
            removed: 0,
            done: true,
        })
    }

    async fn record_trend(&self, _: &[TrendPoint]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn trend(
        &self,
        _: &Segment,
        _: Window,
        _: Timestamp,
        _: Timestamp,
    ) -> Result<Vec<Count>, StoreError> {
        Ok(Vec::new())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

struct Rig {
    app: Headcount,
    store: Arc<Panicking>,
    metrics: Arc<Metrics>,
}

impl Rig {
    /// A service that recounts every ten seconds, on a paused tokio clock.
    async fn start() -> Self {
        let settings = [
            ("spool_dir", "off"),
            ("refresh_mode", "loop"),
            ("refresh_interval", "10s"),
        ];
        let settings = Settings::with(settings).unwrap();
        let clock = Arc::new(ManualClock::new(
            Timestamp::from_second(1_800_000_000).unwrap(),
        ));
        let metrics = Arc::<Metrics>::default();
        let store = Arc::<Panicking>::default();
        let opened = Opened {
            store: store.clone(),
            newest: None,
        };
        let cache = Arc::<MemoryCache>::default();
        let app = Headcount::open_over(&settings, opened, cache, clock, metrics.clone()).await;
        Self {
            app: app.unwrap(),
            store,
            metrics,
        }
    }

    fn panic_in_counts(&self, number: u64) {
        self.store.left.store(number, Ordering::SeqCst);
    }

    fn panics_of(&self, task: &str) -> u64 {
        let text = self.metrics.render().unwrap();
        let line = format!("headcount_task_panics_total{{task=\"{task}\"}} ");
        let value = text.lines().find_map(|found| found.strip_prefix(&line));
        value.unwrap_or("0").parse().unwrap()
    }

    async fn refresher(&self) -> Component {
        let components = self.app.readiness().await.components;
        let mut refresher = components
            .into_iter()
            .filter(|part| part.name == "refresher");
        refresher.next().unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresher_panic_is_counted_and_the_refresher_continues() {
    let rig = Rig::start().await;
    assert_eq!(rig.panics_of("count"), 0);
    rig.panic_in_counts(2);
    while rig.app.refreshed().is_none() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(rig.panics_of("count"), 2);
    let refresher = rig.refresher().await;
    assert!(refresher.ok, "{refresher:?}");
    rig.app.shut_down().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_panics_in_each_round_is_not_ready() {
    let rig = Rig::start().await;
    let readiness = rig.app.readiness().await;
    assert!(readiness.recounts, "{readiness:?}");
    rig.panic_in_counts(u64::MAX);
    tokio::time::sleep(Duration::from_mins(6)).await;
    assert!(rig.panics_of("count") > 1);
    let refresher = rig.refresher().await;
    let detail = refresher.detail.as_deref().unwrap();
    assert!(
        !refresher.ok && detail.starts_with("no round was completed for 36"),
        "{refresher:?}"
    );
    assert!(!rig.app.readiness().await.recounts);
    // Once the cause is removed, it recovers without a restart.
    rig.panic_in_counts(0);
    while !rig.app.readiness().await.recounts {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    rig.app.shut_down().await.unwrap();
}
