//! A real store behind a switch. It is not live, so that the read path uses the caches, and it can be made unavailable.
//! It records its calls and can block them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use domain::store::{Archived, PairStore, StoreError};
use domain::{
    Batch, Count, Erasure, Membership, Segment, Slot, Timestamp, TrendPoint, UserId, Window,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

type Hook = Box<dyn Fn() + Send + Sync>;

/// Forwards calls to the inner store, unless it is switched off.
pub struct SwitchableStore {
    inner: Arc<dyn PairStore>,
    unavailable: AtomicBool,
    keeps_every_slot: bool,
    at_once: usize,
    /// The segments of each `count_many` call, in the order in which the calls began.
    groups: Mutex<Vec<Vec<String>>>,
    /// The segments of single counts, in the order in which the counts began.
    counted: Mutex<Vec<Segment>>,
    running: AtomicUsize,
    max_running: AtomicUsize,
    lists: AtomicU64,
    /// Counts and lists wait for a permit, so that a test can block them.
    gate: Semaphore,
    list_gate: Semaphore,
    /// Each export takes a permit for good.
    export_gate: Semaphore,
    held: Mutex<HashMap<Segment, Arc<Semaphore>>>,
    failing: Mutex<HashSet<Segment>>,
    lists_fail: AtomicBool,
    trend_unavailable: AtomicBool,
    discards_trend: AtomicBool,
    running_trends: AtomicUsize,
    max_running_trends: AtomicUsize,
    during_counts: Mutex<Option<Hook>>,
    /// The noted erasures: the embedded store inside shares them with no other instance.
    erased: Mutex<Vec<Erasure>>,
}

impl std::fmt::Debug for SwitchableStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SwitchableStore").finish_non_exhaustive()
    }
}

/// Decrements the number of running calls, also when a call is dropped.
struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl SwitchableStore {
    pub fn new(inner: Arc<dyn PairStore>) -> Self {
        Self {
            inner,
            unavailable: AtomicBool::new(false),
            keeps_every_slot: false,
            at_once: 1,
            groups: Mutex::default(),
            counted: Mutex::default(),
            running: AtomicUsize::new(0),
            max_running: AtomicUsize::new(0),
            lists: AtomicU64::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            list_gate: Semaphore::new(Semaphore::MAX_PERMITS),
            export_gate: Semaphore::new(Semaphore::MAX_PERMITS),
            held: Mutex::default(),
            failing: Mutex::default(),
            lists_fail: AtomicBool::new(false),
            trend_unavailable: AtomicBool::new(false),
            discards_trend: AtomicBool::new(false),
            running_trends: AtomicUsize::new(0),
            max_running_trends: AtomicUsize::new(0),
            during_counts: Mutex::default(),
            erased: Mutex::default(),
        }
    }

    /// A store that reports that it keeps every slot of a pair.
    pub fn keeping_every_slot(inner: Arc<dyn PairStore>) -> Self {
        Self {
            keeps_every_slot: true,
            ..Self::new(inner)
        }
    }

    /// A store that counts this many segments in one call.
    pub fn with_group_size(at_once: usize) -> impl FnOnce(Arc<dyn PairStore>) -> Self {
        move |inner| Self {
            at_once,
            ..Self::new(inner)
        }
    }

    pub fn set_unavailable(&self, unavailable: bool) {
        self.unavailable.store(unavailable, Ordering::SeqCst);
    }

    /// The segments of each `count_many` call, in the order in which the calls began.
    pub fn groups(&self) -> Vec<Vec<String>> {
        self.groups.lock().clone()
    }

    /// The number of single counts.
    pub fn counts(&self) -> usize {
        self.counted.lock().len()
    }

    /// The segments of single counts, in the order of the calls.
    pub fn counted(&self) -> Vec<String> {
        let counted = self.counted.lock();
        counted.iter().map(ToString::to_string).collect()
    }

    /// The maximum number of concurrent counts.
    pub fn max_running(&self) -> usize {
        self.max_running.load(Ordering::SeqCst)
    }

    /// How often the list of all segments was requested.
    pub fn lists(&self) -> u64 {
        self.lists.load(Ordering::SeqCst)
    }

    /// Blocks counts until `release`.
    pub fn hold(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub fn release(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS);
    }

    /// Lets one blocked count pass; its permit is not returned.
    pub fn release_one(&self) {
        self.gate.add_permits(1);
    }

    /// Blocks lists of segments until `release_lists`.
    pub fn hold_lists(&self) {
        self.list_gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub fn release_lists(&self) {
        self.list_gate.add_permits(Semaphore::MAX_PERMITS);
    }

    /// Blocks exports after `number` more of them, until `release_exports`.
    pub fn hold_exports_after(&self, number: usize) {
        self.export_gate.forget_permits(Semaphore::MAX_PERMITS);
        self.export_gate.add_permits(number);
    }

    pub fn release_exports(&self) {
        let taken = Semaphore::MAX_PERMITS - self.export_gate.available_permits();
        self.export_gate.add_permits(taken);
    }

    /// Blocks the counts of one segment.
    pub fn hold_segment(&self, segment: &Segment) {
        let gate = Arc::new(Semaphore::new(0));
        self.held.lock().insert(segment.clone(), gate);
    }

    pub fn release_segment(&self, segment: &Segment) {
        if let Some(gate) = self.held.lock().remove(segment) {
            gate.close();
        }
    }

    /// From here on counts of this segment fail.
    pub fn fail_segment(&self, segment: &Segment) {
        self.failing.lock().insert(segment.clone());
    }

    pub fn fail_lists(&self, fail: bool) {
        self.lists_fail.store(fail, Ordering::SeqCst);
    }

    /// The most trends that were read at the same time.
    pub fn max_running_trends(&self) -> usize {
        self.max_running_trends.load(Ordering::SeqCst)
    }

    pub fn set_trend_unavailable(&self, unavailable: bool) {
        self.trend_unavailable.store(unavailable, Ordering::SeqCst);
    }

    /// Trend points are accepted and dropped. Writing them takes real time, in which a paused clock advances.
    pub fn discard_trend(&self) {
        self.discards_trend.store(true, Ordering::SeqCst);
    }

    /// Sets a hook that runs during each count.
    pub fn during_counts(&self, hook: impl Fn() + Send + Sync + 'static) {
        *self.during_counts.lock() = Some(Box::new(hook));
    }

    fn reach(&self) -> Result<&dyn PairStore, StoreError> {
        if self.unavailable.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("switched off".to_owned()));
        }
        Ok(&*self.inner)
    }

    fn begin(&self) -> Running<'_> {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.max_running.fetch_max(running, Ordering::SeqCst);
        Running(&self.running)
    }

    /// The part before every count, of one segment or several.
    async fn wait(&self, segments: &[Segment]) -> Result<&dyn PairStore, StoreError> {
        // After `release` the permit is returned. After `release_one` it is consumed.
        let permit = self.gate.acquire().await.unwrap();
        match self.gate.available_permits() {
            0 => permit.forget(),
            _ => drop(permit),
        }
        for segment in segments {
            let held = self.held.lock().get(segment).map(Arc::clone);
            if let Some(held) = held {
                // An error means that it was released.
                let _ = held.acquire().await;
            }
        }
        if let Some(hook) = &*self.during_counts.lock() {
            hook();
        }
        let failing = self.failing.lock();
        if segments.iter().any(|segment| failing.contains(segment)) {
            return Err(StoreError::Rejected("it can't be counted".to_owned()));
        }
        drop(failing);
        self.reach()
    }
}

