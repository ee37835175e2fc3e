//! A replica of the counts: an index that follows a change feed, and that read the rest from the store.
//!
//! Every pair that was answered with 200 before [`as_of`](Replica::as_of) is counted, once its segment was read from the store.

mod audit;
mod entries;
mod follower;
mod hydration;
mod reading;
mod recent;
#[cfg(test)]
mod tests;

pub use self::audit::AuditReport;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use domain::feed::{ChangeFeed, FeedError, FeedSize, WriterId};
use domain::published::UsersPerWindow;
use domain::store::{PairStore, StoreError};
use domain::{Clock, FingerprintKey, Segment, Slot, TimeFrame, Timestamp, Window};
use state::{DurableOptions, DurableState};
use supervisor::Supervisor;
use wal::{Disk, LockedDir, LogError, NoLogObserver, OsDisk};

/// A count of a replica whose last read of the feed is older is not served as live.
pub const MAX_AGE: Duration = Duration::from_secs(3);
/// How long counts are served as of an earlier instant while the replica waits for entries that the feed lost. They lack the
/// newest pairs, so after this time the store's own count is better.
const MAX_HELD: Duration = Duration::from_mins(1);

/// The options of a [`Replica`].
#[derive(Debug, Clone)]
pub struct ReplicaOptions {
    /// The directory of its state; it is created if it does not exist.
    pub dir: PathBuf,
    /// The widest window, and the resolution of the slots.
    pub frame: TimeFrame,
    /// The key of the installation's fingerprints.
    pub key: FingerprintKey,
    /// The file system; a test uses one in memory.
    pub disk: Arc<dyn Disk>,
    /// A snapshot is taken when the log has grown by this many bytes.
    pub snapshot_bytes: u64,
}

/// A replica. Its tasks run until the stop of their supervisor.
#[derive(Debug)]
pub struct Replica {
    frame: TimeFrame,
    durable: DurableState,
    /// The instant as of which counts are exact, in unix microseconds; 0 before the first.
    as_of: watch::Sender<i64>,
    /// When the read began that last reached the end of the feed, in milliseconds of `started`.
    reached: AtomicI64,
    /// When `as_of` was last set, the same way.
    advanced: AtomicI64,
    /// Whether entries are missing, so that `as_of` stays where it is.
    held: AtomicBool,
    /// The number of writes to the log: between two equal numbers nothing changed but the clock.
    version: AtomicU64,
    /// The latest slot that was in the future when its pair was applied. Until then the store's own count lacks the pair.
    furthest: AtomicU64,
    started: tokio::time::Instant,
    /// What must be read from the store again, because entries of the feed were lost.
    repair: Mutex<Option<Repair>>,
    repair_requested: tokio::sync::Notify,
    /// Segments to compare with the store now, because they differ in another replica.
    suspected: Mutex<BTreeSet<Segment>>,
    audit_requested: tokio::sync::Notify,
    feed_size: Mutex<FeedSize>,
    progress: Progress,
}

/// A part of the store to read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Repair {
    /// The first slot.
    from: Slot,
    /// How many losses it is for: another one may be noticed while the part is read.
    losses: u64,
}

/// Counters for metrics.
#[derive(Debug, Default)]
struct Progress {
    entries: AtomicU64,
    hydrated_pairs: AtomicU64,
    /// Segments that were not read from the store yet.
    unread: AtomicU64,
    repairs: AtomicU64,
    clamped: AtomicU64,
    audits: AtomicU64,
    differences: AtomicU64,
}

/// The state of a replica, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplicaStatus {
    /// Entries of the feed that were applied since the start.
    pub entries: u64,
    /// Pairs that were read from the store since the start.
    pub hydrated_pairs: u64,
    /// Segments that are not read from the store yet, as far as is known.
    pub unread_segments: u64,
    /// How often recent pairs were read from the store because entries of the feed were lost.
    pub repairs: u64,
    /// Records with pairs in the future of the feed's clock, whose slots were limited to it.
    pub clamped: u64,
    /// Segments that were compared with the store's own count.
    pub audits: u64,
    /// Segments that differed by more than the store explains, and were read from the store again.
    pub differences: u64,
    /// Whether every segment was read from the store.
    pub is_complete: bool,
    /// Pairs held, expired ones included.
    pub pairs: u64,
    /// The estimated memory of the index, in bytes.
    pub bytes: u64,
    /// The size of the feed, as of the last trim.
    pub feed: FeedSize,
}

/// The counts of a replica at one instant.
#[derive(Debug, Clone)]
pub struct Counts {
    /// The users per window of each segment.
    pub users: HashMap<Segment, UsersPerWindow>,
    /// Whether any other segment has no users.
    pub complete: bool,
    /// The instant for which the counts are exact.
    pub as_of: Timestamp,
}

/// What a replica follows and reads.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The feed.
    pub feed: Arc<dyn ChangeFeed>,
    /// The source of truth.
    pub store: Arc<dyn PairStore>,
    /// The clock of this process.
    pub clock: Arc<dyn Clock>,
}

impl Sources {
    /// The current time by the clock of the feed, which decides what a count includes.
    pub async fn feed_now(&self) -> Result<Timestamp, FeedError> {
        Ok(self.feed.check(None, WriterId::random(), 0).await?.at)
    }
}

