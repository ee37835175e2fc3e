//! Notes acknowledged pairs in the cache, one round trip for all requests that wait.

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

/// How often a cache that was away is told which segments have a gap.
const GAP_RETRY: Duration = Duration::from_millis(100);

/// Adds to the pending counters. Requests that come while a round trip is under way share the next one.
///
/// When the cache is away the notes are dropped and counted; the segments concerned are marked as having an
/// unknown number of pending pairs as soon as the cache answers again.
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
    answers: Vec<oneshot::Sender<()>>,
}

impl PendingNotes {
    /// Starts the task that carries notes to `cache` until the stop.
    pub fn start(
        cache: Arc<dyn CountCache>,
        metrics: Arc<Metrics>,
        supervisor: &Supervisor,
    ) -> Self {
        let shared = Arc::<Shared>::default();
        let (carried, stop) = (Arc::clone(&shared), supervisor.stop().clone());
        supervisor.keep("pending notes", move || {
            let (shared, cache) = (Arc::clone(&carried), Arc::clone(&cache));
            carry(shared, cache, Arc::clone(&metrics), stop.clone())
        });
        Self { shared }
    }

    /// Notes the pairs of `batch`; returns when the cache has them, or when they were dropped.
    pub async fn note(&self, batch: &Batch) {
        let (answer, noted) = oneshot::channel();
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
            waiting.answers.push(answer);
        }
        self.shared.wake.notify_one();
        // An error means that the task stopped: the cache will not hear of these pairs.
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

async fn carry(
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
        if waiting.answers.is_empty() {
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
        for answer in waiting.answers {
            // A client that went away needs no answer.
            let _ = answer.send(());
        }
    }
}
