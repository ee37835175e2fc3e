//! The identity of a directory: the key of its fingerprints, and the resolution of its slots.

use std::path::Path;

use super::snapshot;
use domain::store::StoreError;
use domain::{FingerprintKey, Resolution};
use wal::{Disk, LogError, file_numbers, replace_file};

const NAME: &str = "identity";
const MAGIC: [u8; 8] = *b"hc-ident";
const BYTES: usize = 8 + 16 + 4 + 4;

/// Reads the key of `dir`, or creates the identity in an empty directory: with the key `given`, or a random one. Returns
/// whether it was created. Fails if the directory has another key than the given one.
pub(super) fn open(
    disk: &dyn Disk,
    dir: &Path,
    resolution: Resolution,
    given: Option<FingerprintKey>,
) -> Result<(FingerprintKey, bool), StoreError> {
    let path = dir.join(NAME);
    let names = disk
        .list(dir)
        .map_err(|error| LogError::io("list", dir, &error))?;
    if names.iter().any(|name| name == NAME) {
        let mut bytes = [0; BYTES];
        let read = disk
            .open(&path)
            .and_then(|mut file| file.read_full_at(&mut bytes, 0));
        let read = read.map_err(|error| LogError::io("read", &path, &error))?;
        let key = decode(&bytes[..read], resolution, &path)?;
        if given.is_some_and(|given| given != key) {
            return Err(StoreError::Rejected(format!(
                "{} belongs to another installation: its users have other fingerprints; use another directory",
                dir.display()
            )));
        }
        return Ok((key, false));
    }
    // With a new key, all users in the directory would count as new users.
    if !file_numbers(disk, dir)?.is_empty() || !snapshot::numbers(disk, dir)?.is_empty() {
        return Err(LogError::Missing { path }.into());
    }
    let key = match given {
        Some(key) => key,
        None => FingerprintKey::random().map_err(|error| {
            StoreError::Unavailable(format!("no random key available: {error}"))
        })?,
    };
    let bytes = encode(key, resolution);
    replace_file(disk, dir, NAME, |file| {
        file.write_all_at(&bytes, 0)
            .map_err(|error| LogError::io("write", &path, &error))
    })?;
    Ok((key, true))
}

fn decode(bytes: &[u8], resolution: Resolution, path: &Path) -> Result<FingerprintKey, StoreError> {
    let damaged =
        || StoreError::Damaged(format!("{} is not a valid identity file", path.display()));
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(damaged)?;
    if body.len() != BYTES - 4 || crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(damaged());
    }
    let (magic, rest) = body.split_first_chunk::<8>().ok_or_else(damaged)?;
    let (key, rest) = rest.split_first_chunk::<16>().ok_or_else(damaged)?;
    let created_with = u32::from_le_bytes(*rest.first_chunk::<4>().ok_or_else(damaged)?);
    if *magic != MAGIC {
        return Err(damaged());
    }
    if created_with != resolution.seconds() {
        return Err(StoreError::Rejected(format!(
            "{} was created with a resolution of {created_with} s, and {} s is configured; set \
             resolution = \"{created_with}s\", or use another data_dir",
            path.parent().unwrap_or(path).display(),
            resolution.seconds()
        )));
    }
    Ok(FingerprintKey::new(*key))
}

fn encode(key: FingerprintKey, resolution: Resolution) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&key.bytes());
    bytes.extend_from_slice(&resolution.seconds().to_le_bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}
