//! Runs at intervals, one for all instances together.

use std::time::Duration;

use super::{Outcome, Refresher, Skip};
use crate::rounds::Rounds;

impl Refresher {
    /// Sees to a run every `interval` until stopped: its own, unless another instance made one. Tells `rounds` of each
    /// that went through. A failed round is logged and the next one waited for.
    pub async fn keep_running(&self, interval: Duration, rounds: &Rounds) {
        let mut wait = interval;
        loop {
            // Up to a tenth of the interval, so that instances started together don't stay in step.
            let jitter = interval.mul_f64(fastrand::f64() / 10.0);
            tokio::select! {
                () = self.parts.supervisor.stop().cancelled() => return,
                () = tokio::time::sleep(wait.saturating_sub(jitter)) => {}
            }
            wait = interval;
            match self.run_if_due(interval).await {
                Ok(Outcome::Done(report)) => {
                    // A round in which no count could be made is none.
                    if report.refreshed > 0 || report.failed == 0 {
                        rounds.complete();
                    }
                    tracing::debug!(
                        refreshed = report.refreshed,
                        failed = report.failed,
                        took_ms = u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX),
                        "counts refreshed"
                    );
                }
                Ok(Outcome::Skipped(Skip::Recent { due_in })) => {
                    rounds.complete();
                    tracing::debug!("another instance has refreshed");
                    wait = due_in;
                }
                // That proves nothing: the lock's holder may have panicked.
                Ok(Outcome::Skipped(Skip::UnderWay)) => {
                    tracing::debug!("another refresh is under way");
                }
                // Logged where it was met; and no loop asks for one segment.
                Ok(Outcome::Skipped(Skip::NoCache) | Outcome::Unknown) => {}
                Err(error) => tracing::warn!(%error, "the refresh failed; trying again in a while"),
            }
        }
    }
}
