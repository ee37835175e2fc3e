//! What an error of Redis means for whoever asked.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// What a failed call says of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// No answer in time.
    Silence,
    /// The connection broke, or the server said that it can't serve now.
    Away,
    /// It said that others serve now, or that it is not ready to: connect anew, maybe to another.
    Misled,
}

/// Why a request has no answer. The texts name the server and never hold what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LinkError {
    /// No answer in time; the request may have taken effect.
    #[error("no answer in time")]
    Timeout,
    /// Redis can't be reached, or can't work now.
    #[error("{0}")]
    Unavailable(String),
    /// Redis has no memory left, and may not evict.
    #[error("{0}")]
    Full(String),
    /// Redis refuses who asks, or can't work as it is configured: somebody must act.
    #[error("{0}")]
    Misconfigured(String),
    /// Redis answered something that is no answer.
    #[error("{0}")]
    Protocol(String),
}

/// What an error means for the caller. `server` is the name of the server for the text.
pub(super) fn meaning(error: &RedisError, server: &str) -> LinkError {
    if error.is_timeout() {
        return LinkError::Timeout;
    }
    let refused = error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM"));
    if refused {
        return LinkError::Misconfigured(format!(
            "{server} refuses the user, the password or a command: {error}"
        ));
    }
    if error.code() == Some("OOM") {
        return LinkError::Full(format!("{server}: {error}"));
    }
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::ReadOnly) => LinkError::Unavailable(format!(
            "{server} is a read-only replica; after a failover its address must lead to the new master"
        )),
        ErrorKind::InvalidClientConfig => LinkError::Misconfigured(format!("{server}: {error}")),
        ErrorKind::Server(ServerErrorKind::ResponseError | ServerErrorKind::CrossSlot)
        | ErrorKind::Parse
        | ErrorKind::UnexpectedReturnType => LinkError::Protocol(format!("{server}: {error}")),
        _ => LinkError::Unavailable(format!("{server}: {error}")),
    }
}

/// What an error says of the server; nothing when it is about the request alone.
pub(super) fn failure(error: &RedisError, is_cluster: bool) -> Option<Failure> {
    if error.is_timeout() {
        return Some(Failure::Silence);
    }
    match error.kind() {
        ErrorKind::Server(kind) => match kind {
            ServerErrorKind::MasterDown | ServerErrorKind::Moved | ServerErrorKind::ReadOnly => {
                Some(Failure::Misled)
            }
            // Connecting to a cluster anew would find the same nodes in the same state.
            ServerErrorKind::BusyLoading | ServerErrorKind::ClusterDown if is_cluster => {
                Some(Failure::Away)
            }
            ServerErrorKind::BusyLoading | ServerErrorKind::ClusterDown => Some(Failure::Misled),
            // A slot on its way from one node to another is no fault of a cluster.
            ServerErrorKind::Ask if !is_cluster => Some(Failure::Misled),
            _ => None,
        },
        // The connection works, the command does not: out of memory, a failed snapshot, a wrong type.
        ErrorKind::Extension => (error.code() == Some("NOAUTH")).then_some(Failure::Away),
        ErrorKind::UnexpectedReturnType => None,
        _ => Some(Failure::Away),
    }
}
