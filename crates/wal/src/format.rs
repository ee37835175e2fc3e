//! The binary format of a log file: its header, groups and records.

use super::Position;

/// The maximum length of a payload, in bytes.
pub const MAX_PAYLOAD: usize = 32 << 20;
/// A group takes no more records once it has this many bytes, regardless of the options.
pub(super) const MAX_GROUP_BYTES: usize = 32 << 20;
/// The maximum length of a group's body, which may end in a record of maximum length.
const MAX_BODY: usize = MAX_GROUP_BYTES + MAX_PAYLOAD + 4;
/// The maximum length of a group, with its header.
pub(super) const MAX_GROUP: u64 = (GROUP_HEADER + MAX_BODY) as u64;

pub(super) const FILE_HEADER: usize = 32;
pub(super) const GROUP_HEADER: usize = 12;

const MAGIC: &[u8; 8] = b"headclog";
/// In version 1, a file that is not the last one had no seal at its end.
pub(super) const VERSION: u32 = 2;

/// The file-specific input of the checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    pub(super) version: u32,
    pub(super) number: u64,
    /// Random, so that no writer of payloads can guess it.
    pub(super) salt: u64,
}

/// Why the header of a file is invalid.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    Damaged(&'static str),
    Version(u32),
}

impl FileId {
    pub(super) fn encode(self) -> [u8; FILE_HEADER] {
        let mut header = [0; FILE_HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&self.version.to_le_bytes());
        header[16..24].copy_from_slice(&self.number.to_le_bytes());
        header[24..].copy_from_slice(&self.salt.to_le_bytes());
        let crc = file_header_crc(&header);
        header[12..16].copy_from_slice(&crc.to_le_bytes());
        header
    }

    pub(super) fn decode(header: &[u8], number: u64) -> Result<Self, BadHeader> {
        if header.len() < FILE_HEADER {
            return Err(BadHeader::Damaged("the file's header is incomplete"));
        }
        if header[..8] != *MAGIC {
            return Err(BadHeader::Damaged("this is not a log file"));
        }
        let version = u32_at(header, 8);
        if !(1..=VERSION).contains(&version) {
            return Err(BadHeader::Version(version));
        }
        if u32_at(header, 12) != file_header_crc(header) {
            return Err(BadHeader::Damaged(
                "the checksum of the file's header is wrong",
            ));
        }
        if u64_at(header, 16) != number {
            return Err(BadHeader::Damaged(
                "the file's header has the number of another file",
            ));
        }
        let salt = u64_at(header, 24);
        Ok(Self {
            version,
            number,
            salt,
        })
    }

    fn header_crc(self, offset: u64, length_and_crc: &[u8]) -> u32 {
        let mut seed = [0; 24];
        seed[..8].copy_from_slice(&self.salt.to_le_bytes());
        seed[8..16].copy_from_slice(&self.number.to_le_bytes());
        seed[16..].copy_from_slice(&offset.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c(&seed), length_and_crc)
    }

    /// Parses the header of a group from `start`, which has at least 12 bytes. `None` unless the header was written at
    /// `offset` of this file.
    pub(super) fn group_at(self, offset: u64, start: &[u8]) -> Option<GroupHeader> {
        let length = u32_at(start, 0) as usize;
        if length > MAX_BODY || u32_at(start, 8) != self.header_crc(offset, &start[..8]) {
            return None;
        }
        Some(GroupHeader {
            length,
            crc: u32_at(start, 4),
        })
    }
}

/// The length and the checksum of a group's body.
#[derive(Debug, Clone, Copy)]
pub(super) struct GroupHeader {
    pub(super) length: usize,
    crc: u32,
}

impl GroupHeader {
    pub(super) fn matches(self, body: &[u8]) -> bool {
        body.len() == self.length && crc32c::crc32c(body) == self.crc
    }
}

/// A group that is being filled.
#[derive(Debug)]
pub(super) struct Group {
    bytes: Vec<u8>,
}

