//! The cache's lock for one run: taken, prolonged as long as the run goes on, and given back.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use domain::cache::{CacheError, CountCache, LockToken};
use supervisor::Supervisor;

/// A run that stopped without unlocking holds others up for at most this long.
const LOCK_TTL: Duration = Duration::from_secs(30);
/// The pause before a call is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// How often the start of a run asks a cache that does not respond, or that is not connected yet: a job of a scheduler begins with a
/// new connection, on a machine that may be busy, and its next run is minutes away.
const START_TRIES: u32 = 3;

/// What the cache responds at the start of a run. An error that may pass is retried after a pause.
pub(super) async fn at_start<'a, T>(
    ask: impl Fn() -> BoxFuture<'a, Result<T, CacheError>>,
) -> Result<T, CacheError> {
    let mut tries = 1;
    loop {
        match ask().await {
            Err(CacheError::Timeout | CacheError::Unavailable(_)) if tries < START_TRIES => {
                tries += 1;
                tokio::time::sleep(RETRY).await;
            }
            done => return done,
        }
    }
}

/// The lock of one run.
#[derive(Debug)]
pub(super) struct RunLock {
    cache: Arc<dyn CountCache>,
    /// Of this run alone: giving back an earlier run's lock late must not touch this one's.
    token: LockToken,
}

impl RunLock {
    pub(super) fn new(cache: &Arc<dyn CountCache>) -> Self {
        Self {
            cache: Arc::clone(cache),
            token: LockToken::random(),
        }
    }

    /// Whether it is taken now. After an error it may be: give it back.
    pub(super) async fn take(&self) -> Result<bool, CacheError> {
        self.cache.lock(&self.token, LOCK_TTL).await
    }

    /// Prolongs it again and again, however long a count takes, and takes it anew when the cache lost it. Returns
    /// only when somebody else has it.
    pub(super) async fn keep(&self) {
        loop {
            tokio::time::sleep(LOCK_TTL / 3).await;
            // A cache that can't be asked now is asked again. Meanwhile the lock may expire.
            if let Ok(false) = self.take().await {
                return;
            }
        }
    }

    /// Gives it back, in the background and again and again when the cache is unavailable: everybody else would find
    /// it taken until it expires.
    pub(super) async fn give_back(self, supervisor: &Supervisor) {
        if self.cache.unlock(&self.token).await.is_ok() {
            return;
        }
        let stop = supervisor.stop().clone();
        let retry = async move {
            let tries = LOCK_TTL.as_millis() / RETRY.as_millis();
            for _ in 0..tries {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => {}
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

    /// Whether the cache was reached, and how often it was asked.
    async fn asked(failures: u32, error: CacheError) -> (bool, u32) {
        let asked = AtomicU32::new(0);
        let ask = || {
            let fails = asked.fetch_add(1, Ordering::Relaxed) < failures;
            let response = if fails { Err(error.clone()) } else { Ok(()) };
            std::future::ready(response).boxed()
        };
        let reached = at_start(ask).await;
        (reached.is_ok(), asked.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn a_cache_that_is_slow_at_first_does_not_cost_the_run() {
        let unavailable = CacheError::Unavailable("not connected yet".to_owned());
        assert_eq!(asked(0, CacheError::Timeout).await, (true, 1));
        assert_eq!(asked(2, CacheError::Timeout).await, (true, 3));
        assert_eq!(asked(2, unavailable.clone()).await, (true, 3));
        assert_eq!(asked(9, unavailable).await, (false, 3));
        let refused = CacheError::Misconfigured("wrong password".to_owned());
        assert_eq!(asked(9, refused).await, (false, 1));
    }
}
