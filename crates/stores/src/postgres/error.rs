//! What can go wrong with Postgres, and what the caller of the store can do about it.

use std::time::Duration;

use deadpool_postgres::{HookError, PoolError, TimeoutType};
use tokio_postgres::error::SqlState;

use domain::store::StoreError;

/// A failed call. Its text never holds what the server said about values: that may name users.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The server answered with an error of its own.
    #[error("error {}{}", .code.code(), in_brackets(.message))]
    Server {
        /// Its kind.
        code: SqlState,
        /// What it said, where that can't be about values.
        message: String,
    },
    /// No connection, or one that ended.
    #[error("{0}")]
    Transport(String),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// No new connection in time: an address that says nothing.
    #[error("no connection was made in time")]
    NoneMade,
    /// All connections were in use for too long.
    #[error("no connection became free in time")]
    NoneFree,
    /// The answer is not what these tables give.
    #[error("the answer makes no sense: {0}")]
    Nonsense(String),
    /// The tables are there, and are made for something else.
    #[error("{0}")]
    OtherFrame(String),
    /// The tables are those of an older version.
    #[error("{0}")]
    OldSchema(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl Error {
    /// Whether repeating the same write may help and can't harm: somebody else was in the way, or the
    /// connection ended. A write may be repeated even if it took effect.
    pub(super) fn is_worth_repeating(&self) -> bool {
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

/// A connection that was there and is no more; the next try makes a new one, or fails to.
const CONNECTION_ENDED: &str = "the connection ended";

fn in_brackets(message: &str) -> String {
    if message.is_empty() {
        return String::new();
    }
    format!(" ({message})")
}

/// Messages of these classes are about connections, roles, tables and room, never about values.
fn tells_no_values(code: &SqlState) -> bool {
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
            let message = match tells_no_values(&code) {
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
            Some(std::io::ErrorKind::TimedOut) => Self::NoneMade,
            Some(_) => Self::Transport(cause),
            // Texts of conversions name types and columns.
            None if error.to_string().contains("serializ") => Self::Nonsense(cause),
            None => Self::Transport(cause),
        }
    }
}

impl From<PoolError> for Error {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Timeout(TimeoutType::Wait) => Self::NoneFree,
            PoolError::Timeout(_) => Self::NoneMade,
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
            Error::TimedOut(_) | Error::NoneMade | Error::NoneFree => Self::Timeout(text),
            Error::Nonsense(_) => Self::Damaged(text),
            // Not `Rejected`: what waits in the spool must not be taken for refused.
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
        // Query cancelled by a time-out or a person; a lock was not to be had in time.
        "57014" | "55P03" => StoreError::Timeout(text),
        "53100" => StoreError::Full(text),
        "42501" => StoreError::Unavailable(format!("{text}: the role lacks a privilege")),
        // Data or index corrupted.
        "XX001" | "XX002" => StoreError::Damaged(text),
        _ => match number.get(..2).unwrap_or_default() {
            // Too many connections, out of memory, a limit; and what was tried often enough already.
            "53" | "40" => StoreError::Busy(text),
            // Values that no column takes.
            "22" | "23" => StoreError::Rejected(text),
            _ => StoreError::Unavailable(text),
        },
    }
}

/// The innermost reason: the outer ones repeat that something failed.
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
            assert!(server(code).is_worth_repeating(), "{code}");
        }
        for code in ["57014", "53100", "42P01", "22021"] {
            assert!(!server(code).is_worth_repeating(), "{code}");
        }
        assert!(!Error::Transport("Connection refused".into()).is_worth_repeating());
        assert!(Error::Transport(CONNECTION_ENDED.into()).is_worth_repeating());
    }

    #[test]
    fn messages_about_values_are_dropped() {
        for code in ["22021", "23505", "XX000", "P0001"] {
            assert!(!tells_no_values(&SqlState::from_code(code)), "{code}");
        }
    }
}
