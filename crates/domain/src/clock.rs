//! Where "now" comes from: passed in, so that tests own time.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

/// A source of the present instant.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The present instant. It never goes back within a process.
    fn now(&self) -> Timestamp;

    /// Promises that [`Clock::now`] will not answer an instant before `instant` from here on.
    fn not_before(&self, instant: Timestamp);

    /// How far [`Clock::now`] is ahead of the system's clock, which was set back, or was wrong when an instant was
    /// promised.
    fn ahead(&self) -> Duration {
        Duration::ZERO
    }
}

/// The system's clock, held still while the system's time is behind what was already answered.
///
/// A system clock that is set back would otherwise hide pairs that were acknowledged a moment ago: their slot
/// would lie ahead of now. Standing still keeps them counted.
#[derive(Debug, Default)]
pub struct SteadyClock {
    latest_micros: AtomicI64,
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        let system = Timestamp::now().as_microsecond();
        let earlier = self.latest_micros.fetch_max(system, Ordering::Relaxed);
        from_micros(system.max(earlier))
    }

    fn not_before(&self, instant: Timestamp) {
        self.latest_micros
            .fetch_max(instant.as_microsecond(), Ordering::Relaxed);
    }

    fn ahead(&self) -> Duration {
        let latest = self.latest_micros.load(Ordering::Relaxed);
        let ahead = latest.saturating_sub(Timestamp::now().as_microsecond());
        Duration::from_micros(u64::try_from(ahead).unwrap_or(0))
    }
}

/// A clock that moves only when told to.
#[derive(Debug)]
pub struct ManualClock {
    micros: AtomicI64,
}

impl ManualClock {
    /// A clock that stands at `start`.
    pub fn new(start: Timestamp) -> Self {
        Self {
            micros: AtomicI64::new(start.as_microsecond()),
        }
    }

    /// Moves the clock ahead.
    pub fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        from_micros(self.micros.load(Ordering::Relaxed))
    }

    fn not_before(&self, instant: Timestamp) {
        self.micros
            .fetch_max(instant.as_microsecond(), Ordering::Relaxed);
    }
}

fn from_micros(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_clock_stands_still_rather_than_go_back() {
        let clock = SteadyClock::default();
        let ahead = clock.now() + jiff::SignedDuration::from_hours(3);
        clock.not_before(ahead);
        assert!(clock.now() >= ahead - jiff::SignedDuration::from_micros(1));
        assert!(clock.now() < ahead + jiff::SignedDuration::from_hours(1));
        let three_hours = Duration::from_hours(3);
        assert!(clock.ahead() <= three_hours && clock.ahead() > three_hours / 2);
        assert_eq!(SteadyClock::default().ahead(), Duration::ZERO);
    }

    #[test]
    fn a_manual_clock_moves_when_told() {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        clock.advance(Duration::from_secs(90));
        assert_eq!(clock.now().as_second(), 90);
    }
}
