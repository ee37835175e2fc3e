//! Whether work that is done in rounds goes on.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Rounds that may fail, or be skipped, before that is worth telling.
const PATIENCE: u32 = 3;
/// A round over a large store takes minutes, whatever the interval is. The same as in the alert
/// `HeadcountRefresherSilent`.
const AT_LEAST: Duration = Duration::from_mins(5);

/// When a round was completed last.
#[derive(Debug)]
pub struct Rounds {
    interval: Duration,
    /// The start counts as one: the first is due an interval later.
    completed: Mutex<Instant>,
}

impl Rounds {
    /// Rounds that begin every `interval` from now on.
    pub fn every(interval: Duration) -> Self {
        Self {
            interval,
            completed: Mutex::new(Instant::now()),
        }
    }

    /// The time from one to the next.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// A round was completed.
    pub fn complete(&self) {
        *self.completed.lock() = Instant::now();
    }

    /// How long ago the last one was completed.
    pub fn age(&self) -> Duration {
        self.completed.lock().elapsed()
    }

    /// Whether the last one is so long ago that something must be wrong.
    pub fn are_late(&self) -> bool {
        self.age() > AT_LEAST.max(self.interval.saturating_mul(PATIENCE))
    }

    /// The state in words.
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
        tokio::time::advance(AT_LEAST + Duration::from_secs(1)).await;
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
