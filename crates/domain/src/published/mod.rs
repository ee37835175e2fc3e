//! The port for published counts: the contract that every adapter implements.

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "conformance")]
pub mod model;

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::feed::Token;
use crate::{Segment, Timestamp};

/// The counts that one publisher keeps current for all readers: the **board**.
///
/// **Publishers.** Any number of processes may [`acquire`](Self::acquire); one holds the lock and publishes a [`Tick`] after
/// the other. A lock alone does not stop a publisher that paused while its lock expired, so each new holder gets a higher
/// [`Fence`], and a tick with another fence than the newest is refused.
///
/// **Readers** [`load`](Self::load) the board once and then [`follow`](Self::follow) its changes.
///
/// **Losses.** The board is never the source of truth: it may lose its newest ticks, for example when a Redis replica is
/// promoted, or everything. Nothing continues a board that lost something: the publisher is refused with
/// [`PublishError::Fenced`] and publishes everything again, and readers beyond the loss get [`Update::Lost`].
///
/// **Cancellation and errors.** A dropped or failed call may have taken effect. Every call can be repeated.
#[async_trait]
pub trait PublishedCounts: Send + Sync + fmt::Debug {
    /// Takes or renews the lock for `ttl`. `None` while another owner holds it.
    ///
    /// A new holder gets a higher fence than all former ones. An owner that renews the lock, or takes it again before any
    /// other owner did, keeps its fence, unless the fence was lost. `owner` is random and identifies one process.
    async fn acquire(&self, owner: u64, ttl: Duration) -> Result<Option<Fence>, BoardError>;

    /// Releases the lock if `owner` holds it, so that a standby need not wait until it expires. The fence stays valid until
    /// another owner acquires.
    async fn release(&self, owner: u64) -> Result<(), BoardError>;

    /// Applies a tick to the board, completely or not at all. Does not need or renew the lock: the fence decides.
    ///
    /// Repeating the newest tick changes nothing and succeeds. See [`PublishError::Fenced`] for what is refused.
    async fn publish(&self, fence: Fence, tick: &Tick) -> Result<(), PublishError>;

    /// The whole board; `None` if there is none, or a part of it was lost.
    async fn load(&self) -> Result<Option<Board>, BoardError>;

    /// What changed since the position `after`. Atomic: the changes and the tick belong together.
    ///
    /// The board keeps the changes of about the last 1,000 ticks that had some, fewer if they are large.
    async fn follow(&self, after: &Position) -> Result<Update, BoardError>;
}

/// The users per window of one segment: pairs of a window in seconds and its users. Each window occurs once.
pub type UsersPerWindow = Vec<(u64, u64)>;

/// The number of a holder of the lock: the higher one publishes.
///
/// Fences rise even after everything was lost, as long as the clock of the server is not set back. They are below 2^53.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fence(u64);

/// What a publisher publishes at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tick {
    /// The publisher's own number of the tick, below 2^53. Each tick has the number after the former one. After an error the
    /// publisher repeats the tick unchanged, with its number, or replaces everything with the next number.
    pub revision: u64,
    /// The instant for which the counts are exact, to the microsecond. The board takes it as it is: a new publisher that read
    /// less than the former one may publish an earlier `as_of`, and readers must see the true one of the counts they have.
    pub as_of: Timestamp,
    /// Where the publisher answers other questions; may be empty.
    pub address: String,
    /// The widest window of the publisher, in seconds, below 2^53. It knows no user who was last seen before.
    pub window: u64,
    /// Whether a segment that is not on the board has no users. If not, it may not be counted yet.
    pub complete: bool,
    /// The segments whose counts changed. Without windows the segment is removed from the board. If a segment occurs twice,
    /// the later one counts.
    pub changed: Vec<(Segment, UsersPerWindow)>,
    /// Whether the board has exactly the segments of `changed` afterwards. The first tick of a publisher must replace all.
    pub replaces_all: bool,
}

/// The whole board at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    /// The counts of every published segment.
    pub counts: HashMap<Segment, UsersPerWindow>,
    /// The newest tick.
    pub tick: LastTick,
    /// Where to [`follow`](PublishedCounts::follow) from.
    pub position: Position,
}

/// The newest tick, as readers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastTick {
    /// The publisher.
    pub owner: u64,
    /// The instant for which the counts are exact.
    pub as_of: Timestamp,
    /// Where the publisher answers other questions; may be empty.
    pub address: String,
    /// The widest window of the publisher, in seconds.
    pub window: u64,
    /// Whether a segment that is not on the board has no users.
    pub complete: bool,
    /// The time since the tick was published, by the clock of the server alone.
    pub age: Duration,
}

/// A position in the changes of a board: just after a tick that had some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The fence of the publisher.
    pub fence: Fence,
    /// The revision of the tick.
    pub revision: u64,
    /// Distinguishes the tick from another one with its revision.
    pub token: Token,
}

/// What happened after a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// The board continued.
    Changes {
        /// The segments that changed, each once, with their newest counts. Without windows a segment was removed.
        changed: Vec<(Segment, UsersPerWindow)>,
        /// The newest tick.
        tick: LastTick,
        /// The position after the changes.
        position: Position,
    },
    /// The changes after the position do not exist or no longer exist: [`load`](PublishedCounts::load) the board again.
    Lost,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BoardError {
    /// Can't be reached or can't work now: retry later.
    #[error("the published counts are unavailable: {0}")]
    Unavailable(String),
    /// Did not respond in time. The call may have taken effect.
    #[error("the server of the published counts did not respond in time")]
    Timeout,
    /// No capacity is left, for example at the memory limit of Redis.
    #[error("the server of the published counts is full: {0}")]
    Full(String),
    /// The board contains data that this program did not write.
    #[error("the published counts can't be read: {0}")]
    Damaged(String),
}

/// Why a tick was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Another owner has a higher fence, the fence or a part of the board was lost, or the tick does not follow the newest one
    /// on the board. The publisher acquires again. If it gets a fence, its next tick replaces everything.
    #[error(
        "another process publishes, or published counts were lost: acquire again and publish all counts"
    )]
    Fenced,
    /// The board failed. The tick may have been published.
    #[error(transparent)]
    Board(#[from] BoardError),
}

impl BoardError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Timeout | Self::Full(_))
    }
}

impl Fence {
    /// The fence with this number.
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
