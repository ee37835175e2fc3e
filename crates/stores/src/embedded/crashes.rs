//! Tests of the embedded store on an in-memory disk: crashes, full and failing disks, damage.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use std::sync::Arc;

use super::*;
use domain::store::conformance::{batch, frame};
use wal::testing::{Faults, MemDisk};
use wal::{Disk, LogError};

/// A store on an in-memory disk. The real directory is only for the lock.
struct Bench {
    root: TempDir,
    disk: MemDisk,
    frame: TimeFrame,
}

impl Bench {
    fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            disk: MemDisk::default(),
            frame: frame(60),
        }
    }

    /// Opens the store. Snapshots are taken only when the test requests them.
    fn open(&self) -> Result<EmbeddedStore, StoreError> {
        EmbeddedStore::open(EmbeddedOptions {
            disk: Arc::new(self.disk.clone()),
            snapshot_bytes: u64::MAX,
            ..EmbeddedOptions::new(self.root.path(), self.frame)
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        self.disk.list(self.root.path()).unwrap()
    }
}

fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn present() -> Slot {
    frame(60).resolution().slot_of(start())
}

fn segment(name: &str) -> Segment {
    Segment::new(name).unwrap()
}

fn user(name: &str) -> UserId<'_> {
    UserId::new(name).unwrap()
}

async fn put(store: &EmbeddedStore, name: &str, segment: &str) -> Result<(), StoreError> {
    store.record(&batch([(name, segment, present())])).await
}

fn count(store: &EmbeddedStore, name: &str) -> u64 {
    let full = store.frame.full_window();
    store
        .count_now(&segment(name), full, start())
        .unwrap()
        .users
}

/// Takes a snapshot now.
async fn snapshot(store: &EmbeddedStore) -> Result<(), LogError> {
    let next = store.log().rotate().await?;
    take_before(store, next)
}

/// Takes a snapshot that covers the log files before `next`, on a thread that may block.
fn take_before(store: &EmbeddedStore, next: u64) -> Result<(), LogError> {
    let take = || store.durable.snapshotter().take_before(next);
    std::thread::scope(|scope| scope.spawn(take).join().unwrap())
}

#[tokio::test]
async fn a_closed_store_says_so_and_gives_the_directory_back() {
    let bench = Bench::new();
    let store = bench.open().unwrap();
    let refused = bench.open().unwrap_err();
    assert!(matches!(&refused, StoreError::Unavailable(text) if text.contains("in use")));
    store.close().await.unwrap();
    assert!(matches!(
        put(&store, "u", "s").await,
        Err(StoreError::Closed)
    ));
    assert!(matches!(store.ping().await, Err(StoreError::Closed)));
    assert_eq!(
        store.count_now(&segment("s"), bench.frame.full_window(), start()),
        None
    );
    bench.open().unwrap();
}

#[tokio::test]
async fn the_time_of_a_question_is_forgotten_at_a_restart() {
    let bench = Bench::new();
    let store = bench.open().unwrap();
    put(&store, "u", "s").await.unwrap();
    let far = start() + jiff::SignedDuration::from_hours(24 * 365);
    store
        .count_now(&segment("s"), bench.frame.full_window(), far)
        .unwrap();
    assert!(store.head() > present());
    drop(store);
    assert_eq!(bench.open().unwrap().head(), present());
}

#[tokio::test]
async fn what_expired_while_nobody_ran_is_gone() {
    for with_snapshot in [false, true] {
        let bench = Bench::new();
        let store = bench.open().unwrap();
        put(&store, "u", "s").await.unwrap();
        if with_snapshot {
            snapshot(&store).await.unwrap();
        }
        drop(store);
        for (slots, users) in [(59, 1), (60, 0), (65_536, 0), (65_536 * 3 + 7, 0)] {
            let later = Slot::new(present().number() + slots);
            let as_of = bench.frame.resolution().start_of(later);
            let store = bench.open().unwrap();
            let full = bench.frame.full_window();
            let counted = store.count_now(&segment("s"), full, as_of).unwrap();
            assert_eq!(counted, Count { users, as_of }, "{slots} slots later");
        }
    }
}

