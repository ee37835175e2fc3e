//! The resolution of what waits. A record holds slots, which are numbers: with another resolution the same number is
//! another time.

use std::path::Path;

use crate::domain::Resolution;
use crate::log::{Disk, LogError, replace_file};
use crate::store::StoreError;

const NAME: &str = "resolution";
/// The digits of 3600, a line end, and one byte to see that there is more.
const LONGEST: usize = 6;

/// Refuses a resolution other than that of the pairs in `dir`, and notes the present one where none wait.
pub(super) fn settle(
    disk: &dyn Disk,
    dir: &Path,
    resolution: Resolution,
    is_empty: bool,
) -> Result<(), StoreError> {
    let seconds = resolution.seconds();
    let noted = read(disk, dir)?;
    if noted == Some(seconds) {
        return Ok(());
    }
    if let Some(noted) = noted
        && !is_empty
    {
        return Err(StoreError::Rejected(format!(
            "pairs that wait in {} have a resolution of {noted} s, and {seconds} s is configured; start once with \
             resolution = \"{noted}s\" until they are delivered, or use another spool_dir",
            dir.display()
        )));
    }
    let path = dir.join(NAME);
    replace_file(disk, dir, NAME, |file| {
        file.write_all_at(format!("{seconds}\n").as_bytes(), 0)
            .map_err(|error| LogError::io("write", &path, &error))
    })?;
    Ok(())
}

fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<u32>, StoreError> {
    let path = dir.join(NAME);
    let names = disk
        .list(dir)
        .map_err(|error| LogError::io("list", dir, &error))?;
    if !names.iter().any(|name| name == NAME) {
        return Ok(None);
    }
    let mut bytes = [0; LONGEST];
    let read = disk
        .open(&path)
        .and_then(|mut file| file.read_full_at(&mut bytes, 0))
        .map_err(|error| LogError::io("read", &path, &error))?;
    let text = std::str::from_utf8(&bytes[..read]).ok();
    let seconds = text.and_then(|text| text.trim_end().parse().ok());
    match seconds {
        Some(seconds) => Ok(Some(seconds)),
        None => Err(StoreError::Damaged(format!(
            "{} must hold the seconds of a resolution",
            path.display()
        ))),
    }
}
