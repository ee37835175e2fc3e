//! The checkpoint file of a transfer, from which a killed transfer resumes.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Names;
use domain::{Segment, Slot, TimeFrame, Timestamp};
use wal::{LogError, OsDisk, replace_file};

/// The format version of the file; another one is an error.
const VERSION: u32 = 2;
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
        "{} is not a valid checkpoint of a copy ({problem}): give another --checkpoint",
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
    /// Held during a write, so that an older state never replaces a newer one.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    document: Document,
    written: Instant,
}

/// The contents of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    version: u32,
    from: String,
    to: String,
    window_seconds: u64,
    resolution_seconds: u32,
    /// The start of the first run, in Unix seconds.
    begun: i64,
    /// The next slot of each started segment; null for a complete one.
    segments: BTreeMap<String, Option<u64>>,
}

/// The file: its contents, and the CRC-32C of the contents as compact JSON. Without the checksum, a corrupt slot number
/// would silently skip pairs.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File<D> {
    crc32c: u32,
    copy: D,
}

impl Document {
    /// Serializes the document with its checksum.
    pub(super) fn render(&self) -> serde_json::Result<Vec<u8>> {
        let crc32c = self.checksum()?;
        serde_json::to_vec_pretty(&File { crc32c, copy: self })
    }

    /// Parses the contents of a file. The error is the reason why they are invalid.
    pub(super) fn parse(contents: &[u8]) -> Result<Self, String> {
        let text = |error: serde_json::Error| error.to_string();
        let File::<Self> { crc32c, copy } = serde_json::from_slice(contents).map_err(text)?;
        if copy.version != VERSION {
            return Err(format!("it has format version {}", copy.version));
        }
        match copy.checksum().map_err(text)? == crc32c {
            true => Ok(copy),
            false => Err("its checksum is wrong".to_owned()),
        }
    }

    fn checksum(&self) -> serde_json::Result<u32> {
        Ok(crc32c::crc32c(&serde_json::to_vec(self)?))
    }

    fn subject(&self) -> String {
        format!(
            "from {} to {} with a window of {} s in steps of {} s",
            self.from, self.to, self.window_seconds, self.resolution_seconds
        )
    }
}

impl Checkpoint {
    /// Opens the checkpoint at `path`, or creates one. It is on disk when this returns.
    pub(super) async fn open(
        path: PathBuf,
        names: &Names,
        frame: TimeFrame,
        now: Timestamp,
    ) -> Result<Self, CheckpointError> {
        let fresh = Document {
            version: VERSION,
            from: names.from.clone(),
            to: names.to.clone(),
            window_seconds: frame.full_window().seconds(),
            resolution_seconds: frame.resolution().seconds(),
            begun: now.as_second(),
            segments: BTreeMap::new(),
        };
        let found = read(&path)?;
        if let Some(found) = &found
            && found.subject() != fresh.subject()
        {
            return Err(CheckpointError::Another {
                path,
                other: found.subject(),
                this: fresh.subject(),
            });
        }
        let checkpoint = Self {
            path,
            resumed: found.is_some(),
            state: Mutex::new(State {
                document: found.unwrap_or(fresh),
                written: Instant::now(),
            }),
            writing: tokio::sync::Mutex::default(),
        };
        checkpoint.write().await?;
        Ok(checkpoint)
    }

    /// Whether an earlier run created it.
    pub(super) fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// The start of the first run.
    pub(super) fn begun(&self) -> Timestamp {
        let begun = self.state.lock().document.begun;
        Timestamp::from_second(begun).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The slot at which `segment` continues, at least `oldest`; `None` if the segment is complete.
    pub(super) fn next_slot(&self, segment: &Segment, oldest: Slot) -> Option<Slot> {
        match self.state.lock().document.segments.get(segment.as_str()) {
            None => Some(oldest),
            Some(None) => None,
            Some(Some(next)) => Some(Slot::new(*next).max(oldest)),
        }
    }

    /// Records that all pairs of `segment` before `next` are in the target.
    pub(super) async fn advance(
        &self,
        segment: &Segment,
        next: Slot,
    ) -> Result<(), CheckpointError> {
        self.set(segment, Some(next.number())).await
    }

    /// Records that `segment` is complete.
    pub(super) async fn finish(&self, segment: &Segment) -> Result<(), CheckpointError> {
        self.set(segment, None).await
    }

    async fn set(&self, segment: &Segment, next: Option<u64>) -> Result<(), CheckpointError> {
        let is_due = {
            let mut state = self.state.lock();
            let segments = &mut state.document.segments;
            segments.insert(segment.as_str().to_owned(), next);
            state.written.elapsed() >= WRITTEN_EVERY
        };
        match is_due {
            true => self.write().await,
            false => Ok(()),
        }
    }

    /// Writes the file, atomically and durably.
    async fn write(&self) -> Result<(), CheckpointError> {
        let _writing = self.writing.lock().await;
        let document = {
            let mut state = self.state.lock();
            state.written = Instant::now();
            state.document.render()
        };
        let text = document.map_err(|error| CheckpointError::Io(error.to_string()))?;
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || put(&path, &text)).await;
        let written = written.map_err(|error| CheckpointError::Io(error.to_string()))?;
        written.map_err(|error| CheckpointError::Io(error.to_string()))
    }

