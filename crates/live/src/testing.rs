//! A store, a feed and published counts in memory, and the parts of live counts over them.

use std::sync::Arc;
use std::time::Duration;

use crate::replica::{Replica, ReplicaOptions, Sources};
use crate::writer::{Delivery, FeedWriter, OwedLog, WriterParts};
use domain::feed::ChangeFeed;
use domain::feed::model::ModelFeed;
use domain::published::model::ModelPublished;
use domain::store::PairStore;
use domain::store::conformance::frame;
use domain::store::model::Model;
use domain::{
    Batch, BatchBuilder, Clock, Count, FingerprintKey, ManualClock, Segment, Slot, Timestamp,
    UserId, Window,
};
use index::Fingerprint;
use state::Subject;
use supervisor::Supervisor;
use wal::testing::MemDisk;

pub(crate) const SEGMENTS: [&str; 3] = ["news", "sports", "weather"];

/// What an erasure removes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Erasing {
    User(u64),
    Segment(&'static str),
    Pair(&'static str, u64),
}

impl Erasing {
    pub(crate) fn removes(self, segment: &str, user: u64) -> bool {
        match self {
            Self::User(erased) => erased == user,
            Self::Segment(erased) => erased == segment,
            Self::Pair(of, erased) => (of, erased) == (segment, user),
        }
    }
}

pub(crate) struct Bench {
    pub(crate) feed: Arc<ModelFeed>,
    pub(crate) published: Arc<ModelPublished>,
    pub(crate) store: Arc<Model>,
    /// Of the processes and of the published counts.
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) feed_clock: Arc<ManualClock>,
    pub(crate) disk: MemDisk,
    pub(crate) root: tempfile::TempDir,
    pub(crate) key: FingerprintKey,
}

