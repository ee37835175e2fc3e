//! Refreshes at intervals, with one run per interval across all instances.

use std::time::Duration;

use super::{Outcome, Refresher, Skip};
use crate::live::Duty;
use crate::rounds::Rounds;
use domain::TrendPoint;

impl Refresher {
    /// Does what live counts need instead of a recount. Returns `false` if counts are not live.
    async fn serve_live(&self) -> bool {
        let duty = self.parts.live.as_ref().map(|live| live.duty());
        match duty {
            None | Some(Duty::Recount) => false,
            Some(Duty::Nothing) => true,
            Some(Duty::RecordTrend) => self.record_live_trend().await,
        }
    }

    /// Records the live counts as trend points. Returns `false` if counts are not live.
    async fn record_live_trend(&self) -> bool {
        let Some(live) = &self.parts.live else {
            return false;
        };
        for &window in &self.parts.windows {
            let Some(list) = live.list(window).await else {
                return false;
            };
            let points = list.into_iter().map(|(segment, count)| TrendPoint {
                segment,
                window,
                count,
            });
            self.trend.add(points.collect()).await;
        }
        let mut points = Vec::new();
        for (segment, &window) in self.parts.segments.own_windows().iter() {
            if self.parts.windows.contains(&window) {
                continue;
            }
            // A list has no segments without users either.
            let counted = live.count(segment, window);
            let Some(count) = counted.filter(|count| count.users > 0) else {
                continue;
            };
            points.push(TrendPoint {
                segment: segment.clone(),
                window,
                count,
            });
        }
        self.trend.add(points).await;
        if let Err(error) = self.trend.flush().await {
            tracing::warn!(%error, "the store takes no trend points; they are retried at the next interval");
        }
        self.note_success();
        true
    }

    /// Runs every `interval` until stopped, unless another instance already ran. Reports each completed round to `rounds`. A
    /// failed round is logged, and the next one runs as usual.
    pub async fn keep_running(&self, interval: Duration, rounds: &Rounds) {
        let mut wait = interval;
        loop {
            // Up to a tenth of the interval, so that instances that started together do not stay synchronised.
            let jitter = interval.mul_f64(fastrand::f64() / 10.0);
            tokio::select! {
                () = self.parts.supervisor.stop().cancelled() => return,
                () = tokio::time::sleep(wait.saturating_sub(jitter)) => {}
            }
            wait = interval;
            if self.serve_live().await {
                rounds.complete();
                continue;
            }
            match self.run_if_due(interval).await {
                Ok(Outcome::Done(report)) => {
                    // A round in which every count failed does not count as completed.
                    if report.refreshed > 0 || report.failed == 0 {
                        rounds.complete();
                    }
                    tracing::debug!(
                        refreshed = report.refreshed,
                        failed = report.failed,
                        took_ms = u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX),
                        "refresh completed"
                    );
                }
                Ok(Outcome::Skipped(Skip::Recent { due_in })) => {
                    rounds.complete();
                    tracing::debug!("another instance has refreshed");
                    wait = due_in;
                }
                // This does not complete a round, because the holder of the lock may have panicked.
                Ok(Outcome::Skipped(Skip::UnderWay)) => {
                    tracing::debug!("another refresh is under way");
                }
                // A missing cache was logged where it was detected. The loop never refreshes a single, unknown segment.
                Ok(Outcome::Skipped(Skip::NoCache) | Outcome::Unknown) => {}
                Err(error) => {
                    tracing::warn!(%error, "the refresh failed; retrying at the next interval")
                }
            }
        }
    }
}
