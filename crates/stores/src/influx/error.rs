//! What can go wrong with InfluxDB, and what the caller of the store can do about it.

use std::time::Duration;

use serde::Deserialize;

use domain::store::StoreError;

/// A failed request. Its text never holds what the server said about lines or values: that may name users.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// No answer, or none that ended.
    #[error("{0}")]
    Transport(String),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// An answer with another status than hoped for.
    #[error("status {}{}", .0.status, .0.code_in_brackets())]
    Status(Box<Answer>),
    /// An answer that began well and ended in an error, or did not end at all.
    #[error("the answer broke off: {0}")]
    BrokenAnswer(String),
    /// An answer that is not what this server sends.
    #[error("the answer makes no sense: {0}")]
    Nonsense(String),
    /// An answer of more bytes than memory is given for.
    #[error("the answer has more than {0} bytes")]
    TooMuch(usize),
    /// The driver or a helper of it panicked.
    #[error("the driver panicked")]
    Panicked,
}

/// What is known of an answer that was no success.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: u16,
    /// The server's own code, as in `not found`; empty when the answer was none of the server's.
    pub(super) code: String,
    /// The server's message. It may echo lines and values: read it, never show it.
    pub(super) message: String,
    /// How long the server asks to wait.
    pub(super) retry_after: Option<Duration>,
}

/// The body of the server's own errors.
#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Answer {
    /// An answer with the server's own error as its body, or with something else.
    pub(super) fn of_body(status: u16, body: &[u8], retry_after: Option<Duration>) -> Self {
        let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
        // Whoever it was that answered, nothing but the shape of the server's own codes gets into a log.
        let code = refusal
            .code
            .chars()
            .filter(|c| c.is_ascii_lowercase() || *c == ' ');
        Self {
            status,
            code: code.take(40).collect(),
            message: refusal.message,
            retry_after,
        }
    }

    fn code_in_brackets(&self) -> String {
        if self.code.is_empty() {
            return String::new();
        }
        format!(" ({})", self.code)
    }

    /// Whether the organisation is missing. For a query that is a 400, unlike for a write.
    fn is_missing_org(&self) -> bool {
        self.message.contains("organization name") && self.message.contains("not found")
    }

    /// Whether the query engine has no room for another query now.
    fn is_query_overload(&self) -> bool {
        self.status == 400
            && [
                "memory allocation limit",
                "queue length exceeded",
                "query queue",
            ]
            .iter()
            .any(|sign| self.message.contains(sign))
    }
}

impl Error {
    /// Whether repeating the very same request may help and can't harm.
    pub(super) fn is_worth_repeating(&self) -> bool {
        match self {
            Self::Transport(_) | Self::TimedOut(_) | Self::BrokenAnswer(_) => true,
            Self::Status(answer) => matches!(answer.status, 408 | 429 | 500..=599),
            Self::Nonsense(_) | Self::TooMuch(_) | Self::Panicked => false,
        }
    }

    /// The status, if there was an answer.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Status(answer) => Some(answer.status),
            _ => None,
        }
    }

    /// How long the server asks to wait before the next try.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status(answer) => answer.retry_after,
            _ => None,
        }
    }
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        let text = format!("InfluxDB: {error}");
        match error {
            Error::TimedOut(_) => Self::Timeout(text),
            Error::Status(answer) => match answer.status {
                401 => Self::Unavailable(format!("{text}: it does not know influx_token")),
                403 => Self::Unavailable(format!("{text}: influx_token lacks a permission")),
                404 => Self::NotSetUp(format!("{text}: no such bucket or organisation")),
                408 => Self::Timeout(text),
                429 => Self::Busy(text),
                400 if answer.is_missing_org() => {
                    Self::NotSetUp(format!("{text}: no such organisation"))
                }
                _ if answer.is_query_overload() => Self::Busy(text),
                400 | 413 | 422 => Self::Rejected(text),
                _ => Self::Unavailable(text),
            },
            Error::TooMuch(_) => Self::Rejected(text),
            _ => Self::Unavailable(text),
        }
    }
}

impl From<reqwest::Error> for Error {
    fn from(error: reqwest::Error) -> Self {
        if error.is_body() || error.is_decode() {
            return Self::BrokenAnswer(root_cause(&error));
        }
        Self::Transport(root_cause(&error))
    }
}

/// The innermost reason: the outer ones repeat the URL and that something failed.
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

    fn status(status: u16, message: &str) -> Error {
        Error::Status(Box::new(Answer {
            status,
            code: "some code".into(),
            message: message.into(),
            retry_after: None,
        }))
    }

    #[test]
    fn each_status_says_what_to_do_next() {
        let name = |code, message: &str| StoreError::from(status(code, message)).name();
        assert_eq!(name(401, ""), "unavailable");
        assert_eq!(name(403, ""), "unavailable");
        assert_eq!(name(404, ""), "not_set_up");
        assert_eq!(name(400, ""), "rejected");
        assert_eq!(
            name(400, "memory allocation limit reached: limit 5"),
            "busy"
        );
        let no_org = "failed to decode request body: organization name \"x\" not found";
        assert_eq!(name(400, no_org), "not_set_up");
        assert_eq!(name(422, ""), "rejected");
        assert_eq!(name(429, ""), "busy");
        assert_eq!(name(503, ""), "unavailable");
        assert_eq!(name(302, ""), "unavailable");
        assert_eq!(
            StoreError::from(Error::TimedOut(Duration::ZERO)).name(),
            "timeout"
        );
    }

    #[test]
    fn only_what_is_safe_is_repeated() {
        for repeated in [408, 429, 500, 503] {
            assert!(status(repeated, "").is_worth_repeating(), "{repeated}");
        }
        for never in [200, 302, 400, 401, 403, 404, 413, 422] {
            assert!(!status(never, "").is_worth_repeating(), "{never}");
        }
    }

    #[test]
    fn what_the_server_said_is_never_shown() {
        let error = status(400, "unable to parse 'pair,segment=s user=\"secret\" 1'");
        assert!(!format!("{}", StoreError::from(error)).contains("secret"));
    }
}
