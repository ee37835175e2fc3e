//! The resolution of the spooled pairs. A record holds slot numbers, and with another resolution the same number is another
//! time.

use std::path::Path;

use super::number;
use domain::Resolution;
use domain::store::StoreError;
use wal::Disk;

const NAME: &str = "resolution";

/// Fails if pairs of another resolution wait in `dir`. If none wait, writes the configured resolution to the file.
pub(super) fn settle(
    disk: &dyn Disk,
    dir: &Path,
    resolution: Resolution,
    is_empty: bool,
) -> Result<(), StoreError> {
    let seconds = resolution.seconds();
    let noted: Option<u32> = number::read(disk, dir, NAME, "a resolution in seconds")?;
    if noted == Some(seconds) {
        return Ok(());
    }
    if let Some(noted) = noted
        && !is_empty
    {
        return Err(StoreError::Rejected(format!(
            "the pairs in {} have a resolution of {noted} s, but {seconds} s is configured; start once with \
             resolution = \"{noted}s\" until they are delivered, or use another spool_dir",
            dir.display()
        )));
    }
    number::write(disk, dir, NAME, seconds)
}
