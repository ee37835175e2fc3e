//! What an error of Redis means for whoever asked.

use redis::{ErrorKind, RedisError, ServerErrorKind};

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
        ErrorKind::InvalidClientConfig => LinkError::Misconfigured(format!("{server}: {error}")),
        ErrorKind::Server(ServerErrorKind::ResponseError | ServerErrorKind::CrossSlot)
        | ErrorKind::Parse
        | ErrorKind::UnexpectedReturnType => LinkError::Protocol(format!("{server}: {error}")),
        _ => LinkError::Unavailable(format!("{server}: {error}")),
    }
}

/// Whether an error says that further calls would fail as well.
pub(super) fn is_about_the_server(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(kind) => matches!(
            kind,
            ServerErrorKind::BusyLoading
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
        ),
        // The connection works, the command does not: out of memory, a failed snapshot, a wrong type.
        ErrorKind::Extension => error.code() == Some("NOAUTH"),
        ErrorKind::UnexpectedReturnType => false,
        _ => true,
    }
}
