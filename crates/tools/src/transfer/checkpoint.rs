//! The checkpoint file of a transfer, from which a killed transfer resumes.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use domain::{Segment, Slot, Timestamp};
use wal::{LogError, OsDisk, replace_file};

/// The minimum interval between two writes of the file. A killed transfer repeats at most the work of this time.
const WRITTEN_EVERY: Duration = Duration::from_secs(1);

/// Why a checkpoint can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file belongs to a copy between other stores, or with another window or resolution.
    #[error(
        "{} belongs to a copy {other}, and this one is {this}: give another --checkpoint, or remove that file",
        path.display()
    )]
    Another {
        /// The file.
        path: PathBuf,
        /// The copy to which the file belongs.
        other: String,
        /// The requested copy.
        this: String,
    },
    /// The file is not a valid checkpoint.
    #[error(
        "{} is not a valid checkpoint of a copy ({problem}): give another --checkpoint, or remove that file",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why it is invalid.
        problem: String,
    },
    /// The file can't be read or written.
    #[error("the checkpoint can't be read or written: {0}")]
    Io(String),
}

/// The progress of a transfer, in memory and in its file.
#[derive(Debug)]
pub(super) struct Checkpoint {
    path: PathBuf,
    resumed: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    progress: Progress,
    written: Instant,
}

/// The contents of the file, as JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    /// The stores, window and resolution of the copy.
    copy: String,
    /// The start of the first run, in Unix seconds.
    begun: i64,
    /// The next slot of each started segment; null for a complete one.
    segments: BTreeMap<String, Option<u64>>,
}

impl Checkpoint {
    /// Opens the checkpoint at `path`, or creates one. The file is on disk when this returns.
    pub(super) fn open(
        path: PathBuf,
        copy: String,
        now: Timestamp,
    ) -> Result<Self, CheckpointError> {
        let found = read(&path)?;
        let resumed = found.is_some();
        let progress = found.unwrap_or_else(|| Progress {
            copy: copy.clone(),
            begun: now.as_second(),
            segments: BTreeMap::new(),
        });
        if progress.copy != copy {
            return Err(CheckpointError::Another {
                path,
                other: progress.copy,
                this: copy,
            });
        }
        write(&path, &progress)?;
        let written = Instant::now();
        Ok(Self {
            path,
            resumed,
            state: Mutex::new(State { progress, written }),
        })
    }

    /// Whether an earlier run created it.
    pub(super) fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// The start of the first run.
    pub(super) fn begun(&self) -> Timestamp {
        let begun = self.state.lock().progress.begun;
        Timestamp::from_second(begun).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The slot at which `segment` continues, at least `oldest`; `None` if the segment is complete.
    pub(super) fn next_slot(&self, segment: &Segment, oldest: Slot) -> Option<Slot> {
        match self.state.lock().progress.segments.get(segment.as_str()) {
            None => Some(oldest),
            Some(None) => None,
            Some(Some(next)) => Some(Slot::new(*next).max(oldest)),
        }
    }

    /// Records that all pairs of `segment` before `next` are in the target.
    pub(super) fn advance(&self, segment: &Segment, next: Slot) -> Result<(), CheckpointError> {
        self.set(segment, Some(next.number()))
    }

    /// Records that `segment` is complete.
    pub(super) fn finish(&self, segment: &Segment) -> Result<(), CheckpointError> {
        self.set(segment, None)
    }

    /// Blocks while it writes the file, which is short and happens once per [`WRITTEN_EVERY`].
    fn set(&self, segment: &Segment, next: Option<u64>) -> Result<(), CheckpointError> {
        let state = &mut *self.state.lock();
        let segments = &mut state.progress.segments;
        segments.insert(segment.as_str().to_owned(), next);
        if state.written.elapsed() >= WRITTEN_EVERY {
            write(&self.path, &state.progress)?;
            state.written = Instant::now();
        }
        Ok(())
    }

    /// Removes the file after the transfer is complete.
    pub(super) fn remove(self) -> Result<(), CheckpointError> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                let path = self.path.display();
                Err(CheckpointError::Io(format!("can't remove {path}: {error}")))
            }
            _ => Ok(()),
        }
    }
}

fn read(path: &Path) -> Result<Option<Progress>, CheckpointError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let path = path.display();
            return Err(CheckpointError::Io(format!("can't read {path}: {error}")));
        }
    };
    match serde_json::from_slice(&text) {
        Ok(progress) => Ok(Some(progress)),
        Err(error) => Err(CheckpointError::Unreadable {
            path: path.to_owned(),
            problem: error.to_string(),
        }),
    }
}

/// Replaces the file atomically and durably: a kill or a power loss leaves the old file or the new one.
fn write(path: &Path, progress: &Progress) -> Result<(), CheckpointError> {
    let text = serde_json::to_vec_pretty(progress)
        .map_err(|error| CheckpointError::Io(error.to_string()))?;
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let replaced = replace_file(&OsDisk, dir, &name, |file| {
        file.write_all_at(&text, 0)
            .map_err(|error| LogError::io("write", path, &error))
    });
    replaced
        .map(drop)
        .map_err(|error| CheckpointError::Io(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_resumes_and_another_copy_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copy.json");
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let open = |copy: &str| Checkpoint::open(path.clone(), copy.to_owned(), now);
        let segment = |name| Segment::new(name).unwrap();
        let first = open("from a to b").unwrap();
        assert!(!first.is_resumed());
        first.advance(&segment("a\"é"), Slot::new(70)).unwrap();
        first.finish(&segment("b")).unwrap();
        write(&path, &first.state.lock().progress).unwrap();

        let later = open("from a to b").unwrap();
        assert!(later.is_resumed());
        assert_eq!(later.begun(), now);
        let next = |name, oldest| later.next_slot(&segment(name), Slot::new(oldest));
        assert_eq!(next("a\"é", 50), Some(Slot::new(70)));
        assert_eq!(next("a\"é", 90), Some(Slot::new(90)), "the rest expired");
        assert_eq!(next("b", 50), None);
        assert_eq!(next("c", 50), Some(Slot::new(50)));

        let refused = open("from c to b").unwrap_err();
        assert!(
            matches!(refused, CheckpointError::Another { .. }),
            "{refused}"
        );
        later.remove().unwrap();
        assert!(!open("from c to b").unwrap().is_resumed());
    }

    #[test]
    fn a_file_that_is_no_checkpoint_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious.json");
        for text in ["{}", "", "[1]", "null", "{\"crc32c\": 2, \"copy\": {}}"] {
            std::fs::write(&path, text).unwrap();
            let opened = Checkpoint::open(path.clone(), String::new(), Timestamp::UNIX_EPOCH);
            let refused = opened.unwrap_err();
            assert!(matches!(refused, CheckpointError::Unreadable { .. }));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
