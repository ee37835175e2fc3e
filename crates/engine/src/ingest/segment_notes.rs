//! Counts acknowledged pairs as pending in the cache, with one round trip for all waiting requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use domain::cache::CountCache;
use domain::{Batch, Segment};
use supervisor::Supervisor;
use telemetry::Metrics;

/// The interval of retries to mark segments with dropped notes, while the cache is unavailable.
const GAP_RETRY: Duration = Duration::from_millis(100);

/// Increments the pending counters in the cache. Requests that arrive during a round trip share the next one.
///
/// While the cache is unavailable, notes are dropped and counted in a metric. Their segments are marked as having an
/// unknown number of pending pairs as soon as the cache responds again.
#[derive(Debug)]
pub struct PendingNotes {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    closed: bool,
    added: HashMap<Segment, u64>,
    acks: Vec<oneshot::Sender<()>>,
}

impl PendingNotes {
    /// Starts the task that sends notes to `cache` until the stop.
    pub fn start(
        cache: Arc<dyn CountCache>,
        metrics: Arc<Metrics>,
        supervisor: &Supervisor,
    ) -> Self {
        let shared = Arc::<Shared>::default();
        let (task_state, stop) = (Arc::clone(&shared), supervisor.stop().clone());
        supervisor.keep("pending notes", move || {
            let (shared, cache) = (Arc::clone(&task_state), Arc::clone(&cache));
            send(shared, cache, Arc::clone(&metrics), stop.clone())
        });
        Self { shared }
    }

    /// Notes the pairs of `batch`. Returns when the cache has counted them, or when they were dropped.
    pub async fn note(&self, batch: &Batch) {
        let (ack, noted) = oneshot::channel();
        {
            let mut waiting = self.shared.waiting.lock();
            if waiting.closed {
                return;
            }
            for (index, pairs) in pairs_per_segment(batch).into_iter().enumerate() {
                *waiting
                    .added
                    .entry(batch.segments()[index].clone())
                    .or_default() += pairs;
            }
            waiting.acks.push(ack);
        }
        self.shared.wake.notify_one();
        // An error means that the task has stopped and these pairs are not noted.
        let _ = noted.await;
    }
}

fn pairs_per_segment(batch: &Batch) -> Vec<u64> {
    let mut pairs = vec![0; batch.segments().len()];
    for (segment, _, _) in batch.indexed() {
        pairs[segment] += 1;
    }
    pairs
}

async fn send(
    shared: Arc<Shared>,
    cache: Arc<dyn CountCache>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let mut gaps: Vec<Segment> = Vec::new();
    loop {
        tokio::select! {
            () = shared.wake.notified() => {}
            () = tokio::time::sleep(GAP_RETRY), if !gaps.is_empty() => {}
            () = stop.cancelled() => {
                let mut waiting = shared.waiting.lock();
                *waiting = Waiting { closed: true, ..Waiting::default() };
                return;
            }
        }
        if !gaps.is_empty() && cache.mark_pending_unknown(&gaps).await.is_ok() {
            gaps.clear();
        }
        let waiting = std::mem::take(&mut *shared.waiting.lock());
        if waiting.acks.is_empty() {
            continue;
        }
        let added: Vec<_> = waiting.added.into_iter().collect();
        if cache.add_pending(&added).await.is_err() {
            let pairs = added.iter().map(|(_, pairs)| pairs).sum();
            metrics.ingest.pending_dropped.inc_by(pairs);
            gaps.extend(added.into_iter().map(|(segment, _)| segment));
            gaps.sort_unstable();
            gaps.dedup();
        }
        for ack in waiting.acks {
            // Sending fails if the request was cancelled, which is fine.
            let _ = ack.send(());
        }
    }
}