    /// Removes the file after the transfer is complete.
    pub(super) async fn remove(&self) -> Result<(), CheckpointError> {
        let _writing = self.writing.lock().await;
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                let path = self.path.display();
                Err(CheckpointError::Io(format!("can't remove {path}: {error}")))
            }
            _ => Ok(()),
        }
    }
}

fn read(path: &Path) -> Result<Option<Document>, CheckpointError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let path = path.display();
            return Err(CheckpointError::Io(format!("can't read {path}: {error}")));
        }
    };
    let document = Document::parse(&text).map_err(|problem| CheckpointError::Unreadable {
        path: path.to_owned(),
        problem,
    })?;
    Ok(Some(document))
}

fn put(path: &Path, text: &[u8]) -> Result<(), LogError> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    replace_file(&OsDisk, dir, &name, |file| {
        file.write_all_at(text, 0)
            .map_err(|error| LogError::io("write", path, &error))
    })?;
    Ok(())
}

#[cfg(test)]
impl Document {
    /// A document with these segments, for tests.
    pub(super) fn of_test(segments: BTreeMap<String, Option<u64>>, begun: i64) -> Self {
        Self {
            version: VERSION,
            from: "influx at h".into(),
            to: "redis at h".into(),
            window_seconds: 3600,
            resolution_seconds: 60,
            begun,
            segments,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::store::conformance::frame;

    fn names(from: &str) -> Names {
        Names {
            from: from.into(),
            to: "redis at h".into(),
        }
    }

    fn segment(name: &str) -> Segment {
        Segment::new(name).unwrap()
    }

    #[tokio::test]
    async fn a_second_run_goes_on_and_one_between_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copy.json");
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let open = async |from: &str, slots| {
            Checkpoint::open(path.clone(), &names(from), frame(slots), now).await
        };
        let first = open("influx at h", 60).await.unwrap();
        assert!(!first.is_resumed());
        first
            .advance(&segment("a\"é"), Slot::new(70))
            .await
            .unwrap();
        first.finish(&segment("b")).await.unwrap();
        first.write().await.unwrap();

        let later = open("influx at h", 60).await.unwrap();
        assert!(later.is_resumed());
        assert_eq!(later.begun(), now);
        let next = |name, oldest| later.next_slot(&segment(name), Slot::new(oldest));
        assert_eq!(next("a\"é", 50), Some(Slot::new(70)));
        assert_eq!(next("a\"é", 90), Some(Slot::new(90)), "the rest expired");
        assert_eq!(next("b", 50), None);
        assert_eq!(next("c", 50), Some(Slot::new(50)));

        for (from, slots) in [("influx at other", 60), ("influx at h", 61)] {
            let refused = open(from, slots).await.unwrap_err();
            assert!(
                matches!(refused, CheckpointError::Another { .. }),
                "{refused}"
            );
        }
        later.remove().await.unwrap();
        assert!(!open("influx at other", 60).await.unwrap().is_resumed());
    }

    #[test]
    fn a_number_that_became_another_is_noticed() {
        let segments = BTreeMap::from([("sports".to_owned(), Some(29_000_017))]);
        let document = Document::of_test(segments, 1_800_000_000);
        let file = String::from_utf8(document.render().unwrap()).unwrap();
        assert_eq!(Document::parse(file.as_bytes()), Ok(document));
        for (from, to) in [
            ("29000017", "29000071"),
            ("29000017", "null"),
            ("1800", "1900"),
        ] {
            let file = file.replace(from, to);
            assert!(Document::parse(file.as_bytes()).is_err(), "{file}");
        }
    }

    #[tokio::test]
    async fn something_else_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious.json");
        for text in ["{}", "", "[1]", "{\"version\": 2}"] {
            std::fs::write(&path, text).unwrap();
            let (names, now) = (names("x"), Timestamp::UNIX_EPOCH);
            let opened = Checkpoint::open(path.clone(), &names, frame(60), now);
            let refused = opened.await.unwrap_err();
            assert!(matches!(refused, CheckpointError::Unreadable { .. }));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
