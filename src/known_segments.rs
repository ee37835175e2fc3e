//! Finds out at the start which segments there are, without keeping anybody waiting for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::cache::CountCache;
use crate::domain::Clock;
use crate::ingest::SegmentGuard;
use crate::store::PairStore;
use crate::supervisor::Supervisor;

/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A list is a heavy query for some stores, and one that was away has other things to do first.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

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
    let (guard, stop) = (Arc::clone(guard), supervisor.stop().clone());
    if sources.store.is_live() {
        return learn(guard, sources, stop).await;
    }
    supervisor.keep("known segments", move || {
        learn(Arc::clone(&guard), sources.clone(), stop.clone())
    });
}

/// Tells `guard` which segments there are: what the cache knows and, unless that is all, what the store holds, once it
/// says so. Until then, or until `stop`, it is asked again.
async fn learn(guard: Arc<SegmentGuard>, sources: Sources, stop: CancellationToken) {
    let Sources {
        store,
        cache,
        clock,
    } = sources;
    if !store.is_live()
        && let Ok(known) = cache.segments().await
    {
        guard.settle(guard.begin_listing(), &known.names);
        if known.complete {
            return;
        }
    }
    let mut pause = FIRST_PAUSE;
    loop {
        let listing = guard.begin_listing();
        let listed = tokio::select! {
            () = stop.cancelled() => return,
            listed = store.segments(clock.now()) => listed,
        };
        match listed {
            Ok(listed) => return guard.settle(listing, &listed),
            Err(error) if pause == FIRST_PAUSE => tracing::warn!(
                %error,
                "the store can't list its segments yet; pairs are taken, counts may be missing, and it is asked again"
            ),
            Err(error) => tracing::debug!(%error, "the store still can't list its segments"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}
