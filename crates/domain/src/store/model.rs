//! An in-memory store for tests, which fails, grows and loses pairs on demand.

#![expect(clippy::unwrap_used, reason = "a store for tests fails by panicking")]

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::conformance::frame;
use super::{Archived, PairStore, StoreError, check_property};
use crate::{
    Batch, BatchBuilder, Count, Erasure, FingerprintKey, Membership, Segment, Slot, Timestamp,
    TrendPoint, UserId, Window,
};

/// The in-memory store. Its resolution is that of [`frame`].
#[derive(Debug, Default)]
pub struct Model {
    /// The latest slot of each user, by segment and user.
    pub pairs: Mutex<BTreeMap<(String, String), Slot>>,
    /// Every n-th call fails with `Unavailable`; 0 for none.
    pub fails_each: u64,
    /// The number of calls so far.
    pub calls: AtomicU64,
    /// Whether every call fails.
    pub is_gone: AtomicBool,
    /// The user whose pairs it accepts and drops.
    pub drops: Option<&'static str>,
    /// The segment whose counts fail.
    pub uncountable: Mutex<Option<&'static str>>,
    /// How long each export takes.
    pub export_takes: Duration,
    /// Batches to record, one after each export, like concurrent writes.
    pub live: Mutex<Vec<Batch>>,
    /// The recorded erasures.
    pub erased: Mutex<Vec<Erasure>>,
    /// The properties of the installation.
    pub properties: Mutex<BTreeMap<String, String>>,
}

impl Model {
    fn reach(&self) -> Result<(), StoreError> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let is_turn = self.fails_each > 0 && call.is_multiple_of(self.fails_each);
        match self.is_gone.load(Ordering::Relaxed) || is_turn {
            true => Err(StoreError::Unavailable("switched off".into())),
            false => Ok(()),
        }
    }

    /// Records pairs directly, without a call through the port.
    pub fn put(&self, batch: &Batch) {
        let mut pairs = self.pairs.lock();
        for pair in batch.pairs() {
            if self.drops.is_some_and(|name| pair.user.as_str() == name) {
                continue;
            }
            let key = (
                pair.segment.as_str().to_owned(),
                pair.user.as_str().to_owned(),
            );
            let slot = pairs.entry(key).or_insert(pair.slot);
            *slot = pair.slot.max(*slot);
        }
    }
}

#[async_trait]
impl PairStore for Model {
    async fn record(&self, batch: &Batch) -> Result<(), StoreError> {
        self.reach()?;
        self.put(batch);
        Ok(())
    }

    async fn count(
        &self,
        segment: &Segment,
        window: Window,
        as_of: Timestamp,
    ) -> Result<Count, StoreError> {
        self.reach()?;
        if *self.uncountable.lock() == Some(segment.as_str()) {
            return Err(StoreError::Unavailable("not countable".into()));
        }
        let slots = window.slots_as_of(frame(60).resolution().slot_of(as_of));
        let pairs = self.pairs.lock();
        let counted = pairs
            .iter()
            .filter(|((name, _), slot)| name == segment.as_str() && slots.contains(slot));
        Ok(Count {
            users: counted.count() as u64,
            as_of,
        })
    }

    async fn segments(&self, _as_of: Timestamp) -> Result<Vec<Segment>, StoreError> {
        self.reach()?;
        let mut names: Vec<_> = self
            .pairs
            .lock()
            .keys()
            .map(|(name, _)| Segment::new(name).unwrap())
            .collect();
        names.dedup();
        Ok(names)
    }

    async fn export(
        &self,
        segment: &Segment,
        slots: RangeInclusive<Slot>,
    ) -> Result<Batch, StoreError> {
        self.reach()?;
        tokio::time::sleep(self.export_takes).await;
        let mut exported = BatchBuilder::default();
        for ((name, user), slot) in &*self.pairs.lock() {
            if name == segment.as_str() && slots.contains(slot) {
                let user = UserId::new(user.as_str()).unwrap();
                exported.push_pair(&user, name, *slot).unwrap();
            }
        }
        let live = self.live.lock().pop();
        if let Some(live) = live {
            self.put(&live);
        }
        Ok(exported.finish())
    }

