//! Checks the `user_key` with which the users of a directory were recorded. With another key, each user would count
//! twice.

use std::path::Path;

use super::StoreError;
use crate::user_key;
use wal::{Disk, LogError, replace_file};

const NAME: &str = "user_key";
const MAGIC: [u8; 8] = *b"hc-ukey1";
/// Bytes of the digest, a hexadecimal string; all zeros without a key.
const DIGEST: usize = 32;
const BYTES: usize = 8 + DIGEST + 4;

/// Compares `digest` (`None` without a key) with the digest of `dir`. Writes it to a directory without one, which is new
/// or of an earlier version.
pub(super) fn check(disk: &dyn Disk, dir: &Path, digest: Option<&str>) -> Result<(), StoreError> {
    let path = dir.join(NAME);
    let expected = encode(digest);
    let names = disk
        .list(dir)
        .map_err(|error| LogError::io("list", dir, &error))?;
    if !names.iter().any(|name| name == NAME) {
        replace_file(disk, dir, NAME, |file| {
            file.write_all_at(&expected, 0)
                .map_err(|error| LogError::io("write", &path, &error))
        })?;
        return Ok(());
    }
    let mut bytes = [0; BYTES + 1];
    let read = disk
        .open(&path)
        .and_then(|mut file| file.read_full_at(&mut bytes, 0));
    let read = read.map_err(|error| LogError::io("read", &path, &error))?;
    let noted = bytes.get(..read).unwrap_or_default();
    if noted == expected {
        return Ok(());
    }
    let Some(noted) = decode(noted) else {
        let text = format!("{} is damaged", path.display());
        return Err(StoreError::Damaged(text));
    };
    let noted = Some("noted").filter(|_| noted != [0; DIGEST]);
    let was = user_key::recorded(noted, digest);
    Err(StoreError::Rejected(format!(
        "the users in {} were recorded {was}: each of them would count twice; set user_key to its former value, or use \
         another data_dir",
        dir.display()
    )))
}

fn encode(digest: Option<&str>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(digest.unwrap_or_default().bytes().take(DIGEST));
    bytes.resize(MAGIC.len() + DIGEST, 0);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<[u8; DIGEST]> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    let digest = body.strip_prefix(&MAGIC)?.try_into().ok()?;
    (crc32c::crc32c(body) == u32::from_le_bytes(*crc)).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wal::OsDisk;

    #[test]
    fn another_key_is_refused_and_the_same_is_not() {
        let one = "0123456789abcdef0123456789abcdef";
        let other = "f123456789abcdef0123456789abcdef";
        for (noted, wrong) in [
            (None, Some(one)),
            (Some(one), None),
            (Some(one), Some(other)),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let check = |digest| check(&OsDisk, folder.path(), digest);
            check(noted).unwrap();
            check(noted).unwrap();
            let refused = check(wrong);
            assert!(
                matches!(&refused, Err(StoreError::Rejected(text)) if text.contains("count twice")),
                "{refused:?}"
            );
            check(noted).unwrap();
        }
    }

    #[test]
    fn a_damaged_note_is_told_from_another_key() {
        let folder = tempfile::tempdir().unwrap();
        check(&OsDisk, folder.path(), None).unwrap();
        let path = folder.path().join(NAME);
        let whole = std::fs::read(&path).unwrap();
        let mut longer = whole.clone();
        longer.push(0);
        let mut flipped = whole.clone();
        flipped[20] ^= 1;
        for bytes in [&whole[..10], &[], &longer, &flipped] {
            std::fs::write(&path, bytes).unwrap();
            let refused = check(&OsDisk, folder.path(), None);
            assert!(
                matches!(refused, Err(StoreError::Damaged(_))),
                "{refused:?}"
            );
        }
    }
}
