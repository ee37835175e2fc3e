//! A store behind a wire: the embedded one, which counts in rounds unless it is to be live.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use domain::store::{Archived, PairStore, StoreError};
use domain::{
    Batch, BatchBuilder, Count, Erasure, FingerprintKey, Membership, Segment, Slot, Timestamp,
    TrendPoint, UserId, Window,
};
use futures::executor::block_on;
use parking_lot::Mutex;
use stores::embedded::EmbeddedStore;

use super::steps::{Call, Fate};
use super::wire::{Course, Wire};

/// The store that all instances share. It is replaced when it is killed.
#[derive(Debug)]
pub struct StoreBackend {
    pub store: Mutex<Arc<EmbeddedStore>>,
    /// The noted erasures. They survive a kill, like the data of a server.
    erased: Mutex<Vec<Erasure>>,
    /// The latest slot of each user in each segment, for exports. The embedded store has no names of users.
    named: Mutex<BTreeMap<(Segment, String), Slot>>,
    /// The users of all erasures.
    forgotten: Mutex<Vec<String>>,
}

impl StoreBackend {
    pub fn new(store: EmbeddedStore) -> Self {
        Self {
            store: Mutex::new(Arc::new(store)),
            erased: Mutex::default(),
            named: Mutex::default(),
            forgotten: Mutex::default(),
        }
    }

    fn record(&self, store: &EmbeddedStore, batch: &Batch) -> Result<(), StoreError> {
        block_on(store.record(batch))?;
        let mut named = self.named.lock();
        for pair in batch.pairs() {
            let key = (pair.segment.clone(), pair.user.as_str().to_owned());
            let latest = named.entry(key).or_insert(pair.slot);
            *latest = pair.slot.max(*latest);
        }
        Ok(())
    }

    fn forget(
        &self,
        store: &EmbeddedStore,
        user: &UserId<'_>,
        as_of: Timestamp,
    ) -> Result<u64, StoreError> {
        let erased = block_on(store.forget(user, as_of))?;
        let mut named = self.named.lock();
        named.retain(|(_, name), _| name != user.as_str());
        self.forgotten.lock().push(user.as_str().to_owned());
        Ok(erased)
    }

    fn forget_seen(
        &self,
        store: &EmbeddedStore,
        user: &UserId<'_>,
        seen: &[Membership],
        as_of: Timestamp,
    ) -> Result<u64, StoreError> {
        let erased = block_on(store.forget_seen(user, seen, as_of))?;
        self.named.lock().retain(|(segment, name), slot| {
            let is_it = |it: &Membership| it.segment == *segment && it.last_seen >= *slot;
            name != user.as_str() || !seen.iter().any(is_it)
        });
        Ok(erased)
    }

    pub fn times_erased(&self, user: &str) -> usize {
        let forgotten = self.forgotten.lock();
        forgotten.iter().filter(|it| *it == user).count()
    }

    fn export(&self, segment: &Segment, slots: &RangeInclusive<Slot>) -> Batch {
        let mut batch = BatchBuilder::default();
        for ((name, user), slot) in &*self.named.lock() {
            if name == segment && slots.contains(slot) {
                let user = UserId::new(user.as_str()).unwrap();
                batch.push_pair(&user, name.as_str(), *slot).unwrap();
            }
        }
        batch.finish()
    }
}

#[derive(Debug)]
pub struct WiredStore {
    store_backend: Arc<StoreBackend>,
    wire: Arc<Wire>,
    is_live: bool,
}

impl WiredStore {
    pub fn new(store_backend: &Arc<StoreBackend>, wire: &Arc<Wire>, is_live: bool) -> Self {
        Self {
            store_backend: Arc::clone(store_backend),
            wire: Arc::clone(wire),
            is_live,
        }
    }

    fn inner(&self) -> Arc<EmbeddedStore> {
        Arc::clone(&self.store_backend.store.lock())
    }

    /// `call` runs immediately, on this thread, so that no timer runs meanwhile.
    async fn via<T>(
        &self,
        kind: Call,
        call: impl Fn(&EmbeddedStore) -> Result<T, StoreError>,
        half: impl Fn(&EmbeddedStore),
    ) -> Result<T, StoreError> {
        match self.wire.course(kind) {
            Course::Passes => call(&self.inner()),
            Course::Fails(Fate::ResponseLost) => {
                let _ = call(&self.inner());
                Err(StoreError::Timeout("the response is lost".to_owned()))
            }
            Course::Fails(Fate::HalfDone) => {
                half(&self.inner());
                Err(StoreError::Unavailable(
                    "the connection broke during the call".to_owned(),
                ))
            }
            Course::Fails(_) => Err(StoreError::Unavailable("switched off".to_owned())),
            Course::WaitsBefore(waiting) => {
                self.wire.wait(waiting).await;
                call(&self.inner())
            }
            Course::WaitsAfter(waiting) => {
                let answer = call(&self.inner());
                self.wire.wait(waiting).await;
                answer
            }
            Course::Never => std::future::pending().await,
        }
    }
}

fn nothing(_: &EmbeddedStore) {}

