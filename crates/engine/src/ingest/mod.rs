//! The one way in: pairs are admitted, bounded in number, recorded, and noted as pending.

pub mod erasures;
mod guard;
mod identity;
mod intake;
mod keeper;
mod pending;
pub mod spool;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

pub use guard::{Places, SegmentGuard};
pub use identity::Identity;
pub use intake::{Admitted, Intake, PairError};
pub use keeper::Recorder;
pub use pending::PendingNotes;

use self::keeper::Keeper;
use self::spool::Spool;
use domain::store::StoreError;
use domain::{Clock, Segment, TimeFrame};

/// What a client that was turned away is told to wait. A full queue drains within a second.
const RETRY_BUSY: Duration = Duration::from_secs(1);
const BUSY: IngestError = IngestError::Busy {
    retry_after: RETRY_BUSY,
};
/// A store that is away rarely comes back sooner.
const RETRY_UNAVAILABLE: Duration = Duration::from_secs(5);

/// Takes pairs in.
#[derive(Debug)]
pub struct Ingest {
    frame: TimeFrame,
    clock: Arc<dyn Clock>,
    keeper: Keeper,
    guard: Arc<SegmentGuard>,
    identity: Arc<Identity>,
    room: Semaphore,
    queue_pairs: u32,
}

/// What ingest is made of.
#[derive(Debug)]
pub struct IngestParts {
    /// The window and resolution that place a pair.
    pub frame: TimeFrame,
    /// Where "now" comes from.
    pub clock: Arc<dyn Clock>,
    /// Where pairs go.
    pub recorder: Arc<Recorder>,
    /// Where they wait while the store is away.
    pub spool: Option<Arc<Spool>>,
    /// What keeps the number of segments bounded.
    pub guard: Arc<SegmentGuard>,
    /// What turns a user's name into the one that is stored.
    pub identity: Arc<Identity>,
    /// The most pairs under way at once.
    pub queue_pairs: usize,
    /// How long a client waits for the store; `None` for a store in this process.
    pub patience: Option<Duration>,
}

/// What became of a batch that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Where the pairs are.
    pub durability: Durability,
    /// Positions in the batch, ascending, of the pairs that the store refuses for good: they are not accepted.
    pub refused: Vec<usize>,
}

impl Kept {
    /// Every pair of a batch is there.
    pub(super) fn all(durability: Durability) -> Self {
        Self {
            durability,
            refused: Vec::new(),
        }
    }
}

/// Where accepted pairs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// In the store: every count from now on includes them.
    Stored,
    /// On this instance's own disk, to be delivered when the store is back.
    Spooled,
}

/// Why nothing of a batch was accepted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IngestError {
    /// Too many pairs are under way.
    #[error("too many pairs are waiting; try again in {} s", retry_after.as_secs())]
    Busy {
        /// How long the client should wait.
        retry_after: Duration,
    },
    /// Nothing can be kept now.
    #[error("pairs can't be kept now; try again in {} s", retry_after.as_secs())]
    Unavailable {
        /// How long the client should wait.
        retry_after: Duration,
        /// What is wrong, for the log.
        cause: StoreError,
    },
    /// The store refuses some of the pairs, which are in order, and will again until somebody mends the store.
    #[error("the store refuses some of these pairs, which are in order: its operator has to act")]
    Refused {
        /// What is wrong, for the log.
        cause: StoreError,
    },
}

impl Ingest {
    /// Ingest from its parts.
    pub fn new(parts: IngestParts) -> Self {
        let queue_pairs =
            u32::try_from(parts.queue_pairs.clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Self {
            frame: parts.frame,
            keeper: Keeper::new(
                parts.recorder,
                parts.spool,
                Arc::clone(&parts.clock),
                parts.patience,
            ),
            clock: parts.clock,
            guard: parts.guard,
            identity: parts.identity,
            room: Semaphore::new(queue_pairs as usize),
            queue_pairs,
        }
    }

    /// A place to put the pairs of one request, with room for about `expected` pairs. All of them are
    /// received at the same instant: now.
    pub fn intake(&self, expected: usize) -> Intake {
        Intake::new(
            self.frame,
            self.clock.now(),
            Arc::clone(&self.guard),
            Arc::clone(&self.identity),
            expected,
        )
    }

    /// Makes pairs durable, but for those that the store refuses. On an error nothing of them counts as accepted, and they
    /// may be sent again.
    pub async fn accept(&self, admitted: Admitted) -> Result<Kept, IngestError> {
        let Admitted { batch, places } = admitted;
        if batch.is_empty() {
            return Ok(Kept::all(Durability::Stored));
        }
        // A batch larger than the whole queue passes when it has the queue to itself.
        let pairs = u32::try_from(batch.len())
            .unwrap_or(u32::MAX)
            .min(self.queue_pairs);
        let _room = self.room.try_acquire_many(pairs).map_err(|_| BUSY)?;
        let kept = self.keeper.keep(&batch).await.map_err(refusal)?;
        if kept.refused.is_empty() {
            places.confirm(batch.segments());
        } else {
            let is_accepted = |position: usize| kept.refused.binary_search(&position).is_err();
            let accepted = batch.subset(|position, _| is_accepted(position));
            places.confirm(accepted.segments());
        }
        Ok(kept)
    }

    /// Whether pairs of this segment were accepted here, or it was listed lately.
    pub fn knows(&self, segment: &Segment) -> bool {
        self.guard.knows(segment)
    }

    /// Whether there is room for a pair now, and so any hope for a batch.
    pub fn has_room(&self) -> Result<(), IngestError> {
        match self.room.available_permits() {
            0 => Err(BUSY),
            _ => Ok(()),
        }
    }

    /// Pairs that are under way now.
    pub fn queued_pairs(&self) -> usize {
        (self.queue_pairs as usize).saturating_sub(self.room.available_permits())
    }

    /// The name under which a user is stored.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

fn refusal(cause: StoreError) -> IngestError {
    match cause {
        StoreError::Busy(_) => BUSY,
        StoreError::Throttled { retry_after, .. } => IngestError::Busy { retry_after },
        cause @ (StoreError::Rejected(_) | StoreError::Unsupported(_)) => {
            IngestError::Refused { cause }
        }
        cause => IngestError::Unavailable {
            retry_after: RETRY_UNAVAILABLE,
            cause,
        },
    }
}