    async fn memberships(
        &self,
        user: &UserId<'_>,
        _: Timestamp,
    ) -> Result<Vec<Membership>, StoreError> {
        self.reach()?;
        let pairs = self.pairs.lock();
        let of_user = pairs.iter().filter(|((_, name), _)| name == user.as_str());
        let membership = |((segment, _), slot): (&(String, String), &Slot)| Membership {
            segment: Segment::new(segment).unwrap(),
            last_seen: *slot,
        };
        Ok(of_user.map(membership).collect())
    }

    async fn forget(&self, user: &UserId<'_>, _: Timestamp) -> Result<u64, StoreError> {
        self.reach()?;
        let mut pairs = self.pairs.lock();
        let before = pairs.len();
        pairs.retain(|(_, name), _| name != user.as_str());
        Ok((before - pairs.len()) as u64)
    }

    async fn forget_in(
        &self,
        segment: &Segment,
        user: &UserId<'_>,
        _: Timestamp,
    ) -> Result<bool, StoreError> {
        self.reach()?;
        let key = (segment.as_str().to_owned(), user.as_str().to_owned());
        Ok(self.pairs.lock().remove(&key).is_some())
    }

    async fn forget_seen(
        &self,
        user: &UserId<'_>,
        seen: &[Membership],
        _: Timestamp,
    ) -> Result<u64, StoreError> {
        self.reach()?;
        let mut pairs = self.pairs.lock();
        let before = pairs.len();
        for it in seen {
            let key = (it.segment.as_str().to_owned(), user.as_str().to_owned());
            if pairs.get(&key).is_some_and(|slot| *slot <= it.last_seen) {
                pairs.remove(&key);
            }
        }
        Ok((before - pairs.len()) as u64)
    }

    async fn drop_segment(
        &self,
        segment: &Segment,
        _: &[Window],
        _: Timestamp,
    ) -> Result<u64, StoreError> {
        self.reach()?;
        let mut pairs = self.pairs.lock();
        let before = pairs.len();
        pairs.retain(|(name, _), _| name != segment.as_str());
        Ok((before - pairs.len()) as u64)
    }

    async fn note_erasure(&self, erasure: &Erasure) -> Result<(), StoreError> {
        self.reach()?;
        self.erased.lock().push(erasure.clone());
        Ok(())
    }

    async fn erasures(&self, since: Timestamp) -> Result<Vec<Erasure>, StoreError> {
        self.reach()?;
        let mut erased = self.erased.lock().clone();
        erased.retain(|erasure| erasure.at() >= since);
        Ok(erased)
    }

    async fn fingerprint_key(&self) -> Result<FingerprintKey, StoreError> {
        Ok(FingerprintKey::new([7; 16]))
    }

    async fn properties(&self, prefix: &str) -> Result<BTreeMap<String, String>, StoreError> {
        self.reach()?;
        let mut found = self.properties.lock().clone();
        found.retain(|name, _| name.starts_with(prefix));
        Ok(found)
    }

    async fn set_property(&self, name: &str, value: Option<&str>) -> Result<(), StoreError> {
        check_property(name, value)?;
        self.reach()?;
        let mut properties = self.properties.lock();
        match value {
            Some(value) => drop(properties.insert(name.to_owned(), value.to_owned())),
            None => drop(properties.remove(name)),
        }
        Ok(())
    }

    async fn archive(&self, _: Timestamp, _: u64) -> Result<Archived, StoreError> {
        Err(StoreError::Unsupported("a model"))
    }

    async fn record_trend(&self, _: &[TrendPoint]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn trend(
        &self,
        _: &Segment,
        _: Window,
        _: Timestamp,
        _: Timestamp,
    ) -> Result<Vec<Count>, StoreError> {
        Ok(Vec::new())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.reach()
    }

    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
