//! Transfers between in-process stores. Those between real servers are in `tests/it/copy.rs`.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::*;
use domain::store::conformance::{batch, frame};
use domain::store::model::Model;
use domain::{BatchBuilder, ManualClock, UserId};

/// Counts ranges, and makes the source unavailable after some of them.
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
            retry: RetryPolicy::silent(Duration::from_secs(5)),
            observer: self.observer.clone(),
        });
        transfer.run().await
    }

    /// Records 100,000 pairs in two segments, over the whole window and beyond its end.
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
    // A second run is harmless.
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
