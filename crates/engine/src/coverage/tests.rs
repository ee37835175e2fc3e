//! Coverage over a model of a store, with a clock that the test moves.

use std::sync::atomic::Ordering::Relaxed;

use domain::store::model::Model;
use domain::{BatchBuilder, ManualClock, TimeFrame, UserId};

use super::*;

const NOON: i64 = 1_795_262_400;

struct Site {
    store: Arc<Model>,
    clock: Arc<ManualClock>,
    frame: TimeFrame,
}

impl Site {
    fn new() -> Self {
        let minute = Duration::from_mins(1);
        Self {
            store: Arc::default(),
            clock: Arc::new(ManualClock::new(Timestamp::from_second(NOON).unwrap())),
            frame: TimeFrame::new(minute * 10, minute, minute).unwrap(),
        }
    }

    /// A process on this store.
    fn process(&self) -> KnownCoverage {
        KnownCoverage::new(CoverageParts {
            store: Arc::clone(&self.store) as Arc<dyn PairStore>,
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            resolution: self.frame.resolution(),
            metrics: Arc::default(),
        })
    }

    /// A process that records pairs.
    fn service(&self) -> KnownCoverage {
        let process = self.process();
        process.begin_recording();
        process
    }

    /// The `covered_since` of `process` now, in seconds after noon, and whether the window is complete.
    fn now(&self, process: &KnownCoverage) -> (Option<i64>, bool) {
        let covered = process.of(self.frame.full_window(), self.clock.now());
        let since = covered.since.map(|since| since.as_second() - NOON);
        (since, covered.complete)
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// A batch of pairs that were seen this many seconds ago.
    fn seen(&self, ago: &[i64]) -> Batch {
        let mut batch = BatchBuilder::default();
        for ago in ago {
            let at = self.clock.now().as_second() - ago;
            let slot = self
                .frame
                .resolution()
                .slot_of(Timestamp::from_second(at).unwrap());
            batch
                .push_pair(&UserId::new("u").unwrap(), "s", slot)
                .unwrap();
        }
        batch.finish()
    }
}

#[tokio::test]
async fn a_store_begins_when_a_process_first_records_pairs() {
    let site = Site::new();
    let command = site.process();
    command.read().await.unwrap();
    assert_eq!(
        site.now(&command),
        (None, false),
        "a command begins nothing"
    );
    let first = site.service();
    assert_eq!(site.now(&first), (None, false), "nothing is known yet");
    site.store.is_gone.store(true, Relaxed);
    assert!(first.read().await.is_err());
    assert_eq!(site.now(&first), (None, false));
    site.pass(60);
    site.store.is_gone.store(false, Relaxed);
    first.read().await.unwrap();
    assert_eq!(
        site.now(&first),
        (Some(0), false),
        "the store has every pair since it was opened"
    );
    site.pass(8 * 60);
    assert_eq!(site.now(&first), (Some(0), true));
    let second = site.process();
    second.read().await.unwrap();
    assert_eq!(site.now(&second), (Some(0), true), "every process knows it");
    site.store.is_gone.store(true, Relaxed);
    assert!(second.read().await.is_err());
    assert_eq!(site.now(&second), (Some(0), true), "the last known stays");
}

#[tokio::test]
async fn a_store_that_was_emptied_begins_again() {
    let site = Site::new();
    let process = site.service();
    process.read().await.unwrap();
    site.pass(3600);
    assert_eq!(site.now(&process), (Some(0), true));
    site.store.properties.lock().clear();
    process.read().await.unwrap();
    assert_eq!(site.now(&process), (Some(3600), false));
}

#[tokio::test]
async fn a_statement_moves_it_back_for_every_process() {
    let site = Site::new();
    let (first, second) = (site.service(), site.process());
    first.read().await.unwrap();
    second.read().await.unwrap();
    let at = |seconds| Timestamp::from_second(NOON + seconds).unwrap();
    let refused = first.state(at(1)).await;
    assert!(matches!(refused, Err(StateError::InFuture)), "{refused:?}");
    site.store.is_gone.store(true, Relaxed);
    let refused = first.state(at(-3600)).await;
    assert!(matches!(refused, Err(StateError::Store(_))), "{refused:?}");
    assert_eq!(site.now(&first), (Some(0), false), "nothing was stated");
    site.store.is_gone.store(false, Relaxed);
    first.state(at(-3600)).await.unwrap();
    assert_eq!(site.now(&first), (Some(-3600), true));
    assert_eq!(
        site.now(&second),
        (Some(0), false),
        "it has not read it yet"
    );
    second.read().await.unwrap();
    assert_eq!(site.now(&second), (Some(-3600), true));
    let before = first.of(site.frame.full_window(), at(-1));
    assert_eq!(
        before.since,
        Some(at(0)),
        "a count made before the statement does not include pairs that were loaded later"
    );
}

#[tokio::test]
async fn lost_pairs_move_it_forward_until_a_statement_includes_them() {
    let site = Site::new();
    let (first, second) = (site.service(), site.process());
    first.read().await.unwrap();
    site.pass(3600);
    first.refused(&site.seen(&[0, 600, 120]), &[1, 2]);
    assert_eq!(
        site.now(&first),
        (Some(3600 - 60), false),
        "a loss matters at once, before it is written to the store"
    );
    first.read().await.unwrap();
    second.read().await.unwrap();
    assert_eq!(
        site.now(&second),
        (Some(3600 - 60), false),
        "other processes, too"
    );
    first.refused(&site.seen(&[0]), &[]);
    first.unavailable(&site.seen(&[0]));
    assert_eq!(site.now(&first), (Some(3600), false));
    let history = first.history().unwrap();
    let mut pairs: Vec<_> = history
        .losses
        .iter()
        .map(|loss| (loss.reason, loss.pairs))
        .collect();
    pairs.sort_unstable();
    assert_eq!(
        pairs,
        [
            (LossReason::Refused, Some(2)),
            (LossReason::Unavailable, Some(1))
        ]
    );
    first
        .state(Timestamp::from_second(NOON).unwrap())
        .await
        .unwrap();
    assert_eq!(site.now(&first), (Some(0), true));
    site.pass(1);
    first.refused(&site.seen(&[0]), &[0]);
    assert_eq!(
        site.now(&first),
        (Some(3601), false),
        "a later loss is not included"
    );
}

#[tokio::test]
async fn an_outage_is_one_loss_however_many_requests_fail() {
    let site = Site::new();
    let process = site.service();
    process.read().await.unwrap();
    site.store.is_gone.store(true, Relaxed);
    for _ in 0..100 {
        site.pass(60);
        process.unavailable(&site.seen(&[0]));
        assert!(process.read().await.is_err());
    }
    site.store.is_gone.store(false, Relaxed);
    process.read().await.unwrap();
    let other = site.process();
    other.read().await.unwrap();
    let history = other.history().unwrap();
    let [loss] = history.losses[..] else {
        panic!("{:?}", history.losses)
    };
    assert_eq!(loss.pairs, Some(100));
    assert_eq!(
        (loss.from.as_second(), loss.until.as_second()),
        (NOON + 60, NOON + 6000)
    );
    // Two hours later it is another loss.
    site.pass(7200);
    process.unavailable(&site.seen(&[0]));
    process.read().await.unwrap();
    other.read().await.unwrap();
    assert_eq!(other.history().unwrap().losses.len(), 2);
}

#[tokio::test]
async fn a_time_without_any_process_is_named() {
    let site = Site::new();
    let first = site.service();
    first.read().await.unwrap();
    site.pass(3600);
    first.close().await;
    site.pass(600);
    let deployed = site.process();
    deployed.begin_recording();
    deployed.read().await.unwrap();
    assert_eq!(
        site.now(&deployed),
        (Some(0), true),
        "a deployment is no gap"
    );
    deployed.close().await;
    site.pass(3600);
    let reader = site.process();
    reader.read().await.unwrap();
    assert_eq!(
        site.now(&reader),
        (Some(0), true),
        "a command judges nothing"
    );
    let second = site.process();
    second.read().await.unwrap();
    second.begin_recording();
    assert_eq!(
        site.now(&second),
        (Some(7800), false),
        "the pause is known before the first request"
    );
    second.read().await.unwrap();
    reader.read().await.unwrap();
    assert_eq!(site.now(&reader), (Some(7800), false));
    let history = reader.history().unwrap();
    assert_eq!(history.losses[0].from.as_second(), NOON + 4200);
    assert_eq!(history.losses[0].reason, LossReason::NotRunning);
}

#[tokio::test]
async fn what_this_version_does_not_understand_is_not_ignored() {
    let site = Site::new();
    let later = ("coverage/lost/now".to_owned(), "{}".to_owned());
    site.store.properties.lock().extend([later]);
    let process = site.process();
    let read = process.read().await;
    assert!(matches!(read, Err(StoreError::Damaged(_))), "{read:?}");
    assert_eq!(site.now(&process), (None, false));
}