impl ReplicaOptions {
    /// The defaults for a directory.
    pub fn new(dir: impl Into<PathBuf>, frame: TimeFrame, key: FingerprintKey) -> Self {
        Self {
            dir: dir.into(),
            frame,
            key,
            disk: Arc::new(OsDisk),
            snapshot_bytes: 64 << 20,
        }
    }
}

impl Replica {
    /// Opens the state in the directory, which it locks. Blocks while it loads the snapshot and replays the log: about a
    /// second for 10 million pairs.
    pub fn open(options: ReplicaOptions) -> Result<Self, StoreError> {
        let locked = Arc::new(LockedDir::acquire(&options.dir)?);
        let durable = DurableState::open(
            locked,
            DurableOptions {
                frame: options.frame,
                key: Some(options.key),
                snapshot_bytes: options.snapshot_bytes,
                file_bytes: 256 << 20,
                disk: options.disk,
                observer: Arc::new(NoLogObserver),
            },
        )?;
        Ok(Self {
            frame: options.frame,
            durable,
            as_of: watch::Sender::new(0),
            reached: AtomicI64::new(NEVER),
            advanced: AtomicI64::new(NEVER),
            held: AtomicBool::new(false),
            version: AtomicU64::new(0),
            furthest: AtomicU64::new(0),
            started: tokio::time::Instant::now(),
            repair: Mutex::default(),
            repair_requested: tokio::sync::Notify::new(),
            suspected: Mutex::default(),
            audit_requested: tokio::sync::Notify::new(),
            feed_size: Mutex::default(),
            progress: Progress::default(),
        })
    }

    /// Starts to follow the feed, and to read from the store what the replica lacks.
    pub fn start(self: &Arc<Self>, sources: &Sources, supervisor: &Supervisor) {
        self.keep("replica", follower::follow, sources, supervisor);
        self.keep("hydration", hydration::keep_complete, sources, supervisor);
        self.keep("live audit", audit::keep_auditing, sources, supervisor);
    }

    /// Runs `task` until the stop.
    fn keep<F>(
        self: &Arc<Self>,
        name: &'static str,
        task: fn(Arc<Self>, Sources) -> F,
        sources: &Sources,
        supervisor: &Supervisor,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let (replica, sources) = (Arc::clone(self), sources.clone());
        supervisor.keep_until_stop(name, move || task(Arc::clone(&replica), sources.clone()));
    }

    /// The widest window of counts.
    pub fn full_window(&self) -> Window {
        self.frame.full_window()
    }

    /// The current state.
    pub fn status(&self) -> ReplicaStatus {
        let stats = self.state().index.stats();
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ReplicaStatus {
            entries: load(&self.progress.entries),
            hydrated_pairs: load(&self.progress.hydrated_pairs),
            unread_segments: load(&self.progress.unread),
            repairs: load(&self.progress.repairs),
            clamped: load(&self.progress.clamped),
            audits: load(&self.progress.audits),
            differences: load(&self.progress.differences),
            is_complete: self.state().following.lock().has_read_all(),
            pairs: stats.pairs,
            bytes: stats.bytes,
            feed: *self.feed_size.lock(),
        }
    }

    /// Finishes the work in progress and releases the directory.
    pub async fn close(&self) -> Result<(), LogError> {
        self.durable.close().await
    }

    fn state(&self) -> &state::State {
        self.durable.state()
    }

    fn slot(&self, instant: Timestamp) -> Slot {
        self.frame.resolution().slot_of(instant)
    }

    fn elapsed(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// Notes that the end of the feed was reached by a read that began at `began`. Sets the instant as of which counts are exact,
    /// unless entries are missing.
    fn reached(&self, as_of: Timestamp, began: i64, is_held: bool) {
        self.held.store(is_held, Ordering::Release);
        if !is_held {
            // Users who enter from now on enter in this slot.
            self.state().index.advance(self.slot(as_of));
            self.as_of.send_if_modified(|known| {
                let is_later = as_of.as_microsecond() > *known;
                *known = as_of.as_microsecond().max(*known);
                is_later
            });
            self.advanced.store(began, Ordering::Release);
        }
        self.reached.store(began, Ordering::Release);
    }

    /// Applies a record, durably.
    async fn apply(&self, record: Vec<u8>) -> Result<(), LogError> {
        self.durable.append(record).await?;
        self.version.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Whether lost entries are being read from the store.
    fn waits_for_repair(&self) -> bool {
        self.repair.lock().is_some()
    }

    /// Notes a slot that was in the future when its pair was applied.
    fn note_furthest(&self, slot: Slot) {
        self.furthest.fetch_max(slot.number(), Ordering::Relaxed);
    }

    /// Requests that these segments are compared with the store.
    fn request_audit(&self, segments: &[Segment]) {
        if !segments.is_empty() {
            self.suspected.lock().extend(segments.iter().cloned());
            self.audit_requested.notify_one();
        }
    }

    /// Requests that the pairs since shortly before `slot` are read from the store again.
    fn request_repair(&self, slot: Slot) {
        let from = Slot::new(slot.number().saturating_sub(REPAIR_SLOTS));
        let mut repair = self.repair.lock();
        *repair = Some(match *repair {
            None => Repair { from, losses: 1 },
            Some(earlier) => Repair {
                from: earlier.from.min(from),
                losses: earlier.losses + 1,
            },
        });
        drop(repair);
        self.repair_requested.notify_one();
    }
}

/// Slots before the wanted one that a repair reads too: pairs are written a little late.
const REPAIR_SLOTS: u64 = 2;
/// Not an instant.
const NEVER: i64 = i64::MIN;
