//! Replays one log file, group by group.

use std::io;
use std::path::Path;

use super::active::ActiveFile;
use super::disk::{Disk, DiskFile};
use super::format::{BadHeader, FILE_HEADER, FileId, GROUP_HEADER, for_each_record};
use super::{LogError, Position, Recovery, file_name};

/// A borrowed [`Apply`](super::Apply).
pub(super) type Hook<'a> = &'a mut dyn FnMut(Position, &[u8]) -> Result<(), String>;

/// The result of a walk through a file.
pub(super) struct Walk {
    pub(super) size: u64,
    /// The offset and the bytes of the last valid group.
    pub(super) last_group: Option<(u64, Vec<u8>)>,
    /// Why the group after it is invalid, if there is one.
    pub(super) bad: Option<&'static str>,
}

/// Applies the records of a file up to its end or its first invalid group.
pub(super) fn replay_file(
    disk: &dyn Disk,
    dir: &Path,
    number: u64,
    apply: Hook<'_>,
    found: &mut Recovery,
) -> Result<(ActiveFile, Walk), LogError> {
    let path = dir.join(file_name(number));
    let mut file = disk
        .open(&path)
        .map_err(|error| LogError::io("open", &path, &error))?;
    let read_error = |error: io::Error| LogError::io("read", &path, &error);
    let size = file.size().map_err(read_error)?;
    let mut reader = Reader::new(file.as_mut(), size);
    let header = reader.up_to(0, FILE_HEADER).map_err(read_error)?;
    let id = FileId::decode(header, number).map_err(|bad| match bad {
        BadHeader::Version(version) => LogError::Version {
            path: path.clone(),
            version,
        },
        BadHeader::Damaged(reason) => damaged(&path, 0, reason),
    })?;
    let mut end = FILE_HEADER as u64;
    let mut last_start = None;
    let mut sealed = true;
    let bad = loop {
        if end == size {
            break None;
        }
        let start = reader.up_to(end, GROUP_HEADER).map_err(read_error)?;
        if start.len() < GROUP_HEADER {
            break Some("a group's header is incomplete");
        }
        let Some(header) = id.group_at(end, start) else {
            break Some("the checksum of a group's header is wrong");
        };
        let at = end + GROUP_HEADER as u64;
        let body = reader.up_to(at, header.length).map_err(read_error)?;
        if !header.matches(body) {
            break Some("the checksum of a group is wrong");
        }
        let position = Position {
            file: number,
            offset: at,
        };
        for_each_record(position, body, |at, payload| {
            found.records += 1;
            apply(at, payload)
        })
        .map_err(|(at, reason)| damaged(&path, at.offset, &reason))?;
        last_start = Some(end);
        sealed = header.length == 0;
        end = at + header.length as u64;
    };
    let last_group = match last_start {
        Some(start) => {
            let length = (end - start) as usize;
            let bytes = reader.up_to(start, length).map_err(read_error)?;
            Some((start, bytes.to_vec()))
        }
        None => None,
    };
    found.files += 1;
    found.bytes += end;
    let active = ActiveFile {
        file,
        path,
        id,
        end,
        sealed,
    };
    Ok((
        active,
        Walk {
            size,
            last_group,
            bad,
        },
    ))
}

pub(super) fn damaged(path: &Path, offset: u64, reason: &str) -> LogError {
    LogError::Damaged {
        path: path.to_path_buf(),
        offset,
        reason: reason.to_owned(),
    }
}

/// Reads a file sequentially in large steps, because a group may have only a few bytes.
struct Reader<'a> {
    file: &'a mut dyn DiskFile,
    size: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> Reader<'a> {
    const STEP: usize = 1 << 20;

    fn new(file: &'a mut dyn DiskFile, size: u64) -> Self {
        Self {
            file,
            size,
            window: Vec::new(),
            window_at: 0,
        }
    }

    /// Reads `length` bytes from `offset` on, or fewer at the end of the file.
    fn up_to(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = length.min(left);
        let window_end = self.window_at + self.window.len() as u64;
        if offset < self.window_at || offset + length as u64 > window_end {
            self.window.resize(length.max(Self::STEP).min(left), 0);
            let read = self.file.read_full_at(&mut self.window, offset)?;
            self.window.truncate(read);
            self.window_at = offset;
        }
        let from = (offset - self.window_at) as usize;
        let to = (from + length).min(self.window.len());
        Ok(&self.window[from.min(to)..to])
    }
}
