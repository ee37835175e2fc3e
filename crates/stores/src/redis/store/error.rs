//! Converts errors of the Redis client to errors of the store.

use crate::redis::ClientError;
use domain::store::StoreError;

/// No error becomes `Rejected`: Redis accepts every valid pair, and pairs must stay in the spool in spite of a wrong
/// password or an outdated server.
impl From<ClientError> for StoreError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Timeout => Self::Timeout("redis".to_owned()),
            ClientError::Full(text) => Self::Full(text),
            ClientError::Unavailable(text)
            | ClientError::Misconfigured(text)
            | ClientError::Protocol(text) => Self::Unavailable(text),
        }
    }
}

/// The error for a response that does not parse.
pub(super) fn invalid_response(what: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("redis sent an invalid response: {what}"))
}
