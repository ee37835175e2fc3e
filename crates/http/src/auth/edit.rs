//! Edits of the tokens file: serialized by a lock, each atomic.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::file::{self, BadTokens, Tokens};

/// Why a tokens file was not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// An I/O error.
    #[error("can't {action} {path}: {source}")]
    Io {
        /// The operation that failed, a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The contents of the file, or the new contents, are invalid.
    #[error("{path} {problem}")]
    Bad {
        /// The file.
        path: PathBuf,
        /// Why the contents are invalid.
        problem: BadTokens,
    },
}

/// Reads the tokens in `path`.
pub fn read(path: &Path) -> Result<Tokens, EditError> {
    let bytes = file::read(path).map_err(io_error("read", path))?;
    Tokens::parse(&bytes).map_err(bad(path))
}

/// Applies `change` to the tokens in `path`, which is created if missing. Another process that edits the same file waits
/// for the lock. After a crash the file is either the old one or the new one.
pub fn edit<T>(
    path: &Path,
    change: impl FnOnce(&mut Tokens) -> Result<T, BadTokens>,
) -> Result<T, EditError> {
    // Through a symbolic link, its target is replaced, not the link.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    // The lock file is never removed: a process that waited for a removed lock file would lock an unlinked inode.
    let lock_path = beside(path, ".lock");
    let lock = owner_only().truncate(false).open(&lock_path);
    let lock = lock.map_err(io_error("write", &lock_path))?;
    lock.lock().map_err(io_error("lock", &lock_path))?;

    let mut tokens = match read(path) {
        Err(EditError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Tokens::default()
        }
        present => present?,
    };
    let outcome = change(&mut tokens).map_err(bad(path))?;
    let text = tokens.render().map_err(bad(path))?;
    replace(path, text.as_bytes())?;
    Ok(outcome)
}

fn replace(path: &Path, contents: &[u8]) -> Result<(), EditError> {
    let new_path = beside(path, ".new");
    // A leftover of a crash: under the lock no other process uses it.
    let _ = fs::remove_file(&new_path);
    let written = write_new(path, &new_path, contents);
    if written.is_err() {
        let _ = fs::remove_file(&new_path);
    }
    written.map_err(io_error("write", &new_path))?;
    fs::rename(&new_path, path).map_err(io_error("replace", path))?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(io_error("sync", folder))
}

fn write_new(path: &Path, new_path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut new = owner_only().create_new(true).open(new_path)?;
    if let Ok(old) = fs::metadata(path) {
        // Owner, group and mode are kept, because the service may run as another user and read the file through its group.
        let made = new.metadata()?;
        if (old.uid(), old.gid()) != (made.uid(), made.gid()) {
            std::os::unix::fs::fchown(&new, Some(old.uid()), Some(old.gid()))?;
        }
        new.set_permissions(Permissions::from_mode(old.mode() & 0o777))?;
    }
    new.write_all(contents)?;
    new.sync_all()
}

fn owner_only() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EditError {
    let path = path.to_owned();
    move |source| EditError::Io {
        action,
        path,
        source,
    }
}

fn bad(path: &Path) -> impl FnOnce(BadTokens) -> EditError {
    let path = path.to_owned();
    move |problem| EditError::Bad { path, problem }
}
