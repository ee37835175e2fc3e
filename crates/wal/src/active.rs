//! The active file of a log: the last one, to which groups are appended.

use std::path::{Path, PathBuf};

use super::disk::{Disk, DiskFile, replace_file};
use super::format::{FILE_HEADER, FileId, Group, VERSION};
use super::{LogError, file_name};

/// An open file and the end of its last group.
#[derive(Debug)]
pub(super) struct ActiveFile {
    pub(super) file: Box<dyn DiskFile>,
    pub(super) path: PathBuf,
    pub(super) id: FileId,
    pub(super) end: u64,
    /// Whether the file is sealed: it is empty, or its last group is a seal.
    pub(super) sealed: bool,
}

/// Why a group was not appended.
#[derive(Debug)]
pub(super) enum Fault {
    /// The file is unchanged: the next group may fit.
    Refused(LogError),
    /// The state of the file on disk is unknown.
    Fatal(LogError),
}

impl ActiveFile {
    /// Creates the file with this number. Its header and name are durable when this returns, so a log file
    /// without a valid header is damaged.
    pub(super) fn create(disk: &dyn Disk, dir: &Path, number: u64) -> Result<Self, LogError> {
        let name = file_name(number);
        let salt = random_salt(&dir.join(&name))?;
        let id = FileId {
            version: VERSION,
            number,
            salt,
        };
        let file = replace_file(disk, dir, &name, |file| {
            file.write_all_at(&id.encode(), 0)
                .map_err(|error| LogError::io("write", &dir.join(&name), &error))
        })?;
        Ok(Self {
            file,
            path: dir.join(&name),
            id,
            end: FILE_HEADER as u64,
            sealed: true,
        })
    }

    /// Writes `group` at the end and syncs it.
    pub(super) fn append(&mut self, group: &mut Group) -> Result<(), Fault> {
        let seal = group.body().is_empty();
        let bytes = group.finish(self.id, self.end);
        if let Err(error) = self.file.write_all_at(bytes, self.end) {
            return Err(self.undo_write(LogError::io("write", &self.path, &error)));
        }
        let length = bytes.len() as u64;
        self.sync().map_err(Fault::Fatal)?;
        self.end += length;
        self.sealed = seal;
        Ok(())
    }

    /// Appends an empty group, which proves that all groups before it are complete.
    pub(super) fn seal(&mut self) -> Result<(), Fault> {
        if self.sealed {
            return Ok(());
        }
        self.append(&mut Group::new())
    }

    pub(super) fn sync(&mut self) -> Result<(), LogError> {
        self.file
            .sync()
            .map_err(|error| LogError::io("sync", &self.path, &error))
    }

    /// Truncates what a failed write left behind. The truncation is synced: otherwise a crash could restore the
    /// remains behind a later, shorter group.
    ///
    /// If the write left nothing, the file is not touched: a file system that has become read-only would refuse a
    /// truncation as well, although the state on disk is known.
    fn undo_write(&mut self, cause: LogError) -> Fault {
        if self.file.size().is_ok_and(|size| size == self.end) {
            return Fault::Refused(cause);
        }
        match self.file.truncate(self.end).and_then(|()| self.file.sync()) {
            Ok(()) => Fault::Refused(cause),
            Err(error) => {
                let error = LogError::io("truncate", &self.path, &error);
                Fault::Fatal(LogError::Failed(format!("{error}, after: {cause}")))
            }
        }
    }
}

fn random_salt(path: &Path) -> Result<u64, LogError> {
    getrandom::u64().map_err(|error| LogError::Io {
        what: "generate a random number for",
        path: path.to_path_buf(),
        reason: error.to_string(),
    })
}
