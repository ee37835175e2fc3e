//! The blocks of a snapshot file: `length u32 | crc u32 | body`, little endian.
//!
//! The CRC also covers the position of the block in the file, so that misplaced blocks are detected.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use wal::{DiskFile, LogError};

/// The maximum length of a block. A longer length is damage.
const MAX_BLOCK: usize = 64 << 20;
const HEAD: usize = 8;

/// Bytes written between two syncs. This limits the dirty data of the snapshot: the log is on the same disk, and its own
/// syncs would have to wait for that data.
const SYNC_BYTES: u64 = 4 << 20;

/// The longest pause after a sync.
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// Writes blocks sequentially.
pub(super) struct BlockWriter<'a> {
    file: &'a mut dyn DiskFile,
    path: &'a Path,
    at: u64,
    blocks: u64,
    synced: u64,
    /// When the first byte since the last sync was written.
    begun: Instant,
}

impl<'a> BlockWriter<'a> {
    pub(super) fn new(file: &'a mut dyn DiskFile, path: &'a Path) -> Self {
        Self {
            file,
            path,
            at: 0,
            blocks: 0,
            synced: 0,
            begun: Instant::now(),
        }
    }

    /// How many blocks were written.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// How many bytes were written.
    pub(super) fn bytes(&self) -> u64 {
        self.at
    }

    pub(super) fn write(&mut self, body: &[u8]) -> Result<(), LogError> {
        let length = u32::try_from(body.len()).map_err(|_| LogError::Size(body.len()))?;
        let mut block = Vec::with_capacity(HEAD + body.len());
        block.extend_from_slice(&length.to_le_bytes());
        block.extend_from_slice(&checksum(self.at, body).to_le_bytes());
        block.extend_from_slice(body);
        self.file
            .write_all_at(&block, self.at)
            .map_err(|error| LogError::io("write", self.path, &error))?;
        self.at += block.len() as u64;
        self.blocks += 1;
        if self.at - self.synced >= SYNC_BYTES {
            self.sync()?;
        }
        Ok(())
    }

    /// Syncs, then pauses for as long as writing took, so that half of the disk's and one CPU's time is left to others.
    fn sync(&mut self) -> Result<(), LogError> {
        self.file
            .sync()
            .map_err(|error| LogError::io("sync", self.path, &error))?;
        std::thread::sleep(self.begun.elapsed().min(MAX_PAUSE));
        self.synced = self.at;
        self.begun = Instant::now();
        Ok(())
    }
}

/// A block that was read.
pub(super) struct Block<'a> {
    /// Its offset in the file.
    pub(super) at: u64,
    /// The number of blocks before it.
    pub(super) before: u64,
    pub(super) body: &'a [u8],
}

/// Reads blocks sequentially.
pub(super) struct BlockReader<'a> {
    file: &'a mut dyn DiskFile,
    path: &'a Path,
    size: u64,
    at: u64,
    blocks: u64,
    body: Vec<u8>,
}

impl<'a> BlockReader<'a> {
    pub(super) fn new(file: &'a mut dyn DiskFile, path: &'a Path) -> Result<Self, LogError> {
        let size = file
            .size()
            .map_err(|error| LogError::io("read", path, &error))?;
        Ok(Self {
            file,
            path,
            size,
            at: 0,
            blocks: 0,
            body: Vec::new(),
        })
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Reads the next block; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Block<'_>>, LogError> {
        let (at, before) = (self.at, self.blocks);
        if at == self.size {
            return Ok(None);
        }
        let path = self.path;
        let io = |error: io::Error| LogError::io("read", path, &error);
        let mut head = [0; HEAD];
        let read = self.file.read_full_at(&mut head, at).map_err(io)?;
        let [l0, l1, l2, l3, c0, c1, c2, c3] = head;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let crc = u32::from_le_bytes([c0, c1, c2, c3]);
        let end = at + (HEAD + length) as u64;
        if read < HEAD || length > MAX_BLOCK || end > self.size {
            return Err(damaged(path, at, "a block is incomplete"));
        }
        self.body.resize(length, 0);
        let body = &mut self.body;
        let read = self.file.read_full_at(body, at + HEAD as u64).map_err(io)?;
        if read < length || checksum(at, body) != crc {
            return Err(damaged(path, at, "the checksum of a block is wrong"));
        }
        self.at = end;
        self.blocks += 1;
        Ok(Some(Block {
            at,
            before,
            body: &self.body,
        }))
    }
}

fn checksum(at: u64, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&at.to_le_bytes()), body)
}

pub(super) fn damaged(path: &Path, offset: u64, reason: &str) -> LogError {
    LogError::Damaged {
        path: PathBuf::from(path),
        offset,
        reason: reason.to_owned(),
    }
}
