//! Transfers between stores in this process. Those between real servers are in `tests/it/copy.rs`.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::*;
use crate::domain::{
    Batch, BatchBuilder, Count, ManualClock, Membership, TrendPoint, UserId, Window,
};
use crate::store::Archived;
use crate::store::conformance::{batch, frame};

/// A store that is nothing but a map, and fails and grows when told to.
#[derive(Debug, Default)]
struct Model {
    pairs: Mutex<BTreeMap<(String, String), Slot>>,
    /// Every so many calls are answered with `Unavailable`.
    fails_each: u64,
    calls: AtomicU64,
    /// From here on everything fails.
    is_gone: AtomicBool,
    /// Users whose pairs are taken and forgotten.
    drops: Option<&'static str>,
    /// Recorded after each export, as live writes are.
    live: Mutex<Vec<Batch>>,
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

    fn put(&self, batch: &Batch) {
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
        _: &UserId<'_>,
        _: Timestamp,
    ) -> Result<Vec<Membership>, StoreError> {
        Err(StoreError::Unsupported("a model"))
    }

    async fn forget(&self, _: &UserId<'_>, _: Timestamp) -> Result<u64, StoreError> {
        Err(StoreError::Unsupported("a model"))
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

/// Counts ranges, and takes the source away after some of them.
#[derive(Debug, Default)]
struct Cutter {
    left: Mutex<Option<u64>>,
    source: Mutex<Option<Arc<Model>>>,
}

impl TransferObserver for Cutter {
    fn moved(&self, _: u64, pairs: u64) {
        let mut left = self.left.lock();
        if let Some(left) = left.as_mut().filter(|_| pairs > 0) {
            *left = left.saturating_sub(1);
            if *left == 0
                && let Some(source) = &*self.source.lock()
            {
                source.is_gone.store(true, Ordering::Relaxed);
            }
        }
    }
}

struct Bench {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    source: Arc<Model>,
    target: Arc<Model>,
    observer: Arc<Cutter>,
}

impl Bench {
    fn new(source: Model, target: Model) -> Self {
        let start = Timestamp::from_second(1_800_000_000).unwrap();
        Self {
            dir: tempfile::tempdir().unwrap(),
            clock: Arc::new(ManualClock::new(start)),
            source: Arc::new(source),
            target: Arc::new(target),
            observer: Arc::default(),
        }
    }

    fn present(&self) -> Slot {
        frame(60).resolution().slot_of(self.clock.now())
    }

    fn checkpoint(&self) -> PathBuf {
        self.dir.path().join("copy.json")
    }

    async fn run(&self) -> Result<TransferReport, TransferError> {
        let transfer = Transfer::new(TransferParts {
            frame: frame(60),
            clock: self.clock.clone(),
            source: self.source.clone(),
            target: self.target.clone(),
            names: Names {
                from: "a".into(),
                to: "b".into(),
            },
            checkpoint: self.checkpoint(),
            parallelism: 2,
            patience: Patience::silent(Duration::from_secs(5)),
            observer: self.observer.clone(),
        });
        transfer.run().await
    }

    /// A hundred thousand pairs in two segments, over the whole window and beyond its end.
    fn fill(&self) {
        let mut builder = BatchBuilder::default();
        for n in 0..100_000_u64 {
            let user = UserId::new(format!("u{}", n / 2)).unwrap();
            let slot = Slot::new(self.present().number() - n % 63);
            let name = if n % 2 == 0 { "a" } else { "b" };
            builder.push_pair(&user, name, slot).unwrap();
        }
        self.source.put(&builder.finish());
    }

    fn in_window(&self, store: &Model) -> HashMap<(String, String), Slot> {
        let slots = frame(60).full_window().slots_as_of(self.present());
        let pairs = store.pairs.lock().clone();
        pairs
            .into_iter()
            .filter(|(_, slot)| slots.contains(slot))
            .collect()
    }
}

fn comparisons(report: &TransferReport) -> Vec<Comparison> {
    report.compared.iter().map(|row| row.comparison).collect()
}

#[tokio::test(start_paused = true)]
async fn copies_all_that_is_in_the_window_though_both_sides_fail_now_and_then() {
    let failing = |fails_each| Model {
        fails_each,
        ..Model::default()
    };
    let bench = Bench::new(failing(3), failing(2));
    bench.fill();
    let report = bench.run().await.unwrap();
    assert_eq!(comparisons(&report), [Comparison::Equal; 2]);
    assert!(!report.resumed && !bench.checkpoint().exists());
    assert_eq!(
        bench.in_window(&bench.source),
        bench.in_window(&bench.target)
    );
    // Once more: harmless.
    assert_eq!(
        comparisons(&bench.run().await.unwrap()),
        [Comparison::Equal; 2]
    );
}

#[tokio::test(start_paused = true)]
async fn goes_on_where_it_stopped() {
    let bench = Bench::new(Model::default(), Model::default());
    bench.fill();
    *bench.observer.source.lock() = Some(bench.source.clone());
    *bench.observer.left.lock() = Some(3);
    let stopped = bench.run().await.unwrap_err();
    assert!(matches!(stopped, TransferError::Source(_)), "{stopped}");
    assert!(bench.checkpoint().exists());
    let partly = bench.target.pairs.lock().len();
    assert!(partly > 0 && partly < 90_000, "{partly}");

    *bench.observer.left.lock() = None;
    bench.source.is_gone.store(false, Ordering::Relaxed);
    let report = bench.run().await.unwrap();
    assert!(report.resumed && !bench.checkpoint().exists());
    assert_eq!(
        bench.in_window(&bench.source),
        bench.in_window(&bench.target)
    );
}

#[tokio::test(start_paused = true)]
async fn pairs_that_come_late_while_it_copies_are_found() {
    let bench = Bench::new(Model::default(), Model::default());
    bench.fill();
    let present = bench.present().number();
    // Into slots that were read long before, of old users and new ones, and of a new segment.
    for n in 0..6_u64 {
        let late = format!("late {n}");
        let old = Slot::new(present - 50 + n);
        let pairs = [(late.as_str(), "a", old), (late.as_str(), "new", old)];
        bench.source.live.lock().push(batch(pairs));
    }
    let report = bench.run().await.unwrap();
    assert_eq!(comparisons(&report), [Comparison::Equal; 3]);
    assert_eq!(
        bench.in_window(&bench.source),
        bench.in_window(&bench.target)
    );
}

#[tokio::test(start_paused = true)]
async fn a_target_that_loses_users_is_told_from_one_that_has_more() {
    let lossy = Model {
        drops: Some("u7"),
        ..Model::default()
    };
    let bench = Bench::new(Model::default(), lossy);
    bench.fill();
    let own = [("own", "c", bench.present())];
    bench.target.put(&batch(own));
    let report = bench.run().await.unwrap();
    let less = Comparison::Less;
    assert_eq!(comparisons(&report), [less, less, Comparison::More]);
    assert_eq!(report.compared[0].source, report.compared[0].target + 1);
}
