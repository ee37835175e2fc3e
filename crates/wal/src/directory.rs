//! The lock of a directory: only one log of one process may use it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use super::LogError;

/// An exclusive lock on a directory. It is released when it is dropped, or when the process ends in any way.
#[derive(Debug)]
pub struct LockedDir {
    path: PathBuf,
    lock: File,
}

impl Drop for LockedDir {
    fn drop(&mut self) {
        // Closing the file is not enough: a child process has a copy of the descriptor from its fork to its exec, and
        // the lock lasts until the last copy is closed.
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(%error, dir = %self.path.display(), "the directory's lock could not be released");
        }
    }
}

impl LockedDir {
    /// Creates `path` if it does not exist, and locks it. Fails with [`LogError::Locked`] if it is locked already.
    pub fn acquire(path: &Path) -> Result<Self, LogError> {
        create_durably(path)?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(|error| LogError::io("write", &lock_path, &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_path_buf(),
                lock,
            }),
            Err(TryLockError::WouldBlock) => Err(LogError::Locked {
                dir: path.to_path_buf(),
            }),
            Err(TryLockError::Error(error)) => Err(LogError::io("lock", &lock_path, &error)),
        }
    }

    /// The locked directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Creates `path` and its missing parents, and makes their names durable: if a crash removed the directory, the log
/// would be lost as well. Only the owner may access the new directories, because they hold pairs and keys.
fn create_durably(path: &Path) -> Result<(), LogError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    };
    if parent != path && !parent.is_dir() {
        create_durably(parent)?;
    }
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(path)
        .map_err(|error| LogError::io("create", path, &error))?;
    if cfg!(unix) {
        File::open(parent)
            .and_then(|parent| parent.sync_all())
            .map_err(|error| LogError::io("sync", parent, &error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[cfg(unix)]
    #[test]
    fn what_is_made_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let mode = |path: &str| {
            let metadata = root.path().join(path).metadata().unwrap();
            metadata.permissions().mode() & 0o777
        };
        let there = root.path().join("there");
        fs::create_dir(&there).unwrap();
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&there, open).unwrap();
        let _lock = LockedDir::acquire(&root.path().join("there/a/b")).unwrap();
        assert_eq!((mode("there/a"), mode("there/a/b")), (0o700, 0o700));
        let _lock = LockedDir::acquire(&there).unwrap();
        assert_eq!(mode("there"), 0o755, "what was there stays as it was");
    }

    #[test]
    fn a_directory_has_one_owner() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        let first = LockedDir::acquire(&path).unwrap();
        let refused = LockedDir::acquire(&path).unwrap_err();
        assert!(matches!(&refused, LogError::Locked { dir } if *dir == path));
        assert!(refused.to_string().contains(path.to_str().unwrap()));
        drop(first);
        LockedDir::acquire(&path).unwrap();
    }

    #[test]
    fn the_lock_is_free_at_once_although_a_copy_of_its_descriptor_is_open() {
        let root = tempfile::tempdir().unwrap();
        let locked = LockedDir::acquire(root.path()).unwrap();
        // The copy of a child process that another thread has just forked.
        let _copy = locked.lock.try_clone().unwrap();
        drop(locked);
        LockedDir::acquire(root.path()).unwrap();
    }

    #[test]
    fn what_can_not_be_a_directory_is_named() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        fs::write(&path, "x").unwrap();
        let error = LockedDir::acquire(&path).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_directory_that_can_not_be_written_is_named() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o500)).unwrap();
        // The superuser may write regardless.
        if let Err(error) = LockedDir::acquire(root.path()) {
            let error = error.to_string();
            assert!(error.starts_with("can't write"), "{error}");
            assert!(error.contains(root.path().to_str().unwrap()), "{error}");
        }
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o700)).unwrap();
    }
}
