//! What can go wrong with a log.

use domain::store::StoreError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a log can't be opened or a record can't be kept.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// Another process, or another log of this one, holds the directory.
    #[error("directory {} is in use by another process", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// An operation on a file failed. Nothing is known to be lost.
    #[error("can't {what} {}: {reason}", path.display())]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// There is no room on the disk. The log goes on as soon as there is some.
    #[error("no room to {what} {}: {reason}", path.display())]
    Full {
        /// What was tried, as a verb.
        what: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// What was durable is not readable any more. Somebody must act: restore the file, or move it away and
    /// accept the loss.
    #[error("{} is damaged at byte {offset}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damage begins.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// A file that must be there is not.
    #[error("{} is missing", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a program newer than this one.
    #[error("{} has format version {version}, which this program can't read", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// Writing has ended for good; reading goes on. Restart the process once the disk works.
    #[error("writing has stopped: {0}")]
    Failed(String),
    /// The payload is empty or longer than [`MAX_PAYLOAD`](super::MAX_PAYLOAD).
    #[error("a record of {0} bytes can't be kept")]
    Size(usize),
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

impl LogError {
    /// The error for `what` (a verb) having failed with `path`.
    pub fn io(what: &'static str, path: &Path, error: &io::Error) -> Self {
        let path = path.to_path_buf();
        let reason = error.to_string();
        if is_full(error) {
            return Self::Full { what, path, reason };
        }
        Self::Io { what, path, reason }
    }
}

/// Whether `error` says that there is no room: on the disk, in a quota, or below a limit of file sizes.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge
            | io::ErrorKind::WriteZero
    )
}

impl From<LogError> for StoreError {
    fn from(error: LogError) -> Self {
        let text = error.to_string();
        match error {
            LogError::Full { .. } => Self::Full(text),
            LogError::Damaged { .. } | LogError::Missing { .. } | LogError::Version { .. } => {
                Self::Damaged(text)
            }
            LogError::Size(_) => Self::Rejected(text),
            LogError::Closed => Self::Closed,
            LogError::Locked { .. } | LogError::Io { .. } | LogError::Failed(_) => {
                Self::Unavailable(text)
            }
        }
    }
}