pub(crate) struct Running {
    pub(crate) replica: Arc<Replica>,
    pub(crate) writer: FeedWriter,
    pub(crate) supervisor: Supervisor,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let start = Timestamp::from_second(1_800_000_000).unwrap();
        let ticking = |tick| Arc::new(ManualClock::ticking(start, tick));
        let clock = ticking(Duration::from_micros(1));
        let feed_clock = ticking(Duration::from_millis(1));
        Self {
            feed: Arc::new(ModelFeed::new(Arc::clone(&feed_clock) as Arc<dyn Clock>)),
            published: Arc::new(ModelPublished::new(Arc::clone(&clock) as Arc<dyn Clock>)),
            store: Arc::default(),
            clock,
            feed_clock,
            disk: MemDisk::default(),
            root: tempfile::tempdir().unwrap(),
            key: FingerprintKey::new([7; 16]),
        }
    }

    pub(crate) fn start(&self) -> Running {
        let supervisor = Supervisor::new(Arc::new(|_, _| ()));
        Running {
            writer: self.writer(None, &supervisor),
            replica: self.replica("replica", &supervisor),
            supervisor,
        }
    }

    pub(crate) fn sources(&self) -> Sources {
        Sources {
            feed: Arc::clone(&self.feed) as Arc<dyn ChangeFeed>,
            store: Arc::clone(&self.store) as Arc<dyn PairStore>,
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
        }
    }

    /// A running replica in this directory.
    pub(crate) fn replica(&self, directory: &str, supervisor: &Supervisor) -> Arc<Replica> {
        let options = ReplicaOptions {
            disk: Arc::new(self.disk.clone()),
            snapshot_bytes: 4_000,
            ..ReplicaOptions::new(self.root.path().join(directory), frame(60), self.key)
        };
        let replica = Arc::new(Replica::open(options).unwrap());
        replica.start(&self.sources(), supervisor);
        replica
    }

    /// A running writer, whose owed entries are in this directory.
    pub(crate) fn writer(&self, owed: Option<&str>, supervisor: &Supervisor) -> FeedWriter {
        let owed = owed.map(|directory| {
            let disk = Arc::new(self.disk.clone());
            OwedLog::open(disk, &self.root.path().join(directory)).unwrap()
        });
        let parts = WriterParts {
            feed: Arc::clone(&self.feed) as Arc<dyn ChangeFeed>,
            owed,
            // The clock of the runtime runs ahead of all others.
            keep: Duration::from_hours(24),
            max_kept_bytes: 64 << 20,
        };
        FeedWriter::start(parts, supervisor)
    }

    /// Lets time pass, by all clocks except that of the runtime.
    pub(crate) fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.feed_clock.advance(time);
    }

    /// A batch of users in a segment, seen `ago` slots before now.
    pub(crate) fn batch(&self, users: impl Iterator<Item = u64>, segment: &str, ago: u64) -> Batch {
        let now = frame(60).resolution().slot_of(self.clock.now()).number();
        let mut batch = BatchBuilder::default();
        for user in users {
            let user = UserId::new(format!("u{user}")).unwrap();
            batch
                .push_pair(&user, segment, Slot::new(now - ago))
                .unwrap();
        }
        batch.finish()
    }

    /// Records a batch as an instance does. Returns where its record is.
    pub(crate) async fn record(&self, running: &Running, batch: &Batch) -> Delivery {
        self.record_with(&running.writer, batch).await
    }

    pub(crate) async fn record_with(&self, writer: &FeedWriter, batch: &Batch) -> Delivery {
        self.store.put(batch);
        let mut delivery = Delivery::InFeed;
        for record in state::received(batch, self.key, self.clock.now()) {
            if writer.append(record).await == Delivery::Owed {
                delivery = Delivery::Owed;
            }
        }
        delivery
    }

    /// What the store has of `from`, as pairs of `into`.
    pub(crate) async fn moved(&self, from: u64, into: u64) -> Batch {
        let user = |number: u64| UserId::new(format!("u{number}")).unwrap();
        let former = user(from);
        let seen = self.store.memberships(&former, self.clock.now()).await;
        let mut batch = BatchBuilder::default();
        for it in seen.unwrap() {
            let segment = it.segment.as_str();
            batch.push_pair(&user(into), segment, it.last_seen).unwrap();
        }
        batch.finish()
    }

    pub(crate) async fn erase(&self, running: &Running, user: u64) {
        self.erase_with(&running.writer, user).await;
    }

    pub(crate) async fn erase_with(&self, writer: &FeedWriter, user: u64) {
        self.erase_from(writer, Erasing::User(user)).await;
    }

    /// The record of an erasure at `at`, which the store has done.
    pub(crate) async fn erased(&self, erasing: Erasing, at: Timestamp) -> Vec<u8> {
        let user = |number: u64| UserId::new(format!("u{number}")).unwrap();
        let fingerprint = |number| Fingerprint::of(&user(number), self.key);
        let segment = |name| Segment::new(name).unwrap();
        let subject = match erasing {
            Erasing::User(number) => {
                self.store.forget(&user(number), at).await.unwrap();
                Subject::User(fingerprint(number))
            }
            Erasing::Segment(name) => {
                let segment = segment(name);
                self.store.drop_segment(&segment, &[], at).await.unwrap();
                Subject::Segment(segment)
            }
            Erasing::Pair(name, number) => {
                let (segment, user) = (segment(name), user(number));
                self.store.forget_in(&segment, &user, at).await.unwrap();
                Subject::Pair(segment, fingerprint(number))
            }
        };
        state::erased(&subject, at)
    }

    pub(crate) async fn erase_from(&self, writer: &FeedWriter, erasing: Erasing) {
        let at = self.clock.now();
        let record = self.erased(erasing, at).await;
        while frozen(writer.append_now(record.clone())).await.is_err() {
            pause().await;
        }
        // What comes at the same instant counts as received before.
        self.clock.advance(Duration::from_millis(2));
    }

    /// What the store counts, as of the replica's instant.
    pub(crate) async fn truth(&self, window: Window, as_of: Timestamp) -> Vec<(String, u64)> {
        let mut counts = Vec::new();
        for segment in SEGMENTS {
            let name = Segment::new(segment).unwrap();
            let users = self.store.count(&name, window, as_of).await.unwrap().users;
            if users > 0 {
                counts.push((segment.to_owned(), users));
            }
        }
        counts
    }

    /// Waits until the replica has what the store has.
    pub(crate) async fn expect_equal(&self, running: &Running) {
        let mut last = None;
        for _ in 0..2_000 {
            let full = frame(60).full_window();
            if running.writer.status().owed == 0
                && running.replica.status().is_complete
                && let Some(list) = running.replica.list(full)
                && let Some(as_of) = running.replica.as_of()
            {
                let short = frame(60).window(Duration::from_mins(7)).unwrap();
                let short_counts = running.replica.list(short).unwrap_or_default();
                let found = (numbers(&list), numbers(&short_counts));
                let truth = (
                    self.truth(full, as_of).await,
                    self.truth(short, as_of).await,
                );
                if found == truth {
                    return;
                }
                last = Some((found, truth));
            }
            pause().await;
        }
        panic!("{last:?}, {:?}", running.replica.status());
    }
}

impl Running {
    /// Waits until the replica has read from the store, once, what the feed lost.
    pub(crate) async fn wait_for_repair(&self) {
        for _ in 0..2_000 {
            if self.replica.status().repairs > 0 {
                break;
            }
            pause().await;
        }
        assert_eq!(self.replica.status().repairs, 1);
    }

    pub(crate) async fn end(self) {
        self.supervisor.end().await;
        self.replica.close().await.unwrap();
    }
}

/// Awaits what a thread does. Time stands still meanwhile: the clock of the runtime would run ahead of all others.
pub(crate) async fn frozen<T>(work: impl Future<Output = T>) -> T {
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let freezing = tokio::task::spawn_blocking(move || ended.recv());
    let result = work.await;
    drop(end);
    // The error is the end.
    let _ = freezing.await;
    result
}

/// Lets time pass. The clock of the runtime is paused, so the thread of the log needs real time.
pub(crate) async fn pause() {
    std::thread::sleep(Duration::from_millis(1));
    tokio::time::sleep(Duration::from_millis(25)).await;
}

pub(crate) fn numbers(list: &[(Segment, Count)]) -> Vec<(String, u64)> {
    let numbers = list.iter();
    numbers
        .map(|(segment, count)| (segment.to_string(), count.users))
        .collect()
}
