//! A file with one number in decimal digits, in the spool's directory.

use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;

use domain::store::StoreError;
use wal::{Disk, LogError, replace_file};

/// The digits and sign of an `i64`, a line end, and one byte to see that there is more.
const LONGEST: usize = 22;

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

/// The number, if the file is there; `what` it is, for an error.
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
    let mut bytes = [0; LONGEST];
    let read = disk
        .open(&path)
        .and_then(|mut file| file.read_full_at(&mut bytes, 0))
        .map_err(|error| LogError::io("read", &path, &error))?;
    let text = std::str::from_utf8(&bytes[..read]).ok();
    match text.and_then(|text| text.trim_end().parse().ok()) {
        Some(number) => Ok(Some(number)),
        None => Err(StoreError::Damaged(format!(
            "{} must hold {what}",
            path.display()
        ))),
    }
}
