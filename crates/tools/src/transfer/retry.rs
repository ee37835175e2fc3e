//! Retries calls to a store with backoff, up to a deadline.

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use tokio::time::Instant;

use domain::store::StoreError;

/// The backoff between attempts, up to 10 s with jitter. Jitter adds up to 100 %, and keeps segments that failed together
/// from retrying together.
const BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(200))
    .with_max_delay(Duration::from_secs(5))
    .without_max_times()
    .with_jitter();

/// Called with each failure that is retried, and the wait before the retry.
type OnRetry = dyn Fn(&StoreError, Duration) + Send + Sync;

/// How long to retry a call to a store that is unavailable, and a callback for each retry.
#[derive(Clone)]
pub struct RetryPolicy {
    /// The time from the first failure of a call to its last attempt.
    pub retry_for: Duration,
    /// Called before each retry.
    pub on_retry: Arc<OnRetry>,
}

impl RetryPolicy {
    /// A policy without a callback.
    pub fn silent(retry_for: Duration) -> Self {
        Self {
            retry_for,
            on_retry: Arc::new(|_, _| ()),
        }
    }
}

impl std::fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RetryPolicy")
            .field("retry_for", &self.retry_for)
            .finish_non_exhaustive()
    }
}

/// Retries a call until it succeeds, fails permanently, or reaches the deadline of `policy`. Only for idempotent calls.
pub async fn with_retries<T>(
    policy: &RetryPolicy,
    call: impl AsyncFn() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut deadline = None;
    (|| call())
        .retry(BACKOFF)
        .when(is_transient)
        .adjust(|_, wait| {
            let now = Instant::now();
            let left = *deadline.get_or_insert(now + policy.retry_for) - now;
            // The last attempt is made at the deadline.
            wait.filter(|_| !left.is_zero()).map(|wait| wait.min(left))
        })
        .notify(&*policy.on_retry)
        .await
}

fn is_transient(error: &StoreError) -> bool {
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
        retry_for: Duration,
        response: impl Fn(usize) -> Result<(), StoreError>,
    ) -> (usize, Duration, Result<(), StoreError>) {
        let calls = Cell::new(0);
        let begun = Instant::now();
        let policy = RetryPolicy::silent(retry_for);
        let call = async || response(calls.replace(calls.get() + 1));
        let result = with_retries(&policy, call).await;
        (calls.get(), begun.elapsed(), result)
    }

    #[tokio::test(start_paused = true)]
    async fn waits_longer_and_longer_and_gives_up_in_time() {
        let busy = || Err(StoreError::Busy(String::new()));
        let minute = Duration::from_mins(1);
        let (calls, took, result) = tries(minute, |n| if n < 4 { busy() } else { Ok(()) }).await;
        assert!(result.is_ok() && calls == 5);
        assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(6));
        let (calls, took, result) = tries(minute, |_| busy()).await;
        assert!(result.is_err() && calls > 8);
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
            let (calls, took, _) = tries(Duration::MAX / 4, |_| Err(error.clone())).await;
            assert_eq!((calls, took), (1, Duration::ZERO));
        }
    }
}
