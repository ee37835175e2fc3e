//! Append-only files with checksums: the embedded store's log and the spool share them.
//!
//! **Promise.** When [`Log::append`] returns `Ok`, the payload survives a crash of the process and of the
//! machine, and the hook that the log was opened with has been called with it. Reopening calls the same hook
//! with every payload, in the same order: replay and live application are one function.
//!
//! **Group commit.** One thread owns the file that is written. It takes all that waits, writes it as one
//! *group* with one write, calls fdatasync once, applies, then answers. Ten thousand small appends at once
//! cost a few syncs. The next group is written only after the former one's sync has returned.
//!
//! **A torn tail and damage.** From that order follows what a crash can leave behind: everything but the
//! last group of the last file was synced, so only that one group may be incomplete, in any of its parts
//! (pages reach the disk out of order). Hence, when opening finds a group whose checksum is wrong:
//!
//! - in a file that is not the last: damage, for the next file is made only after this one was synced; so is an end
//!   without a seal there (see below), or a loss of whole groups would not show;
//! - in the last file, with a valid group anywhere behind it, or more bytes behind it than one group can
//!   have: damage, for a group is written only after the one before it was synced;
//! - else it is a torn tail. Nobody was told that it is durable: it is cut off, and that is reported.
//!
//! Damage is refused with file and offset, and nothing is changed. One case stays in doubt: damage within
//! the very last group looks like a tear. So closing the log, opening it, and going on with another file end it
//! with an empty group (a *seal*), which vouches for all before it; only the last group before a crash can ever be
//! mistaken. That whole groups are gone from the end of the last file, seal and all, nothing on the disk can tell.
//!
//! Opening after a crash writes the last group once more before it is vouched for: after a failed fsync the
//! kernel may hold pages as clean which never reached the disk, and a second fsync would say nothing.
//!
//! **Disk full.** A write that doesn't fit is cut off again and answered with [`LogError::Full`]; the log
//! goes on and recovers by itself. A failed fsync, or a cut that fails, ends writing for good: what is on the
//! disk is unknown from there on, and only replay can tell.
//!
//! **Format**, all numbers little-endian. A file is named by its number, `00000000000000000001.log`, and
//! starts with 32 bytes: `"headclog"`, version `u32`, crc `u32`, number `u64`, salt `u64`. A group is
//! `length u32 | crc of body u32 | crc of header u32 | body`, a body is records, a record is
//! `length u32 | payload`. The crc (CRC-32C) of a header covers the file's number and salt and the group's
//! offset too: no bytes inside a payload, and none left over from another file, can pass for a group.

mod active;
mod directory;
mod disk;
mod error;
mod fields;
mod format;
#[cfg(test)]
mod fuzz;
mod handle;
mod options;
mod recovery;
mod replay;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod writer;

pub use directory::LockedDir;
pub use disk::{Disk, DiskFile, OsDisk, UNFINISHED, replace_file};
pub use error::LogError;
pub use fields::Fields;
pub use format::MAX_PAYLOAD;
pub use handle::{Log, LogStats};
pub use options::{LogObserver, LogOptions, NoLogObserver, Start};
pub use recovery::{Recovery, Torn, file_numbers, read_file};

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The number of the file.
    pub file: u64,
    /// The offset of the record in it, in bytes.
    pub offset: u64,
}

/// What is done with each payload, at replay and live. An error says why the payload makes no sense.
pub type Apply = Box<dyn FnMut(Position, &[u8]) -> Result<(), String> + Send>;

/// The name of the file with this number.
fn file_name(number: u64) -> String {
    format!("{number:020}.log")
}

/// The number of the file with this name, if it is a log file's.
fn file_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    let number = digits.parse().ok()?;
    (file_name(number) == name).then_some(number)
}
