//! Trend points of a run, written as it goes. What the store does not take now is written later.

use std::sync::Arc;

use parking_lot::Mutex;

use domain::TrendPoint;
use domain::store::{PairStore, StoreError};

/// Points written at once.
const AT_ONCE: usize = 500;
/// Points that wait for a store that does not take them: 100 runs over 500 segments, about 5 MB. The oldest go first.
const MAX_WAITING: usize = 50_000;

/// Points on their way to the store.
#[derive(Debug)]
pub(super) struct Trend {
    store: Arc<dyn PairStore>,
    waiting: Mutex<Waiting>,
    /// Held by whoever writes.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    points: Vec<TrendPoint>,
    /// Whether the last write failed: the next one is left to the end of a run.
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

    /// Keeps `points`, and writes what waits once that is enough. A failure shows at the next
    /// [`flush`](Self::flush).
    pub(super) async fn add(&self, points: Vec<TrendPoint>) {
        let is_enough = {
            let mut waiting = self.waiting.lock();
            waiting.points.extend(points);
            waiting.points.len() >= AT_ONCE && !waiting.failed
        };
        if is_enough {
            // Those that were not taken wait on.
            let _ = self.flush().await;
        }
    }

    /// Writes everything that waits.
    pub(super) async fn flush(&self) -> Result<(), StoreError> {
        let _writing = self.writing.lock().await;
        loop {
            let some: Vec<TrendPoint> = {
                let mut waiting = self.waiting.lock();
                waiting.failed = false;
                waiting.points.iter().take(AT_ONCE).cloned().collect()
            };
            if some.is_empty() {
                return Ok(());
            }
            // A caller that goes away meanwhile leaves the points here: writing them twice changes nothing.
            let written = self.store.record_trend(&some).await;
            let mut waiting = self.waiting.lock();
            if written.as_ref().is_err_and(may_be_taken_later) {
                waiting.failed = true;
                let too_many = waiting.points.len().saturating_sub(MAX_WAITING);
                if too_many > 0 {
                    waiting.points.drain(..too_many);
                    tracing::warn!(
                        too_many,
                        "the store takes no trend points; the oldest are dropped"
                    );
                }
            } else {
                waiting.points.drain(..some.len());
            }
            written?;
        }
    }
}

fn may_be_taken_later(error: &StoreError) -> bool {
    !matches!(
        error,
        StoreError::Rejected(_) | StoreError::Unsupported(_) | StoreError::Closed
    )
}
