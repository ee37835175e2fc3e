//! Tasks that panic are reported to monitoring and started again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use domain::store::conformance::batch;
use domain::store::model::Model;
use domain::{Clock, ManualClock, Timestamp};
use engine::Headcount;
use engine::Opened;
use engine::readiness::Component;
use headcount::config::Settings;
use stores::memory::MemoryCache;
use telemetry::Metrics;

use crate::support::switchable::SwitchableStore;

struct Rig {
    app: Headcount,
    /// How many of the next counts panic.
    panics: Arc<AtomicU64>,
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
        let panics = Arc::<AtomicU64>::default();
        let opened = Opened {
            store: Arc::new(store(&settings, clock.now(), Arc::clone(&panics))),
            head: None,
            live: None,
        };
        let cache = Arc::<MemoryCache>::default();
        let app = Headcount::open_over(&settings, opened, cache, clock, metrics.clone()).await;
        Self {
            app: app.unwrap(),
            panics,
            metrics,
        }
    }

    fn panic_in_counts(&self, number: u64) {
        self.panics.store(number, Ordering::SeqCst);
    }

    fn panics_of(&self, task: &str) -> u64 {
        let text = self.metrics.render().unwrap();
        let line = format!("headcount_task_panics_total{{task=\"{task}\"}} ");
        let value = text.lines().find_map(|found| found.strip_prefix(&line));
        value.unwrap_or("0").parse().unwrap()
    }

    async fn refresher(&self) -> Component {
        let components = self.app.readiness().components;
        let mut refresher = components
            .into_iter()
            .filter(|part| part.name == "refresher");
        refresher.next().unwrap()
    }
}

/// A store of one segment with one user whose counts panic on demand. It has no threads, which a paused clock would not
/// wait for.
fn store(settings: &Settings, now: Timestamp, panics: Arc<AtomicU64>) -> SwitchableStore {
    let model = Model::default();
    let present = settings.frame.resolution().slot_of(now);
    model.put(&batch([("u", "sports", present)]));
    let store = SwitchableStore::new(Arc::new(model));
    store.during_counts(move || {
        let fewer = |left: u64| left.checked_sub(1);
        let panics = panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer);
        assert!(panics.is_err(), "on purpose");
    });
    store
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
    let readiness = rig.app.readiness();
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
    assert!(!rig.app.readiness().recounts);
    // Once the cause is removed, it recovers without a restart.
    rig.panic_in_counts(0);
    while !rig.app.readiness().recounts {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    rig.app.shut_down().await.unwrap();
}
