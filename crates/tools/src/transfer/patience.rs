//! Calls that are repeated while a store can't answer.

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use tokio::time::Instant;

use domain::store::StoreError;

/// The waits between tries, up to 10 s with the jitter. It adds up to as much again, and keeps segments that failed together
/// from coming back together.
const WAITS: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(200))
    .with_max_delay(Duration::from_secs(5))
    .without_max_times()
    .with_jitter();

/// Hears of a failure that leads to another try, and of the wait before it.
type Retrying = dyn Fn(&StoreError, Duration) + Send + Sync;

/// How long to ask a store again that can't answer now, and who hears of it.
#[derive(Clone)]
pub struct Patience {
    /// The time from the first failure of a call to its last try.
    pub retry_for: Duration,
    /// Told while it lasts.
    pub retrying: Arc<Retrying>,
}

impl Patience {
    /// Patience in silence.
    pub fn silent(retry_for: Duration) -> Self {
        Self {
            retry_for,
            retrying: Arc::new(|_, _| ()),
        }
    }
}

impl std::fmt::Debug for Patience {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Patience")
            .field("retry_for", &self.retry_for)
            .finish_non_exhaustive()
    }
}

/// Makes a call until it succeeds, fails in a way that waiting can't mend, or patience ends. Only for calls that may
/// take effect twice.
pub async fn patiently<T>(
    patience: &Patience,
    call: impl AsyncFn() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut give_up_at = None;
    (|| call())
        .retry(WAITS)
        .when(may_pass)
        .adjust(|_, wait| {
            let now = Instant::now();
            let left = *give_up_at.get_or_insert(now + patience.retry_for) - now;
            // The last try comes at the end.
            wait.filter(|_| !left.is_zero()).map(|wait| wait.min(left))
        })
        .notify(&*patience.retrying)
        .await
}

fn may_pass(error: &StoreError) -> bool {
    match error {
        StoreError::Busy(_)
        | StoreError::Throttled { .. }
        | StoreError::Unavailable(_)
        | StoreError::Timeout(_) => true,
        StoreError::Full(_)
        | StoreError::NotSetUp(_)
        | StoreError::Rejected(_)
        | StoreError::Partly(_)
        | StoreError::Damaged(_)
        | StoreError::Unsupported(_)
        | StoreError::Closed => false,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    async fn tries(
        patience: Duration,
        answer: impl Fn(usize) -> Result<(), StoreError>,
    ) -> (usize, Duration, Result<(), StoreError>) {
        let asked = Cell::new(0);
        let begun = Instant::now();
        let patience = Patience::silent(patience);
        let call = async || answer(asked.replace(asked.get() + 1));
        let result = patiently(&patience, call).await;
        (asked.get(), begun.elapsed(), result)
    }

    #[tokio::test(start_paused = true)]
    async fn waits_longer_and_longer_and_gives_up_in_time() {
        let busy = || Err(StoreError::Busy(String::new()));
        let minute = Duration::from_mins(1);
        let (asked, took, result) = tries(minute, |n| if n < 4 { busy() } else { Ok(()) }).await;
        assert!(result.is_ok() && asked == 5);
        assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(6));
        let (asked, took, result) = tries(minute, |_| busy()).await;
        assert!(result.is_err() && asked > 8);
        assert!(took >= minute && took < minute + Duration::from_secs(1));
        assert_eq!(tries(Duration::ZERO, |_| busy()).await.0, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waiting_can_not_mend_is_not_repeated() {
        for error in [
            StoreError::Full(String::new()),
            StoreError::NotSetUp(String::new()),
            StoreError::Rejected(String::new()),
            StoreError::Unsupported(""),
            StoreError::Closed,
        ] {
            let (asked, took, _) = tries(Duration::MAX / 4, |_| Err(error.clone())).await;
            assert_eq!((asked, took), (1, Duration::ZERO));
        }
    }
}