#[tokio::test]
async fn a_batch_of_any_size_and_span_counts_right() {
    let bench = Bench::new();
    let store = bench.open().unwrap();
    let names: Vec<String> = (0..300_000).map(|n| format!("u{n}")).collect();
    let pairs = names
        .iter()
        .enumerate()
        .map(|(n, name)| (name.as_str(), ["a", "b", "c"][n % 3], present()));
    store.record(&batch(pairs)).await.unwrap();
    assert_eq!(count(&store, "b"), 100_000);
    // Slots that 16 bits can't distinguish from the newest one.
    let back = |slots| Slot::new(present().number() - slots);
    let pairs = [
        ("v", "d", back(65_536 + 3)),
        ("x", "d", back(65_536)),
        ("y", "d", back(60)),
        ("z", "d", back(59)),
        ("w", "d", present()),
    ];
    store.record(&batch(pairs)).await.unwrap();
    assert_eq!(count(&store, "d"), 2);
    drop(store);
    let store = bench.open().unwrap();
    assert_eq!((count(&store, "b"), count(&store, "d")), (100_000, 2));
}

#[tokio::test]
async fn a_snapshot_makes_log_files_and_older_snapshots_superfluous() {
    let bench = Bench::new();
    let store = bench.open().unwrap();
    for round in 0..3 {
        for n in 0..100 {
            put(&store, &format!("u{}", round * 50 + n), "s")
                .await
                .unwrap();
        }
        snapshot(&store).await.unwrap();
        snapshot(&store).await.unwrap();
        let names = bench.names();
        let of = |suffix: &str| names.iter().filter(|name| name.ends_with(suffix)).count();
        assert_eq!((of(".log"), of(".snapshot")), (1, 1), "{names:?}");
    }
    put(&store, "after", "s").await.unwrap();
    drop(store);
    let store = bench.open().unwrap();
    assert_eq!(count(&store, "s"), 201);
    assert_eq!(
        store.log().recovery().records,
        2,
        "the mark of the snapshot, which has the rest"
    );
}

#[tokio::test]
async fn a_snapshot_that_fails_takes_nothing_away() {
    let bench = Bench::new();
    let store = bench.open().unwrap();
    for n in 0..100 {
        put(&store, &format!("u{n}"), "s").await.unwrap();
    }
    let next = store.log().rotate().await.unwrap();
    let before = bench.names();
    let faults = [
        Faults {
            room: Some(100),
            ..Faults::default()
        },
        Faults {
            sync: true,
            ..Faults::default()
        },
        Faults {
            write: true,
            ..Faults::default()
        },
    ];
    for faults in faults {
        bench.disk.set_faults(faults);
        take_before(&store, next).unwrap_err();
        assert_eq!(bench.names(), before);
    }
    bench.disk.set_faults(Faults::default());
    take_before(&store, next).unwrap();
    assert!(bench.names().len() <= before.len());
    drop(store);
    assert_eq!(count(&bench.open().unwrap(), "s"), 100);
}

