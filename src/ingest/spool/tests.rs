//! A spool with a store that fails on purpose.

use std::collections::BTreeSet;
use std::path::Path;

use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::domain::{BatchBuilder, Slot, TimeFrame};

/// A store that remembers what it took, in order, and fails as it is told.
#[derive(Debug, Default)]
struct Taken {
    users: parking_lot::Mutex<Vec<String>>,
    failing: parking_lot::Mutex<Option<StoreError>>,
    tries: AtomicU64,
    changed: Notify,
}

#[async_trait]
impl Sink for Taken {
    async fn take(&self, batch: &Batch) -> Result<(), StoreError> {
        self.tries.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
        let failing = self.failing.lock().clone();
        if let Some(error) = failing {
            return Err(error);
        }
        let users = batch.pairs().map(|pair| pair.user.as_str().to_owned());
        self.users.lock().extend(users);
        Ok(())
    }
}

impl Taken {
    fn away() -> Self {
        let error = StoreError::Unavailable("away".to_owned());
        Self {
            failing: parking_lot::Mutex::new(Some(error)),
            ..Self::default()
        }
    }

    fn users(&self) -> Vec<String> {
        self.users.lock().clone()
    }

    async fn wait_for_tries(&self, tries: u64) {
        loop {
            let changed = self.changed.notified();
            if self.tries.load(Ordering::SeqCst) >= tries {
                return;
            }
            changed.await;
        }
    }
}

