//! The identity of a directory: the key of its fingerprints, and the resolution of its slots.

use std::path::Path;

use siphasher::sip::SipHasher13;

use super::StoreError;
use super::snapshot;
use domain::{Resolution, UserId};
use index::Fingerprint;
use wal::{Disk, LogError, file_numbers, replace_file};

const NAME: &str = "identity";
const MAGIC: [u8; 8] = *b"hc-ident";
const BYTES: usize = 8 + 16 + 4 + 4;

/// The key of the hash that maps user ids to fingerprints. It never changes and never leaves the directory.
pub(super) struct Identity {
    key: [u8; 16],
}

impl Identity {
    /// Reads the identity of `dir`, or creates one in an empty directory. Returns whether it was created.
    pub(super) fn open(
        disk: &dyn Disk,
        dir: &Path,
        resolution: Resolution,
    ) -> Result<(Self, bool), StoreError> {
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
            return Ok((Self::decode(&bytes[..read], resolution, &path)?, false));
        }
        // With a new key, all users in the directory would count as new users.
        if !file_numbers(disk, dir)?.is_empty() || names.iter().any(|name| snapshot::is_name(name))
        {
            return Err(LogError::Missing { path }.into());
        }
        let mut key = [0; 16];
        getrandom::fill(&mut key).map_err(|error| {
            StoreError::Unavailable(format!("no random key available: {error}"))
        })?;
        let bytes = encode(&key, resolution);
        replace_file(disk, dir, NAME, |file| {
            file.write_all_at(&bytes, 0)
                .map_err(|error| LogError::io("write", &path, &error))
        })?;
        Ok((Self { key }, true))
    }

    fn decode(bytes: &[u8], resolution: Resolution, path: &Path) -> Result<Self, StoreError> {
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
        Ok(Self { key: *key })
    }

    /// The fingerprint of a user: SipHash-1-3 of the id under the directory's key.
    pub(super) fn fingerprint(&self, user: &UserId<'_>) -> Fingerprint {
        let hasher = SipHasher13::new_with_key(&self.key);
        Fingerprint::new(hasher.hash(user.as_str().as_bytes()))
    }
}

fn encode(key: &[u8; 16], resolution: Resolution) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(&resolution.seconds().to_le_bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(..)")
    }
}
