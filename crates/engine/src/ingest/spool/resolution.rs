//! The resolution of what waits. A record holds slots, which are numbers: with another resolution the same number is
//! another time.

use std::path::Path;

use super::number;
use domain::Resolution;
use domain::store::StoreError;
use wal::Disk;

const NAME: &str = "resolution";

/// Refuses a resolution other than that of the pairs in `dir`, and notes the present one where none wait.
pub(super) fn settle(
    disk: &dyn Disk,
    dir: &Path,
    resolution: Resolution,
    is_empty: bool,
) -> Result<(), StoreError> {
    let seconds = resolution.seconds();
    let noted: Option<u32> = number::read(disk, dir, NAME, "the seconds of a resolution")?;
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
    number::write(disk, dir, NAME, seconds)
}
