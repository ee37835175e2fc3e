//! The write path: pairs are validated, limited in number, recorded, and their segments noted.

pub mod erasures;
mod guard;
mod identity;
mod intake;
pub(crate) mod merges;
mod segment_notes;
pub mod spool;
mod spooling_writer;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

pub use guard::{Reservation, SegmentGuard};
pub use identity::Identity;
pub use intake::{Admitted, Intake, PairError};
pub use merges::Merges;
pub use segment_notes::SegmentNotes;
pub use spooling_writer::Recorder;

use self::erasures::Erasures;
use self::spool::Spool;
use self::spooling_writer::SpoolingWriter;
use domain::store::StoreError;
use domain::{Clock, Segment, TimeFrame};

/// The `Retry-After` when the queue is full. A full queue drains within a second.
const RETRY_BUSY: Duration = Duration::from_secs(1);
const BUSY: IngestError = IngestError::Busy {
    retry_after: RETRY_BUSY,
};
/// The `Retry-After` while the store is unavailable. An outage rarely ends sooner.
const RETRY_UNAVAILABLE: Duration = Duration::from_secs(5);

/// Validates and records pairs.
#[derive(Debug)]
pub struct Ingest {
    frame: TimeFrame,
    clock: Arc<dyn Clock>,
    writer: SpoolingWriter,
    guard: Arc<SegmentGuard>,
    identity: Arc<Identity>,
    merges: Arc<Merges>,
    erasures: Arc<Erasures>,
    spool: Option<Arc<Spool>>,
    capacity: Semaphore,
    queue_pairs: u32,
}

/// The dependencies and settings of [`Ingest`].
#[derive(Debug)]
pub struct IngestParts {
    /// The window and resolution, which determine the slot of a pair.
    pub frame: TimeFrame,
    /// The source of the current time.
    pub clock: Arc<dyn Clock>,
    /// Records pairs in the store.
    pub recorder: Arc<Recorder>,
    /// Where pairs wait while the store is unavailable. Without a spool they are refused.
    pub spool: Option<Arc<Spool>>,
    /// Limits the number of segments.
    pub guard: Arc<SegmentGuard>,
    /// Maps received user ids to stored ids.
    pub identity: Arc<Identity>,
    /// The erasures, and the users who count as others.
    pub erasures: Arc<Erasures>,
    /// The maximum number of pairs in progress.
    pub queue_pairs: usize,
    /// The timeout of a write to the store; `None` for a store in this process.
    pub write_timeout: Option<Duration>,
}

/// The result for an accepted batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Where the accepted pairs are.
    pub durability: Durability,
    /// The positions in the batch, ascending, of pairs that the store permanently refuses. They are not accepted.
    pub refused: Vec<usize>,
}

impl Accepted {
    /// The result for a batch whose pairs are all accepted.
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
    /// In the store. Every later count includes them.
    Stored,
    /// In the store, but live counts include them later, because the change feed does not take them now.
    Uncounted,
    /// On this instance's own disk. They are delivered when the store is available again.
    Spooled,
}

/// Why no pair of a batch was accepted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IngestError {
    /// Too many pairs are in progress.
    #[error("too many pairs are waiting; retry in {} s", retry_after.as_secs())]
    Busy {
        /// How long the client should wait before it retries.
        retry_after: Duration,
    },
    /// Neither the store nor a spool can take pairs now.
    #[error("pairs can't be recorded now; retry in {} s", retry_after.as_secs())]
    Unavailable {
        /// How long the client should wait before it retries.
        retry_after: Duration,
        /// The cause, for the log.
        cause: StoreError,
    },
    /// The store refuses some of the pairs although they are valid. A retry fails until an operator fixes the store.
    #[error("the store refuses some of these pairs although they are valid; an operator must act")]
    Refused {
        /// The cause, for the log.
        cause: StoreError,
    },
}

impl Ingest {
    /// Creates the write path.
    pub fn new(parts: IngestParts) -> Self {
        let queue_pairs =
            u32::try_from(parts.queue_pairs.clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Self {
            frame: parts.frame,
            writer: SpoolingWriter::new(
                parts.recorder,
                parts.spool.clone(),
                Arc::clone(&parts.clock),
                parts.write_timeout,
            ),
            clock: parts.clock,
            guard: parts.guard,
            identity: parts.identity,
            merges: Arc::clone(parts.erasures.merges()),
            erasures: parts.erasures,
            spool: parts.spool,
            capacity: Semaphore::new(queue_pairs as usize),
            queue_pairs,
        }
    }

    /// A collector for the pairs of one request, with capacity for about `expected` pairs. All of them are received at the
    /// same instant: now.
    pub fn intake(&self, expected: usize) -> Intake {
        Intake::new(
            self.frame,
            self.clock.now(),
            Arc::clone(&self.guard),
            Arc::clone(&self.identity),
            Arc::clone(&self.merges),
            expected,
        )
    }

    /// Makes pairs durable, except those that the store refuses. On an error no pair counts as accepted, and the client may
    /// send all of them again.
    pub async fn accept(&self, admitted: Admitted) -> Result<Accepted, IngestError> {
        let Admitted {
            mut batch,
            reservation,
            merges,
        } = admitted;
        let spool = self.spool.as_deref();
        // What goes to the spool is not sent before the notes are read.
        if !spool.is_some_and(Spool::store_is_unavailable) {
            self.erasures.catch_up(spool).await;
        }
        if self.merges.version() != merges {
            batch = self.merges.apply(batch);
        }
        if batch.is_empty() {
            return Ok(Accepted::all(Durability::Stored));
        }
        // A batch larger than the queue is admitted when the queue is empty.
        let pairs = u32::try_from(batch.len())
            .unwrap_or(u32::MAX)
            .min(self.queue_pairs);
        let _permit = self.capacity.try_acquire_many(pairs).map_err(|_| BUSY)?;
        let result = self.writer.write(&batch).await.map_err(refusal)?;
        if result.refused.is_empty() {
            reservation.confirm(batch.segments());
        } else {
            let is_accepted = |position: usize| result.refused.binary_search(&position).is_err();
            let accepted = batch.subset(|position, _| is_accepted(position));
            reservation.confirm(accepted.segments());
        }
        Ok(result)
    }

    /// Whether this process accepted pairs of the segment, or the segment was in the last list.
    pub fn knows(&self, segment: &Segment) -> bool {
        self.guard.knows(segment)
    }

    /// The maximum number of segments.
    pub fn max_segments(&self) -> usize {
        self.guard.maximum()
    }

    /// Fails if the queue has no capacity for even one pair, so that a request can be refused before its body is read.
    pub fn check_capacity(&self) -> Result<(), IngestError> {
        match self.capacity.available_permits() {
            0 => Err(BUSY),
            _ => Ok(()),
        }
    }

    /// The number of pairs in progress.
    pub fn queued_pairs(&self) -> usize {
        (self.queue_pairs as usize).saturating_sub(self.capacity.available_permits())
    }

    /// Maps received user ids to stored ids.
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
