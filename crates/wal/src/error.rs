//! The errors of a log, and their conversion to errors of a store.

use domain::store::StoreError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a log can't be opened, or a record can't be written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// Another process, or another log of this one, holds the directory.
    #[error("directory {} is in use by another process", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// An operation on a file failed. No loss of data is known.
    #[error("can't {what} {}: {reason}", path.display())]
    Io {
        /// The operation, as a verb.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        reason: String,
    },
    /// The disk is full. The log continues as soon as there is space.
    #[error("no space to {what} {}: {reason}", path.display())]
    Full {
        /// The operation, as a verb.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        reason: String,
    },
    /// Durable data is no longer readable. An operator must act: restore the file, or move it away and accept the loss.
    #[error("{} is damaged at byte {offset}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The offset at which the damage starts, in bytes.
        offset: u64,
        /// The kind of damage.
        reason: String,
    },
    /// A required file is missing.
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
        /// The format version of the file.
        version: u32,
    },
    /// Writing has stopped for good; reads continue. Restart the process once the disk works.
    #[error("writing has stopped: {0}")]
    Failed(String),
    /// The payload is empty or longer than [`MAX_PAYLOAD`](super::MAX_PAYLOAD).
    #[error("a record of {0} bytes has an invalid size")]
    Size(usize),
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

impl LogError {
    /// Converts an I/O error of the operation `what` (a verb) on `path`.
    pub fn io(what: &'static str, path: &Path, error: &io::Error) -> Self {
        let path = path.to_path_buf();
        let reason = error.to_string();
        if is_full(error) {
            return Self::Full { what, path, reason };
        }
        Self::Io { what, path, reason }
    }
}

/// Whether `error` means a lack of space: a full disk, an exhausted quota, or a limit of the file size.
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
