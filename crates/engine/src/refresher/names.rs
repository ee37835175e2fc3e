//! Which segments there are: the cache's list while it is whole, else the store's, asked for once at a time.

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

/// The store's own list of segments is asked for at least this often, so that one that the cache never heard of
/// (written while it was away, or before it lost everything) is found.
const LIST_TTL: Duration = Duration::from_secs(3600);
/// A refresh asks the store again when the list is whole for no longer than this, so that no reader has to.
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
    /// The store's list under way.
    listing: Mutex<Option<watch::Receiver<Option<Listed>>>>,
    /// As last seen from anywhere.
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

    /// Whether this process knows of `segment`: from its pairs, or from the list when it last saw it.
    pub(crate) fn knows(&self, segment: &Segment) -> bool {
        self.guard.knows(segment) || self.last.read().binary_search(segment).is_ok()
    }

    /// Whether this process or the cache knows of `segment`.
    pub(super) async fn has_heard_of(&self, segment: &Segment) -> bool {
        self.knows(segment) || self.cache.knows(segment).await.unwrap_or(false)
    }

    /// Whether there is such a segment: here, in the cache, or in the store.
    pub(super) async fn has(self: &Arc<Self>, segment: &Segment) -> Result<bool, StoreError> {
        if self.has_heard_of(segment).await {
            return Ok(true);
        }
        if self.store.is_live() {
            let listed = self.store.segments(self.clock.now()).await?;
            return Ok(listed.contains(segment));
        }
        let listed = self.listed_by_store().await?;
        Ok(listed.binary_search(segment).is_ok())
    }

    /// The segments to refresh. When the store can't list them, those known.
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
                tracing::warn!(%error, "the store can't list its segments; those known are recounted");
                Ok(self.also(known.names))
            }
            listed => listed,
        }
    }

    /// The segments for a reader, who waits for the store no longer than `patience`, and then gets those known.
    pub(crate) async fn to_read(self: &Arc<Self>, patience: Duration) -> Listed {
        let known = self.known().await;
        if known.complete {
            return Ok(self.keep(known.names));
        }
        let listed = tokio::time::timeout(patience, self.listed_by_store()).await;
        let error = match listed {
            Ok(Ok(listed)) => return Ok(listed),
            Ok(Err(error)) => error,
            Err(_) => StoreError::Timeout(format!("no list of segments within {patience:?}")),
        };
        match self.also(known.names) {
            known if known.is_empty() => Err(error),
            known => Ok(known),
        }
    }

    /// What the cache knows; nothing when it is unavailable.
    async fn known(&self) -> KnownSegments {
        self.cache.segments().await.unwrap_or_default()
    }

    /// The store's list: the one under way, or a new one. It goes on when nobody waits any more.
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
        let (told, under_way) = watch::channel(None);
        *listing = Some(under_way.clone());
        let names = Arc::clone(self);
        let list = async move {
            let ended = Ended(&names);
            let listed = tokio::select! {
                () = names.supervisor.stop().cancelled() => Err(StoreError::Closed),
                listed = names.list() => listed,
            };
            drop(ended);
            told.send_replace(Some(listed));
        };
        drop(self.supervisor.begin("list", list));
        under_way
    }

    async fn list(&self) -> Listed {
        let listing = self.guard.begin_listing();
        let mut listed = self.store.segments(self.clock.now()).await?;
        self.guard.settle(listing, &listed);
        let noted = self.cache.complete_segments(&listed, LIST_TTL).await;
        if noted.is_ok()
            && let Ok(known) = self.cache.segments().await
        {
            // What the cache knows beyond the store's list has just come, or has just gone: count it to know.
            listed.extend(known.names);
        }
        Ok(self.keep(listed))
    }

    /// Sorts `names`, which are all there are, and remembers them.
    fn keep(&self, mut names: Vec<Segment>) -> Listing {
        names.sort_unstable();
        names.dedup();
        let names: Listing = names.into();
        *self.last.write() = Arc::clone(&names);
        names
    }

    /// `names`, which need not be all, with those known before.
    fn also(&self, mut names: Vec<Segment>) -> Listing {
        names.extend(self.last.read().iter().cloned());
        self.keep(names)
    }
}

/// The store's list is no longer under way, however it ended.
struct Ended<'a>(&'a Names);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        *self.0.listing.lock() = None;
    }
}
