//! Transfers between in-process stores. Those between real servers are in `tests/it/copy.rs`.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::segment::RANGE_PAIRS;
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
            // Virtual time. Where both sides fail at every other call, few attempts may all meet a failure.
            retry: RetryPolicy::silent(Duration::from_mins(10)),
            observer: self.observer.clone(),
        });
        transfer.run().await
    }

    /// Records this many pairs in two segments, over the whole window and beyond its end.
    fn fill(&self, pairs: u64) {
        let mut builder = BatchBuilder::default();
        for n in 0..pairs {
            let user = UserId::new(format!("u{}", n / 2)).unwrap();
            let slot = Slot::new(self.present().number() - n % 63);
            let name = if n % 2 == 0 { "a" } else { "b" };
            builder.push_pair(&user, name, slot).unwrap();
        }
        self.source.put(&builder.finish());
    }

    /// Runs until the source fails, after this many reports of recorded pairs.
    async fn run_until_cut(&self, reports: u64) {
        *self.observer.source.lock() = Some(self.source.clone());
        *self.observer.left.lock() = Some(reports);
        let stopped = self.run().await.unwrap_err();
        assert!(matches!(stopped, TransferError::Source(_)), "{stopped}");
        *self.observer.left.lock() = None;
        self.source.is_gone.store(false, Ordering::Relaxed);
    }

    fn assert_equal_pairs(&self) {
        let [source, target] = [&self.source, &self.target].map(|store| self.in_window(store));
        assert!(!source.is_empty() && source == target);
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
    bench.fill(20 * RANGE_PAIRS);
    let report = bench.run().await.unwrap();
    assert_eq!(comparisons(&report), [Comparison::Equal; 2]);
    assert!(!report.resumed && !bench.checkpoint().exists());
    bench.assert_equal_pairs();
    // A second run is harmless.
    assert_eq!(
        comparisons(&bench.run().await.unwrap()),
        [Comparison::Equal; 2]
    );
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_stopped_resumes_within_a_segment() {
    let slow = Model {
        export_takes: Duration::from_secs(1),
        ..Model::default()
    };
    let bench = Bench::new(slow, Model::default());
    // Too many for one range of either segment.
    bench.fill(5 * RANGE_PAIRS);
    bench.run_until_cut(3).await;
    assert!(bench.checkpoint().exists());
    let partly = bench.target.pairs.lock().len() as u64;
    assert!(partly > 2 * RANGE_PAIRS, "{partly}");

    // One user of each segment is seen again before it resumes: no count of the full window changes.
    bench.clock.advance(Duration::from_mins(2));
    let again = [("u7", "a", bench.present()), ("u7", "b", bench.present())];
    bench.source.put(&batch(again));
    let report = bench.run().await.unwrap();
    assert!(report.resumed && !bench.checkpoint().exists());
    assert!(report.pairs < 3 * RANGE_PAIRS, "{}", report.pairs);
    bench.assert_equal_pairs();
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_stopped_anywhere_is_completed() {
    for reports in 1..=4 {
        let slow = Model {
            export_takes: Duration::from_secs(1),
            ..Model::default()
        };
        let bench = Bench::new(slow, Model::default());
        bench.fill(RANGE_PAIRS);
        bench.run_until_cut(reports).await;
        assert!(bench.run().await.unwrap().resumed);
        bench.assert_equal_pairs();
    }
}

#[tokio::test(start_paused = true)]
async fn equal_counts_are_no_reason_to_skip_a_segment() {
    let bench = Bench::new(Model::default(), Model::default());
    bench.fill(RANGE_PAIRS);
    let oldest = Slot::new(bench.present().number() - 59);
    for (segment, user) in bench.in_window(&bench.source).into_keys() {
        let pair = [(user.as_str(), segment.as_str(), oldest)];
        bench.target.put(&batch(pair));
    }
    bench.run().await.unwrap();
    bench.assert_equal_pairs();
}

#[tokio::test(start_paused = true)]
async fn pairs_that_come_late_while_it_copies_are_found() {
    let bench = Bench::new(Model::default(), Model::default());
    bench.fill(20 * RANGE_PAIRS);
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
    bench.assert_equal_pairs();
}

#[tokio::test(start_paused = true)]
async fn a_target_that_loses_users_is_told_from_one_that_has_more() {
    let lossy = Model {
        drops: Some("u7"),
        ..Model::default()
    };
    let bench = Bench::new(Model::default(), lossy);
    bench.fill(RANGE_PAIRS);
    let own = [("own", "c", bench.present())];
    bench.target.put(&batch(own));
    let report = bench.run().await.unwrap();
    let less = Comparison::Less;
    assert_eq!(comparisons(&report), [less, less, Comparison::More]);
    assert_eq!(report.compared[0].source, report.compared[0].target + 1);
}