#[tokio::test]
async fn what_a_dead_snapshot_left_is_removed() {
    let bench = Bench::new();
    put(&bench.open().unwrap(), "u", "s").await.unwrap();
    let left = format!("00000000000000000007.snapshot{}", wal::UNFINISHED);
    bench.disk.put(&bench.path(&left), vec![1; 1000]);
    assert_eq!(count(&bench.open().unwrap(), "s"), 1);
    assert!(!bench.names().contains(&left));
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_answers_reads() {
    let bench = Bench::new();
    let store = bench.open().unwrap();
    put(&store, "u1", "s").await.unwrap();
    bench.disk.set_faults(Faults {
        room: Some(20),
        ..Faults::default()
    });
    assert!(matches!(
        put(&store, "u2", "s").await,
        Err(StoreError::Full(_))
    ));
    assert_eq!(count(&store, "s"), 1);
    store.ping().await.unwrap();
    bench.disk.set_faults(Faults::default());
    put(&store, "u3", "s").await.unwrap();
    assert_eq!(count(&store, "s"), 2);
    drop(store);
    assert_eq!(count(&bench.open().unwrap(), "s"), 2);
}

#[tokio::test]
async fn a_failed_sync_ends_writes_and_leaves_reads() {
    let bench = Bench::new();
    let store = bench.open().unwrap();
    put(&store, "u1", "s").await.unwrap();
    bench.disk.set_faults(Faults {
        sync: true,
        ..Faults::default()
    });
    assert!(matches!(
        put(&store, "u2", "s").await,
        Err(StoreError::Unavailable(_))
    ));
    bench.disk.set_faults(Faults::default());
    assert!(matches!(
        put(&store, "u3", "s").await,
        Err(StoreError::Unavailable(_))
    ));
    assert!(matches!(
        store.ping().await,
        Err(StoreError::Unavailable(_))
    ));
    assert_eq!(count(&store, "s"), 1);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_directory_keeps_its_identity_whatever_the_window() {
    let mut bench = Bench::new();
    put(&bench.open().unwrap(), "u", "s").await.unwrap();
    bench.frame = frame(30);
    assert_eq!(
        count(&bench.open().unwrap(), "s"),
        1,
        "another window is fine"
    );
    let identity = bench.disk.bytes(&bench.path("identity"));
    for at in 0..identity.len() {
        let mut damaged = identity.clone();
        damaged[at] ^= 1;
        bench.disk.put(&bench.path("identity"), damaged);
        assert!(
            matches!(bench.open(), Err(StoreError::Damaged(_))),
            "byte {at}"
        );
        bench
            .disk
            .put(&bench.path("identity"), identity[..at].to_vec());
        assert!(
            matches!(bench.open(), Err(StoreError::Damaged(_))),
            "{at} bytes"
        );
    }
    bench.disk.put(&bench.path("identity"), identity);
    assert_eq!(count(&bench.open().unwrap(), "s"), 1);
}

#[tokio::test]
async fn a_damaged_snapshot_is_refused_unless_the_log_makes_up_for_it() {
    let bench = Bench::new();
    let store = bench.open().unwrap();
    put(&store, "u1", "s").await.unwrap();
    let first_log = bench.path("00000000000000000001.log");
    store.log().rotate().await.unwrap();
    let covered = bench.disk.bytes(&first_log);
    snapshot(&store).await.unwrap();
    put(&store, "u2", "s").await.unwrap();
    drop(store);
    let path = bench.path("00000000000000000002.snapshot");
    let whole = bench.disk.bytes(&path);
    for length in 0..whole.len() {
        bench.disk.put(&path, whole[..length].to_vec());
        let Err(StoreError::Damaged(text)) = bench.open() else {
            panic!("{length} bytes")
        };
        assert!(text.contains(path.to_str().unwrap()), "{text}");
    }
    // As if the process had died before it removed the log files that the snapshot covers.
    bench.disk.put(&first_log, covered);
    let store = bench.open().unwrap();
    assert_eq!(count(&store, "s"), 2);
    // The next snapshot replaces the damaged one.
    snapshot(&store).await.unwrap();
    drop(store);
    assert_eq!(count(&bench.open().unwrap(), "s"), 2);

    let names = bench.names();
    let log = names.iter().find(|name| name.ends_with(".log")).unwrap();
    bench.disk.remove(&bench.path(log)).unwrap();
    assert!(matches!(bench.open(), Err(StoreError::Damaged(text)) if text.contains("missing")));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_entered_counts_once_when_a_snapshot_is_taken_during_writes() {
    let bench = Bench::new();
    let mut store = Arc::new(bench.open().unwrap());
    let (now, span) = (
        present().number(),
        present()..Slot::new(present().number() + 1),
    );
    for round in 0..6 {
        let writing = Arc::clone(&store);
        let writer = tokio::spawn(async move {
            for part in 0..60 {
                let names: Vec<String> = (0..300).map(|n| format!("{round} {part} {n}")).collect();
                // Late pairs of users who are new, and a user who is erased and comes back.
                let slot = |n: usize| Slot::new(now - n as u64 % 50);
                let new = names
                    .iter()
                    .enumerate()
                    .map(|(n, name)| (name.as_str(), "s", slot(n)));
                writing.record(&batch(new)).await.unwrap();
                writing.forget(&user("back"), start()).await.unwrap();
                writing
                    .record(&batch([("back", "s", present())]))
                    .await
                    .unwrap();
            }
        });
        while !writer.is_finished() {
            snapshot(&store).await.unwrap();
        }
        writer.await.unwrap();
        let flow = |store: &EmbeddedStore| {
            let flow = store.flow(&segment("s"), std::slice::from_ref(&span), start());
            flow.unwrap()[0].unwrap()
        };
        let expected = Flow {
            entered: (round + 1) * 60 * 301,
            left: (round + 1) * 60 - 1,
        };
        assert_eq!(flow(&store), expected, "round {round}");
        assert_eq!(count(&store, "s"), expected.entered - expected.left);
        drop(store);
        store = Arc::new(bench.open().unwrap());
        assert_eq!(flow(&store), expected, "after a restart in round {round}");
    }
}

#[tokio::test]
async fn another_window_begins_to_count_anew() {
    let mut bench = Bench::new();
    let flow = |store: &EmbeddedStore| {
        let span = present()..Slot::new(present().number() + 1);
        let flow = store.flow(&segment("s"), &[span], start());
        flow.unwrap()[0].map(|flow| flow.entered)
    };
    let store = bench.open().unwrap();
    put(&store, "u1", "s").await.unwrap();
    snapshot(&store).await.unwrap();
    put(&store, "u2", "s").await.unwrap();
    assert_eq!(flow(&store), Some(2));
    drop(store);
    bench.frame = frame(120);
    let store = bench.open().unwrap();
    assert_eq!(flow(&store), None);
    put(&store, "u3", "s").await.unwrap();
    drop(store);
    let store = bench.open().unwrap();
    assert_eq!((flow(&store), count(&store, "s")), (None, 3));
    let next = Slot::new(present().number() + 1);
    let later = batch([("u4", "s", next)]);
    store.record(&later).await.unwrap();
    drop(store);
    let store = bench.open().unwrap();
    let span = next..Slot::new(next.number() + 1);
    let entered = store.flow(&segment("s"), &[span], start()).unwrap();
    assert_eq!(entered[0].map(|flow| flow.entered), Some(1));
}

#[tokio::test]
async fn who_left_by_an_erasure_left_at_that_time_after_a_restart_too() {
    for step in [Step::ForgetIn(1, 0), Step::DropSegment(0), Step::Forget(1)] {
        let mut life = Life::new();
        let store = life.bench.open().unwrap();
        life.pairs.insert(("u1".into(), "s0".into()), present());
        life.enter("s0");
        store
            .record(&batch([("u1", "s0", present())]))
            .await
            .unwrap();
        life.wait(3);
        life.work(&store, step).await;
        life.compare(&store).await;
        drop(store);
        life.wait(2);
        life.compare(&life.bench.open().unwrap()).await;
    }
}

/// A step of a random history of a store.
#[derive(Debug, Clone)]
enum Step {
    /// Records this number of pairs, from this seed.
    Record(usize, u64),
    Forget(u8),
    /// Erases a user from a segment.
    ForgetIn(u8, u8),
    DropSegment(u8),
    Trend(u8),
    /// Starts a snapshot: rotates the log.
    Begin,
    /// Writes the snapshot, which contains all records since.
    Take,
    Archive,
    /// This number of slots passes.
    Wait(u8),
    /// Records pairs on a disk with this number of free bytes.
    Fill(u8),
    /// The machine dies, and loses unsynced data according to this seed.
    Crash(u64),
    /// The process dies.
    Kill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        10 => (1..40_usize, any::<u64>()).prop_map(|(pairs, seed)| Step::Record(pairs, seed)),
        4 => (0..20_u8).prop_map(Step::Forget),
        4 => (0..20_u8, 0..3_u8).prop_map(|(user, segment)| Step::ForgetIn(user, segment)),
        1 => (0..3_u8).prop_map(Step::DropSegment),
        2 => any::<u8>().prop_map(Step::Trend),
        2 => Just(Step::Begin),
        3 => Just(Step::Take),
        2 => Just(Step::Archive),
        3 => (0..20_u8).prop_map(Step::Wait),
        1 => any::<u8>().prop_map(Step::Fill),
        3 => any::<u64>().prop_map(Step::Crash),
        1 => Just(Step::Kill),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// In every history, live and after every crash, the store returns the counts of a naive model.
    #[test]
    fn every_life_equals_a_naive_model(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(Life::new().live(steps));
    }
}

/// A segment was removed, time passed, and a snapshot kept its counters as of the removal. The replay, which had gone beyond, dropped
/// them: who had entered and left was unknown.
#[test]
fn the_flow_of_a_removed_segment_outlives_a_snapshot_and_a_crash() {
    let steps = vec![
        Step::Record(1, 0),
        Step::Begin,
        Step::Record(2, 4_556_074_814_499_919_961),
        Step::DropSegment(2),
        Step::Archive,
        Step::Wait(1),
        Step::Take,
        Step::Crash(0),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(Life::new().live(steps));
}

/// A store and a model of it.
struct Life {
    bench: Bench,
    now: Slot,
    pairs: BTreeMap<(String, String), Slot>,
    /// Who entered and left each segment in each slot.
    flow: BTreeMap<(String, u64), Flow>,
    trend: BTreeMap<i64, u64>,
}

impl Life {
    fn new() -> Self {
        Self {
            bench: Bench::new(),
            now: present(),
            pairs: BTreeMap::new(),
            flow: BTreeMap::new(),
            trend: BTreeMap::new(),
        }
    }

    fn instant(&self) -> Timestamp {
        self.bench.frame.resolution().start_of(self.now)
    }

    fn is_counted(&self, slot: Slot) -> bool {
        slot.number() + 60 > self.now.number()
    }

    fn enter(&mut self, segment: &str) {
        let key = (segment.to_owned(), self.now.number());
        self.flow.entry(key).or_default().entered += 1;
    }

    fn leave(&mut self, segment: &str, slot: u64) {
        let key = (segment.to_owned(), slot);
        self.flow.entry(key).or_default().left += 1;
    }

    /// Erases the pairs for which `is_erased` is true. Returns the number of those that counted.
    fn erase(&mut self, is_erased: impl Fn(&str, &str) -> bool) -> u64 {
        let pairs = std::mem::take(&mut self.pairs).into_iter();
        let (erased, kept) = pairs.partition(|((user, segment), _)| is_erased(user, segment));
        self.pairs = kept;
        let erased: BTreeMap<(String, String), Slot> = erased;
        let mut counted = 0;
        for ((_, segment), slot) in erased {
            if self.is_counted(slot) {
                self.leave(&segment, self.now.number());
                counted += 1;
            }
        }
        counted
    }

    fn wait(&mut self, slots: u64) {
        let (before, after) = (self.now.number(), self.now.number() + slots);
        let leaves = self
            .pairs
            .iter()
            .map(|((_, s), slot)| (s, slot.number() + 60));
        let leave: Vec<_> = leaves
            .filter(|(_, at)| (before + 1..=after).contains(at))
            .map(|(segment, at)| (segment.clone(), at))
            .collect();
        leave
            .iter()
            .for_each(|(segment, at)| self.leave(segment, *at));
        self.now = Slot::new(after);
    }

    async fn live(mut self, steps: Vec<Step>) {
        let mut store = self.bench.open().unwrap();
        let mut begun = None;
        for step in steps {
            match step {
                Step::Begin => begun = Some(store.log().rotate().await.unwrap()),
                Step::Take => {
                    if let Some(next) = begun.take() {
                        take_before(&store, next).unwrap();
                    }
                }
                Step::Crash(_) | Step::Kill => {
                    begun = None;
                    self.bench.disk = match step {
                        Step::Crash(seed) => self.bench.disk.crash(seed),
                        _ => self.bench.disk.kill(),
                    };
                    drop(store);
                    store = self.bench.open().unwrap();
                }
                Step::Wait(slots) => self.wait(u64::from(slots)),
                other => self.work(&store, other).await,
            }
            self.compare(&store).await;
        }
    }

    async fn work(&mut self, store: &EmbeddedStore, step: Step) {
        let as_of = self.instant();
        match step {
            Step::Record(number, seed) => {
                let mut random = fastrand::Rng::with_seed(seed);
                let given: Vec<_> = (0..number)
                    .map(|_| {
                        let slot = Slot::new(self.now.number() - random.u64(0..60));
                        let (name, segment) = (random.u8(0..20), random.u8(0..3));
                        (format!("u{name}"), format!("s{segment}"), slot)
                    })
                    .collect();
                let pairs = given
                    .iter()
                    .map(|(u, s, slot)| (u.as_str(), s.as_str(), *slot));
                store.advance(as_of);
                store.record(&batch(pairs)).await.unwrap();
                for (name, segment, slot) in given {
                    let key = (name, segment);
                    let known = self.pairs.get(&key).copied();
                    if !known.is_some_and(|known| self.is_counted(known)) {
                        self.enter(&key.1);
                    }
                    self.pairs
                        .insert(key, known.map_or(slot, |known| known.max(slot)));
                }
            }
            Step::Forget(number) => {
                let name = format!("u{number}");
                let expected = self.erase(|user, _| user == name);
                let erased = store.forget(&user(&name), as_of).await.unwrap();
                assert_eq!(erased, expected);
            }
            Step::ForgetIn(number, of) => {
                let (name, of) = (format!("u{number}"), format!("s{of}"));
                let expected = self.erase(|user, segment| (user, segment) == (&name, &of));
                let erased = store.forget_in(&segment(&of), &user(&name), as_of).await;
                assert_eq!(erased.unwrap(), expected > 0);
            }
            Step::DropSegment(number) => {
                let of = format!("s{number}");
                let expected = self.erase(|_, segment| segment == of);
                let erased = store.drop_segment(&segment(&of), &[], as_of).await;
                assert_eq!(erased.unwrap(), expected);
            }
            Step::Trend(users) => {
                let users = u64::from(users);
                let point = TrendPoint {
                    segment: segment("s"),
                    window: self.bench.frame.full_window(),
                    count: Count { users, as_of },
                };
                store.record_trend(&[point]).await.unwrap();
                self.trend.insert(as_of.as_second(), users);
            }
            Step::Archive => {
                store.archive(as_of, 10).await.unwrap();
            }
            Step::Fill(room) => {
                let room = Some(u64::from(room));
                self.bench.disk.set_faults(Faults {
                    room,
                    ..Faults::default()
                });
                let names: Vec<String> = (0..40).map(|n| format!("lost {n}")).collect();
                let lost = batch(names.iter().map(|name| (name.as_str(), "s0", self.now)));
                let refused = store.record(&lost).await;
                assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
                self.bench.disk.set_faults(Faults::default());
            }
            Step::Begin | Step::Take | Step::Wait(_) | Step::Crash(_) | Step::Kill => {}
        }
    }

    async fn compare(&self, store: &EmbeddedStore) {
        let (full, as_of) = (self.bench.frame.full_window(), self.instant());
        let mut expected: HashMap<&str, u64> = HashMap::new();
        for ((_, segment), slot) in &self.pairs {
            if self.is_counted(*slot) {
                *expected.entry(segment).or_default() += 1;
            }
        }
        for name in ["s0", "s1", "s2"] {
            let counted = store.count(&segment(name), full, as_of).await.unwrap();
            assert_eq!(
                counted.users,
                expected.get(name).copied().unwrap_or(0),
                "{name}"
            );
        }
        let slots = present().number()..self.now.number() + 1;
        for name in ["s0", "s1", "s2"] {
            let spans: Vec<_> = slots
                .clone()
                .map(|slot| Slot::new(slot)..Slot::new(slot + 1))
                .collect();
            let flow = store.flow(&segment(name), &spans, as_of).unwrap();
            let expected = slots.clone().map(|slot| {
                let flow = self.flow.get(&(name.to_owned(), slot));
                Some(flow.copied().unwrap_or_default())
            });
            assert!(
                flow.iter().copied().eq(expected.clone()),
                "{name}: {flow:?}, not {:?}",
                expected.collect::<Vec<_>>()
            );
        }
        let points = store
            .trend(&segment("s"), full, start(), as_of)
            .await
            .unwrap();
        let points: Vec<_> = points
            .iter()
            .map(|p| (p.as_of.as_second(), p.users))
            .collect();
        let expected: Vec<_> = self.trend.iter().map(|(at, users)| (*at, *users)).collect();
        assert_eq!(points, expected);
    }
}
