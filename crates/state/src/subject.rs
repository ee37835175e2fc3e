//! What an erasure removes: a user, a segment, or a user from one segment.

use domain::Segment;
use index::Fingerprint;

/// What an erasure removes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Every pair of a user.
    User(Fingerprint),
    /// Every pair of a segment.
    Segment(Segment),
    /// The pair of a segment and a user.
    Pair(Segment, Fingerprint),
}

impl Subject {
    /// Whether it removes a pair.
    pub(super) fn has(&self, segment: &Segment, user: Fingerprint) -> bool {
        match self {
            Self::User(erased) => *erased == user,
            Self::Segment(erased) => erased == segment,
            Self::Pair(of, erased) => (of, *erased) == (segment, user),
        }
    }
}
