//! Removes expired pairs in bounded steps.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use domain::store::{PairStore, StoreError};
use domain::{Clock, Resolution, Timestamp};

/// Pairs removed in one step. A step of the embedded store then takes about a millisecond.
const STEP: u64 = 10_000;

/// Removes every pair that no window as of `as_of` includes, until done or stopped. Returns the number of removed
/// pairs. Calls `on_progress` after each step with the number removed so far.
pub(crate) async fn sweep(
    store: &dyn PairStore,
    as_of: Timestamp,
    stop: &CancellationToken,
    mut on_progress: impl FnMut(u64),
) -> Result<u64, StoreError> {
    let mut removed = 0;
    while !stop.is_cancelled() {
        let step = store.archive(as_of, STEP).await?;
        removed += step.removed;
        on_progress(removed);
        if step.done {
            break;
        }
        // On a busy machine requests run first.
        tokio::task::yield_now().await;
    }
    Ok(removed)
}

/// Sweeps once per slot until `stop`. A failed round is logged; the next one runs as usual.
pub(crate) async fn keep_sweeping(
    store: Arc<dyn PairStore>,
    clock: Arc<dyn Clock>,
    resolution: Resolution,
    stop: CancellationToken,
) {
    let slot = Duration::from_secs(u64::from(resolution.seconds()));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(slot) => {}
        }
        if let Err(error) = sweep(&*store, clock.now(), &stop, |_| ()).await {
            tracing::warn!(%error, "can't remove expired pairs; retrying at the next slot");
        }
    }
}