impl Group {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; GROUP_HEADER],
        }
    }

    /// Clears the group, and shrinks its buffer to `keep` bytes, so that a peak does not hold memory.
    pub(super) fn clear(&mut self, keep: usize) {
        self.bytes.truncate(GROUP_HEADER);
        self.bytes.shrink_to(keep);
    }

    /// Adds a record and returns its offset from the start of the group.
    pub(super) fn push(&mut self, payload: &[u8]) -> u64 {
        let at = self.bytes.len() as u64;
        // Bounded by `MAX_PAYLOAD`.
        let length = payload.len() as u32;
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(payload);
        at
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.bytes[GROUP_HEADER..]
    }

    /// Completes the header for `offset` of `file` and returns the bytes of the group.
    pub(super) fn finish(&mut self, file: FileId, offset: u64) -> &[u8] {
        let length = self.body().len() as u32;
        let body_crc = crc32c::crc32c(self.body());
        self.bytes[..4].copy_from_slice(&length.to_le_bytes());
        self.bytes[4..8].copy_from_slice(&body_crc.to_le_bytes());
        let crc = file.header_crc(offset, &self.bytes[..8]);
        self.bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        &self.bytes
    }
}

/// Calls `each` for the records of a body that starts at `start`. The error has the position of the invalid record.
pub(super) fn for_each_record(
    start: Position,
    mut body: &[u8],
    mut each: impl FnMut(Position, &[u8]) -> Result<(), String>,
) -> Result<(), (Position, String)> {
    let mut at = start;
    while !body.is_empty() {
        let record = body
            .split_first_chunk()
            .map(|(length, rest)| (u32::from_le_bytes(*length) as usize, rest))
            .and_then(|(length, rest)| rest.split_at_checked(length));
        let Some((payload, rest)) = record else {
            return Err((at, "a record extends beyond its group".to_owned()));
        };
        each(at, payload).map_err(|reason| (at, reason))?;
        at.offset += 4 + payload.len() as u64;
        body = rest;
    }
    Ok(())
}

fn file_header_crc(header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..12]), &header[16..FILE_HEADER])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_back_and_any_flipped_bit_refused() {
        let id = FileId {
            version: VERSION,
            number: 7,
            salt: 99,
        };
        let header = id.encode();
        assert_eq!(FileId::decode(&header, 7), Ok(id));
        assert!(FileId::decode(&header, 8).is_err());
        for bit in 0..FILE_HEADER * 8 {
            let mut flipped = header;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(FileId::decode(&flipped, 7).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_group_is_valid_at_its_own_place_only() {
        let id = FileId {
            version: VERSION,
            number: 7,
            salt: 99,
        };
        let mut group = Group::new();
        group.push(b"abc");
        let bytes = group.finish(id, 32).to_vec();
        let header = id.group_at(32, &bytes).unwrap();
        assert!(header.matches(&bytes[GROUP_HEADER..]));
        assert!(!header.matches(&bytes[GROUP_HEADER..bytes.len() - 1]));
        assert!(id.group_at(33, &bytes).is_none());
        assert!(FileId { number: 8, ..id }.group_at(32, &bytes).is_none());
        assert!(FileId { salt: 98, ..id }.group_at(32, &bytes).is_none());
    }

    #[test]
    fn zeros_are_no_group() {
        let id = FileId {
            version: 0,
            number: 0,
            salt: 0,
        };
        assert!(id.group_at(0, &[0; 12]).is_none());
    }

    #[test]
    fn records_are_read_back_with_their_offsets() {
        let mut group = Group::new();
        assert_eq!(group.push(b"abc"), 12);
        assert_eq!(group.push(b"de"), 19);
        let mut seen = Vec::new();
        let start = Position {
            file: 1,
            offset: 12,
        };
        for_each_record(start, group.body(), |at, payload| {
            seen.push((at.offset, payload.to_vec()));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [(12, b"abc".to_vec()), (19, b"de".to_vec())]);
        let cut = &group.body()[..group.body().len() - 1];
        let (at, _) = for_each_record(start, cut, |_, _| Ok(())).unwrap_err();
        assert_eq!(at.offset, 19);
    }
}
