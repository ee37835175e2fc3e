//! The file at the end of a log: the one that is written.

use std::path::{Path, PathBuf};

use super::disk::{Disk, DiskFile, replace_file};
use super::format::{FILE_HEADER, FileId, Group, VERSION};
use super::{LogError, file_name};

/// An open file and where its last group ends.
#[derive(Debug)]
pub(super) struct ActiveFile {
    pub(super) file: Box<dyn DiskFile>,
    pub(super) path: PathBuf,
    pub(super) id: FileId,
    pub(super) end: u64,
    /// Whether what is in the file is vouched for: it is empty, or its last group is a seal.
    pub(super) sealed: bool,
}

/// Why a group was not appended.
#[derive(Debug)]
pub(super) enum Fault {
    /// The file is as it was before: the next group may fit.
    Refused(LogError),
    /// What is on the disk is unknown.
    Fatal(LogError),
}

impl ActiveFile {
    /// Makes the file with this number. Its header and name are durable when it returns, so a log file
    /// without a valid header was damaged.
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
            return Err(self.cut(LogError::io("write", &self.path, &error)));
        }
        let length = bytes.len() as u64;
        self.sync().map_err(Fault::Fatal)?;
        self.end += length;
        self.sealed = seal;
        Ok(())
    }

    /// Appends an empty group, which vouches for all before it.
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

    /// Takes back what a failed write left behind. The cut is synced: else a crash could bring the remains
    /// back behind a later, shorter group.
    ///
    /// Where nothing was left, nothing is done: a file system that has become read-only refuses that too, and what
    /// is on the disk is known all the same.
    fn cut(&mut self, cause: LogError) -> Fault {
        if self.file.size().is_ok_and(|size| size == self.end) {
            return Fault::Refused(cause);
        }
        match self.file.truncate(self.end).and_then(|()| self.file.sync()) {
            Ok(()) => Fault::Refused(cause),
            Err(error) => {
                let cut = LogError::io("truncate", &self.path, &error);
                Fault::Fatal(LogError::Failed(format!("{cut}, after: {cause}")))
            }
        }
    }
}

fn random_salt(path: &Path) -> Result<u64, LogError> {
    getrandom::u64().map_err(|error| LogError::Io {
        what: "find a random number for",
        path: path.to_path_buf(),
        reason: error.to_string(),
    })
}
