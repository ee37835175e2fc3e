//! Errors of calls to Postgres, and their conversion to [`StoreError`].

use std::time::Duration;

use deadpool_postgres::{HookError, PoolError, TimeoutType};
use tokio_postgres::error::SqlState;

use domain::store::StoreError;

/// A failed call. The message never contains the server's message about values, which may name users.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The server returned an error.
    #[error("error {}{}", .code.code(), in_brackets(.message))]
    Server {
        /// The SQLSTATE code.
        code: SqlState,
        /// The server's message; empty if it may contain values.
        message: String,
    },
    /// The connection failed or ended.
    #[error("{0}")]
    Transport(String),
    /// No response within this time.
    #[error("no response within {0:?}")]
    TimedOut(Duration),
    /// A new connection timed out: the address does not respond.
    #[error("connecting timed out")]
    ConnectTimedOut,
    /// All connections of the pool stayed in use.
    #[error("no connection of the pool became free in time")]
    PoolTimedOut,
    /// The result does not match the tables.
    #[error("invalid response: {0}")]
    InvalidResponse(String),
    /// The tables exist, but have another resolution or `user_key`.
    #[error("{0}")]
    OtherFrame(String),
    /// The tables are incomplete or of an older version.
    #[error("{0}")]
    OldSchema(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl Error {
    /// Whether the write failed because the role, or the session, may only read.
    pub(super) fn is_missing_write_access(&self) -> bool {
        matches!(self, Self::Server { code, .. }
            if *code == SqlState::INSUFFICIENT_PRIVILEGE
                || *code == SqlState::READ_ONLY_SQL_TRANSACTION)
    }

    /// Whether a retry of the same write may succeed: another transaction was in the way, or the connection ended. A retry
    /// is safe even if the write took effect.
    pub(super) fn is_retryable(&self) -> bool {
        match self {
            Self::Server { code, .. } => {
                *code == SqlState::T_R_DEADLOCK_DETECTED
                    || *code == SqlState::T_R_SERIALIZATION_FAILURE
                    || *code == SqlState::ADMIN_SHUTDOWN
                    || *code == SqlState::CRASH_SHUTDOWN
            }
            Self::Transport(what) => what == CONNECTION_ENDED,
            _ => false,
        }
    }
}

/// An established connection ended. A retry opens a new connection, or fails to.
const CONNECTION_ENDED: &str = "the connection ended";

fn in_brackets(message: &str) -> String {
    if message.is_empty() {
        return String::new();
    }
    format!(" ({message})")
}

/// Whether a message is free of values. Messages of these classes are about connections, roles, tables and resources.
fn has_no_values(code: &SqlState) -> bool {
    let class = code.code().get(..2).unwrap_or_default();
    matches!(
        class,
        "08" | "25" | "28" | "3D" | "3F" | "40" | "42" | "53" | "57" | "58"
    )
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(server) = error.as_db_error() {
            let code = server.code().clone();
            let message = match has_no_values(&code) {
                true => server.message().to_owned(),
                false => String::new(),
            };
            return Self::Server { code, message };
        }
        if error.is_closed() {
            return Self::Transport(CONNECTION_ENDED.to_owned());
        }
        let cause = root_cause(&error);
        let mut sources =
            std::iter::successors(std::error::Error::source(&error), |error| (*error).source());
        let broke = sources
            .find_map(|error| error.downcast_ref::<std::io::Error>())
            .map(std::io::Error::kind);
        match broke {
            Some(
                std::io::ErrorKind::ConnectionReset
                | std::io::ErrorKind::BrokenPipe
                | std::io::ErrorKind::UnexpectedEof
                | std::io::ErrorKind::ConnectionAborted,
            ) => Self::Transport(CONNECTION_ENDED.to_owned()),
            Some(std::io::ErrorKind::TimedOut) => Self::ConnectTimedOut,
            Some(_) => Self::Transport(cause),
            // A failed conversion: the message contains only types and columns.
            None if error.to_string().contains("serializ") => Self::InvalidResponse(cause),
            None => Self::Transport(cause),
        }
    }
}

