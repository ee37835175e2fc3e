//! A snapshot: the state in one file, so that the log before it may go.
//!
//! The file `N.snapshot` holds everything that the log files before number N say, and perhaps some of what N says.
//! It is a run of blocks, `length u32 | crc u32 | body`, little endian; the crc covers the block's position in
//! the file too. A body is a kind and its fields:
//! - start: `1 u8 | version u32 | log file u64 | head slot u64`
//! - entries: `2 u8 | segment | base slot u64 | entries u32, entry u64 *`, ascending within a segment
//! - trend: `3 u8 | segment | window seconds u64 | points u32, (at u32, users u32)*`
//! - end: `4 u8 | blocks before u64`

use std::path::{Path, PathBuf};

use super::record::{Reader, length, push_segment};
use super::state::State;
use crate::domain::{Segment, Slot, Timestamp};
use crate::index::{Entry, Fingerprint};
use crate::log::{Disk, DiskFile, LogError, Start, replace_file};

const START: u8 = 1;
const ENTRIES: u8 = 2;
const TREND: u8 = 3;
const END: u8 = 4;
const VERSION: u32 = 1;

/// Entries of one block: half a megabyte, so that writing one does not hold up the disk for long.
const BLOCK_ENTRIES: usize = 64 << 10;
/// Entries of a segment that are loaded at once; the index wants many, memory wants few.
const LOAD_ENTRIES: usize = 4 << 20;
/// No block is longer: a longer length is damage.
const MAX_BLOCK: usize = 64 << 20;
const BLOCK_HEAD: usize = 8;
const SUFFIX: &str = ".snapshot";

/// The newest snapshot of a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Newest {
    /// With which log file replay goes on.
    pub(super) start: Start,
    /// Its bytes; 0 when there is none.
    pub(super) bytes: u64,
    /// When it was begun, if there is one.
    pub(super) made: Option<Timestamp>,
}

/// Whether a file of this name is a snapshot.
pub(super) fn is_name(name: &str) -> bool {
    number(name).is_some()
}

fn name(number: u64) -> String {
    format!("{number:020}{SUFFIX}")
}

fn number(of: &str) -> Option<u64> {
    let number = of.strip_suffix(SUFFIX)?.parse().ok()?;
    (name(number) == of).then_some(number)
}

fn numbers(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>, LogError> {
    let names = disk
        .list(dir)
        .map_err(|error| LogError::io("list", dir, &error))?;
    Ok(names.iter().filter_map(|name| number(name)).collect())
}

/// Writes the state as the snapshot that replay continues with log file `next`. Writers go on meanwhile: a page is
/// copied under its segment's lock, and everything else happens without it. Returns the bytes written.
pub(super) fn write(
    disk: &dyn Disk,
    dir: &Path,
    next: u64,
    state: &State,
    stopped: &dyn Fn() -> bool,
) -> Result<Option<u64>, LogError> {
    let path = dir.join(name(next));
    let mut bytes = None;
    let written = replace_file(disk, dir, &name(next), |file| {
        let mut writer = Writer {
            file,
            path: &path,
            at: 0,
            blocks: 0,
        };
        writer.state(next, state, stopped)?;
        bytes = Some(writer.at);
        Ok(())
    });
    match written {
        Err(LogError::Closed) => Ok(None),
        Err(error) => Err(error),
        Ok(_) => Ok(bytes),
    }
}

/// Removes all snapshots but the newest.
pub(super) fn remove_older(disk: &dyn Disk, dir: &Path, newest: u64) -> Result<(), LogError> {
    for older in numbers(disk, dir)?
        .into_iter()
        .filter(|number| *number < newest)
    {
        let path = dir.join(name(older));
        disk.remove(&path)
            .map_err(|error| LogError::io("remove", &path, &error))?;
    }
    Ok(())
}

struct Writer<'a> {
    file: &'a mut dyn DiskFile,
    path: &'a Path,
    at: u64,
    blocks: u64,
}

