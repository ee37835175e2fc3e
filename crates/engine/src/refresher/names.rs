//! Lists the existing segments: from the cache while its list is complete, else from the store, with one query at a time.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::RefresherParts;
use crate::ingest::SegmentGuard;
use domain::cache::{CountCache, KnownSegments};
use domain::store::{PairStore, StoreError};
use domain::{Clock, Segment};
use supervisor::Supervisor;

/// The store's list of segments is read at least this often. It includes segments that the cache lacks because they were
/// written while the cache was unavailable, or before it lost its data.
const LIST_TTL: Duration = Duration::from_secs(3600);
/// A refresh reads the store's list again if the cached list expires within this time, so that no reader has to.
const RENEWED_BEFORE: Duration = Duration::from_secs(900);

/// The segments, sorted by name.
pub(crate) type Listing = Arc<[Segment]>;
type Listed = Result<Listing, StoreError>;

/// Lists segments.
#[derive(Debug)]
pub(crate) struct Names {
    clock: Arc<dyn Clock>,
    store: Arc<dyn PairStore>,
    cache: Arc<dyn CountCache>,
    guard: Arc<SegmentGuard>,
    supervisor: Supervisor,
    /// The store query in progress, if there is one.
    listing: Mutex<Option<watch::Receiver<Option<Listed>>>>,
    /// The last list from any source.
    last: RwLock<Listing>,
}

impl Names {
    pub(super) fn new(parts: &RefresherParts) -> Self {
        Self {
            clock: Arc::clone(&parts.clock),
            store: Arc::clone(&parts.store),
            cache: Arc::clone(&parts.cache),
            guard: Arc::clone(&parts.guard),
            supervisor: parts.supervisor.clone(),
            listing: Mutex::default(),
            last: RwLock::new(Arc::new([])),
        }
    }

    /// Whether this process knows `segment`, from its pairs or from the last list.
    pub(crate) fn knows(&self, segment: &Segment) -> bool {
        self.guard.knows(segment) || self.last.read().binary_search(segment).is_ok()
    }

    /// Removes a segment that was deleted. It is known again once pairs of it are received or listed.
    pub(crate) fn forget(&self, segment: &Segment) {
        self.guard.forget(segment);
        let mut last = self.last.write();
        let others = last.iter().filter(|listed| *listed != segment);
        *last = others.cloned().collect();
    }

    /// Whether this process or the cache knows `segment`.
    pub(super) async fn is_known_or_cached(&self, segment: &Segment) -> bool {
        self.knows(segment) || self.cache.knows(segment).await.unwrap_or(false)
    }

    /// Whether the segment exists in this process, in the cache or in the store.
    pub(super) async fn has(self: &Arc<Self>, segment: &Segment) -> Result<bool, StoreError> {
        if self.is_known_or_cached(segment).await {
            return Ok(true);
        }
        if self.store.is_live() {
            let listed = self.store.segments(self.clock.now()).await?;
            return Ok(listed.contains(segment));
        }
        let listed = self.listed_by_store().await?;
        Ok(listed.binary_search(segment).is_ok())
    }

    /// The segments to refresh. If the store can't list them, the known segments.
    pub(super) async fn to_refresh(self: &Arc<Self>) -> Listed {
        if self.store.is_live() {
            let listing = self.guard.begin_listing();
            let listed = self.store.segments(self.clock.now()).await?;
            self.guard.settle(listing, &listed);
            return Ok(self.keep(listed));
        }
        let known = self.known().await;
        if known.complete && known.complete_for > RENEWED_BEFORE {
            return Ok(self.keep(known.names));
        }
        match self.listed_by_store().await {
            Err(error) if !known.names.is_empty() || !self.last.read().is_empty() => {
                tracing::warn!(%error, "the store can't list its segments; recounting the known ones");
                Ok(self.keep_with_last(known.names))
            }
            listed => listed,
        }
    }

    /// The segments for a reader. After `timeout` without a list from the store, the known segments.
    pub(crate) async fn to_read(self: &Arc<Self>, timeout: Duration) -> Listed {
        let known = self.known().await;
        if known.complete {
            return Ok(self.keep(known.names));
        }
        let listed = tokio::time::timeout(timeout, self.listed_by_store()).await;
        let error = match listed {
            Ok(Ok(listed)) => return Ok(listed),
            Ok(Err(error)) => error,
            Err(_) => StoreError::Timeout(format!(
                "the store did not list segments within {timeout:?}"
            )),
        };
        match self.keep_with_last(known.names) {
            known if known.is_empty() => Err(error),
            known => Ok(known),
        }
    }

    /// The list of the cache; empty if the cache is unavailable.
    async fn known(&self) -> KnownSegments {
        self.cache.segments().await.unwrap_or_default()
    }

    /// The store's list, from the query in progress or a new one. The query continues if all callers are cancelled.
    async fn listed_by_store(self: &Arc<Self>) -> Listed {
        let mut listing = self.begin_listing();
        let done = listing.wait_for(Option::is_some).await;
        match done.as_deref() {
            Ok(Some(listed)) => listed.clone(),
            _ => Err(StoreError::Unavailable(
                "a list of segments ended without a result".to_owned(),
            )),
        }
    }

    fn begin_listing(self: &Arc<Self>) -> watch::Receiver<Option<Listed>> {
        let mut listing = self.listing.lock();
        if let Some(listing) = &*listing {
            return listing.clone();
        }
        let (sender, receiver) = watch::channel(None);
        *listing = Some(receiver.clone());
        let names = Arc::clone(self);
        let list = async move {
            let ended = Ended(&names);
            let listed = tokio::select! {
                () = names.supervisor.stop().cancelled() => Err(StoreError::Closed),
                listed = names.list() => listed,
            };
            drop(ended);
            sender.send_replace(Some(listed));
        };
        drop(self.supervisor.begin("list", list));
        receiver
    }

    async fn list(&self) -> Listed {
        let listing = self.guard.begin_listing();
        let mut listed = self.store.segments(self.clock.now()).await?;
        self.guard.settle(listing, &listed);
        let noted = self.cache.complete_segments(&listed, LIST_TTL).await;
        if noted.is_ok()
            && let Ok(known) = self.cache.segments().await
        {
            // A segment that only the cache lists has just been added, or has just lost its users. Counting it decides
            // which.
            listed.extend(known.names);
        }
        Ok(self.keep(listed))
    }

    /// Sorts `names`, which must be the complete list, and remembers them.
    fn keep(&self, mut names: Vec<Segment>) -> Listing {
        names.sort_unstable();
        names.dedup();
        let names: Listing = names.into();
        *self.last.write() = Arc::clone(&names);
        names
    }

    /// Adds the last list to `names`, which may be incomplete, and remembers the result.
    fn keep_with_last(&self, mut names: Vec<Segment>) -> Listing {
        names.extend(self.last.read().iter().cloned());
        self.keep(names)
    }
}

/// Clears the query in progress on drop, also after a panic.
struct Ended<'a>(&'a Names);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        *self.0.listing.lock() = None;
    }
}
