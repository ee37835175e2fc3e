//! The port for change feeds: the contract that every adapter implements.

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "conformance")]
pub mod model;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::Timestamp;

/// One ordered list of the records that all writers appended, for replicas of the counts.
///
/// Records are opaque bytes. The feed numbers its entries 1, 2, 3 and so on. It is never the source of truth: it may lose
/// its newest entries, for example when a Redis replica is promoted, or all of them. Then these rules let writers and
/// readers notice:
///
/// - A feed that lost everything has a new [`FeedId`].
/// - Each writer numbers its own entries 1, 2, 3 and so on. The feed knows the last number of each writer, so that a
///   lost entry shows as a gap at the next [`append`](Self::append) or [`check`](Self::check).
/// - Each entry has a random [`token`](Entry::token). If the entry at the position of a reader has another token, then the
///   feed lost that entry and reused its number.
///
/// **Cancellation and errors.** A dropped or failed `append` may have taken effect. The writer repeats it with the same
/// number.
#[async_trait]
pub trait ChangeFeed: Send + Sync + fmt::Debug {
    /// Appends an entry. If the feed already has an entry of this writer with this number or a higher one, nothing is
    /// appended, and the result is the same. After `Ok`, every later [`read`](Self::read) up to the end returns the
    /// entry, unless the feed loses it.
    ///
    /// `feed` is the feed that the writer knows, or `None` for its first append.
    async fn append(&self, feed: Option<FeedId>, append: &Append) -> Result<Appended, FeedError>;

    /// Checks, without appending, that the feed has the entries of `writer` up to number `last`. Fails as
    /// [`append`](Self::append) does. It also tells the feed that the writer still exists.
    async fn check(
        &self,
        feed: Option<FeedId>,
        writer: WriterId,
        last: u64,
    ) -> Result<Appended, FeedError>;

    /// The entries after `after`, oldest first: at least one if there is one, and at most about `max_bytes` of records.
    async fn read(&self, after: &Cursor, max_bytes: usize) -> Result<Page, FeedError>;

    /// The position of the newest entry. A new feed is created if there is none.
    async fn end(&self) -> Result<Cursor, FeedError>;

    /// Notes that `reader` is at the position `at`, and removes the entries before the positions of all noted readers. The
    /// feed may keep a few entries more. Writers and readers that did not call for the time in `idle` are forgotten.
    ///
    /// Fails as [`read`](Self::read) does if the feed does not have this position: its number may be that of another entry.
    async fn trim(&self, reader: ReaderId, at: &Cursor, idle: Idle) -> Result<(), FeedError>;

    /// Every writer that is not removed yet.
    async fn writers(&self) -> Result<Vec<Writer>, FeedError>;

    /// Finishes the work in progress and releases all resources.
    async fn close(&self) -> Result<(), FeedError> {
        Ok(())
    }

    /// The size of the entries that the feed holds.
    async fn size(&self) -> Result<FeedSize, FeedError>;
}

/// Identifies a feed from its creation until it loses everything. Random.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FeedId(u64);

/// Identifies a writer from its start to its end. Random.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriterId(u64);

/// Identifies a reader from its start to its end. Random.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReaderId(u64);

/// After which time without a call a process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idle {
    /// For writers, which append or check.
    pub writers: Duration,
    /// For readers, which trim. One that has ended keeps its entries for this long.
    pub readers: Duration,
}

/// Distinguishes an entry from another one with the same number. Random.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(u64);

/// An entry to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// The writer.
    pub writer: WriterId,
    /// The writer's own number of the entry, from 1.
    pub sequence: u64,
    /// Whether the writer no longer has the entries between the last one in the feed and this one, so that the gap must be
    /// accepted.
    pub skips: bool,
    /// The record.
    pub record: Vec<u8>,
}

/// The result of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The feed.
    pub feed: FeedId,
    /// The clock of the feed.
    pub at: Timestamp,
}

