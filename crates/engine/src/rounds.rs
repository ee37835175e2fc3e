//! Tracks whether periodic rounds of work complete on time.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Rounds may fail or be skipped for this many intervals before they are reported as late.
const LATE_INTERVALS: u32 = 3;
/// Rounds are never late before this age, because a round over a large store takes minutes whatever the interval is.
/// The alert `HeadcountRefresherSilent` uses the same value.
const MIN_LATE_AGE: Duration = Duration::from_mins(5);

/// The interval of the rounds, and when one was last completed.
#[derive(Debug)]
pub struct Rounds {
    interval: Duration,
    /// When the last round was completed. Initially the start: the first round is due one interval later.
    completed: Mutex<Instant>,
}

impl Rounds {
    /// Rounds that are due every `interval` from now on.
    pub fn every(interval: Duration) -> Self {
        Self {
            interval,
            completed: Mutex::new(Instant::now()),
        }
    }

    /// The interval between two rounds.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Notes that a round was completed.
    pub fn complete(&self) {
        *self.completed.lock() = Instant::now();
    }

    /// The time since the last round was completed, or since the start.
    pub fn age(&self) -> Duration {
        self.completed.lock().elapsed()
    }

    /// Whether the last completed round is older than three intervals, and than five minutes.
    pub fn are_late(&self) -> bool {
        self.age() > MIN_LATE_AGE.max(self.interval.saturating_mul(LATE_INTERVALS))
    }

    /// The state as a sentence, for readiness reports.
    pub fn describe(&self) -> String {
        let (age, interval) = (self.age().as_secs(), self.interval);
        match self.are_late() {
            false => format!("a round was completed {age} s ago"),
            true => {
                format!("no round was completed for {age} s; one is due every {interval:?}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rounds_are_late_after_three_of_them_and_after_minutes() {
        let (often, seldom) = (
            Rounds::every(Duration::from_secs(10)),
            Rounds::every(Duration::from_hours(1)),
        );
        tokio::time::advance(MIN_LATE_AGE + Duration::from_secs(1)).await;
        assert!(often.are_late() && !seldom.are_late());
        assert_eq!(
            often.describe(),
            "no round was completed for 301 s; one is due every 10s"
        );
        often.complete();
        assert_eq!(often.describe(), "a round was completed 0 s ago");
        tokio::time::advance(Duration::from_hours(3)).await;
        assert!(seldom.are_late());
    }
}
