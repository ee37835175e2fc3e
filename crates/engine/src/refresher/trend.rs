//! Writes the trend points of a run while it proceeds. Points that the store can't take are retried later.

use std::sync::Arc;

use parking_lot::Mutex;

use domain::TrendPoint;
use domain::store::{PairStore, StoreError};

/// The number of points in one write.
const WRITE_POINTS: usize = 500;
/// The maximum number of points that wait for the store: 100 runs over 500 segments, about 5 MB. Beyond it the oldest
/// points are dropped.
const MAX_WAITING: usize = 50_000;

/// Points on their way to the store.
#[derive(Debug)]
pub(super) struct Trend {
    store: Arc<dyn PairStore>,
    waiting: Mutex<Waiting>,
    /// Held during a write.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    points: Vec<TrendPoint>,
    /// Whether the last write failed. Then the next write happens at the end of a run.
    failed: bool,
}

impl Trend {
    pub(super) fn new(store: Arc<dyn PairStore>) -> Self {
        Self {
            store,
            waiting: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// Queues `points`, and writes the queue once it is long enough. A failed write is reported by the next
    /// [`flush`](Self::flush).
    pub(super) async fn add(&self, points: Vec<TrendPoint>) {
        let is_enough = {
            let mut waiting = self.waiting.lock();
            waiting.points.extend(points);
            waiting.points.len() >= WRITE_POINTS && !waiting.failed
        };
        if is_enough {
            // After a failure the points stay in the queue.
            let _ = self.flush().await;
        }
    }

    /// Writes all queued points.
    pub(super) async fn flush(&self) -> Result<(), StoreError> {
        let _writing = self.writing.lock().await;
        loop {
            let some: Vec<TrendPoint> = {
                let mut waiting = self.waiting.lock();
                waiting.failed = false;
                waiting.points.iter().take(WRITE_POINTS).cloned().collect()
            };
            if some.is_empty() {
                return Ok(());
            }
            // If the caller is cancelled here, the points stay in the queue. Writing them twice is harmless.
            let written = self.store.record_trend(&some).await;
            let mut waiting = self.waiting.lock();
            if written.as_ref().is_err_and(is_retryable) {
                waiting.failed = true;
                let too_many = waiting.points.len().saturating_sub(MAX_WAITING);
                if too_many > 0 {
                    waiting.points.drain(..too_many);
                    tracing::warn!(
                        too_many,
                        "the store accepts no trend points; the oldest are dropped"
                    );
                }
            } else {
                waiting.points.drain(..some.len());
            }
            written?;
        }
    }
}

fn is_retryable(error: &StoreError) -> bool {
    !matches!(
        error,
        StoreError::Rejected(_) | StoreError::Unsupported(_) | StoreError::Closed
    )
}
