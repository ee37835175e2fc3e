//! The edge: validates strings and turns them into pairs, or into errors with the reason.

use std::sync::Arc;

use super::{Identity, Merges, Reservation, SegmentGuard};
use domain::{
    Batch, BatchBuilder, InvalidInstant, InvalidSegment, InvalidUserId, TimeFrame, Timestamp,
    UserId,
};

/// Collects the pairs of one request.
#[derive(Debug)]
pub struct Intake {
    frame: TimeFrame,
    now: Timestamp,
    reservation: Reservation,
    identity: Arc<Identity>,
    merges: Arc<Merges>,
    /// The version of the merges that all pairs have at least.
    version: u64,
    builder: BatchBuilder,
}

/// The valid pairs of one request, and the reservation of their new segments, which lasts until the pairs are accepted or
/// not.
#[derive(Debug)]
pub struct Admitted {
    pub(super) batch: Batch,
    pub(super) reservation: Reservation,
    /// The version of the merges that were applied.
    pub(super) merges: u64,
}

/// Why a pair was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// The user id is invalid.
    #[error(transparent)]
    UserId(#[from] InvalidUserId),
    /// The segment is invalid.
    #[error(transparent)]
    Segment(#[from] InvalidSegment),
    /// The instant is outside of the range that can be recorded.
    #[error(transparent)]
    Instant(#[from] InvalidInstant),
    /// The segment is new, and the maximum number of segments is reached.
    #[error("segment is new, and the limit of {maximum} segments (max_segments) is reached")]
    TooManySegments {
        /// The configured maximum.
        maximum: usize,
    },
    /// The token of the request is bound to other segments.
    #[error("segment is not allowed: the token is bound to other segments")]
    Forbidden,
}

impl PairError {
    /// The stable code in responses.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UserId(_) => "invalid_user_id",
            Self::Segment(_) => "invalid_segment",
            Self::Instant(InvalidInstant::InFuture(_)) => "in_future",
            Self::Instant(InvalidInstant::Expired(_)) => "expired",
            Self::TooManySegments { .. } => "too_many_segments",
            Self::Forbidden => "forbidden_segment",
        }
    }
}

impl Intake {
    pub(super) fn new(
        frame: TimeFrame,
        now: Timestamp,
        guard: Arc<SegmentGuard>,
        identity: Arc<Identity>,
        merges: Arc<Merges>,
        expected: usize,
    ) -> Self {
        Self {
            frame,
            now,
            reservation: Reservation::new(guard),
            identity,
            version: merges.version(),
            merges,
            builder: BatchBuilder::with_capacity(expected),
        }
    }

    /// Adds a pair seen at `at`, or now. A refused pair has no effect.
    pub fn push(
        &mut self,
        user_id: &str,
        segment: &str,
        at: Option<Timestamp>,
    ) -> Result<(), PairError> {
        let user = UserId::received(user_id)?;
        let known = self.builder.find(segment);
        if known.is_none() {
            // An invalid segment takes precedence over an invalid instant.
            domain::Segment::received(segment)?;
        }
        let slot = self.frame.place(at, self.now)?;
        let segment = match known {
            Some(index) => index,
            None => self.builder.admit(self.reservation.admit(segment)?),
        };
        self.identity.with(user, |stored| {
            let current = self.merges.current(stored);
            let user = current.as_ref().unwrap_or(stored);
            self.builder.push(user, segment, slot);
        });
        Ok(())
    }

    /// The number of pairs accepted so far.
    pub fn len(&self) -> usize {
        self.builder.len()
    }

    /// Whether no pair was accepted so far.
    pub fn is_empty(&self) -> bool {
        self.builder.is_empty()
    }

    /// Returns the accepted pairs.
    pub fn finish(self) -> Admitted {
        Admitted {
            batch: self.builder.finish(),
            reservation: self.reservation,
            merges: self.version,
        }
    }
}

impl Admitted {
    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_refused_pair_names_its_reason_and_harms_no_neighbour() {
        let frame = TimeFrame::new(
            Duration::from_secs(600),
            Duration::from_secs(60),
            Duration::from_secs(300),
        )
        .unwrap();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let at = |seconds: i64| Some(Timestamp::from_second(1_800_000_000 + seconds).unwrap());
        let guard = Arc::new(SegmentGuard::new(1));
        let (identity, merges) = (Arc::new(Identity::plain()), Arc::default());
        let mut intake = Intake::new(frame, now, guard, identity, merges, 4);
        intake.push("u1", "a", None).unwrap();
        let code = |result: Result<(), PairError>| result.unwrap_err().code();
        assert_eq!(code(intake.push("", "a", None)), "invalid_user_id");
        assert_eq!(code(intake.push("u", " a", None)), "invalid_segment");
        assert_eq!(code(intake.push("u", "a", at(301))), "in_future");
        assert_eq!(code(intake.push("u", "a", at(-601))), "expired");
        assert_eq!(code(intake.push("u", "b", None)), "too_many_segments");
        intake.push("u2", "a", at(-540)).unwrap();
        let slots: Vec<_> = intake
            .finish()
            .batch
            .pairs()
            .map(|pair| pair.slot.number())
            .collect();
        assert_eq!(slots, [30_000_000, 29_999_991]);
    }
}
