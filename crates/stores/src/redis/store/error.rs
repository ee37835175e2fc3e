//! What the caller of the store can do about a failure of Redis.

use crate::redis::LinkError;
use domain::store::StoreError;

/// Nothing here is `Rejected`: Redis takes every valid pair, and a pair that waits in the spool must outlive a wrong
/// password or an old server.
impl From<LinkError> for StoreError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Timeout => Self::Timeout("redis".to_owned()),
            LinkError::Full(text) => Self::Full(text),
            LinkError::Unavailable(text)
            | LinkError::Misconfigured(text)
            | LinkError::Protocol(text) => Self::Unavailable(text),
        }
    }
}

/// An answer that is none.
pub(super) fn nonsense(what: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("redis answered nonsense: {what}"))
}
