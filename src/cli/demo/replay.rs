//! A clock that goes through the past, and then is the system's.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use domain::{Clock, SteadyClock, Timestamp};

/// A clock that stands at an instant of the past until it is set to a later one. Then users enter and leave segments when they
/// did, although their visits are recorded at once.
#[derive(Debug)]
pub(super) struct ReplayClock {
    /// Unix seconds; `NOW` once the past is over.
    past: AtomicI64,
    system: SteadyClock,
}

const NOW: i64 = i64::MAX;

impl ReplayClock {
    /// A clock that stands at `begin`, which is not in the future.
    pub(super) fn at(begin: Timestamp) -> Self {
        Self {
            past: AtomicI64::new(begin.as_second()),
            system: SteadyClock::default(),
        }
    }

    /// Goes on to `instant`, which is not in the future.
    pub(super) fn go_to(&self, instant: Timestamp) {
        self.past.fetch_max(instant.as_second(), Ordering::Relaxed);
    }

    /// Goes on to the present, and with it.
    pub(super) fn catch_up(&self) {
        self.past.store(NOW, Ordering::Relaxed);
    }
}

impl Clock for ReplayClock {
    fn now(&self) -> Timestamp {
        match self.past.load(Ordering::Relaxed) {
            NOW => self.system.now(),
            past => Timestamp::from_second(past).unwrap_or_else(|_| self.system.now()),
        }
    }

    fn not_before(&self, instant: Timestamp) {
        self.system.not_before(instant);
    }

    fn ahead(&self) -> Duration {
        self.system.ahead()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_through_the_past_and_then_with_the_system() {
        let second = |second| Timestamp::from_second(second).unwrap();
        let clock = ReplayClock::at(second(1_000));
        assert_eq!(clock.now(), second(1_000));
        clock.go_to(second(2_000));
        clock.go_to(second(1_500));
        assert_eq!(clock.now(), second(2_000), "it never goes back");
        let before = Timestamp::now();
        clock.catch_up();
        assert!(clock.now() >= before);
        clock.go_to(second(3_000));
        assert!(clock.now() >= before);
    }
}
