//! Removes what expired, in bounded steps.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use domain::store::{PairStore, StoreError};
use domain::{Clock, Resolution, Timestamp};

/// Pairs removed at a time: a step of the embedded store then takes about a millisecond.
const STEP: u64 = 10_000;

/// Removes all that no window as of `as_of` can reach, unless stopped; how many pairs that were. `told` hears after
/// each step how many they are so far.
pub async fn sweep(
    store: &dyn PairStore,
    as_of: Timestamp,
    stop: &CancellationToken,
    mut told: impl FnMut(u64),
) -> Result<u64, StoreError> {
    let mut removed = 0;
    while !stop.is_cancelled() {
        let step = store.archive(as_of, STEP).await?;
        removed += step.removed;
        told(removed);
        if step.done {
            break;
        }
        // Requests come first on a busy machine.
        tokio::task::yield_now().await;
    }
    Ok(removed)
}

/// Sweeps once a slot until `stop`. A failed round is logged and the next one waited for.
pub async fn keep_sweeping(
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
            tracing::warn!(%error, "expired pairs could not be removed; trying again in a while");
        }
    }
}
