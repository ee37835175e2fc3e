//! The source of the current time. Callers pass it in, so that tests control time.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

/// A source of the current time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The current time. It never goes back within a process.
    fn now(&self) -> Timestamp;

    /// Ensures that [`Clock::now`] does not return an instant before `instant` from this call on.
    fn not_before(&self, instant: Timestamp);

    /// How far [`Clock::now`] is ahead of the system clock. It is ahead if the system clock was set back, or was behind
    /// the instant of a [`not_before`](Self::not_before) call.
    fn ahead(&self) -> Duration {
        Duration::ZERO
    }
}

/// The system clock, which stands still while the system time is behind an instant that it already returned.
///
/// Otherwise a system clock that is set back would hide recently acknowledged pairs, because their slot would lie in
/// the future. Standing still keeps them counted.
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

/// A clock that moves only on [`advance`](Self::advance) and [`not_before`](Clock::not_before), for tests. It may also move with
/// each read.
#[derive(Debug)]
pub struct ManualClock {
    micros: AtomicI64,
    /// Microseconds by which each read advances it.
    tick: i64,
}

impl ManualClock {
    /// A clock that starts at `start`.
    pub fn new(start: Timestamp) -> Self {
        Self::ticking(start, Duration::ZERO)
    }

    /// The same, which each read advances by `tick`, so that instants are unique.
    pub fn ticking(start: Timestamp, tick: Duration) -> Self {
        Self {
            micros: AtomicI64::new(start.as_microsecond()),
            tick: i64::try_from(tick.as_micros()).unwrap_or(i64::MAX),
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
        from_micros(self.micros.fetch_add(self.tick, Ordering::Relaxed) + self.tick)
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
        let ticking = ManualClock::ticking(Timestamp::UNIX_EPOCH, Duration::from_secs(2));
        assert_eq!(ticking.now().as_second(), 2);
        assert_eq!(ticking.now().as_second(), 4);
    }
}
