//! The file operations that a log needs, as a trait, so that tests can inject faults and crashes.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::LogError;

/// The operations of a file system that a log needs.
pub trait Disk: Send + Sync + fmt::Debug {
    /// The names of the files in `dir`.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Creates an empty file. Replaces an existing one.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Renames `from` to `to`. Replaces an existing file.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes an existing file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: Send + fmt::Debug {
    /// The length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Reads some bytes at `offset` and returns how many; 0 at the end.
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes some bytes at `offset` and returns how many.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Truncates the file to `size` bytes.
    fn truncate(&mut self, size: u64) -> io::Result<()>;
    /// Makes contents and length durable.
    fn sync(&mut self) -> io::Result<()>;
}

impl dyn DiskFile + '_ {
    /// Writes all of `bytes` at `offset`.
    pub fn write_all_at(&mut self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    offset += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Fills `buffer` from `offset` on, up to the end of the file, and returns the number of bytes read.
    pub fn read_full_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsDisk;

impl Disk for OsDisk {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            // All names that this crate creates are UTF-8.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        // A store holds personal data: only the service's own account may read it.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Box::new(OsFile(options.open(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Box::new(OsFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // Only Unix can open a directory as a file. Elsewhere the file system orders changes to names by itself.
        if cfg!(unix) {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct OsFile(File);

impl DiskFile for OsFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.seek(SeekFrom::Start(offset))?;
        self.0.read(buffer)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.seek(SeekFrom::Start(offset))?;
        self.0.write(bytes)
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.0.set_len(size)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Creates or replaces the file `name` in `dir` atomically: a crash leaves the old file or the new one, complete.
/// `write` fills a file with a temporary name, which is then synced and renamed. Returns the open file.
pub fn replace_file(
    disk: &dyn Disk,
    dir: &Path,
    name: &str,
    write: impl FnOnce(&mut dyn DiskFile) -> Result<(), LogError>,
) -> Result<Box<dyn DiskFile>, LogError> {
    let path = dir.join(name);
    let unfinished = dir.join(format!("{name}{UNFINISHED}"));
    let make = || -> Result<Box<dyn DiskFile>, LogError> {
        let mut file = disk
            .create(&unfinished)
            .map_err(|error| LogError::io("create", &unfinished, &error))?;
        write(file.as_mut())?;
        file.sync()
            .map_err(|error| LogError::io("sync", &unfinished, &error))?;
        disk.rename(&unfinished, &path)
            .map_err(|error| LogError::io("rename", &unfinished, &error))?;
        Ok(file)
    };
    let file = make().inspect_err(|_| {
        // Best effort: a remaining file is removed at the next start.
        let _ = disk.remove(&unfinished);
    })?;
    // The new name is already visible: after an error here, a caller must not rely on either file.
    disk.sync_dir(dir)
        .map_err(|error| LogError::Failed(LogError::io("sync", dir, &error).to_string()))?;
    Ok(file)
}

/// The suffix of a file's name while [`replace_file`] writes it.
pub const UNFINISHED: &str = ".new";
