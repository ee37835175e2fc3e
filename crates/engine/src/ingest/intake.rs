//! The edge: texts become pairs here, or an error that names what is wrong.

use std::sync::Arc;

use super::{Identity, Places, SegmentGuard};
use domain::{
    Batch, BatchBuilder, InvalidInstant, InvalidSegment, InvalidUserId, TimeFrame, Timestamp,
    UserId,
};

/// Collects the pairs of one request.
#[derive(Debug)]
pub struct Intake {
    frame: TimeFrame,
    now: Timestamp,
    places: Places,
    identity: Arc<Identity>,
    builder: BatchBuilder,
}

/// The pairs of one request that passed the edge, with the places that their new segments hold until it is known
/// what becomes of them.
#[derive(Debug)]
pub struct Admitted {
    pub(super) batch: Batch,
    pub(super) places: Places,
}

/// Why a pair was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// The user id is none.
    #[error(transparent)]
    UserId(#[from] InvalidUserId),
    /// The segment is none.
    #[error(transparent)]
    Segment(#[from] InvalidSegment),
    /// The instant can't be recorded.
    #[error(transparent)]
    Instant(#[from] InvalidInstant),
    /// The segment is new, and there are as many as may be.
    #[error("segment is new, and there are {maximum} already; max_segments is the limit")]
    TooManySegments {
        /// The configured maximum.
        maximum: usize,
    },
    /// The token that came with it is for other segments.
    #[error("segment is beyond those that the token is bound to")]
    Forbidden,
}

impl PairError {
    /// The stable code that clients see.
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
        expected: usize,
    ) -> Self {
        Self {
            frame,
            now,
            places: Places::new(guard),
            identity,
            builder: BatchBuilder::with_capacity(expected),
        }
    }

    /// Adds a pair seen at `at`, or now. A refused pair changes nothing.
    pub fn push(
        &mut self,
        user_id: &str,
        segment: &str,
        at: Option<Timestamp>,
    ) -> Result<(), PairError> {
        let user = UserId::received(user_id)?;
        let known = self.builder.find(segment);
        if known.is_none() {
            // Name what is wrong with the segment before what is wrong with its time.
            domain::Segment::received(segment)?;
        }
        let slot = self.frame.place(at, self.now)?;
        let segment = match known {
            Some(index) => index,
            None => self.builder.admit(self.places.admit(segment)?),
        };
        self.identity
            .with(user, |stored| self.builder.push(stored, segment, slot));
        Ok(())
    }

    /// How many pairs were accepted so far.
    pub fn len(&self) -> usize {
        self.builder.len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.builder.is_empty()
    }

    /// The accepted pairs.
    pub fn finish(self) -> Admitted {
        Admitted {
            batch: self.builder.finish(),
            places: self.places,
        }
    }
}

impl Admitted {
    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether there are none.
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
        let mut intake = Intake::new(frame, now, guard, Arc::new(Identity::plain()), 4);
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