impl Writer<'_> {
    fn state(
        &mut self,
        next: u64,
        state: &State,
        stopped: &dyn Fn() -> bool,
    ) -> Result<(), LogError> {
        let mut body = vec![START];
        body.extend_from_slice(&VERSION.to_le_bytes());
        body.extend_from_slice(&next.to_le_bytes());
        body.extend_from_slice(&state.index.head().number().to_le_bytes());
        self.block(&body)?;
        for segment in state.index.segment_names() {
            if stopped() {
                return Err(LogError::Closed);
            }
            self.segment(&segment, state)?;
        }
        let series: Vec<_> = {
            let trends = state.trends.lock();
            trends
                .all()
                .map(|(segment, window, points)| (segment.clone(), window, points.to_vec()))
                .collect()
        };
        for (segment, window, points) in series {
            let mut body = vec![TREND];
            push_segment(&mut body, &segment);
            body.extend_from_slice(&window.to_le_bytes());
            body.extend_from_slice(&length(points.len()));
            for point in points {
                body.extend_from_slice(&point.at.to_le_bytes());
                body.extend_from_slice(&point.users.to_le_bytes());
            }
            self.block(&body)?;
        }
        let mut body = vec![END];
        body.extend_from_slice(&self.blocks.to_le_bytes());
        self.block(&body)
    }

    fn segment(&mut self, segment: &Segment, state: &State) -> Result<(), LogError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut from = Some(Fingerprint::MIN);
        while let Some(start) = from {
            // A segment that was swept away meanwhile has nothing left to say.
            let Some(page) = state.index.read_page(segment.as_str(), start, &mut entries) else {
                break;
            };
            from = page.next;
            if entries.len() >= BLOCK_ENTRIES || from.is_none() {
                // The head moves on during the walk. The latest base is right for all pages of the block: what was
                // unexpired for an earlier one is well within 65,536 slots of it.
                self.entries(segment, page.base, &entries)?;
                entries.clear();
            }
        }
        Ok(())
    }

    fn entries(
        &mut self,
        segment: &Segment,
        base: Slot,
        entries: &[Entry],
    ) -> Result<(), LogError> {
        let mut body = Vec::with_capacity(160 + entries.len() * 8);
        body.push(ENTRIES);
        push_segment(&mut body, segment);
        body.extend_from_slice(&base.number().to_le_bytes());
        body.extend_from_slice(&length(entries.len()));
        for entry in entries {
            body.extend_from_slice(&entry.to_bits().to_le_bytes());
        }
        self.block(&body)
    }

    fn block(&mut self, body: &[u8]) -> Result<(), LogError> {
        let mut block = Vec::with_capacity(BLOCK_HEAD + body.len());
        block.extend_from_slice(&length(body.len()));
        block.extend_from_slice(&checksum(self.at, body).to_le_bytes());
        block.extend_from_slice(body);
        let written = self.file.write_all_at(&block, self.at);
        written.map_err(|error| LogError::io("write", self.path, &error))?;
        self.at += block.len() as u64;
        self.blocks += 1;
        Ok(())
    }
}

fn checksum(at: u64, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&at.to_le_bytes()), body)
}

/// Loads the newest snapshot of `dir` into `state`, if there is one. A damaged one is refused: the log before it is
/// gone, so going on without it would lose what was acknowledged.
pub(super) fn load_newest(disk: &dyn Disk, dir: &Path, state: &State) -> Result<Newest, LogError> {
    let Some(newest) = numbers(disk, dir)?.into_iter().max() else {
        return Ok(Newest {
            start: Start::At(1),
            bytes: 0,
            made: None,
        });
    };
    let path = dir.join(name(newest));
    let io = |error: std::io::Error| LogError::io("read", &path, &error);
    let mut file = disk.open(&path).map_err(io)?;
    let bytes = file.size().map_err(io)?;
    let mut reader = BlockReader {
        file: file.as_mut(),
        path: &path,
        size: bytes,
        at: 0,
        blocks: 0,
    };
    let mut loader = Loader {
        state,
        pending: None,
        ended: false,
    };
    while let Some((at, body)) = reader.next()? {
        let blocks_before = reader.blocks - 1;
        loader
            .block(&body, newest, blocks_before)
            .map_err(|reason| damaged(&path, at, &reason))?;
    }
    if !loader.ended {
        return Err(damaged(&path, bytes, "the end is missing"));
    }
    let modified = std::fs::metadata(&path)
        .and_then(|metadata| metadata.modified())
        .ok();
    let made = modified.and_then(|made| Timestamp::try_from(made).ok());
    Ok(Newest {
        start: Start::At(newest),
        bytes,
        made,
    })
}

