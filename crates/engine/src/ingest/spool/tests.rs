//! Tests of the spool with a store that fails on purpose.

use std::collections::BTreeSet;
use std::path::Path;

use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::codec::Record;
use super::*;
use crate::ingest::erasures::Erasures;
use domain::store::model::Model;
use domain::store::{PairStore, Partly};
use domain::{BatchBuilder, Clock, Erasure, Segment, Slot, TimeFrame, UserId};

type OnTake = Box<dyn Fn(&Batch) + Send>;

/// A store that remembers the users it took, in order, and fails on demand.
#[derive(Default)]
struct Taken {
    users: parking_lot::Mutex<Vec<String>>,
    failing: parking_lot::Mutex<Option<StoreError>>,
    /// Batches with one of these users fail as unavailable.
    poison: parking_lot::Mutex<BTreeSet<String>>,
    /// These users are refused, and whether the store keeps refused pairs elsewhere.
    refused: parking_lot::Mutex<(BTreeSet<String>, bool)>,
    tries: AtomicU64,
    changed: Notify,
    /// A callback for each taken batch.
    on_take: parking_lot::Mutex<Option<OnTake>>,
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
        let users: Vec<String> = batch
            .pairs()
            .map(|pair| pair.user.as_str().to_owned())
            .collect();
        let poison = self.poison.lock().clone();
        if users.iter().any(|user| poison.contains(user)) {
            return Err(StoreError::Unavailable("status 500".to_owned()));
        }
        if let Some(on_take) = &*self.on_take.lock() {
            on_take(batch);
        }
        let (refused, kept) = self.refused.lock().clone();
        let positions: Vec<usize> = (0..users.len())
            .filter(|position| refused.contains(&users[*position]))
            .collect();
        let taken = users.into_iter().filter(|user| !refused.contains(user));
        self.users.lock().extend(taken);
        match positions.is_empty() {
            true => Ok(()),
            false => Err(StoreError::Partly(Box::new(Partly {
                refused: positions,
                kept,
                ..Partly::default()
            }))),
        }
    }
}

/// A clock that advances by a second at each read. Tokio's paused time would jump during disk I/O.
#[derive(Debug, Default)]
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let seconds = self.0.fetch_add(1, Ordering::Relaxed);
        now().saturating_add(Duration::from_secs(seconds)).unwrap()
    }

    fn not_before(&self, _instant: Timestamp) {}
}

impl Taken {
    fn unavailable() -> Self {
        let error = StoreError::Unavailable("unavailable".to_owned());
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
    erasures: Arc<Erasures>,
}

impl Delivering {
    fn start(spool: &Arc<Spool>, sink: &Arc<Taken>) -> Self {
        let minute = Duration::from_secs(60);
        let frame = TimeFrame::new(Duration::from_hours(240), minute, Duration::ZERO);
        Self::start_with(spool, sink, &frame.unwrap())
    }

    fn start_with(spool: &Arc<Spool>, sink: &Arc<Taken>, frame: &TimeFrame) -> Self {
        Self::start_over(spool, sink, frame, &Arc::default())
    }

