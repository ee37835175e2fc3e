//! What is erased: a user, a segment, or a user from one segment.

use domain::store::{PairStore, StoreError};
use domain::{Erasure, Segment, Timestamp, UserId, Window};

/// What is erased. Users are stored ids.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target<'a> {
    /// Every pair of a user.
    User(&'a UserId<'a>),
    /// Every pair of a segment.
    Segment {
        segment: &'a Segment,
        /// The windows over which it may have a trend.
        windows: &'a [Window],
    },
    /// The pair of a segment and a user.
    Pair(&'a Segment, &'a UserId<'a>),
}

impl Target<'_> {
    /// The note of the erasure.
    pub(crate) fn erasure(&self, at: Timestamp) -> Erasure {
        match self {
            Self::User(user) => Erasure::of(user, at),
            Self::Segment { segment, .. } => Erasure::of_segment(segment, at),
            Self::Pair(segment, user) => Erasure::of_pair(segment, user, at),
        }
    }

    /// Erases it from the store, a segment with its trend. Returns the number of segments that had the user, or
    /// of users that the segment had.
    pub(crate) async fn erase_from(
        &self,
        store: &dyn PairStore,
        as_of: Timestamp,
    ) -> Result<u64, StoreError> {
        match self {
            Self::User(user) => store.forget(user, as_of).await,
            Self::Segment { segment, windows } => store.drop_segment(segment, windows, as_of).await,
            Self::Pair(segment, user) => {
                let erased = store.forget_in(segment, user, as_of).await?;
                Ok(u64::from(erased))
            }
        }
    }
}
