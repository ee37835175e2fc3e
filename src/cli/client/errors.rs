//! Errors of requests to a service, with messages that say what to do next.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::Failure;
use crate::cli::output::sanitized;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum ClientError {
    #[error("cannot reach {base}: {reason}; is `headcount serve` running?")]
    Unreachable { base: String, reason: String },
    #[error("no response from {base}: {reason}")]
    NoResponse { base: String, reason: String },
    #[error("{base} responded with {}", .refusal)]
    Refused { base: String, refusal: Box<Refusal> },
    #[error("{base} sent an unexpected response: {reason}; is it the URL of a headcount service?")]
    Unexpected { base: String, reason: String },
}

/// A response with an error status.
#[derive(Debug, Default)]
pub(in crate::cli) struct Refusal {
    pub(in crate::cli) status: StatusCode,
    /// The stable code of the problem document, if there is one.
    pub(in crate::cli) code: Option<String>,
    /// The detail or title of the problem document, or the target of a redirect.
    pub(in crate::cli) detail: Option<String>,
    /// The `Retry-After` header, if it is in seconds.
    pub(in crate::cli) retry_after: Option<Duration>,
    /// The body, if it is JSON.
    pub(in crate::cli) body: Option<Value>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.status.as_u16())?;
        match (&self.code, self.status.canonical_reason()) {
            (Some(code), _) => write!(f, " {code}")?,
            (None, Some(reason)) => write!(f, " {reason}")?,
            (None, None) => {}
        }
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        match self.status {
            StatusCode::UNAUTHORIZED => {
                f.write_str("; give --token-file, HEADCOUNT_TOKEN_FILE or HEADCOUNT_TOKEN")
            }
            _ => Ok(()),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The fields of a problem document (RFC 9457) that are displayed.
#[derive(Deserialize)]
pub(super) struct Problem {
    pub(super) code: Option<String>,
    pub(super) title: Option<String>,
    pub(super) detail: Option<String>,
}

/// The innermost cause, which is the most specific.
pub(super) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    match cause.downcast_ref::<std::io::Error>() {
        Some(io) if io.kind() == std::io::ErrorKind::ConnectionRefused => {
            "connection refused".into()
        }
        _ => sanitized(&cause.to_string()),
    }
}
