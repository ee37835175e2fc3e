//! The spool: pairs on this instance's own disk while the store is away.
//!
//! It is a log in files of moderate size. Delivery reads the oldest file from its beginning, sends everything
//! in it in the order in which it came, and then removes the file. There is no cursor to keep: after a crash
//! the oldest file is sent again from its beginning, which changes no count, for a store keeps the latest slot
//! of a pair however often it is written.
//!
//! Who was erased is left out, and goes from the files too (see [`cleansing`] and [`Erasures`](super::erasures::Erasures)).
//!
//! Whatever the store can't take while it takes others (see [`schedule`]) is written again at the end of the log, with a
//! note of when to try it next: it does not hold up what came after it, and the file that it was in can go.

mod cleansing;
mod codec;
mod delivery;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod fuzz;
mod ledger;
mod number;
mod order;
mod quarantine;
mod resolution;
mod schedule;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) mod tests_support {
    //! A spool on a disk that fails when told to.

    use std::sync::Arc;

    use super::Spool;
    use domain::store::conformance::frame;
    use wal::testing::MemDisk;

    pub(in crate::ingest) fn spool_on(root: &tempfile::TempDir, disk: &MemDisk) -> Arc<Spool> {
        let disk = Arc::new(disk.clone());
        let resolution = frame(60).resolution();
        let spool = Spool::open_on(disk, root.path(), 64 << 20, resolution);
        Arc::new(spool.unwrap())
    }
}

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use tokio::sync::{Mutex, Notify, watch};
use tokio_util::task::TaskTracker;

pub use delivery::{DeliveryParts, deliver};

use self::ledger::Ledger;
use self::order::Order;
use domain::store::StoreError;
use domain::{Batch, Resolution, Timestamp};
use wal::{Disk, LockedDir, Log, LogError, LogOptions, OsDisk};

/// The largest file. What a crash makes delivery repeat is at most this and a group.
const FILE_BYTES: u64 = 16 << 20;
/// A spool is worth its name only with room for several files.
const FILES_AT_LEAST: u64 = 8;
/// The most pairs in one record: far below the longest payload of a log, however long the names are.
const RECORD_PAIRS: usize = 50_000;

/// Where spooled pairs go.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Makes `batch` durable. [`StoreError::Partly`] says which pairs of it are not; any other error has it sent again.
    async fn take(&self, batch: &Batch) -> Result<(), StoreError>;
}

/// Pairs that wait for the store.
#[derive(Debug)]
pub struct Spool {
    log: Log,
    disk: Arc<dyn Disk>,
    /// Shared with the log; `None` once closed.
    dir: parking_lot::Mutex<Option<Arc<LockedDir>>>,
    /// Reads and removals of files, each on a thread that may block. They go on when delivery is stopped.
    file_work: TaskTracker,
    ledger: Arc<Ledger>,
    max_bytes: u64,
    /// Bytes of appends under way.
    reserved: AtomicU64,
    away: AtomicBool,
    appended: Notify,
    looked: Notify,
    /// Held while one batch is on its way to the store.
    sending: Mutex<()>,
    order: Arc<Order>,
    /// How many erasures the files have been searched for.
    heeded: watch::Sender<u64>,
}

/// What waits in a spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpoolStats {
    /// Pairs that wait.
    pub waiting_pairs: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Pairs among them that the store did not take while it took others. They are tried again, up to 10 minutes apart.
    pub quarantined_pairs: u64,
    /// How long the oldest waiting pairs have waited.
    pub oldest: Option<Duration>,
    /// Pairs delivered since the spool was opened, those that were sent again among them.
    pub delivered_pairs: u64,
    /// Deliveries of which the store refused a part for good.
    pub rejected_batches: u64,
}

impl Spool {
    /// Opens the spool in `dir`, making it unless it is there, with what waits in it. It blocks. Pairs of another
    /// resolution that wait are an error.
    pub fn open(dir: &Path, max_bytes: u64, resolution: Resolution) -> Result<Self, StoreError> {
        Self::open_on(Arc::new(OsDisk), dir, max_bytes, resolution)
    }

