//! The change feed of a single process: a write-ahead log on its own disk.
//!
//! The entries that were not trimmed are also in memory. Each log file that trimming keeps begins with a record of the state
//! at its start, because the files before it are removed.

mod codec;
mod tail;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use self::codec::Record;
use self::tail::Tail;
use domain::feed::{
    Append, Appended, ChangeFeed, Cursor, Entry, FeedError, FeedId, FeedSize, Idle, Page, ReaderId,
    Token, Writer, WriterId,
};
use wal::{Disk, LockedDir, Log, LogError, LogOptions, OsDisk};

/// A log file of this size is closed when it is trimmed.
const FILE_BYTES: u64 = 8 << 20;

/// The options of a [`LocalFeed`].
#[derive(Debug, Clone)]
pub struct LocalFeedOptions {
    /// The directory; it is created if it does not exist.
    pub dir: PathBuf,
    /// The records that the feed holds at most, in bytes. A feed that no reader trims loses its older half when it is full.
    pub max_bytes: u64,
    /// The file system; a test uses one in memory.
    pub disk: Arc<dyn Disk>,
}

/// A [`ChangeFeed`] on the local disk.
#[derive(Debug)]
pub struct LocalFeed {
    log: Log,
    tail: Arc<Mutex<Tail>>,
    /// Held while records are written, so that their order in the log is that of the calls.
    writing: tokio::sync::Mutex<()>,
    max_bytes: u64,
}

impl LocalFeedOptions {
    /// The defaults for a directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            max_bytes: 256 << 20,
            disk: Arc::new(OsDisk),
        }
    }
}

impl LocalFeed {
    /// Opens the feed in a directory, which it locks. Blocks while it reads the log.
    pub fn open(options: LocalFeedOptions) -> Result<Self, LogError> {
        let locked = Arc::new(LockedDir::acquire(&options.dir)?);
        let tail = Arc::new(Mutex::new(Tail::default()));
        let applied = Arc::clone(&tail);
        let log_options = LogOptions {
            disk: options.disk,
            // Only trimming starts a file, because each one begins with the state.
            file_bytes: u64::MAX,
            thread_name: "feed-writer".to_owned(),
            ..LogOptions::default()
        };
        let apply = move |at: wal::Position, payload: &[u8]| {
            let record = Record::decode(payload)?;
            applied.lock().apply(record, at.file);
            Ok(())
        };
        let log = Log::open(locked, log_options, Box::new(apply))?;
        Ok(Self {
            log,
            tail,
            writing: tokio::sync::Mutex::default(),
            max_bytes: options.max_bytes,
        })
    }

    /// The id of the feed. A new one is created if there is none.
    async fn id(&self) -> Result<FeedId, FeedError> {
        let known = self.tail.lock().feed();
        if let Some(feed) = known {
            return Ok(feed);
        }
        let _writing = self.writing.lock().await;
        let known = self.tail.lock().feed();
        if let Some(feed) = known {
            return Ok(feed);
        }
        let feed = FeedId::random();
        self.write(&Record::Start {
            feed,
            last: 0,
            token: Token::from_number(0),
            writers: Vec::new(),
        })
        .await?;
        Ok(feed)
    }

    async fn write(&self, record: &Record) -> Result<(), FeedError> {
        self.log.append(record.encode()).await.map_err(failure)?;
        Ok(())
    }

    /// Removes the files that have only trimmed entries. The caller holds `writing`.
    async fn remove_files(&self) -> Result<(), FeedError> {
        let newest = self.log.newest_file();
        if self.log.bytes_from(newest) >= FILE_BYTES {
            self.log.rotate().await.map_err(failure)?;
            let start = self.tail.lock().start();
            if let Some(start) = start {
                self.write(&start).await?;
            }
        }
        let needed = self.tail.lock().oldest_file();
        if needed > self.log.oldest_file() {
            // Unlinking a few files of moderate size takes well below a millisecond.
            self.log.remove_before(needed).map_err(failure)?;
        }
        Ok(())
    }
}

#[async_trait]
impl ChangeFeed for LocalFeed {
    async fn append(&self, feed: Option<FeedId>, append: &Append) -> Result<Appended, FeedError> {
        let id = self.id().await?;
        let _writing = self.writing.lock().await;
        let (is_repeated, is_full) = {
            let mut tail = self.tail.lock();
            let last = tail.check(feed, append.writer)?;
            let is_repeated = last.is_some_and(|last| append.sequence <= last);
            match last {
                Some(last) if append.sequence > last + 1 && !append.skips => {
                    return Err(FeedError::Lost { last });
                }
                _ => (is_repeated, tail.size().bytes > self.max_bytes),
            }
        };
        if is_full {
            self.tail.lock().drop_older_half();
            self.remove_files().await?;
        }
        if !is_repeated {
            self.write(&Record::Entry(Entry {
                number: 0,
                token: Token::random(),
                writer: append.writer,
                sequence: append.sequence,
                skips: append.skips,
                record: append.record.clone(),
            }))
            .await?;
        }
        let at = self.tail.lock().now();
        Ok(Appended { feed: id, at })
    }

    async fn check(
        &self,
        feed: Option<FeedId>,
        writer: WriterId,
        last: u64,
    ) -> Result<Appended, FeedError> {
        let id = self.id().await?;
        let mut tail = self.tail.lock();
        let known = tail.check(feed, writer)?.unwrap_or(0);
        match known < last {
            true => Err(FeedError::Lost { last: known }),
            false => Ok(Appended {
                feed: id,
                at: tail.now(),
            }),
        }
    }

    async fn read(&self, after: &Cursor, max_bytes: usize) -> Result<Page, FeedError> {
        let id = self.id().await?;
        self.tail.lock().read(id, after, max_bytes)
    }

    async fn end(&self) -> Result<Cursor, FeedError> {
        let feed = self.id().await?;
        Ok(self.tail.lock().end(feed))
    }

    async fn trim(&self, reader: ReaderId, at: &Cursor, idle: Idle) -> Result<(), FeedError> {
        let id = self.id().await?;
        let _writing = self.writing.lock().await;
        self.tail.lock().trim(id, reader, at, idle)?;
        self.remove_files().await
    }

    async fn writers(&self) -> Result<Vec<Writer>, FeedError> {
        Ok(self.tail.lock().writers())
    }

    async fn close(&self) -> Result<(), FeedError> {
        self.log.close().await.map_err(failure)
    }

    async fn size(&self) -> Result<FeedSize, FeedError> {
        Ok(self.tail.lock().size())
    }
}

fn failure(error: LogError) -> FeedError {
    match error {
        LogError::Full { .. } => FeedError::Full(error.to_string()),
        error => FeedError::Unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
