//! Lists the existing segments at the start and every few minutes, in the background. Requests do not wait for the list.

use std::sync::Arc;
use std::time::Duration;

use backon::Retryable;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::ingest::SegmentGuard;
use domain::cache::CountCache;
use domain::store::{PairStore, StoreError};
use domain::{Clock, Segment};
use supervisor::{Supervisor, doubling};

/// The backoff after the first failure. It doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest backoff. A list is a heavy query for some stores, and a store that just became available is busy.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// The longest interval between two lists. After it a segment without users no longer counts towards `max_segments`,
/// in every process, whichever process refreshes.
const SETTLED_EVERY: Duration = Duration::from_mins(4);

/// The sources of the list of segments.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    /// The source of truth.
    pub(crate) store: Arc<dyn PairStore>,
    /// Queried first, unless the store is live, because it may have the complete list.
    pub(crate) cache: Arc<dyn CountCache>,
    /// The source of the current time.
    pub(crate) clock: Arc<dyn Clock>,
}

/// Starts to keep `guard` up to date with the existing segments. With a store in this process, the guard has the list
/// when this returns.
pub(crate) async fn begin(supervisor: &Supervisor, guard: &Arc<SegmentGuard>, sources: Sources) {
    let learner = Learner {
        guard: Arc::clone(guard),
        sources,
        stop: supervisor.stop().clone(),
    };
    if learner.sources.store.is_live() {
        learner.learn().await;
    }
    supervisor.keep("known segments", move || {
        let learner = learner.clone();
        async move { learner.keep_learning().await }
    });
}

#[derive(Debug, Clone)]
struct Learner {
    guard: Arc<SegmentGuard>,
    sources: Sources,
    stop: CancellationToken,
}

impl Learner {
    /// Starts with the list of the cache, which may be incomplete, because the store may take long to respond.
    async fn begin_with_the_cache(&self) {
        let listing = self.guard.begin_listing();
        if let Ok(known) = self.sources.cache.segments().await {
            self.guard.settle(listing, &known.names);
        }
    }

    /// Lists the segments now and then periodically, until `stop`. This does not rely on the refresher, which may run in
    /// another process or not at all.
    async fn keep_learning(&self) {
        if !self.sources.store.is_live() {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.begin_with_the_cache() => {}
            }
        }
        loop {
            self.learn().await;
            // Jitter keeps the instances from querying the store at the same time.
            let pause = SETTLED_EVERY.mul_f64(0.9 + fastrand::f64() / 10.0);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }

    /// Passes the list of segments to the guard: the list of the cache if that is complete, else the list of the store.
    /// Retries with backoff until this succeeds or until `stop`.
    async fn learn(&self) {
        let list = || async {
            let listing = self.guard.begin_listing();
            self.list().await.map(|listed| (listing, listed))
        };
        let tries = list.retry(doubling(FIRST_PAUSE, LONGEST_PAUSE));
        let listed = tries.notify(|error, pause| match pause {
            FIRST_PAUSE => tracing::warn!(
                %error,
                "the store can't list its segments; pairs are accepted, counts may be missing; retrying"
            ),
            _ => tracing::debug!(%error, "the store still can't list its segments"),
        });
        tokio::select! {
            () = self.stop.cancelled() => {}
            Ok((listing, listed)) = listed => self.guard.settle(listing, &listed),
        }
    }

    async fn list(&self) -> Result<Vec<Segment>, StoreError> {
        let Sources {
            store,
            cache,
            clock,
        } = &self.sources;
        if !store.is_live()
            && let Ok(known) = cache.segments().await
            && known.complete
        {
            return Ok(known.names);
        }
        store.segments(clock.now()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::Reservation;
    use domain::store::model::Model;
    use domain::{BatchBuilder, ManualClock, Slot, Timestamp, UserId};
    use stores::memory::MemoryCache;

    /// Whether pairs of the segment are accepted now.
    fn is_taken(guard: &Arc<SegmentGuard>, name: &str) -> bool {
        let mut reservation = Reservation::new(Arc::clone(guard));
        let admitted = reservation.admit(name);
        admitted.is_ok_and(|segment| {
            reservation.confirm(&[segment]);
            true
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_segment_without_users_gives_its_place_back_though_nobody_refreshes() {
        let store = Arc::new(Model::default());
        let mut builder = BatchBuilder::default();
        let user = UserId::new("u").unwrap();
        builder.push_pair(&user, "stays", Slot::new(1)).unwrap();
        store.put(&builder.finish());
        let guard = Arc::new(SegmentGuard::new(2));
        let stop = CancellationToken::new();
        let learner = Learner {
            guard: Arc::clone(&guard),
            sources: Sources {
                store: store.clone(),
                cache: Arc::<MemoryCache>::default(),
                clock: Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH)),
            },
            stop: stop.clone(),
        };
        let learning = tokio::spawn(async move { learner.keep_learning().await });
        sleep(FIRST_PAUSE).await;
        assert!(is_taken(&guard, "goes"), "one more segment is allowed");
        assert!(!is_taken(&guard, "comes"), "the maximum is reached");
        sleep(SETTLED_EVERY).await;
        assert!(
            is_taken(&guard, "comes"),
            "the segment without users no longer counts"
        );
        assert!(!is_taken(&guard, "goes"), "the others still count");
        // While the store is unavailable the set of known segments does not change.
        store
            .is_gone
            .store(true, std::sync::atomic::Ordering::Relaxed);
        sleep(SETTLED_EVERY * 3).await;
        assert!(!is_taken(&guard, "goes"));
        stop.cancel();
        learning.await.unwrap();
    }
}
