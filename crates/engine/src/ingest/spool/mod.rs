//! The spool: pairs on this instance's own disk while the store is unavailable.
//!
//! It is a write-ahead log in files of moderate size. Delivery reads the oldest file from its beginning, sends its
//! records in order, and then removes the file. It keeps no cursor: after a crash it sends the oldest file again from
//! the beginning. That changes no count, because a store keeps the latest slot of a pair, however often the pair is
//! written.
//!
//! Pairs of erased users are not sent, and are removed from the files (see [`cleansing`] and
//! [`Erasures`](super::erasures::Erasures)).
//!
//! A record that the store can't take while it takes others (see [`schedule`]) is written again at the end of the log,
//! with the time of its next retry. So it does not delay later records, and its old file can be removed.

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
    //! A spool on a disk with injected faults.

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

/// The maximum size of a file. After a crash, delivery repeats at most this and one group.
const FILE_BYTES: u64 = 16 << 20;
/// The minimum number of files that fit into `max_bytes`. Space is freed one file at a time, so a spool needs several.
const MIN_FILES: u64 = 8;
/// The maximum number of pairs in a record. With names of any length such a record is far below the maximum payload of
/// the log.
const RECORD_PAIRS: usize = 50_000;

/// The destination of spooled pairs.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Makes `batch` durable. [`StoreError::Partly`] names the pairs that are not durable. After any other error the
    /// batch is sent again.
    async fn take(&self, batch: &Batch) -> Result<(), StoreError>;
}

/// The pairs that wait for the store, on disk.
#[derive(Debug)]
pub struct Spool {
    log: Log,
    disk: Arc<dyn Disk>,
    /// Shared with the log; `None` once closed.
    dir: parking_lot::Mutex<Option<Arc<LockedDir>>>,
    /// Blocking file reads and removals. They continue when delivery is stopped.
    file_work: TaskTracker,
    ledger: Arc<Ledger>,
    max_bytes: u64,
    /// The bytes of appends in progress.
    reserved: AtomicU64,
    store_unavailable: AtomicBool,
    appended: Notify,
    search_requested: Notify,
    /// Held while a batch is sent to the store.
    sending: Mutex<()>,
    order: Arc<Order>,
    /// The number of erasures that the files have been searched for.
    searched: watch::Sender<u64>,
}

/// Statistics of a spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpoolStats {
    /// The number of waiting pairs.
    pub waiting_pairs: u64,
    /// The size on disk in bytes.
    pub bytes: u64,
    /// The number of waiting pairs that the store did not take while it took others. They are retried at intervals of up to
    /// 10 minutes.
    pub quarantined_pairs: u64,
    /// The age of the oldest waiting pairs; `None` if none wait.
    pub oldest: Option<Duration>,
    /// The number of pairs delivered since the spool was opened, including repeated deliveries.
    pub delivered_pairs: u64,
    /// The number of deliveries that the store permanently refused in whole or in part.
    pub rejected_batches: u64,
}

impl Spool {
    /// Opens the spool in `dir` with its backlog, and creates the directory if it does not exist. Blocks. Fails if pairs of
    /// another resolution wait.
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
            file_bytes: FILE_BYTES.min(max_bytes / MIN_FILES),
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
            store_unavailable: AtomicBool::new(false),
            appended: Notify::new(),
            search_requested: Notify::new(),
            sending: Mutex::new(()),
            order: Arc::new(order),
            searched: watch::Sender::new(0),
        })
    }

    /// Appends `batch`, received at `now`. When this returns `Ok`, every pair will be delivered, even after a crash.
    /// After an error some of them may be delivered.
    pub async fn append(&self, batch: &Batch, now: Timestamp) -> Result<(), StoreError> {
        let received = self.order.received_at(now);
        for payload in codec::encode(batch, received, RECORD_PAIRS) {
            self.append_payload(payload).await?;
        }
        self.appended.notify_one();
        Ok(())
    }

    /// The instant for an erasure that happens now. It is not before any appended pair, and before all pairs appended later,
    /// also after a restart.
    pub async fn erasure_at(&self, now: Timestamp) -> Timestamp {
        let at = self.order.erasure_at(now);
        self.note_order().await;
        at
    }

    /// The later of `now` and the latest time at which any pairs were received here.
    pub fn latest(&self, now: Timestamp) -> Timestamp {
        self.order.latest(now)
    }

    /// Dates pairs that are appended from now on after the `latest` known erasure.
    pub(crate) fn was_erased(&self, latest: Timestamp) {
        self.order.was_erased(latest);
    }

    /// Writes the latest erasure to disk, for the order of pairs after a restart.
    pub(crate) async fn note_order(&self) {
        if !self.order.is_to_note() {
            return;
        }
        let order = Arc::clone(&self.order);
        let noted = self.file_work.spawn_blocking(move || order.note()).await;
        if let Ok(Err(error)) = noted {
            tracing::warn!(%error, "if the clock is set back before the next start, new pairs of an erased user may be lost");
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
        StoreError::Full(format!(
            "the spool has reached its limit of {} bytes",
            self.max_bytes
        ))
    }

    /// Waits until the batch in progress is sent. Later batches exclude all users who are known to be erased now. Erase
    /// a user from the store only after this.
    pub async fn settle(&self) {
        drop(self.sending.lock().await);
    }

    /// Makes delivery search the files for pairs of erased users.
    pub(crate) fn start_search(&self) {
        self.search_requested.notify_one();
    }

    /// Waits until no file has pairs that the first `erasures` known erasures apply to. Delivery must be running.
    pub(crate) async fn searched_for(&self, erasures: u64) {
        let mut searched = self.searched.subscribe();
        // This can't fail, because the spool owns the sender.
        let _ = searched.wait_for(|searched| *searched >= erasures).await;
    }

    /// Whether the last write to the store found it unavailable. Then new pairs should go to the spool at once.
    pub(crate) fn store_is_unavailable(&self) -> bool {
        self.store_unavailable.load(Ordering::Acquire)
    }

    /// Notes that the store is unavailable. Returns `true` if it was not noted before.
    pub(crate) fn note_unavailable(&self) -> bool {
        !self.store_unavailable.swap(true, Ordering::AcqRel)
    }

    /// Notes that the store is available.
    pub(crate) fn note_available(&self) {
        self.store_unavailable.store(false, Ordering::Release);
    }

    /// The statistics as of `now`.
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

    /// Returns the error that an append would return now.
    pub fn check(&self) -> Result<(), StoreError> {
        self.log.check()?;
        match self.log.stats().bytes >= self.max_bytes {
            true => Err(self.full()),
            false => Ok(()),
        }
    }

    /// Stops writing and releases the directory's lock. The backlog is delivered after the next [`open`](Self::open).
    pub async fn close(&self) -> Result<(), LogError> {
        // File work must end first, because it must not touch files of the next owner of the directory.
        self.file_work.close();
        self.file_work.wait().await;
        let closed = self.log.close().await;
        *self.dir.lock() = None;
        closed
    }
}

/// The reserved bytes of an append in progress. Dropping this releases them, also when the client cancels the append.
struct Reserved<'a> {
    total: &'a AtomicU64,
    bytes: u64,
    /// The bytes of all appends in progress when this one began, including its own.
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
