//! Opens the spool of a running service, and starts its metrics and tasks.

use std::sync::Arc;

use crate::SpoolSettings;
use crate::ingest::Recorder;
use crate::ingest::erasures::{self, Erasures};
use crate::ingest::spool::{self, DeliveryParts, Spool};
use domain::store::StoreError;
use domain::{Clock, Resolution};
use supervisor::Supervisor;
use telemetry::Metrics;

pub(super) fn keep_delivering(
    supervisor: &Supervisor,
    parts: DeliveryParts,
    recorder: &Arc<Recorder>,
) {
    let sink = Arc::clone(recorder) as Arc<dyn spool::Sink>;
    let stop = supervisor.stop().clone();
    supervisor.keep("spool delivery", move || {
        spool::deliver(parts.clone(), Arc::clone(&sink), stop.clone())
    });
}

pub(super) fn keep_following_erasures(
    supervisor: &Supervisor,
    erasures: &Arc<Erasures>,
    spool: Option<&Arc<Spool>>,
) {
    let (erasures, spool) = (Arc::clone(erasures), spool.cloned());
    let stop = supervisor.stop().clone();
    supervisor.keep("erasures", move || {
        erasures::follow(Arc::clone(&erasures), spool.clone(), stop.clone())
    });
}

/// Adds the setting to the message, because an error of the store's own directory would read the same.
fn named(error: StoreError) -> StoreError {
    let named = |reason: String| format!("the spool (setting `spool_dir`): {reason}");
    match error {
        StoreError::Unavailable(reason) => StoreError::Unavailable(named(reason)),
        StoreError::Rejected(reason) => StoreError::Rejected(named(reason)),
        StoreError::Damaged(reason) => StoreError::Damaged(named(reason)),
        other => other,
    }
}

pub(super) async fn open_spool(
    wanted: SpoolSettings,
    resolution: Resolution,
    clock: &Arc<dyn Clock>,
    metrics: &Arc<Metrics>,
) -> Result<Arc<Spool>, StoreError> {
    metrics.spool.limit.set(wanted.max_bytes);
    // Opening blocks: it reads the backlog of earlier runs.
    let opening = move || Spool::open(&wanted.dir, wanted.max_bytes, resolution);
    let opening = tokio::task::spawn_blocking(opening).await;
    let spool = opening.map_err(|error| StoreError::Unavailable(error.to_string()))?;
    let spool = spool.map_err(named)?;
    let spool = Arc::new(spool);
    let (observed, clock) = (Arc::downgrade(&spool), Arc::clone(clock));
    metrics.before_render(move |metrics| {
        if let Some(spool) = observed.upgrade() {
            let stats = spool.stats(clock.now());
            let oldest = stats.oldest.map_or(0.0, |age| age.as_secs_f64());
            metrics.spool.pairs.set(stats.waiting_pairs);
            metrics.spool.bytes.set(stats.bytes);
            metrics.spool.quarantined.set(stats.quarantined_pairs);
            metrics.spool.oldest_age.set(oldest);
        }
    });
    Ok(spool)
}
