//! The cache's lock for one run: taken, prolonged as long as the run goes on, and given back.

use std::sync::Arc;
use std::time::Duration;

use domain::cache::{CacheError, CountCache, LockToken};
use supervisor::Supervisor;

/// A run that stopped without unlocking holds others up for at most this long.
const LOCK_TTL: Duration = Duration::from_secs(30);
/// How often giving back is tried again.
const RETRY: Duration = Duration::from_millis(500);

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
