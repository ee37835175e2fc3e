//! Finds out at the start, and again every few minutes, which segments there are, without keeping anybody waiting for
//! it.

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

/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A list is a heavy query for some stores, and one that was away has other things to do first.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// How often it is found out again at the latest: so soon a segment that has no users any more gives its place to
/// another, in every process and whoever refreshes.
const SETTLED_EVERY: Duration = Duration::from_mins(4);

/// Where segments are listed.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    /// The source of truth.
    pub(crate) store: Arc<dyn PairStore>,
    /// Asked first, unless the store is live: it may have the whole list.
    pub(crate) cache: Arc<dyn CountCache>,
    /// Where "now" comes from.
    pub(crate) clock: Arc<dyn Clock>,
}

/// Begins to tell `guard` which segments there are. A store in this process has told when this returns.
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
    /// Takes the cache's list, which need not be all, for a start: the store may take its time.
    async fn begin_with_the_cache(&self) {
        let listing = self.guard.begin_listing();
        if let Ok(known) = self.sources.cache.segments().await {
            self.guard.settle(listing, &known.names);
        }
    }

    /// Learns at once and then now and again, until `stop`: whoever refreshes, if anybody does, may be another process.
    async fn keep_learning(&self) {
        if !self.sources.store.is_live() {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.begin_with_the_cache() => {}
            }
        }
        loop {
            self.learn().await;
            // Apart from other instances, so that a store is not asked by all at once.
            let pause = SETTLED_EVERY.mul_f64(0.9 + fastrand::f64() / 10.0);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }

    /// Tells the guard which segments there are: what the cache knows if that is all, else what the store holds, once
    /// it says so. Until then, or until `stop`, it is asked again.
    async fn learn(&self) {
        let list = || async {
            let listing = self.guard.begin_listing();
            self.list().await.map(|listed| (listing, listed))
        };
        let tries = list.retry(doubling(FIRST_PAUSE, LONGEST_PAUSE));
        let listed = tries.notify(|error, pause| match pause {
            FIRST_PAUSE => tracing::warn!(
                %error,
                "the store can't list its segments; pairs are taken, counts may be missing, and it is asked again"
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
    use crate::ingest::Places;
    use domain::store::model::Model;
    use domain::{BatchBuilder, ManualClock, Slot, Timestamp, UserId};
    use stores::memory::MemoryCache;

    /// Whether pairs of a new segment are taken now.
    fn is_taken(guard: &Arc<SegmentGuard>, name: &str) -> bool {
        let mut places = Places::new(Arc::clone(guard));
        let admitted = places.admit(name);
        admitted.is_ok_and(|segment| {
            places.confirm(&[segment]);
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
        assert!(is_taken(&guard, "goes"), "there is a place");
        assert!(!is_taken(&guard, "comes"), "there is none");
        sleep(SETTLED_EVERY).await;
        assert!(is_taken(&guard, "comes"), "the place of the other is free");
        assert!(
            !is_taken(&guard, "goes"),
            "and the one that has users is not"
        );
        // A store that is away takes no place back and gives none.
        store
            .is_gone
            .store(true, std::sync::atomic::Ordering::Relaxed);
        sleep(SETTLED_EVERY * 3).await;
        assert!(!is_taken(&guard, "goes"));
        stop.cancel();
        learning.await.unwrap();
    }
}
