//! The number of distinct users in any segment: the whole of which a segment is a share.

use std::time::Duration;

use tokio::time::timeout;

use domain::{Expression, Floor, Reach, Window};
use engine::Headcount;

/// How long the number is reused. It takes a walk over all users, and pages are fetched every few seconds.
const CACHE_TTL: Duration = Duration::from_secs(15);
/// How long a page waits for the number. After that it is rendered without it.
const LONGEST: Duration = Duration::from_secs(2);
/// The windows that pages offer are few.
const CACHE_CAPACITY: u64 = 32;

/// Counts everybody, and caches the number.
#[derive(Debug)]
pub(super) struct Everybody {
    cache: moka::future::Cache<Window, Option<u64>>,
}

impl Default for Everybody {
    fn default() -> Self {
        let cache = moka::future::Cache::builder()
            .max_capacity(CACHE_CAPACITY)
            .time_to_live(CACHE_TTL)
            .build();
        Self { cache }
    }
}

impl Everybody {
    /// The distinct users in any segment over `window`. `None` if the store can't count them, if the caller may not see every
    /// segment, or with a `floor`, which would have to be compared with each of them.
    pub(super) async fn users(
        &self,
        app: &Headcount,
        window: Window,
        reach: &Reach,
        floor: Floor,
    ) -> Option<u64> {
        if !reach.is_every() || floor.is_on() {
            return None;
        }
        let count = async {
            let everybody = Expression::parse("*").ok()?;
            let counts = app.counts();
            let counted = counts.get_set(&everybody, window, floor, false).await;
            counted.ok()?.value
        };
        self.cached(window, count).await
    }

    /// The number that is cached, or else the one of `count`, if that does not take too long.
    async fn cached(
        &self,
        window: Window,
        count: impl Future<Output = Option<u64>>,
    ) -> Option<u64> {
        let count = async { timeout(LONGEST, count).await.ok().flatten() };
        self.cache.get_with(window, count).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::TimeFrame;

    #[tokio::test(start_paused = true)]
    async fn a_page_does_not_wait_for_a_long_walk() {
        let minute = Duration::from_mins(1);
        let frame = TimeFrame::new(minute, minute, minute).unwrap();
        let everybody = Everybody::default();
        let endless = everybody.cached(frame.full_window(), std::future::pending());
        let waited = timeout(2 * LONGEST, endless).await;
        assert_eq!(waited, Ok(None));
        // Nor does the next one begin another walk at once.
        let other = everybody.cached(frame.full_window(), async { Some(1) });
        assert_eq!(other.await, None);
    }
}
