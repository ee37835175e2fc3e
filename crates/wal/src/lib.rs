//! A write-ahead log: append-only files with checksums. The embedded store and the spool use it.
//!
//! **Guarantee.** When [`Log::append`] returns `Ok`, the payload survives a crash of the process and of the
//! machine, and the log has called its [`Apply`] hook with it. Reopening calls the same hook with every payload,
//! in the same order: replay and live application are one function.
//!
//! **Group commit.** One thread owns the file that is written. It takes all queued records, writes them as one
//! *group* with one write, calls fdatasync once, applies the records, then responds. 10,000 small concurrent
//! appends cost a few syncs. The next group is written only after the sync of the previous one has returned.
//!
//! **Torn tail and damage.** This order limits what a crash can leave behind: everything but the last group of
//! the last file was synced, so only that group may be incomplete, in any of its parts (pages reach the disk out
//! of order). Hence, when opening finds a group with a wrong checksum:
//!
//! - In a file that is not the last, it is damage: the next file is created only after this one was synced. An end
//!   without a seal (see below) is damage there too; otherwise the loss of whole groups would not be detected.
//! - In the last file, it is damage if a valid group follows anywhere, or if more bytes follow than one group can
//!   have: a group is written only after the previous one was synced.
//! - Otherwise it is a torn tail, which was never acknowledged. It is truncated and reported.
//!
//! Damage is an error with file and offset, and nothing is changed. One case is ambiguous: damage within the very
//! last group looks like a torn tail. So the log appends an empty group (a *seal*) when it is closed, when it is
//! opened, and before it starts another file. A seal proves that all groups before it are complete, so only the last
//! group before a crash can be mistaken. If whole groups are lost from the end of the last file, together with the
//! seal, nothing on the disk shows it.
//!
//! Opening after a crash rewrites the last group before it seals it: after a failed fsync the kernel may hold pages
//! as clean that never reached the disk, and a second fsync would report no error.
//!
//! **Disk full.** A write that doesn't fit is truncated and fails with [`LogError::Full`]; the log recovers by itself
//! once there is space. A failed fsync, or a failed truncation, ends writing for good: from then on the state of the
//! disk is unknown, and only replay can find it out.
//!
//! **Format**, all numbers little-endian. A file is named by its number, `00000000000000000001.log`, and
//! starts with 32 bytes: `"headclog"`, version `u32`, crc `u32`, number `u64`, salt `u64`. A group is
//! `length u32 | crc of body u32 | crc of header u32 | body`, a body is records, a record is
//! `length u32 | payload`. The CRC (CRC-32C) of a header also covers the file's number and salt and the group's
//! offset: neither bytes inside a payload nor remains of another file can look like a valid group.

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

/// The position of a record in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The number of the file.
    pub file: u64,
    /// The offset of the record in it, in bytes.
    pub offset: u64,
}

/// The hook that is called with each payload, during replay and live. An error is the reason why a payload is invalid.
pub type Apply = Box<dyn FnMut(Position, &[u8]) -> Result<(), String> + Send>;

fn file_name(number: u64) -> String {
    format!("{number:020}.log")
}

/// Parses the name of a log file.
fn file_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    let number = digits.parse().ok()?;
    (file_name(number) == name).then_some(number)
}
