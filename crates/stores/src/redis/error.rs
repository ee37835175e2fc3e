//! Converts errors of the Redis driver: what they mean for the caller, and for the circuit breaker.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// What a failed call implies about the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// No response in time.
    Timeout,
    /// The connection broke, or the server reported that it can't serve now.
    Unavailable,
    /// The server reported that another one serves now, or that it is not ready: reconnect, maybe to another server.
    WrongServer,
}

/// Why a request failed. The messages name the server and never contain the request.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ClientError {
    /// No response in time; the request may have taken effect.
    #[error("no response in time")]
    Timeout,
    /// Redis can't be reached, or can't serve now.
    #[error("{0}")]
    Unavailable(String),
    /// Redis has no memory left, and its policy forbids eviction.
    #[error("{0}")]
    Full(String),
    /// Redis rejects the credentials or a command, or can't work as it is configured: an operator must act.
    #[error("{0}")]
    Misconfigured(String),
    /// Redis sent an invalid response.
    #[error("{0}")]
    Protocol(String),
}

/// What an error means for the caller. `server` is the name of the server, for the message.
pub(super) fn meaning(error: &RedisError, server: &str) -> ClientError {
    if error.is_timeout() {
        return ClientError::Timeout;
    }
    let refused = error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM"));
    if refused {
        return ClientError::Misconfigured(format!(
            "{server} rejects the user, the password or a command: {error}"
        ));
    }
    if error.code() == Some("OOM") {
        return ClientError::Full(format!("{server}: {error}"));
    }
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::ReadOnly) => ClientError::Unavailable(format!(
            "{server} is a read-only replica; after a failover its address must point to the new master"
        )),
        ErrorKind::InvalidClientConfig => ClientError::Misconfigured(format!("{server}: {error}")),
        ErrorKind::Server(ServerErrorKind::ResponseError | ServerErrorKind::CrossSlot)
        | ErrorKind::Parse
        | ErrorKind::UnexpectedReturnType => ClientError::Protocol(format!("{server}: {error}")),
        _ => ClientError::Unavailable(format!("{server}: {error}")),
    }
}

/// What an error implies about the server; `None` when only the request is at fault.
pub(super) fn failure(error: &RedisError, is_cluster: bool) -> Option<Failure> {
    if error.is_timeout() {
        return Some(Failure::Timeout);
    }
    match error.kind() {
        ErrorKind::Server(kind) => match kind {
            ServerErrorKind::MasterDown | ServerErrorKind::Moved | ServerErrorKind::ReadOnly => {
                Some(Failure::WrongServer)
            }
            // Reconnecting to a cluster would find the same nodes in the same state.
            ServerErrorKind::BusyLoading | ServerErrorKind::ClusterDown if is_cluster => {
                Some(Failure::Unavailable)
            }
            ServerErrorKind::BusyLoading | ServerErrorKind::ClusterDown => {
                Some(Failure::WrongServer)
            }
            // A slot in migration from one node to another is no failure of a cluster.
            ServerErrorKind::Ask if !is_cluster => Some(Failure::WrongServer),
            _ => None,
        },
        // The connection works but the command fails: out of memory, a failed snapshot, a wrong type.
        ErrorKind::Extension => (error.code() == Some("NOAUTH")).then_some(Failure::Unavailable),
        ErrorKind::UnexpectedReturnType => None,
        _ => Some(Failure::Unavailable),
    }
}
