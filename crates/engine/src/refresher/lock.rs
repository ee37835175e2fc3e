//! The lock of a run in the cache: acquired, renewed during the run, and released.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use domain::cache::{CacheError, CountCache, LockToken};
use supervisor::Supervisor;

/// A run that stopped without releasing its lock blocks other runs for at most this long.
const LOCK_TTL: Duration = Duration::from_secs(30);
/// The delay before a retry.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// The maximum number of attempts to call the cache at the start of a run. A scheduled job starts with a new connection, on
/// a machine that may be busy, and its next run is minutes away.
const MAX_START_ATTEMPTS: u32 = 3;

/// Calls the cache at the start of a run. A transient error is retried after a delay.
pub(super) async fn at_start<'a, T>(
    call: impl Fn() -> BoxFuture<'a, Result<T, CacheError>>,
) -> Result<T, CacheError> {
    let mut attempts = 1;
    loop {
        match call().await {
            Err(CacheError::Timeout | CacheError::Unavailable(_))
                if attempts < MAX_START_ATTEMPTS =>
            {
                attempts += 1;
                tokio::time::sleep(RETRY_DELAY).await;
            }
            done => return done,
        }
    }
}

/// The lock of one run.
#[derive(Debug)]
pub(super) struct RunLock {
    cache: Arc<dyn CountCache>,
    /// Unique to this run, so that a late release by an earlier run does not release this run's lock.
    token: LockToken,
}

impl RunLock {
    pub(super) fn new(cache: &Arc<dyn CountCache>) -> Self {
        Self {
            cache: Arc::clone(cache),
            token: LockToken::random(),
        }
    }

    /// Acquires or renews the lock. Returns `false` if another run holds it. After an error this run may hold it:
    /// release it.
    pub(super) async fn acquire(&self) -> Result<bool, CacheError> {
        self.cache.lock(&self.token, LOCK_TTL).await
    }

    /// Renews the lock periodically, and acquires it again if the cache lost it. Returns only when another run holds it.
    pub(super) async fn keep(&self) {
        loop {
            tokio::time::sleep(LOCK_TTL / 3).await;
            // After an error the next attempt follows. Meanwhile the lock may expire.
            if let Ok(false) = self.acquire().await {
                return;
            }
        }
    }

    /// Releases the lock. If that fails, it is retried in the background, because the lock would block other runs until it
    /// expires.
    pub(super) async fn release(self, supervisor: &Supervisor) {
        if self.cache.unlock(&self.token).await.is_ok() {
            return;
        }
        let stop = supervisor.stop().clone();
        let retry = async move {
            let attempts = LOCK_TTL.as_millis() / RETRY_DELAY.as_millis();
            for _ in 0..attempts {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY_DELAY) => {}
                }
                if self.cache.unlock(&self.token).await.is_ok() {
                    return;
                }
            }
        };
        drop(supervisor.begin("unlock", retry));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::FutureExt;

    use super::*;

    /// Whether a call succeeded, and the number of attempts.
    async fn attempts(failures: u32, error: CacheError) -> (bool, u32) {
        let attempts = AtomicU32::new(0);
        let call = || {
            let fails = attempts.fetch_add(1, Ordering::Relaxed) < failures;
            let response = if fails { Err(error.clone()) } else { Ok(()) };
            std::future::ready(response).boxed()
        };
        let reached = at_start(call).await;
        (reached.is_ok(), attempts.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn a_cache_that_is_slow_at_first_does_not_cost_the_run() {
        let unavailable = CacheError::Unavailable("not connected yet".to_owned());
        assert_eq!(attempts(0, CacheError::Timeout).await, (true, 1));
        assert_eq!(attempts(2, CacheError::Timeout).await, (true, 3));
        assert_eq!(attempts(2, unavailable.clone()).await, (true, 3));
        assert_eq!(attempts(9, unavailable).await, (false, 3));
        let refused = CacheError::Misconfigured("wrong password".to_owned());
        assert_eq!(attempts(9, refused).await, (false, 1));
    }
}
