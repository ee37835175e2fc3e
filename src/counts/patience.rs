//! How long a read waits for the store while it has a last known count to fall back on.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use crate::store::StoreError;

/// A count in a store on the network takes a second or two for a segment of millions of users, so a store that takes
/// longer than this is more likely stalled: a reader is better served by the last known count, called stale.
const PATIENCE: Duration = Duration::from_secs(5);
/// After it was found stalled, one read in this time finds out whether it still is; the others don't wait.
const PAUSE: Duration = Duration::from_secs(2);

/// Waits for the store as long as it is worth it. A refusal is as quick as any answer, so only silence counts.
#[derive(Debug, Default)]
pub(super) struct Patience {
    silent_until: Mutex<Option<Instant>>,
}

impl Patience {
    /// Awaits `call`. With `has_fallback` it is given up after a while, or not begun when the store was silent a
    /// moment ago.
    pub(super) async fn wait<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
        has_fallback: bool,
    ) -> Result<T, StoreError> {
        if !has_fallback {
            return self.noted(call.await);
        }
        if self.is_silent() {
            let text = "it was silent a moment ago".to_owned();
            return Err(StoreError::Timeout(text));
        }
        let answer = timeout(PATIENCE, call).await.unwrap_or_else(|_| {
            let text = format!("a last known count is served after {PATIENCE:?}");
            Err(StoreError::Timeout(text))
        });
        self.noted(answer)
    }

    /// Whether to go without the store. Of the reads that come after the pause, the first is let through, and the
    /// others wait for what becomes of it.
    fn is_silent(&self) -> bool {
        let mut silent_until = self.silent_until.lock();
        match *silent_until {
            None => false,
            Some(until) if Instant::now() < until => true,
            Some(_) => {
                *silent_until = Some(Instant::now() + PATIENCE);
                false
            }
        }
    }

    fn noted<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        *self.silent_until.lock() = match answer {
            Err(StoreError::Timeout(_)) => Some(Instant::now() + PAUSE),
            _ => None,
        };
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn silence() -> Result<(), StoreError> {
        std::future::pending().await
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_waited_for_once_and_then_now_and_again() {
        let patience = Patience::default();
        let began = Instant::now();
        patience.wait(silence(), true).await.unwrap_err();
        assert_eq!(began.elapsed(), PATIENCE);
        patience.wait(silence(), true).await.unwrap_err();
        assert_eq!(began.elapsed(), PATIENCE, "the second read does not wait");
        tokio::time::advance(PAUSE).await;
        let (probe, other) = tokio::join!(
            patience.wait(silence(), true),
            patience.wait(silence(), true)
        );
        assert!(probe.is_err() && other.is_err());
        assert_eq!(began.elapsed(), PATIENCE + PAUSE + PATIENCE);
        tokio::time::advance(PAUSE).await;
        patience.wait(async { Ok(()) }, true).await.unwrap();
        patience.wait(async { Ok(()) }, true).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_fallback_the_store_has_all_its_time() {
        let patience = Patience::default();
        let slow = async {
            tokio::time::sleep(PATIENCE * 3).await;
            Ok(7)
        };
        assert_eq!(patience.wait(slow, false).await.unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_makes_nobody_wait() {
        let patience = Patience::default();
        let refusal = async { Err::<(), _>(StoreError::Unavailable("refused".to_owned())) };
        patience.wait(refusal, true).await.unwrap_err();
        patience.wait(async { Ok(()) }, true).await.unwrap();
    }
}