    /// The same as [`start_with`](Self::start_with), with `notes` as the store of erasure notes.
    fn start_over(
        spool: &Arc<Spool>,
        sink: &Arc<Taken>,
        frame: &TimeFrame,
        notes: &Arc<Model>,
    ) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let clock = Arc::new(TestClock::default());
        let store = Arc::clone(notes) as Arc<dyn PairStore>;
        let erasures = Arc::new(Erasures::new(store, frame, Arc::clone(&clock) as _));
        let sink = Arc::clone(sink) as Arc<dyn Sink>;
        let parts = DeliveryParts {
            spool: Arc::clone(spool),
            frame: *frame,
            clock,
            erasures: Arc::clone(&erasures),
        };
        tasks.spawn(deliver(parts, sink, stop.clone()));
        tasks.close();
        Self {
            tasks,
            stop,
            erasures,
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

const MAX_BYTES: u64 = 64 << 20;

fn open(dir: &Path) -> Arc<Spool> {
    Arc::new(Spool::open(dir, MAX_BYTES, minute()).unwrap())
}

/// Opens a spool whose directory another owner in this process may not have released yet.
async fn reopen(dir: &Path) -> Arc<Spool> {
    loop {
        match Spool::open(dir, MAX_BYTES, minute()) {
            Ok(spool) => return Arc::new(spool),
            Err(StoreError::Unavailable(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

fn frame_of(resolution: u64) -> TimeFrame {
    let length = Duration::from_secs(resolution);
    TimeFrame::new(60 * length, length, Duration::ZERO).unwrap()
}

fn of_seconds(resolution: u64) -> Resolution {
    frame_of(resolution).resolution()
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
        batch.push_pair(&user, "s", Slot::new(30_000_000)).unwrap();
    }
    batch.finish()
}

fn one(user: &str) -> Batch {
    pairs([user.to_owned()])
}

/// Waits until the spool is empty. Tokio's time is paused, so this takes no real time.
async fn drained(spool: &Spool) {
    until(|| spool.ledger.oldest_file().is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn pairs_arrive_once_the_store_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let sink = Arc::new(Taken::unavailable());
    let delivering = Delivering::start(&spool, &sink);
    let expected: Vec<String> = (0..300).map(|n| format!("u{n}")).collect();
    for user in &expected {
        spool.append(&one(user), now()).await.unwrap();
    }
    sink.wait_for_tries(3).await;
    assert!(spool.store_is_unavailable());
    let later = now() + SignedDuration::from_secs(7);
    let stats = spool.stats(later);
    assert_eq!(
        (stats.waiting_pairs, stats.oldest),
        (300, Some(Duration::from_secs(7)))
    );
    *sink.failing.lock() = None;
    drained(&spool).await;
    let mut arrived = sink.users();
    // The order does not matter, because the latest slot counts.
    arrived.sort_by_key(|user| user[1..].parse::<u32>().unwrap());
    assert_eq!(arrived, expected);
    assert!(!spool.store_is_unavailable());
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
        // A new process for each pair. The previous one is killed, not closed.
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

/// Adds the note of an erasure by another instance, `seconds` after [`now`].
fn noted(notes: &Model, user: &str, seconds: u64) {
    let at = now() + Duration::from_secs(seconds);
    let erasure = Erasure::of(&UserId::new(user).unwrap(), at);
    notes.erased.lock().push(erasure);
}

fn received(seconds: u64) -> Timestamp {
    now() + Duration::from_secs(seconds)
}

/// Whether any file of the spool contains this string.
fn is_on_disk(dir: &Path, string: &str) -> bool {
    let files = std::fs::read_dir(dir).unwrap();
    files.into_iter().any(|file| {
        // The file may have been removed since it was listed.
        let bytes = std::fs::read(file.unwrap().path()).unwrap_or_default();
        bytes
            .windows(string.len())
            .any(|it| it == string.as_bytes())
    })
}

#[tokio::test(start_paused = true)]
async fn a_user_whom_another_instance_erased_is_not_delivered_but_counts_when_seen_again() {
    let dir = tempfile::tempdir().unwrap();
    let notes = Arc::new(Model::default());
    {
        let spool = open(dir.path());
        for user in ["gone", "stays", "gone"] {
            spool.append(&one(user), received(1)).await.unwrap();
        }
        noted(&notes, "gone", 2);
        spool.append(&one("after"), received(3)).await.unwrap();
        spool.append(&one("gone"), received(4)).await.unwrap();
    }
    let spool = open(dir.path());
    let sink = Arc::new(Taken::default());
    let delivering = Delivering::start_over(&spool, &sink, &frame_of(60), &notes);
    drained(&spool).await;
    assert_eq!(sink.users(), ["stays", "after", "gone"]);
    delivering.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_delivered_before_it_is_known_who_was_erased() {
    let dir = tempfile::tempdir().unwrap();
    let notes = Arc::new(Model::default());
    notes.is_gone.store(true, Ordering::SeqCst);
    noted(&notes, "gone", 2);
    let spool = open(dir.path());
    let sink = Arc::new(Taken::default());
    let delivering = Delivering::start_over(&spool, &sink, &frame_of(60), &notes);
    for user in ["gone", "stays"] {
        spool.append(&one(user), received(1)).await.unwrap();
    }
    until(|| notes.calls.load(Ordering::SeqCst) >= 3).await;
    assert!(sink.users().is_empty());
    assert!(spool.store_is_unavailable());
    notes.is_gone.store(false, Ordering::SeqCst);
    drained(&spool).await;
    assert_eq!(sink.users(), ["stays"]);
    delivering.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_note_by_a_clock_that_is_years_ahead_takes_nothing_that_comes_later() {
    let dir = tempfile::tempdir().unwrap();
    let notes = Arc::new(Model::default());
    let spool = open(dir.path());
    let sink = Arc::new(Taken::default());
    noted(&notes, "gone", 5 * 365 * 86_400);
    spool.append(&one("gone"), received(0)).await.unwrap();
    let delivering = Delivering::start_over(&spool, &sink, &frame_of(60), &notes);
    drained(&spool).await;
    assert!(sink.users().is_empty());
    spool.append(&one("gone"), received(1_000)).await.unwrap();
    drained(&spool).await;
    assert_eq!(sink.users(), ["gone"]);
    delivering.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_came_before_an_erasure_is_before_it_though_the_clock_is_far_behind() {
    let dir = tempfile::tempdir().unwrap();
    let notes = Arc::new(Model::default());
    let sink = Arc::new(Taken::unavailable());
    {
        let spool = open(dir.path());
        spool.append(&one("gone"), received(3600)).await.unwrap();
        spool.append(&one("stays"), received(3600)).await.unwrap();
        let delivering = Delivering::start_over(&spool, &sink, &frame_of(60), &notes);
        let at = spool.erasure_at(now()).await;
        let gone = UserId::new("gone").unwrap();
        delivering.erasures.note(&gone, at).await.unwrap();
        // Delivery stops before the files are cleansed.
        delivering.stop().await;
    }
    let spool = reopen(dir.path()).await;
    *sink.failing.lock() = None;
    let delivering = Delivering::start_over(&spool, &sink, &frame_of(60), &notes);
    drained(&spool).await;
    assert_eq!(sink.users(), ["stays"]);
    delivering.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_once_an_erasure_is_known_is_after_it_by_whichever_clock() {
    let dir = tempfile::tempdir().unwrap();
    let notes = Arc::new(Model::default());
    noted(&notes, "gone", 60);
    let sink = Arc::new(Taken::default());
    {
        let spool = open(dir.path());
        let delivering = Delivering::start_over(&spool, &sink, &frame_of(60), &notes);
        delivering.erasures.refresh(Some(&spool)).await.unwrap();
        spool.note_order().await;
        spool.append(&one("gone"), now()).await.unwrap();
        drained(&spool).await;
        delivering.stop().await;
    }
    assert_eq!(sink.users(), ["gone"], "another instance's clock is ahead");
    let spool = reopen(dir.path()).await;
    spool.append(&one("gone"), now()).await.unwrap();
    let delivering = Delivering::start_over(&spool, &sink, &frame_of(60), &notes);
    drained(&spool).await;
    assert_eq!(
        sink.users(),
        ["gone", "gone"],
        "and the notes were not read again yet"
    );
    delivering.stop().await;
}

#[tokio::test(start_paused = true)]
async fn before_and_after_an_erasure_are_told_apart_though_the_clock_stands_still() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let sink = Arc::new(Taken::unavailable());
    let delivering = Delivering::start(&spool, &sink);
    let gone = UserId::new("gone").unwrap();
    let erase = async || {
        let at = spool.erasure_at(now()).await;
        delivering.erasures.note(&gone, at).await.unwrap();
    };
    spool.append(&one("gone"), now()).await.unwrap();
    erase().await;
    spool.append(&one("gone"), now()).await.unwrap();
    erase().await;
    spool
        .append(&pairs(["gone".into(), "last".into()]), now())
        .await
        .unwrap();
    *sink.failing.lock() = None;
    drained(&spool).await;
    assert_eq!(sink.users(), ["gone", "last"]);
    delivering.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_erased_while_their_pair_is_on_its_way_is_erased_again() {
    erases_again(false).await;
}

/// The task that reads the notes once a minute may read the note before delivery does.
#[tokio::test(start_paused = true)]
async fn who_is_erased_while_their_pair_is_on_its_way_is_erased_again_whoever_learns_of_it_first() {
    erases_again(true).await;
}

/// Only the pairs of a deleted segment that were in flight are erased again.
#[tokio::test(start_paused = true)]
async fn a_segment_that_is_deleted_while_its_pairs_are_on_their_way_keeps_what_came_since() {
    let dir = tempfile::tempdir().unwrap();
    let notes = Arc::new(Model::default());
    let spool = open(dir.path());
    let sink = Arc::new(Taken::default());
    let delivering = Delivering::start_over(&spool, &sink, &frame_of(60), &notes);
    {
        let (notes, erased) = (Arc::clone(&notes), AtomicU64::new(0));
        *sink.on_take.lock() = Some(Box::new(move |batch| {
            if erased.fetch_add(1, Ordering::SeqCst) == 0 {
                let segment = Segment::new("s").unwrap();
                let note = Erasure::of_segment(&segment, received(5));
                notes.erased.lock().push(note);
                // Another instance receives this one after the deletion.
                notes.put(&one("later"));
            }
            notes.put(batch);
        }));
    }
    spool
        .append(&pairs(["a".into(), "b".into()]), received(1))
        .await
        .unwrap();
    until(|| notes.pairs.lock().len() == 1).await;
    let left: Vec<_> = notes.pairs.lock().keys().cloned().collect();
    assert_eq!(left, [("s".to_owned(), "later".to_owned())]);
    spool.append(&one("new"), received(9)).await.unwrap();
    drained(&spool).await;
    let left: Vec<_> = notes.pairs.lock().keys().cloned().collect();
    let expected = ["later", "new"].map(|user| ("s".to_owned(), user.to_owned()));
    assert_eq!(left, expected);
    delivering.stop().await;
}

async fn erases_again(another_task_reads_first: bool) {
    let dir = tempfile::tempdir().unwrap();
    let notes = Arc::new(Model::default());
    let spool = open(dir.path());
    let sink = Arc::new(Taken::default());
    let delivering = Delivering::start_over(&spool, &sink, &frame_of(60), &notes);
    {
        // Another instance notes the erasure and erases the user just before the pair arrives in the store.
        let (notes, erased) = (Arc::clone(&notes), AtomicU64::new(0));
        let (erasures, spool) = (Arc::clone(&delivering.erasures), Arc::clone(&spool));
        *sink.on_take.lock() = Some(Box::new(move |batch| {
            if erased.fetch_add(1, Ordering::SeqCst) == 0 {
                noted(&notes, "gone", 5);
                if another_task_reads_first {
                    erasures
                        .refresh(Some(&spool))
                        .now_or_never()
                        .unwrap()
                        .unwrap();
                }
            }
            notes.put(batch);
        }));
    }
    spool
        .append(&pairs(["gone".into(), "stays".into()]), received(1))
        .await
        .unwrap();
    until(|| notes.pairs.lock().len() == 1).await;
    let left: Vec<_> = notes.pairs.lock().keys().cloned().collect();
    assert_eq!(left, [("s".to_owned(), "stays".to_owned())]);
    drained(&spool).await;
    delivering.stop().await;
}

#[tokio::test(start_paused = true)]
async fn erased_users_leave_the_files_though_nothing_can_be_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let notes = Arc::new(Model::default());
    // Files of 128 KiB.
    let spool = Arc::new(Spool::open(dir.path(), 1 << 20, minute()).unwrap());
    let sink = Arc::new(Taken::unavailable());
    let delivering = Delivering::start_over(&spool, &sink, &frame_of(60), &notes);
    let expected: Vec<String> = (0..20_000).map(|n| format!("user-{n:020}")).collect();
    for (n, some) in expected.chunks(500).enumerate() {
        spool
            .append(&pairs(some.to_vec()), received(1))
            .await
            .unwrap();
        if n == 20 {
            spool.append(&one("gone-user"), received(1)).await.unwrap();
        }
    }
    sink.wait_for_tries(2).await;
    assert!(is_on_disk(dir.path(), "gone-user"));
    let erased = UserId::new("gone-user").unwrap();
    let at = spool.erasure_at(now()).await;
    delivering.erasures.note(&erased, at).await.unwrap();
    spool.start_search();
    spool.searched_for(1).await;
    assert!(!is_on_disk(dir.path(), "gone-user"));
    assert_eq!(spool.stats(now()).waiting_pairs, 20_000);
    *sink.failing.lock() = None;
    drained(&spool).await;
    let mut arrived = sink.users();
    arrived.sort();
    arrived.dedup();
    assert_eq!(arrived, expected, "no other user is lost");
    delivering.stop().await;
}

/// Runs in real time, because a paused clock would advance while the log's thread writes.
#[tokio::test]
async fn erased_users_leave_the_files_at_once_while_the_store_asks_for_a_pause() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let sink = Arc::new(Taken::default());
    *sink.failing.lock() = Some(StoreError::Throttled {
        reason: "status 429".to_owned(),
        retry_after: Duration::from_hours(24 * 365),
    });
    let delivering = Delivering::start(&spool, &sink);
    for user in ["gone-user", "stays"] {
        spool.append(&one(user), now()).await.unwrap();
    }
    sink.wait_for_tries(1).await;
    let at = spool.erasure_at(now()).await;
    let gone = UserId::new("gone-user").unwrap();
    delivering.erasures.note(&gone, at).await.unwrap();
    spool.start_search();
    spool.searched_for(1).await;
    assert!(!is_on_disk(dir.path(), "gone-user"));
    assert!(is_on_disk(dir.path(), "stays"));
    assert_eq!(
        sink.tries.load(Ordering::SeqCst),
        1,
        "the pause of the store is respected"
    );
    delivering.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_former_version_noted_in_the_spool_still_holds() {
    let dir = tempfile::tempdir().unwrap();
    let gone = UserId::new("gone-user").unwrap();
    let spool = open(dir.path());
    for user in ["gone-user", "stays"] {
        spool.append(&one(user), received(1)).await.unwrap();
    }
    spool.log.append(Record::erased(&gone)).await.unwrap();
    spool.append(&one("gone-user"), received(2)).await.unwrap();
    let sink = Arc::new(Taken::default());
    let delivering = Delivering::start(&spool, &sink);
    drained(&spool).await;
    assert_eq!(sink.users(), ["stays", "gone-user"]);
    delivering.stop().await;
}

fn names(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|n| format!("u{n}")).collect()
}

fn set(users: &[&str]) -> BTreeSet<String> {
    users.iter().map(|user| (*user).to_owned()).collect()
}

/// Waits until `is_so` returns `true`. Tokio's time is paused, so this takes no real time.
async fn until(is_so: impl Fn() -> bool) {
    let mut pause = Duration::from_millis(1);
    while !is_so() {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_fails_for_ever_does_not_hold_up_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let sink = Arc::new(Taken::default());
    *sink.poison.lock() = set(&["bad"]);
    let delivering = Delivering::start(&spool, &sink);
    // With a single record, this can't be distinguished from an unavailable store.
    spool.append(&one("bad"), now()).await.unwrap();
    sink.wait_for_tries(3).await;
    assert!(spool.store_is_unavailable());
    spool.append(&one("good"), now()).await.unwrap();
    until(|| spool.stats(now()).quarantined_pairs == 1).await;
    assert_eq!(sink.users(), ["good"]);
    assert!(!spool.store_is_unavailable());
    for user in names(0..20) {
        spool.append(&one(&user), now()).await.unwrap();
        until(|| sink.users().contains(&user)).await;
        assert!(
            !spool.store_is_unavailable(),
            "one failing record does not mean that the store is unavailable"
        );
    }
    assert_eq!(spool.stats(now()).waiting_pairs, 1);
    sink.poison.lock().clear();
    drained(&spool).await;
    assert!(sink.users().contains(&"bad".to_owned()));
    assert_eq!(spool.stats(now()).quarantined_pairs, 0);
    delivering.stop().await;
}

#[tokio::test(start_paused = true)]
async fn of_a_large_record_only_the_pair_that_the_store_can_not_take_stays() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let sink = Arc::new(Taken::default());
    *sink.poison.lock() = set(&["u123"]);
    spool.append(&one("before"), now()).await.unwrap();
    spool.append(&pairs(names(0..1000)), now()).await.unwrap();
    spool.append(&one("after"), now()).await.unwrap();
    let delivering = Delivering::start_with(&spool, &sink, &frame_of(60));
    until(|| sink.users().len() >= 1001).await;
    let taken: BTreeSet<String> = sink.users().into_iter().collect();
    let mut expected: BTreeSet<String> = names(0..1000).into_iter().collect();
    expected.extend(set(&["before", "after"]));
    expected.remove("u123");
    assert_eq!(taken, expected);
    until(|| spool.stats(now()).waiting_pairs == 1).await;
    // An hour later it has left the window and is dropped.
    drained(&spool).await;
    assert!(!sink.users().contains(&"u123".to_owned()));
    delivering.stop().await;
}

#[tokio::test(start_paused = true)]
async fn quarantine_survives_a_restart_and_knows_who_was_erased() {
    let dir = tempfile::tempdir().unwrap();
    let notes = Arc::new(Model::default());
    {
        let spool = open(dir.path());
        let sink = Arc::new(Taken::default());
        *sink.poison.lock() = set(&["gone-user", "stays"]);
        spool.append(&one("gone-user"), now()).await.unwrap();
        spool.append(&one("stays"), now()).await.unwrap();
        spool.append(&one("good"), now()).await.unwrap();
        let frame = frame_of(60);
        let delivering = Delivering::start_over(&spool, &sink, &frame, &notes);
        until(|| spool.stats(now()).quarantined_pairs >= 2).await;
        let gone = UserId::new("gone-user").unwrap();
        let at = spool.erasure_at(now()).await;
        delivering.erasures.note(&gone, at).await.unwrap();
        spool.start_search();
        spool.searched_for(1).await;
        assert!(!is_on_disk(dir.path(), "gone-user"));
        assert!(is_on_disk(dir.path(), "stays"));
        delivering.stop().await;
    }
    let spool = reopen(dir.path()).await;
    let sink = Arc::new(Taken::default());
    let delivering = Delivering::start_over(&spool, &sink, &frame_of(60), &notes);
    drained(&spool).await;
    delivering.stop().await;
    assert!(sink.users().contains(&"stays".to_owned()));
    assert!(!sink.users().contains(&"gone-user".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn what_the_store_refuses_and_keeps_elsewhere_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let sink = Arc::new(Taken::default());
    *sink.refused.lock() = (set(&["u3", "u7"]), true);
    spool.append(&pairs(names(0..10)), now()).await.unwrap();
    let delivering = Delivering::start(&spool, &sink);
    drained(&spool).await;
    assert_eq!(sink.users().len(), 8);
    assert_eq!(spool.stats(now()).rejected_batches, 1);
    assert!(!spool.store_is_unavailable());
    // If the store keeps them nowhere, they stay in the spool, because they were acknowledged.
    *sink.refused.lock() = (set(&["u3", "u7"]), false);
    spool.append(&pairs(names(0..10)), now()).await.unwrap();
    until(|| sink.users().len() >= 16).await;
    until(|| spool.stats(now()).quarantined_pairs == 2).await;
    *sink.refused.lock() = (BTreeSet::new(), false);
    drained(&spool).await;
    assert_eq!(sink.users().len(), 18);
    delivering.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_rejection_of_a_whole_batch_punishes_no_neighbour() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let sink = Arc::new(Taken::default());
    *sink.failing.lock() = Some(StoreError::Rejected("a bad line".to_owned()));
    spool.append(&one("first"), now()).await.unwrap();
    let delivering = Delivering::start(&spool, &sink);
    until(|| spool.stats(now()).quarantined_pairs == 1).await;
    assert!(!spool.store_is_unavailable());
    *sink.failing.lock() = None;
    spool.append(&one("second"), now()).await.unwrap();
    drained(&spool).await;
    assert_eq!(sink.users().len(), 2);
    delivering.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_busy_is_there_for_new_pairs() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let sink = Arc::new(Taken::default());
    *sink.failing.lock() = Some(StoreError::Throttled {
        reason: "status 429".to_owned(),
        retry_after: Duration::from_secs(30),
    });
    let began = tokio::time::Instant::now();
    spool.append(&one("u"), now()).await.unwrap();
    let delivering = Delivering::start(&spool, &sink);
    sink.wait_for_tries(3).await;
    assert!(
        began.elapsed() >= Duration::from_secs(60),
        "two pauses of 30 s"
    );
    assert!(!spool.store_is_unavailable());
    *sink.failing.lock() = Some(StoreError::Busy("a full queue".to_owned()));
    sink.wait_for_tries(5).await;
    assert!(!spool.store_is_unavailable());
    *sink.failing.lock() = None;
    drained(&spool).await;
    delivering.stop().await;
}

#[tokio::test]
async fn an_append_that_its_client_leaves_gives_its_room_back() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let mut left = 0;
    for _ in 0..200 {
        let batch = pairs(names(0..100));
        let append = spool.append(&batch, now());
        // Polled once, then dropped during the disk write, unless this thread was suspended until its end.
        left += usize::from(futures::FutureExt::now_or_never(append).is_none());
    }
    assert!(left > 0, "every append completed at the first poll");
    assert_eq!(spool.reserved.load(Ordering::SeqCst), 0);
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
    // It stands for a file read that continues after delivery was stopped.
    let reading = spool.file_work.spawn_blocking(move || released.recv());
    let mut closing = std::pin::pin!(spool.close());
    assert!(
        closing.as_mut().now_or_never().is_none(),
        "a file is still being read"
    );
    release.send(()).unwrap();
    closing.await.unwrap();
    reading.await.unwrap().unwrap();
    Spool::open(dir.path(), MAX_BYTES, minute())
        .expect("the first spool is closed, although it is not dropped");
    assert_eq!(spool.check().unwrap_err().name(), "closed");
}

#[tokio::test]
async fn pairs_of_another_resolution_are_not_delivered_as_if_they_were_of_this() {
    let dir = tempfile::tempdir().unwrap();
    let open = |seconds| Spool::open(dir.path(), MAX_BYTES, of_seconds(seconds));
    open(60).unwrap().close().await.unwrap();
    let spool = open(10).expect("nothing waits, so another resolution is fine");
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