#[async_trait]
impl PairStore for SwitchableStore {
    async fn record(&self, batch: &Batch) -> Result<(), StoreError> {
        self.reach()?.record(batch).await
    }

    async fn count(
        &self,
        segment: &Segment,
        window: Window,
        as_of: Timestamp,
    ) -> Result<Count, StoreError> {
        self.counted.lock().push(segment.clone());
        let _running = self.begin();
        let store = self.wait(std::slice::from_ref(segment)).await?;
        store.count(segment, window, as_of).await
    }

    async fn count_many(
        &self,
        segments: &[Segment],
        window: Window,
        as_of: Timestamp,
    ) -> Result<Vec<Count>, StoreError> {
        let names = segments.iter().map(ToString::to_string).collect();
        self.groups.lock().push(names);
        let _running = self.begin();
        let store = self.wait(segments).await?;
        store.count_many(segments, window, as_of).await
    }

    fn counts_at_once(&self) -> usize {
        self.at_once
    }

    fn keeps_every_slot(&self) -> bool {
        self.keeps_every_slot
    }

    async fn segments(&self, as_of: Timestamp) -> Result<Vec<Segment>, StoreError> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        let _permit = self.list_gate.acquire().await.unwrap();
        if self.lists_fail.load(Ordering::SeqCst) {
            return Err(StoreError::Busy("no list now".to_owned()));
        }
        self.reach()?.segments(as_of).await
    }

    async fn export(
        &self,
        segment: &Segment,
        slots: RangeInclusive<Slot>,
    ) -> Result<Batch, StoreError> {
        self.export_gate.acquire().await.unwrap().forget();
        self.reach()?.export(segment, slots).await
    }

    async fn memberships(
        &self,
        user: &UserId<'_>,
        as_of: Timestamp,
    ) -> Result<Vec<Membership>, StoreError> {
        self.reach()?.memberships(user, as_of).await
    }

    async fn forget(&self, user: &UserId<'_>, as_of: Timestamp) -> Result<u64, StoreError> {
        self.reach()?.forget(user, as_of).await
    }

    async fn forget_in(
        &self,
        segment: &Segment,
        user: &UserId<'_>,
        as_of: Timestamp,
    ) -> Result<bool, StoreError> {
        self.reach()?.forget_in(segment, user, as_of).await
    }

    async fn forget_seen(
        &self,
        user: &UserId<'_>,
        seen: &[Membership],
        as_of: Timestamp,
    ) -> Result<u64, StoreError> {
        self.reach()?.forget_seen(user, seen, as_of).await
    }

    async fn drop_segment(
        &self,
        segment: &Segment,
        windows: &[Window],
        as_of: Timestamp,
    ) -> Result<u64, StoreError> {
        self.reach()?.drop_segment(segment, windows, as_of).await
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

    async fn properties(&self, prefix: &str) -> Result<BTreeMap<String, String>, StoreError> {
        self.reach()?.properties(prefix).await
    }

    async fn set_property(&self, name: &str, value: Option<&str>) -> Result<(), StoreError> {
        self.reach()?.set_property(name, value).await
    }

    async fn archive(&self, as_of: Timestamp, limit: u64) -> Result<Archived, StoreError> {
        self.reach()?.archive(as_of, limit).await
    }

    async fn record_trend(&self, points: &[TrendPoint]) -> Result<(), StoreError> {
        if self.trend_unavailable.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("no trend now".to_owned()));
        }
        if self.discards_trend.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.reach()?.record_trend(points).await
    }

    async fn trend(
        &self,
        segment: &Segment,
        window: Window,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Count>, StoreError> {
        let running = self.running_trends.fetch_add(1, Ordering::SeqCst) + 1;
        let _running = Running(&self.running_trends);
        self.max_running_trends.fetch_max(running, Ordering::SeqCst);
        // Other reads begin meanwhile, if the caller lets them.
        tokio::task::yield_now().await;
        self.reach()?.trend(segment, window, from, to).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.reach()?.ping().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}
