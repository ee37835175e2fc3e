//! Opens a directory: its identity, the newest snapshot, and the log.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::identity::Identity;
use super::snapshot::{self, Snapshot};
use super::snapshotter::Snapshotter;
use super::state::State;
use super::{EmbeddedOptions, EmbeddedStore, StoreError, load, user_key};
use wal::{Disk, LockedDir, Log, LogError, LogOptions, Recovery, Start, file_numbers};

impl EmbeddedStore {
    /// Opens the store in a directory, which it locks. Blocks while it loads the snapshot and replays the log: about a
    /// second for 10 million pairs.
    ///
    /// [`StoreError::Damaged`] names the file and, if known, the offset.
    pub fn open(options: EmbeddedOptions) -> Result<Self, StoreError> {
        let begun = Instant::now();
        let (disk, dir) = (Arc::clone(&options.disk), options.dir.as_path());
        let locked = Arc::new(LockedDir::acquire(dir)?);
        let (identity, is_new) = Identity::open(&*disk, dir, options.frame.resolution())?;
        user_key::check(&*disk, dir, options.user_key.as_deref())?;
        snapshot::remove_unfinished(&*disk, dir)?;
        let (state, newest) = load_newest(&*disk, dir, &options)?;
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
        let log = Arc::new(Log::open(locked, log_options, Box::new(apply))?);
        state.end_replay();
        report(dir, is_new, log.recovery(), newest, begun);
        // Files that a process left because it died between its snapshot and their removal.
        log.remove_before(covered)?;
        snapshot::remove_older(&*disk, dir, covered)?;
        let frame = options.frame;
        let snapshotter =
            Snapshotter::start(options, Arc::clone(&state), Arc::clone(&log), newest)?;
        Ok(Self {
            frame,
            identity,
            state,
            log,
            snapshotter,
            closed: AtomicBool::new(false),
        })
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
    options: &EmbeddedOptions,
) -> Result<(State, Option<Snapshot>), LogError> {
    let logs = file_numbers(disk, dir)?;
    let snapshots = snapshot::numbers(disk, dir)?;
    let mut newest_first = snapshots.iter().rev().copied().peekable();
    while let Some(number) = newest_first.next() {
        let state = State::new(options.frame);
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
    Ok((State::new(options.frame), None))
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
        "the embedded store is open"
    );
}
