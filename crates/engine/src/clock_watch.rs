//! Detects a clock that is stopped because the system clock is behind the newest recorded pairs.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use domain::Clock;

/// A system clock that is set back by less than this was merely adjusted, which is not reported.
const TOLERANCE: Duration = Duration::from_mins(1);
/// The interval between two comparisons of the clocks.
const PERIOD: Duration = Duration::from_secs(10);

/// The problem of `clock`, if there is one.
pub(crate) fn problem(clock: &dyn Clock) -> Option<String> {
    let ahead = clock.ahead();
    (ahead > TOLERANCE).then(|| {
        let (stands, ahead) = (clock.now(), ahead.as_secs());
        format!(
            "the clock is at {stands:.0}, {ahead} s ahead of the system clock: the system clock is wrong, or was wrong when \
             the newest pairs were recorded. Counts are as of that instant, and pairs that are older than a window before \
             it are rejected as expired"
        )
    })
}

/// Logs when a problem of `clock` begins and when it ends, until `stop`.
pub(crate) async fn keep_watching(clock: Arc<dyn Clock>, stop: CancellationToken) {
    let mut was_wrong = false;
    loop {
        let problem = problem(&*clock);
        match &problem {
            Some(problem) if !was_wrong => {
                tracing::error!("{problem}; see HeadcountClockAhead in docs/operate/runbook.md")
            }
            None if was_wrong => tracing::info!("the system clock has caught up"),
            _ => {}
        }
        was_wrong = problem.is_some();
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{SteadyClock, Timestamp};

    #[test]
    fn a_clock_from_years_ahead_is_a_problem_and_one_that_was_adjusted_is_none() {
        let clock = SteadyClock::default();
        assert_eq!(problem(&clock), None);
        clock.not_before(Timestamp::now() + Duration::from_secs(30));
        assert_eq!(problem(&clock), None);
        clock.not_before("2231-01-01T00:00:00Z".parse().unwrap());
        let problem = problem(&clock).unwrap();
        assert!(
            problem.starts_with("the clock is at 2231-01-01T00:00:00Z, "),
            "{problem}"
        );
    }
}