/// A position in a feed: just after an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The feed.
    pub feed: FeedId,
    /// The number of the entry; 0 for the start of the feed.
    pub number: u64,
    /// The token of the entry. It has no meaning at the start.
    pub token: Token,
}

/// An entry of a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The number, from 1.
    pub number: u64,
    /// Distinguishes the entry from one that it replaced.
    pub token: Token,
    /// The writer.
    pub writer: WriterId,
    /// The writer's own number.
    pub sequence: u64,
    /// Whether entries of this writer before this one are lost.
    pub skips: bool,
    /// The record.
    pub record: Vec<u8>,
}

/// A part of a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The entries, in order and without gaps.
    pub entries: Vec<Entry>,
    /// The position after the last entry; the position of the call if there is none.
    pub next: Cursor,
    /// The clock of the feed at the time of the read, if the page reaches the end of the feed: every append that was
    /// completed before this instant is in this page or an earlier one.
    pub as_of: Option<Timestamp>,
    /// The clock of the feed at the time of the read.
    pub now: Timestamp,
    /// Identifies the process that serves the feed. After it changed, the feed may lack its newest entries.
    pub server: u64,
}

/// A writer that the feed knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writer {
    /// The writer.
    pub id: WriterId,
    /// The number of its last entry.
    pub last: u64,
    /// When it last appended or checked, by the clock of the feed.
    pub seen_at: Timestamp,
}

/// The size of a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FeedSize {
    /// The number of entries.
    pub entries: u64,
    /// Their memory or disk space, in bytes; an estimate.
    pub bytes: u64,
}

/// Why a call failed. The message never contains a user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// The feed lost everything: the position or the entries of the former feed do not exist in it.
    #[error("the feed was emptied; it is a new one")]
    Renewed(FeedId),
    /// The feed has the entries of this writer only up to `last`. The writer must append the later ones again.
    #[error("the feed lost the entries of this writer after number {last}")]
    Lost {
        /// The number of the last entry of the writer in the feed.
        last: u64,
    },
    /// The entries after the position of the reader do not exist any more, or do not continue those that it read. The
    /// entries from `oldest` on can be read.
    #[error("the feed has no entries between the position of this reader and its entry {}", oldest.number + 1)]
    Discontinued {
        /// The position before the oldest entry.
        oldest: Cursor,
        /// Whether entries that this reader did not get were removed. If not, it only has to read all of them again.
        trimmed: bool,
    },
    /// Can't be reached or can't work now: retry later.
    #[error("the feed is unavailable: {0}")]
    Unavailable(String),
    /// Did not respond in time. The call may have taken effect.
    #[error("the feed did not respond in time")]
    Timeout,
    /// No capacity is left, for example at the memory limit of Redis.
    #[error("the feed is full: {0}")]
    Full(String),
    /// The feed contains data that this program did not write.
    #[error("the feed can't be read: {0}")]
    Damaged(String),
}

impl FeedError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Timeout | Self::Full(_))
    }
}

macro_rules! random_id {
    ($name:ident) => {
        impl $name {
            /// A new random identifier.
            pub fn random() -> Self {
                Self(fastrand::u64(1..))
            }

            /// The identifier with this number.
            pub const fn from_number(number: u64) -> Self {
                Self(number)
            }

            /// The number.
            pub const fn number(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:016x})"), self.0)
            }
        }
    };
}

random_id!(FeedId);
random_id!(WriterId);
random_id!(ReaderId);
random_id!(Token);

impl Cursor {
    /// The start of a feed.
    pub const fn start(feed: FeedId) -> Self {
        Self {
            feed,
            number: 0,
            token: Token(0),
        }
    }

    /// The position after `entries`, which were read from here: this one if there are none.
    pub fn past(self, entries: &[Entry]) -> Self {
        entries.last().map_or(self, |last| Self {
            feed: self.feed,
            number: last.number,
            token: last.token,
        })
    }
}
