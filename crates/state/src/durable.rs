//! A state with its log and snapshots in one directory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use super::snapshot::{self, Snapshot};
use super::snapshotter::Snapshotter;
use super::{Questions, State, identity, load, record};
use domain::store::StoreError;
use domain::{FingerprintKey, TimeFrame};
use wal::{
    Disk, LockedDir, Log, LogError, LogObserver, LogOptions, Position, Recovery, Start,
    file_numbers,
};

/// The options of a [`DurableState`].
#[derive(Debug, Clone)]
pub struct DurableOptions {
    /// The widest window, and the resolution of the slots.
    pub frame: TimeFrame,
    /// The key of the fingerprints, if it comes from elsewhere. A new directory without it gets a random one.
    pub key: Option<FingerprintKey>,
    /// A snapshot is taken when the log has grown by this many bytes since the last one, and by half the size of that
    /// snapshot.
    pub snapshot_bytes: u64,
    /// The log starts a new file when the current one reaches this many bytes.
    pub file_bytes: u64,
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// Receives the events of the log's writer, for metrics.
    pub observer: Arc<dyn LogObserver>,
}

/// A [`State`] that survives restarts.
#[derive(Debug)]
pub struct DurableState {
    key: FingerprintKey,
    state: Arc<State>,
    log: Arc<Log>,
    snapshotter: Snapshotter,
    questions: Questions,
    /// The head of the index, as the log has it.
    logged_head: AtomicU64,
    /// Whether the log has since when users who enter and leave are counted.
    notes_counting: AtomicBool,
}

impl DurableState {
    /// Opens the state in a locked directory. Blocks while it loads the newest snapshot and replays the log: about a second for 10 million pairs.
    pub fn open(dir: Arc<LockedDir>, options: DurableOptions) -> Result<Self, StoreError> {
        let begun = Instant::now();
        let path = dir.path().to_path_buf();
        let disk = Arc::clone(&options.disk);
        let resolution = options.frame.resolution();
        let (key, is_new) = identity::open(&*disk, &path, resolution, options.key)?;
        snapshot::remove_unfinished(&*disk, &path)?;
        let (state, newest) = load_newest(&*disk, &path, options.frame)?;
        let state = Arc::new(state);
        let covered = newest.map_or(1, |newest| newest.next);
        let log_options = LogOptions {
            start: Start::At(covered),
            file_bytes: options.file_bytes,
            disk: Arc::clone(&disk),
            observer: Arc::clone(&options.observer),
            ..LogOptions::default()
        };
        let applied = Arc::clone(&state);
        let mut scratch = Vec::new();
        let apply = move |at, payload: &[u8]| applied.apply(at, payload, &mut scratch);
        let log = Arc::new(Log::open(dir, log_options, Box::new(apply))?);
        state.end_replay();
        report(&path, is_new, log.recovery(), newest, begun);
        // Files that a process left because it died between its snapshot and their removal.
        log.remove_before(covered)?;
        snapshot::remove_older(&*disk, &path, covered)?;
        let threshold = options.snapshot_bytes;
        let snapshotter = Snapshotter::start(
            path,
            disk,
            threshold,
            Arc::clone(&state),
            Arc::clone(&log),
            newest,
        )?;
        let logged_head = AtomicU64::new(state.index.head().number());
        let notes_counting = AtomicBool::new(state.flows.lock().notes_counting());
        Ok(Self {
            key,
            questions: Questions::new(Arc::clone(&state), options.frame),
            state,
            log,
            snapshotter,
            logged_head,
            notes_counting,
        })
    }

    /// The key of the fingerprints.
    pub fn key(&self) -> FingerprintKey {
        self.key
    }

    /// The state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Appends a record to the log, after what a replay must know before it. See [`Log::append`].
    pub async fn append(&self, record: Vec<u8>) -> Result<Position, LogError> {
        let index = &self.state.index;
        let (head, mut first) = (index.head(), Vec::new());
        if !self.notes_counting.load(Ordering::Acquire) {
            let window = index.flow_layout().window;
            first.push(record::counting(index.flows_since(), window));
        }
        if head.number() > self.logged_head.load(Ordering::Acquire) {
            first.push(record::head(head));
        }
        let at = self.log.append(record::after(&first, record)).await?;
        // Not before: what was not logged precedes the next record.
        self.notes_counting.store(true, Ordering::Release);
        self.logged_head.fetch_max(head.number(), Ordering::AcqRel);
        Ok(at)
    }

    /// The log of the changes.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Answers questions that take a walk over the index.
    pub fn questions(&self) -> &Questions {
        &self.questions
    }

    /// Takes snapshots.
    pub fn snapshotter(&self) -> &Snapshotter {
        &self.snapshotter
    }

    /// Finishes the work in progress and releases the directory.
    pub async fn close(&self) -> Result<(), LogError> {
        // Stopping joins a thread, which blocks.
        if let Err(error) = tokio::task::spawn_blocking(self.snapshotter.stop()).await {
            tracing::error!(%error, "the thread that takes snapshots could not be stopped");
        }
        self.log.close().await
    }
}

/// Loads the newest snapshot, if there is one.
///
/// A damaged snapshot is an error: without it, acknowledged pairs would be lost. The exception is a process that died
/// before it removed the log files that the snapshot covers: the previous snapshot, or none, and the log then hold the
/// same state.
fn load_newest(
    disk: &dyn Disk,
    dir: &Path,
    frame: TimeFrame,
) -> Result<(State, Option<Snapshot>), LogError> {
    let logs = file_numbers(disk, dir)?;
    let snapshots = snapshot::numbers(disk, dir)?;
    let mut newest_first = snapshots.iter().rev().copied().peekable();
    while let Some(number) = newest_first.next() {
        let state = State::new(frame);
        match load::load(disk, dir, number, &state) {
            Ok(loaded) => return Ok((state, Some(loaded))),
            Err(error @ LogError::Damaged { .. }) => {
                let before = newest_first.peek().copied().unwrap_or(1);
                if !(before..=number).all(|log| logs.binary_search(&log).is_ok()) {
                    return Err(error);
                }
                tracing::warn!(%error, "a snapshot is damaged; the log still holds its contents");
            }
            Err(error) => return Err(error),
        }
    }
    Ok((State::new(frame), None))
}

fn report(dir: &Path, is_new: bool, recovery: &Recovery, newest: Option<Snapshot>, begun: Instant) {
    if let Some(torn) = &recovery.torn {
        tracing::warn!(
            file = %torn.path.display(),
            offset = torn.offset,
            bytes = torn.bytes,
            "an incomplete write at the end of the log was cut off; it was never acknowledged"
        );
    }
    if is_new {
        // A typo in `data_dir` shows here.
        tracing::info!(dir = %dir.display(), "created a new, empty store");
    } else if recovery.files == 0 && newest.is_none() {
        tracing::warn!(
            dir = %dir.display(),
            "the store is empty although its directory is not new: it has neither a log nor a snapshot"
        );
    }
    tracing::info!(
        dir = %dir.display(),
        snapshot_bytes = newest.map_or(0, |newest| newest.bytes),
        log_files = recovery.files,
        log_records = recovery.records,
        log_bytes = recovery.bytes,
        took = ?begun.elapsed(),
        "the snapshot and the log are loaded"
    );
}