#[async_trait]
impl PairStore for WiredStore {
    async fn record(&self, batch: &Batch) -> Result<(), StoreError> {
        let half = |store: &EmbeddedStore| {
            let mut half = BatchBuilder::default();
            for pair in batch.pairs().take(batch.len() / 2) {
                half.push_pair(&pair.user, pair.segment.as_str(), pair.slot)
                    .unwrap();
            }
            self.store_backend.record(store, &half.finish()).unwrap();
        };
        let record = |store: &EmbeddedStore| self.store_backend.record(store, batch);
        self.via(Call::Record, record, half).await
    }

    async fn count(
        &self,
        segment: &Segment,
        window: Window,
        as_of: Timestamp,
    ) -> Result<Count, StoreError> {
        if self.is_live {
            // A live store counts in memory.
            return self.inner().count(segment, window, as_of).await;
        }
        let count = |store: &EmbeddedStore| block_on(store.count(segment, window, as_of));
        self.via(Call::StoreCount, count, nothing).await
    }

    async fn count_many(
        &self,
        segments: &[Segment],
        window: Window,
        as_of: Timestamp,
    ) -> Result<Vec<Count>, StoreError> {
        let count = |store: &EmbeddedStore| block_on(store.count_many(segments, window, as_of));
        self.via(Call::StoreCount, count, nothing).await
    }

    /// A store that counts in rounds counts a few segments together.
    fn counts_at_once(&self) -> usize {
        if self.is_live { 1 } else { 3 }
    }

    fn is_live(&self) -> bool {
        self.is_live
    }

    fn count_now(&self, segment: &Segment, window: Window, as_of: Timestamp) -> Option<Count> {
        self.is_live
            .then(|| self.inner().count_now(segment, window, as_of))?
    }

    async fn segments(&self, as_of: Timestamp) -> Result<Vec<Segment>, StoreError> {
        if self.is_live {
            return self.inner().segments(as_of).await;
        }
        let list = |store: &EmbeddedStore| block_on(store.segments(as_of));
        self.via(Call::StoreList, list, nothing).await
    }

    async fn memberships(
        &self,
        user: &UserId<'_>,
        as_of: Timestamp,
    ) -> Result<Vec<Membership>, StoreError> {
        let ask = |store: &EmbeddedStore| block_on(store.memberships(user, as_of));
        self.via(Call::Members, ask, nothing).await
    }

    async fn forget(&self, user: &UserId<'_>, as_of: Timestamp) -> Result<u64, StoreError> {
        let erase = |store: &EmbeddedStore| self.store_backend.forget(store, user, as_of);
        self.via(Call::Erase, erase, nothing).await
    }

    async fn forget_seen(
        &self,
        user: &UserId<'_>,
        seen: &[Membership],
        as_of: Timestamp,
    ) -> Result<u64, StoreError> {
        let erase =
            |store: &EmbeddedStore| self.store_backend.forget_seen(store, user, seen, as_of);
        self.via(Call::Erase, erase, nothing).await
    }

    async fn note_erasure(&self, erasure: &Erasure) -> Result<(), StoreError> {
        let note = |_: &EmbeddedStore| {
            self.store_backend.erased.lock().push(erasure.clone());
            Ok(())
        };
        self.via(Call::Erase, note, nothing).await
    }

    async fn erasures(&self, since: Timestamp) -> Result<Vec<Erasure>, StoreError> {
        let read = |_: &EmbeddedStore| {
            let mut erased = self.store_backend.erased.lock().clone();
            erased.retain(|erasure| erasure.at() >= since);
            Ok(erased)
        };
        self.via(Call::Other, read, nothing).await
    }

    async fn fingerprint_key(&self) -> Result<FingerprintKey, StoreError> {
        self.inner().fingerprint_key().await
    }

    async fn properties(&self, prefix: &str) -> Result<BTreeMap<String, String>, StoreError> {
        let read = |store: &EmbeddedStore| block_on(store.properties(prefix));
        self.via(Call::Other, read, nothing).await
    }

    async fn set_property(&self, name: &str, value: Option<&str>) -> Result<(), StoreError> {
        let set = |store: &EmbeddedStore| block_on(store.set_property(name, value));
        self.via(Call::Other, set, nothing).await
    }

    async fn export(
        &self,
        segment: &Segment,
        slots: RangeInclusive<Slot>,
    ) -> Result<Batch, StoreError> {
        let export = |_: &EmbeddedStore| Ok(self.store_backend.export(segment, &slots));
        self.via(Call::Export, export, nothing).await
    }

    async fn archive(&self, as_of: Timestamp, limit: u64) -> Result<Archived, StoreError> {
        let archive = |store: &EmbeddedStore| block_on(store.archive(as_of, limit));
        self.via(Call::Other, archive, nothing).await
    }

    async fn record_trend(&self, points: &[TrendPoint]) -> Result<(), StoreError> {
        let record = |store: &EmbeddedStore| block_on(store.record_trend(points));
        self.via(Call::Other, record, nothing).await
    }

    async fn trend(
        &self,
        segment: &Segment,
        window: Window,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Count>, StoreError> {
        let ask = |store: &EmbeddedStore| block_on(store.trend(segment, window, from, to));
        self.via(Call::Other, ask, nothing).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let ping = |store: &EmbeddedStore| block_on(store.ping());
        self.via(Call::Other, ping, nothing).await
    }

    /// The other instances keep using it.
    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
