//! Retries of a job whose server can't be reached. A scheduler may start a job before a network policy admits it, or
//! while its server restarts.

use std::fmt::Display;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use tokio::time::Instant;

use super::client::ClientError;
use super::output::note;
use domain::store::StoreError;

const BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(250))
    .with_max_delay(Duration::from_secs(2))
    .without_max_times();

/// An error after which it is known whether the work can have begun.
pub(super) trait Reached: Display {
    /// Whether the server was not reached, so that nothing was done.
    fn is_unreachable(&self) -> bool;
}

impl Reached for ClientError {
    fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

impl Reached for StoreError {
    /// A part of the work may be done. The jobs may be repeated.
    fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Repeats `attempt` while the server can't be reached, for at most `retry_for` from the first failure on.
pub(super) async fn while_unreachable<T, E: Reached>(
    retry_for: Duration,
    attempt: impl AsyncFn() -> Result<T, E>,
) -> Result<T, E> {
    let mut give_up_at = None;
    (|| attempt())
        .retry(BACKOFF)
        .when(E::is_unreachable)
        .adjust(|error, wait| {
            let now = Instant::now();
            if give_up_at.is_none() && !retry_for.is_zero() {
                note(&format!("{error}; retrying for {retry_for:?}"));
            }
            let left = *give_up_at.get_or_insert(now + retry_for) - now;
            // The last attempt is at the end of the allowed time, not before.
            (!left.is_zero()).then(|| wait.unwrap_or(left).min(left))
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const HALF_A_MINUTE: Duration = Duration::from_secs(30);

    fn unreachable() -> ClientError {
        let (base, reason) = ("http://x".into(), "connection refused".into());
        ClientError::Unreachable { base, reason }
    }

    /// Runs a job whose server is reached after `refused` attempts. Returns the number of attempts, the time that passed,
    /// and whether it was reached.
    async fn run(refused: u32, retry_for: Duration) -> (u32, Duration, bool) {
        let attempts = Cell::new(0);
        let begun = Instant::now();
        let attempt = async || {
            attempts.set(attempts.get() + 1);
            match attempts.get() > refused {
                true => Ok(()),
                false => Err(unreachable()),
            }
        };
        let done = while_unreachable(retry_for, attempt).await.is_ok();
        (attempts.get(), begun.elapsed(), done)
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_starts_two_seconds_later_is_reached() {
        let (attempts, took, done) = run(4, HALF_A_MINUTE).await;
        assert!(done && attempts == 5, "{attempts}");
        assert!(took >= Duration::from_secs(2), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_job_fails_when_its_time_is_over() {
        let (_, took, done) = run(u32::MAX, HALF_A_MINUTE).await;
        assert!(!done);
        assert_eq!(took.as_secs(), 30);
        assert_eq!(run(u32::MAX, Duration::ZERO).await.0, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_may_have_begun_is_not_repeated() {
        let attempts = Cell::new(0);
        let attempt = async || {
            attempts.set(attempts.get() + 1);
            let (base, reason) = ("http://x".into(), "timeout".into());
            Err::<(), _>(ClientError::NoResponse { base, reason })
        };
        assert!(while_unreachable(HALF_A_MINUTE, attempt).await.is_err());
        assert_eq!(attempts.get(), 1);
    }
}