    fn open_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        max_bytes: u64,
        resolution: Resolution,
    ) -> Result<Self, StoreError> {
        let dir = Arc::new(LockedDir::acquire(dir)?);
        let options = LogOptions {
            file_bytes: FILE_BYTES.min(max_bytes / FILES_AT_LEAST),
            thread_name: "spool-writer".to_owned(),
            disk: Arc::clone(&disk),
            ..LogOptions::default()
        };
        let ledger = Arc::new(Ledger::default());
        let noted = Arc::clone(&ledger);
        let log = Log::open(
            Arc::clone(&dir),
            options,
            Box::new(move |position, payload| noted.note(position, payload)),
        )?;
        let is_empty = ledger.oldest_file().is_none();
        let newest = ledger.newest();
        resolution::settle(&*disk, dir.path(), resolution, is_empty)?;
        let order = Order::open(Arc::clone(&disk), dir.path(), newest)?;
        if let Some(torn) = &log.recovery().torn {
            tracing::info!(
                bytes = torn.bytes,
                "an unfinished write to the spool was cut off"
            );
        }
        Ok(Self {
            log,
            disk,
            dir: parking_lot::Mutex::new(Some(dir)),
            file_work: TaskTracker::new(),
            ledger,
            max_bytes,
            reserved: AtomicU64::new(0),
            away: AtomicBool::new(false),
            appended: Notify::new(),
            looked: Notify::new(),
            sending: Mutex::new(()),
            order: Arc::new(order),
            heeded: watch::Sender::new(0),
        })
    }

    /// Keeps `batch`, received at `now`. When it returns `Ok`, every pair will be delivered, even after a
    /// crash. On an error some of them may be.
    pub async fn append(&self, batch: &Batch, now: Timestamp) -> Result<(), StoreError> {
        let received = self.order.received_at(now);
        for payload in codec::encode(batch, received, RECORD_PAIRS) {
            self.append_payload(payload).await?;
        }
        self.appended.notify_one();
        Ok(())
    }

    /// As of when a user is erased now: after all that was appended, and before all that will be, also after the next start.
    pub async fn erasure_at(&self, now: Timestamp) -> Timestamp {
        let at = self.order.erasure_at(now);
        self.note_order().await;
        at
    }

    /// The latest of `now` and of when any pairs were received here.
    pub fn latest(&self, now: Timestamp) -> Timestamp {
        self.order.latest(now)
    }

    /// What is appended from now on came after the `latest` erasure that is known.
    pub fn was_erased(&self, latest: Timestamp) {
        self.order.was_erased(latest);
    }

    /// Has the next start know that too.
    pub async fn note_order(&self) {
        if !self.order.is_to_note() {
            return;
        }
        let order = Arc::clone(&self.order);
        let noted = self.file_work.spawn_blocking(move || order.note()).await;
        if let Ok(Err(error)) = noted {
            tracing::warn!(%error, "if the clock is set back over a restart, new pairs of a user who was erased may be lost");
        }
    }

    async fn append_payload(&self, payload: Vec<u8>) -> Result<(), StoreError> {
        let reserved = Reserved::new(&self.reserved, payload.len() as u64);
        if self.log.stats().bytes + reserved.all > self.max_bytes {
            return Err(self.full());
        }
        self.log.append(payload).await?;
        Ok(())
    }

    fn full(&self) -> StoreError {
        StoreError::Full(format!("the spool has reached {} bytes", self.max_bytes))
    }

    /// Waits for what is on its way to the store: what is sent after that leaves out everybody who is known to be erased
    /// now. Erase the user from the store after this.
    pub async fn settle(&self) {
        drop(self.sending.lock().await);
    }

    /// Has delivery search the files for users who were erased.
    pub fn look(&self) {
        self.looked.notify_one();
    }

    /// Waits until so many erasures have been heeded: no file has pairs that they are about. Delivery must be running.
    pub async fn heeded(&self, erasures: u64) {
        let mut heeded = self.heeded.subscribe();
        // The sender is this spool's own.
        let _ = heeded.wait_for(|heeded| *heeded >= erasures).await;
    }

    /// Whether the store was away when something was last sent to it, so that new pairs better come here at
    /// once.
    pub fn store_is_away(&self) -> bool {
        self.away.load(Ordering::Acquire)
    }

    /// Notes that the store did not take something. Returns whether that is news.
    pub fn note_away(&self) -> bool {
        !self.away.swap(true, Ordering::AcqRel)
    }

    /// Notes that the store took something.
    pub fn note_back(&self) {
        self.away.store(false, Ordering::Release);
    }

    /// What waits, as of `now`.
    pub fn stats(&self, now: Timestamp) -> SpoolStats {
        let waiting = self.ledger.waiting();
        SpoolStats {
            waiting_pairs: waiting.pairs,
            quarantined_pairs: waiting.quarantined,
            bytes: self.log.stats().bytes,
            oldest: waiting.oldest.map(|since| {
                let age = now.duration_since(since).max(SignedDuration::ZERO);
                age.unsigned_abs()
            }),
            delivered_pairs: waiting.delivered,
            rejected_batches: waiting.rejected,
        }
    }

    /// Whether pairs can be kept: the error that an append would meet.
    pub fn check(&self) -> Result<(), StoreError> {
        self.log.check()?;
        match self.log.stats().bytes >= self.max_bytes {
            true => Err(self.full()),
            false => Ok(()),
        }
    }

    /// Stops writing and releases the directory's lock. What waits is delivered after the next [`open`](Self::open).
    pub async fn close(&self) -> Result<(), LogError> {
        // None of these may touch a file that belongs to the next owner of the directory.
        self.file_work.close();
        self.file_work.wait().await;
        let closed = self.log.close().await;
        *self.dir.lock() = None;
        closed
    }
}

/// Bytes of an append under way. A client that goes away drops the append, and with it this.
struct Reserved<'a> {
    total: &'a AtomicU64,
    bytes: u64,
    /// The bytes of all appends under way when this one began, its own among them.
    all: u64,
}

impl<'a> Reserved<'a> {
    fn new(total: &'a AtomicU64, bytes: u64) -> Self {
        let all = total.fetch_add(bytes, Ordering::Relaxed) + bytes;
        Self { total, bytes, all }
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
