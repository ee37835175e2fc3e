//! Lines that the server refuses, kept for a person to look at.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use parking_lot::Mutex;

/// A file of line protocol. Comments say when and why the lines below them were refused; whoever has put the
/// reason right can send the file to the server as it is.
///
/// The lines hold user ids, so that only the owner may read the file.
#[derive(Debug)]
pub(super) struct DeadLetter {
    path: PathBuf,
    max_bytes: u64,
    /// One writer at a time: two comments must not interleave with the lines below them.
    writing: Mutex<()>,
}

impl DeadLetter {
    /// A file at `path` that grows to at most `max_bytes`. It is made when the first line is refused.
    pub(super) fn new(path: PathBuf, max_bytes: u64) -> Self {
        Self {
            path,
            max_bytes,
            writing: Mutex::new(()),
        }
    }

    /// Appends whole lines, durably, and says whether there was room for them.
    pub(super) fn keep(&self, reason: &str, lines: &[u8]) -> io::Result<bool> {
        let _one = self.writing.lock();
        let now = jiff::Timestamp::now();
        let mut text = format!("# {now:.0} {reason}\n").into_bytes();
        text.extend_from_slice(lines);
        let mut file = self.open()?;
        if file.metadata()?.len() + text.len() as u64 > self.max_bytes {
            return Ok(false);
        }
        file.write_all(&text)?;
        file.sync_data()?;
        Ok(true)
    }

    fn open(&self) -> io::Result<File> {
        if let Some(directory) = self.path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_lines_up_to_its_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("below").join("refused.lp");
        let file = DeadLetter::new(path.clone(), 120);
        assert!(file.keep("status 400", b"a x=1 1\nb x=1 1\n").unwrap());
        assert!(file.keep("status 422", b"c x=1 1\n").unwrap());
        assert!(!file.keep("status 422", &b"d x=1 1\n".repeat(9)).unwrap());
        let kept = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = kept.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines, ["a x=1 1", "b x=1 1", "c x=1 1"]);
        assert!(kept.contains("status 422"));
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("refused.lp");
        DeadLetter::new(path.clone(), 1000)
            .keep("x", b"a x=1 1\n")
            .unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
