//! The rate limits of a token: requests a second and pairs a second.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// The highest rate. A quota is stored in whole nanoseconds per item, and above this rate the rounding error would exceed
/// one percent.
pub const MAX_RATE: u32 = 10_000_000;

/// The rates of a token; `None` is no limit. The burst size is one second's worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// Requests a second.
    pub requests: Option<NonZeroU32>,
    /// Pairs a second.
    pub pairs: Option<NonZeroU32>,
}

impl Rates {
    /// These rates, with `defaults` for the missing ones.
    pub fn or(self, defaults: Self) -> Self {
        Self {
            requests: self.requests.or(defaults.requests),
            pairs: self.pairs.or(defaults.pairs),
        }
    }
}

/// Why a charge was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    /// The rate is used up for now.
    Wait {
        /// The rate, per second.
        rate: u32,
        /// The time after which a retry fits, unless another request with the same token comes first.
        wait: Duration,
    },
    /// The charge exceeds the burst size, so a retry never fits.
    TooMany {
        /// The burst size.
        most: u32,
    },
}

/// The rate limiter of one token, or of one subject of JWTs.
///
/// It uses the monotonic clock: with the clock of counts, a step back of the system's time would block all requests for as
/// long.
#[derive(Debug)]
pub struct Limiter<C: Clock = MonotonicClock> {
    rates: Rates,
    requests: Option<Bucket<C>>,
    pairs: Option<Bucket<C>>,
    clock: C,
}

type Bucket<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

impl Limiter<MonotonicClock> {
    /// A limiter with its full burst; `None` if `rates` has no limit.
    pub fn new(rates: Rates) -> Option<Self> {
        Self::with_clock(rates, MonotonicClock)
    }
}

impl<C: Clock + Clone> Limiter<C> {
    fn with_clock(rates: Rates, clock: C) -> Option<Self> {
        let bucket = |rate| RateLimiter::direct_with_clock(Quota::per_second(rate), clock.clone());
        (rates != Rates::default()).then(|| Self {
            rates,
            requests: rates.requests.map(bucket),
            pairs: rates.pairs.map(bucket),
            clock: clock.clone(),
        })
    }

    /// The rates that it enforces.
    pub fn rates(&self) -> Rates {
        self.rates
    }

    /// Charges one request.
    pub fn request(&self) -> Result<(), Limited> {
        charge(self.requests.as_ref(), &self.clock, NonZeroU32::MIN)
    }

    /// Charges `pairs` pairs: all of them or none.
    pub fn pairs(&self, pairs: usize) -> Result<(), Limited> {
        match NonZeroU32::new(u32::try_from(pairs).unwrap_or(u32::MAX)) {
            Some(pairs) => charge(self.pairs.as_ref(), &self.clock, pairs),
            None => Ok(()),
        }
    }
}

fn charge<C: Clock>(
    bucket: Option<&Bucket<C>>,
    clock: &C,
    amount: NonZeroU32,
) -> Result<(), Limited> {
    let Some(bucket) = bucket else {
        return Ok(());
    };
    match bucket.check_n(amount) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(not_yet)) => Err(Limited::Wait {
            rate: not_yet.quota().burst_size().get(),
            wait: not_yet.wait_time_from(clock.now()),
        }),
        Err(capacity) => Err(Limited::TooMany { most: capacity.0 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    fn limiter(requests: u32, pairs: u32) -> (Limiter<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let rates = Rates {
            requests: NonZeroU32::new(requests),
            pairs: NonZeroU32::new(pairs),
        };
        (Limiter::with_clock(rates, clock.clone()).unwrap(), clock)
    }

    #[test]
    fn a_seconds_worth_may_come_at_once_and_the_rest_waits() {
        let (limiter, clock) = limiter(2, 0);
        assert_eq!((limiter.request(), limiter.request()), (Ok(()), Ok(())));
        let wait = Duration::from_millis(500);
        assert_eq!(limiter.request(), Err(Limited::Wait { rate: 2, wait }));
        clock.advance(wait);
        assert_eq!(limiter.request(), Ok(()));
        assert!(limiter.request().is_err());
        // Without a limit on pairs.
        assert_eq!(limiter.pairs(usize::MAX), Ok(()));
    }

    #[test]
    fn pairs_are_charged_all_or_none() {
        let (limiter, clock) = limiter(0, 1000);
        assert_eq!(limiter.pairs(0), Ok(()));
        assert_eq!(limiter.pairs(1001), Err(Limited::TooMany { most: 1000 }));
        assert_eq!(limiter.pairs(700), Ok(()));
        let wait = Duration::from_millis(100);
        assert_eq!(limiter.pairs(400), Err(Limited::Wait { rate: 1000, wait }));
        assert_eq!(limiter.pairs(300), Ok(()), "the refused ones cost nothing");
        clock.advance(Duration::from_secs(5));
        assert_eq!(
            limiter.pairs(1000),
            Ok(()),
            "no more than a second's worth is saved up"
        );
        assert!(limiter.pairs(1).is_err());
    }

    #[test]
    fn the_highest_rate_is_kept_within_a_percent() {
        let (limiter, clock) = limiter(0, MAX_RATE);
        assert_eq!(limiter.pairs(MAX_RATE as usize), Ok(()));
        clock.advance(Duration::from_millis(500));
        assert_eq!(limiter.pairs(MAX_RATE as usize / 2), Ok(()));
        assert!(limiter.pairs(MAX_RATE as usize / 100).is_err());
    }

    #[test]
    fn no_rates_no_limiter() {
        assert!(Limiter::new(Rates::default()).is_none());
        let own = Rates {
            requests: NonZeroU32::new(5),
            pairs: None,
        };
        let defaults = Rates {
            requests: NonZeroU32::new(9),
            pairs: NonZeroU32::new(9),
        };
        assert_eq!(
            own.or(defaults),
            Rates {
                requests: own.requests,
                pairs: defaults.pairs
            }
        );
    }
}