struct Delivering {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Delivering {
    fn start(spool: &Arc<Spool>, sink: &Arc<Taken>) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let sink = Arc::clone(sink) as Arc<dyn Sink>;
        tasks.spawn(deliver(Arc::clone(spool), sink, stop.clone()));
        tasks.close();
        Self { tasks, stop }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

const ROOM: u64 = 64 << 20;

fn open(dir: &Path) -> Arc<Spool> {
    Arc::new(Spool::open(dir, ROOM, minute()).unwrap())
}

/// Opens a spool that another owner in this process may still be letting go of.
async fn reopen(dir: &Path) -> Arc<Spool> {
    loop {
        match Spool::open(dir, ROOM, minute()) {
            Ok(spool) => return Arc::new(spool),
            Err(StoreError::Unavailable(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

fn of_seconds(resolution: u64) -> Resolution {
    let length = Duration::from_secs(resolution);
    let frame = TimeFrame::new(60 * length, length, Duration::ZERO);
    frame.unwrap().resolution()
}

fn minute() -> Resolution {
    of_seconds(60)
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn pairs(users: impl IntoIterator<Item = String>) -> Batch {
    let mut batch = BatchBuilder::default();
    for user in users {
        let user = UserId::new(user).unwrap();
        batch.push_pair(&user, "s", Slot::new(5)).unwrap();
    }
    batch.finish()
}

fn one(user: &str) -> Batch {
    pairs([user.to_owned()])
}

/// Waits until nothing waits. Time is paused, so that this takes none.
async fn drained(spool: &Spool) {
    while spool.stats(now()).waiting_pairs > 0 || spool.ledger.oldest_file().is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn pairs_arrive_in_order_once_the_store_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let sink = Arc::new(Taken::away());
    let delivering = Delivering::start(&spool, &sink);
    let expected: Vec<String> = (0..300).map(|n| format!("u{n}")).collect();
    for user in &expected {
        spool.append(&one(user), now()).await.unwrap();
    }
    sink.wait_for_tries(3).await;
    assert!(spool.store_is_away());
    let later = now() + SignedDuration::from_secs(7);
    let stats = spool.stats(later);
    assert_eq!(
        (stats.waiting_pairs, stats.oldest),
        (300, Some(Duration::from_secs(7)))
    );
    *sink.failing.lock() = None;
    drained(&spool).await;
    assert_eq!(sink.users(), expected);
    assert!(!spool.store_is_away());
    let stats = spool.stats(later);
    assert_eq!((stats.delivered_pairs, stats.oldest), (300, None));
    assert!(stats.bytes < 200, "delivered files are gone: {stats:?}");
    delivering.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let expected: Vec<String> = (0..50).map(|n| format!("u{n}")).collect();
    for user in &expected {
        // A new process for each pair; the former one is killed, not closed.
        let spool = open(dir.path());
        spool.append(&one(user), now()).await.unwrap();
    }
    let spool = open(dir.path());
    assert_eq!(spool.stats(now()).waiting_pairs, 50);
    let sink = Arc::new(Taken::default());
    let delivering = Delivering::start(&spool, &sink);
    drained(&spool).await;
    assert_eq!(sink.users(), expected);
    delivering.stop().await;
    drop(spool);
    assert_eq!(
        reopen(dir.path()).await.stats(now()).waiting_pairs,
        0,
        "delivered for good"
    );
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_is_cut_off_is_repeated_and_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let expected: Vec<String> = (0..90_000).map(|n| format!("u{n}")).collect();
    let first = Arc::new(Taken::default());
    {
        let spool = open(dir.path());
        spool.append(&pairs(expected.clone()), now()).await.unwrap();
        let delivering = Delivering::start(&spool, &first);
        first.wait_for_tries(1).await;
        delivering.stop().await;
    }
    let spool = reopen(dir.path()).await;
    let second = Arc::new(Taken::default());
    let delivering = Delivering::start(&spool, &second);
    drained(&spool).await;
    delivering.stop().await;
    let arrived: BTreeSet<String> = first.users().into_iter().chain(second.users()).collect();
    assert_eq!(arrived, expected.into_iter().collect());
}

#[tokio::test]
async fn a_full_spool_says_so_and_takes_pairs_again_after_delivery() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Arc::new(Spool::open(dir.path(), 64 << 10, minute()).unwrap());
    let mut kept = 0;
    let error = loop {
        let batch = pairs((0..100).map(|n| format!("u{kept}-{n}")));
        match spool.append(&batch, now()).await {
            Ok(()) => kept += 100,
            Err(error) => break error,
        }
    };
    assert_eq!(error.name(), "full");
    assert!(kept > 500, "{kept} pairs fit");
    assert!(spool.stats(now()).bytes <= 64 << 10);
    let sink = Arc::new(Taken::default());
    let delivering = Delivering::start(&spool, &sink);
    drained(&spool).await;
    assert_eq!(sink.users().len(), kept);
    spool.append(&one("again"), now()).await.unwrap();
    drained(&spool).await;
    delivering.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_erased_user_is_not_delivered_but_counts_when_seen_again() {
    let dir = tempfile::tempdir().unwrap();
    let gone = UserId::new("gone").unwrap();
    {
        let spool = open(dir.path());
        for user in ["gone", "stays", "gone"] {
            spool.append(&one(user), now()).await.unwrap();
        }
        spool.forget(&gone).await.unwrap();
        spool.append(&one("after"), now()).await.unwrap();
    }
    let spool = open(dir.path());
    spool.append(&one("gone"), now()).await.unwrap();
    let sink = Arc::new(Taken::default());
    let delivering = Delivering::start(&spool, &sink);
    drained(&spool).await;
    assert_eq!(sink.users(), ["stays", "after", "gone"]);
    spool.forget(&gone).await.unwrap();
    delivering.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_store_refuses_for_good_does_not_hold_up_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let sink = Arc::new(Taken::default());
    *sink.failing.lock() = Some(StoreError::Rejected("a bad line".to_owned()));
    spool.append(&one("bad"), now()).await.unwrap();
    let delivering = Delivering::start(&spool, &sink);
    drained(&spool).await;
    assert_eq!(spool.stats(now()).rejected_batches, 1);
    assert!(!spool.store_is_away());
    *sink.failing.lock() = None;
    spool.append(&one("good"), now()).await.unwrap();
    drained(&spool).await;
    assert_eq!(sink.users(), ["good"]);
    delivering.stop().await;
}

#[tokio::test(start_paused = true)]
async fn many_files_are_delivered_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    // Files of 128 KiB.
    let spool = Arc::new(Spool::open(dir.path(), 1 << 20, minute()).unwrap());
    let expected: Vec<String> = (0..20_000).map(|n| format!("user-{n:020}")).collect();
    for some in expected.chunks(500) {
        spool.append(&pairs(some.to_vec()), now()).await.unwrap();
    }
    assert!(spool.log.stats().files > 4);
    let sink = Arc::new(Taken::default());
    let delivering = Delivering::start(&spool, &sink);
    drained(&spool).await;
    assert_eq!(sink.users(), expected);
    delivering.stop().await;
    assert_eq!(spool.log.stats().files, 1);
}

#[tokio::test]
async fn a_closed_spool_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.close().await.unwrap();
    assert_eq!(
        spool.append(&one("u"), now()).await.unwrap_err().name(),
        "closed"
    );
}

#[tokio::test]
async fn a_closed_spool_has_released_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let (release, released) = std::sync::mpsc::channel::<()>();
    // Like a read of a file that goes on after delivery was stopped.
    let reading = spool.file_work.spawn_blocking(move || released.recv());
    let mut closing = std::pin::pin!(spool.close());
    assert!(
        closing.as_mut().now_or_never().is_none(),
        "a file is still being read"
    );
    release.send(()).unwrap();
    closing.await.unwrap();
    reading.await.unwrap().unwrap();
    Spool::open(dir.path(), ROOM, minute())
        .expect("the former one is closed, though it is still there");
    assert_eq!(spool.check().unwrap_err().name(), "closed");
}

#[tokio::test]
async fn pairs_of_another_resolution_are_not_delivered_as_if_they_were_of_this() {
    let dir = tempfile::tempdir().unwrap();
    let open = |seconds| Spool::open(dir.path(), ROOM, of_seconds(seconds));
    open(60).unwrap().close().await.unwrap();
    let spool = open(10).expect("nothing waits, so there is nothing to mistake");
    spool.append(&one("u"), now()).await.unwrap();
    spool.close().await.unwrap();
    drop(spool);
    let error = open(60).unwrap_err();
    assert_eq!(error.name(), "rejected");
    assert!(
        error.to_string().contains(r#"resolution = "10s""#),
        "{error}"
    );
    let spool = open(10).unwrap();
    assert_eq!(spool.stats(now()).waiting_pairs, 1, "and nothing is lost");
    drop(spool);
    std::fs::write(dir.path().join("resolution"), "ten").unwrap();
    assert_eq!(open(10).unwrap_err().name(), "damaged");
}
