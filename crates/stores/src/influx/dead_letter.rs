//! The dead-letter file: lines that the server refused, kept for an operator to inspect.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::line::pair_of;
use domain::Erasure;
use wal::{LogError, OsDisk, replace_file};

/// A file in line protocol. A comment above each group of lines has the time and the reason of the refusal. After fixing
/// the cause, an operator can send the unchanged file to the server.
///
/// The lines contain user ids, so only the owner may read the file.
#[derive(Debug)]
pub(super) struct DeadLetter {
    path: PathBuf,
    max_bytes: u64,
    /// Serialises writes: a comment and its lines must not interleave with others.
    writing: Mutex<()>,
}

impl DeadLetter {
    /// A file at `path` that grows to at most `max_bytes`. The first refused line creates it.
    pub(super) fn new(path: PathBuf, max_bytes: u64) -> Self {
        Self {
            path,
            max_bytes,
            writing: Mutex::new(()),
        }
    }

    /// Durably appends complete lines. Returns `false` without writing if they would exceed the limit.
    pub(super) fn keep(&self, reason: &str, lines: &[u8]) -> io::Result<bool> {
        let _one = self.writing.lock();
        let now = Timestamp::now();
        let mut text = format!("# {now:.6} {reason}\n").into_bytes();
        text.extend_from_slice(lines);
        let mut file = self.open()?;
        if file.metadata()?.len() + text.len() as u64 > self.max_bytes {
            return Ok(false);
        }
        file.write_all(&text)?;
        file.sync_data()?;
        Ok(true)
    }

    /// Removes the lines of users who were erased after the refusal, and returns the number of removed lines. After a
    /// crash, either the old or the new file exists.
    pub(super) fn erase(&self, erasures: &[Erasure]) -> io::Result<u64> {
        let _one = self.writing.lock();
        let mut file = match File::open(&self.path) {
            Ok(file) => BufReader::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let (mut kept, mut erased) = (Vec::new(), 0);
        // Lines above the first comment count as older than every erasure.
        let mut refused_at = Timestamp::MIN;
        let mut line = Vec::new();
        while file.read_until(b'\n', &mut line)? > 0 {
            if let Some(at) = time_of_comment(&line) {
                refused_at = at;
            }
            let is_erased = pair_of(&line).is_some_and(|(segment, user)| {
                let mut after = erasures.iter().filter(|erasure| refused_at <= erasure.at());
                after.any(|erasure| erasure.removes(&segment, &user))
            });
            erased += u64::from(is_erased);
            if !is_erased {
                kept.extend_from_slice(&line);
            }
            line.clear();
        }
        if erased > 0 {
            self.replace(&kept)?;
        }
        Ok(erased)
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        let (Some(dir), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        replace_file(&OsDisk, dir, &name.to_string_lossy(), |file| {
            file.write_all_at(text, 0)
                .map_err(|error| LogError::io("write", &self.path, &error))
        })
        .map_err(io::Error::other)?;
        Ok(())
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

/// The time of refusal in a comment.
fn time_of_comment(line: &[u8]) -> Option<Timestamp> {
    let comment = std::str::from_utf8(line.strip_prefix(b"# ")?).ok()?;
    comment.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::influx::line;
    use crate::influx::lines::line_ranges;
    use domain::store::conformance::{batch, frame};
    use domain::{FingerprintKey, UserId};

    #[test]
    fn erased_users_go_and_those_who_came_again_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("refused.lp");
        let file = DeadLetter::new(path.clone(), 100_000);
        let [gone, odd] = ["gone", "a\"b\\ c"].map(|name| UserId::new(name).unwrap());
        let now = Timestamp::now();
        assert_eq!(
            file.erase(&[Erasure::of(&gone, now)]).unwrap(),
            0,
            "no file"
        );
        let frame = frame(60);
        let key = FingerprintKey::new([7; 16]);
        let slot = frame.resolution().slot_of(now);
        let pairs = [
            ("gone", "s", slot),
            ("stays", "user=\"gone\" 1", slot),
            (odd.as_str(), "t u", slot),
        ];
        let batch = batch(pairs);
        let body = line::bodies(&batch, frame.resolution(), 100, key).next();
        let lines = body.unwrap().into_bytes();
        file.keep("status 422", &lines).unwrap();
        let after = Timestamp::now();
        let erasures = [gone.clone(), odd].map(|user| Erasure::of(&user, after));
        assert_eq!(file.erase(&erasures[..1]).unwrap(), 1);
        // Lines refused after the erasure must stay.
        while Timestamp::now().as_microsecond() <= after.as_microsecond() {}
        file.keep("status 422", &lines).unwrap();
        assert_eq!(file.erase(&erasures).unwrap(), 1);
        let kept = std::fs::read(&path).unwrap();
        let users: Vec<_> = line_ranges(&kept)
            .filter_map(|range| Some(pair_of(&kept[range])?.1.into_owned()))
            .collect();
        let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
        assert_eq!(users, ["stays", "gone", "stays", "a\"b\\ c"]);
        assert_eq!(file.erase(&erasures).unwrap(), 0);
        let segments = ["s", "t u"].map(|name| domain::Segment::new(name).unwrap());
        let now = Timestamp::now();
        let of_pair = Erasure::of_pair(&segments[1], &UserId::new("gone").unwrap(), now);
        assert_eq!(file.erase(&[of_pair]).unwrap(), 0, "in another segment");
        let of_segment = Erasure::of_segment(&segments[1], now);
        assert_eq!(file.erase(&[of_segment]).unwrap(), 1);
        let of_segment = Erasure::of_segment(&segments[0], now);
        assert_eq!(file.erase(&[of_segment]).unwrap(), 1);
        let names: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing beside it");
    }

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
