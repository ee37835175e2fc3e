//! Errors of requests to InfluxDB, and their conversion to [`StoreError`].

use std::time::Duration;

use serde::Deserialize;

use domain::store::StoreError;

/// A failed request. The message never contains the server's message about lines or values, which may name users.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// No connection, or a connection that broke before the response.
    #[error("{0}")]
    Transport(String),
    /// No response within this time.
    #[error("no response within {0:?}")]
    TimedOut(Duration),
    /// A response with an error status.
    #[error("status {}{}", .0.status, .0.code_in_brackets())]
    Status(Box<ErrorResponse>),
    /// A response that started with success, and then ended in an error or was cut off.
    #[error("the response broke off: {0}")]
    BrokenResponse(String),
    /// A response that InfluxDB would not send.
    #[error("invalid response: {0}")]
    InvalidResponse(String),
    /// A response that exceeds this size limit in bytes.
    #[error("the response has more than {0} bytes")]
    TooLarge(usize),
    /// The driver, or a task that delivers writes, panicked.
    #[error("the driver or a write task panicked")]
    Panicked,
}

/// The relevant parts of an error response.
#[derive(Debug, Default)]
pub(super) struct ErrorResponse {
    /// The HTTP status.
    pub(super) status: u16,
    /// The server's error code, as in `not found`. Empty if the body is not an error of InfluxDB.
    pub(super) code: String,
    /// The server's message, for matching only. It may echo lines and values, so it must never be shown.
    pub(super) message: String,
    /// The delay that the server requests.
    pub(super) retry_after: Option<Duration>,
}

/// The body of an InfluxDB error response.
#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl ErrorResponse {
    /// Parses the body of an error response, which may come from InfluxDB or from something in between.
    pub(super) fn of_body(status: u16, body: &[u8], retry_after: Option<Duration>) -> Self {
        let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
        // The response may come from anything in between, so only the characters of InfluxDB's codes get into the log.
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

    /// Whether the organisation is missing. A query gets status 400 for that, unlike a write.
    fn is_missing_org(&self) -> bool {
        self.message.contains("organization name") && self.message.contains("not found")
    }

    /// Whether the query engine has no capacity for another query.
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
    /// Whether a retry of the same request is safe and may succeed.
    pub(super) fn is_retryable(&self) -> bool {
        match self {
            Self::Transport(_) | Self::TimedOut(_) | Self::BrokenResponse(_) => true,
            Self::Status(response) => matches!(response.status, 408 | 429 | 500..=599),
            Self::InvalidResponse(_) | Self::TooLarge(_) | Self::Panicked => false,
        }
    }

    /// The HTTP status, if there was an error response.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Status(response) => Some(response.status),
            _ => None,
        }
    }

    /// The delay before the next attempt that the server requests.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status(response) => response.retry_after,
            _ => None,
        }
    }
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        let text = format!("InfluxDB: {error}");
        match error {
            Error::TimedOut(_) => Self::Timeout(text),
            Error::Status(response) => match response.status {
                401 => Self::Unavailable(format!("{text}: influx_token is not valid")),
                403 => Self::Unavailable(format!("{text}: influx_token lacks a permission")),
                404 => Self::NotSetUp(format!("{text}: no such bucket or organisation")),
                408 => Self::Timeout(text),
                429 => Self::Busy(text),
                400 if response.is_missing_org() => {
                    Self::NotSetUp(format!("{text}: no such organisation"))
                }
                _ if response.is_query_overload() => Self::Busy(text),
                400 | 413 | 422 => Self::Rejected(text),
                _ => Self::Unavailable(text),
            },
            Error::TooLarge(_) => Self::Rejected(text),
            _ => Self::Unavailable(text),
        }
    }
}

impl From<reqwest::Error> for Error {
    fn from(error: reqwest::Error) -> Self {
        if error.is_body() || error.is_decode() {
            return Self::BrokenResponse(root_cause(&error));
        }
        Self::Transport(root_cause(&error))
    }
}

/// The innermost cause. The outer messages only repeat the URL and that the request failed.
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
        Error::Status(Box::new(ErrorResponse {
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
            assert!(status(repeated, "").is_retryable(), "{repeated}");
        }
        for never in [200, 302, 400, 401, 403, 404, 413, 422] {
            assert!(!status(never, "").is_retryable(), "{never}");
        }
    }

    #[test]
    fn what_the_server_said_is_never_shown() {
        let error = status(400, "unable to parse 'pair,segment=s user=\"secret\" 1'");
        assert!(!format!("{}", StoreError::from(error)).contains("secret"));
    }
}