impl From<PoolError> for Error {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Timeout(TimeoutType::Wait) => Self::PoolTimedOut,
            PoolError::Timeout(_) => Self::ConnectTimedOut,
            PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => {
                error.into()
            }
            PoolError::PostCreateHook(HookError::Message(text)) => {
                Self::Transport(text.into_owned())
            }
            PoolError::Closed => Self::Closed,
            PoolError::NoRuntimeSpecified => Self::Transport("no runtime".to_owned()),
        }
    }
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        let text = format!("Postgres: {error}");
        match error {
            Error::Server { code, .. } => of_state(&code, text),
            Error::Transport(_) => Self::Unavailable(text),
            Error::TimedOut(_) | Error::ConnectTimedOut | Error::PoolTimedOut => {
                Self::Timeout(text)
            }
            Error::InvalidResponse(_) => Self::Damaged(text),
            // Not `Rejected`: pairs in the spool must not count as refused.
            Error::OtherFrame(_) => Self::Damaged(text),
            Error::OldSchema(_) => Self::NotSetUp(text),
            Error::Closed => Self::Closed,
        }
    }
}

/// See the appendix "PostgreSQL Error Codes" of its manual; the first two characters are the class.
fn of_state(code: &SqlState, text: String) -> StoreError {
    let number = code.code();
    match number {
        // Undefined table, column, function; no such schema.
        "42P01" | "42703" | "42883" | "3F000" => StoreError::NotSetUp(text),
        "3D000" => StoreError::Unavailable(format!("{text}: create it, then `headcount setup`")),
        // Query cancelled by a timeout or a person; lock not available in time.
        "57014" | "55P03" => StoreError::Timeout(text),
        "53100" => StoreError::Full(text),
        "42501" => StoreError::Unavailable(format!("{text}: the role lacks a privilege")),
        // Data or index corrupted.
        "XX001" | "XX002" => StoreError::Damaged(text),
        _ => match number.get(..2).unwrap_or_default() {
            // Too many connections, out of memory, another limit; and conflicts that persisted through all retries.
            "53" | "40" => StoreError::Busy(text),
            // Values that a column does not accept.
            "22" | "23" => StoreError::Rejected(text),
            _ => StoreError::Unavailable(text),
        },
    }
}

/// The innermost cause. The outer messages only repeat that the call failed.
pub(super) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: &str) -> Error {
        Error::Server {
            code: SqlState::from_code(code),
            message: String::new(),
        }
    }

    #[test]
    fn each_state_says_what_to_do_next() {
        for (code, name) in [
            ("08006", "unavailable"),
            ("25006", "unavailable"),
            ("28P01", "unavailable"),
            ("3D000", "unavailable"),
            ("40P01", "busy"),
            ("40001", "busy"),
            ("42501", "unavailable"),
            ("42P01", "not_set_up"),
            ("53100", "full"),
            ("53200", "busy"),
            ("53300", "busy"),
            ("57014", "timeout"),
            ("57P01", "unavailable"),
            ("57P03", "unavailable"),
            ("22021", "rejected"),
            ("23514", "rejected"),
            ("XX000", "unavailable"),
            ("XX001", "damaged"),
        ] {
            assert_eq!(StoreError::from(server(code)).name(), name, "{code}");
        }
    }

    #[test]
    fn only_what_is_safe_and_may_help_is_repeated() {
        for code in ["40001", "40P01", "57P01"] {
            assert!(server(code).is_retryable(), "{code}");
        }
        for code in ["57014", "53100", "42P01", "22021"] {
            assert!(!server(code).is_retryable(), "{code}");
        }
        assert!(!Error::Transport("Connection refused".into()).is_retryable());
        assert!(Error::Transport(CONNECTION_ENDED.into()).is_retryable());
    }

    #[test]
    fn missing_write_access_is_told_apart() {
        for code in ["42501", "25006"] {
            assert!(server(code).is_missing_write_access(), "{code}");
        }
        for code in ["42P01", "40001", "57P01"] {
            assert!(!server(code).is_missing_write_access(), "{code}");
        }
    }

    #[test]
    fn messages_about_values_are_dropped() {
        for code in ["22021", "23505", "XX000", "P0001"] {
            assert!(!has_no_values(&SqlState::from_code(code)), "{code}");
        }
    }
}
