//! Reads and writes files with one decimal number, in the spool's directory.

use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;

use domain::store::StoreError;
use wal::{Disk, LogError, replace_file};

/// The maximum length of the digits and sign of an `i64`, a newline, and one byte to detect longer content.
const MAX_BYTES: usize = 22;

pub(super) fn write(
    disk: &dyn Disk,
    dir: &Path,
    name: &str,
    number: impl Display,
) -> Result<(), StoreError> {
    let path = dir.join(name);
    replace_file(disk, dir, name, |file| {
        file.write_all_at(format!("{number}\n").as_bytes(), 0)
            .map_err(|error| LogError::io("write", &path, &error))
    })?;
    Ok(())
}

/// Reads the number; `None` if the file does not exist. `what` describes the number in an error.
pub(super) fn read<N: FromStr>(
    disk: &dyn Disk,
    dir: &Path,
    name: &str,
    what: &str,
) -> Result<Option<N>, StoreError> {
    let path = dir.join(name);
    let names = disk
        .list(dir)
        .map_err(|error| LogError::io("list", dir, &error))?;
    if !names.iter().any(|found| found == name) {
        return Ok(None);
    }
    let mut bytes = [0; MAX_BYTES];
    let read = disk
        .open(&path)
        .and_then(|mut file| file.read_full_at(&mut bytes, 0))
        .map_err(|error| LogError::io("read", &path, &error))?;
    let content = std::str::from_utf8(&bytes[..read]).ok();
    match content.and_then(|content| content.trim_end().parse().ok()) {
        Some(number) => Ok(Some(number)),
        None => Err(StoreError::Damaged(format!(
            "{} must contain {what}",
            path.display()
        ))),
    }
}