fn damaged(path: &Path, offset: u64, reason: &str) -> LogError {
    LogError::Damaged {
        path: PathBuf::from(path),
        offset,
        reason: reason.to_owned(),
    }
}

struct BlockReader<'a> {
    file: &'a mut dyn DiskFile,
    path: &'a Path,
    size: u64,
    at: u64,
    blocks: u64,
}

impl BlockReader<'_> {
    /// The next block's offset and body.
    fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, LogError> {
        if self.at == self.size {
            return Ok(None);
        }
        let at = self.at;
        let io = |error: std::io::Error| LogError::io("read", self.path, &error);
        let mut head = [0; BLOCK_HEAD];
        let read = self.file.read_full_at(&mut head, at).map_err(io)?;
        let (Some(length), Some(crc)) = (head.first_chunk::<4>(), head.last_chunk::<4>()) else {
            return Err(damaged(self.path, at, "a block is incomplete"));
        };
        let length = u32::from_le_bytes(*length) as usize;
        if read < BLOCK_HEAD || length > MAX_BLOCK || at + (BLOCK_HEAD + length) as u64 > self.size
        {
            return Err(damaged(self.path, at, "a block is incomplete"));
        }
        let mut body = vec![0; length];
        self.file
            .read_full_at(&mut body, at + BLOCK_HEAD as u64)
            .map_err(io)?;
        if checksum(at, &body) != u32::from_le_bytes(*crc) {
            return Err(damaged(self.path, at, "the checksum of a block is wrong"));
        }
        self.at += (BLOCK_HEAD + length) as u64;
        self.blocks += 1;
        Ok(Some((at, body)))
    }
}

/// Puts blocks into the state; entries of one segment are collected first.
struct Loader<'a> {
    state: &'a State,
    pending: Option<(Segment, Slot, Vec<Entry>)>,
    ended: bool,
}

impl Loader<'_> {
    fn block(&mut self, body: &[u8], newest: u64, blocks_before: u64) -> Result<(), String> {
        if self.ended {
            return Err("a block follows the end".to_owned());
        }
        let mut reader = Reader(body);
        let kind = reader.u8()?;
        if (kind == START) != (blocks_before == 0) {
            return Err("the start is not where it must be".to_owned());
        }
        match kind {
            START => {
                let version = reader.u32()?;
                if version != VERSION {
                    return Err(format!("snapshot version {version} is not known"));
                }
                if reader.u64()? != newest {
                    return Err("the file's name is not that of its contents".to_owned());
                }
                self.state.index.advance(Slot::new(reader.u64()?));
            }
            ENTRIES => self.entries(&mut reader)?,
            TREND => self.trend(&mut reader)?,
            END => {
                self.flush();
                if reader.u64()? != blocks_before {
                    return Err("blocks are missing".to_owned());
                }
                self.ended = true;
            }
            other => return Err(format!("a block of kind {other} is not known")),
        }
        reader.end()
    }

    fn entries(&mut self, reader: &mut Reader<'_>) -> Result<(), String> {
        let segment = reader.segment()?;
        let base = Slot::new(reader.u64()?);
        let mut entries = Vec::new();
        reader.entries(&mut entries)?;
        match &mut self.pending {
            Some((pending, latest, collected))
                if *pending == segment && collected.len() < LOAD_ENTRIES =>
            {
                *latest = base.max(*latest);
                collected.extend_from_slice(&entries);
            }
            _ => {
                self.flush();
                self.pending = Some((segment, base, entries));
            }
        }
        Ok(())
    }

    fn flush(&mut self) {
        if let Some((segment, base, entries)) = self.pending.take() {
            self.state.index.load_sorted(&segment, &entries, base);
        }
    }

    fn trend(&self, reader: &mut Reader<'_>) -> Result<(), String> {
        let segment = reader.segment()?;
        let window = reader.u64()?;
        let mut trends = self.state.trends.lock();
        for _ in 0..reader.u32()? {
            let at = Timestamp::from_second(i64::from(reader.u32()?))
                .map_err(|_| "a trend point's instant is out of range".to_owned())?;
            trends.add(&segment, window, at, u64::from(reader.u32()?));
        }
        Ok(())
    }
}
