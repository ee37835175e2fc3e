//! What a service's silences and refusals mean, in sentences that say what to do next.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::Failure;
use crate::cli::output::harmless;

/// Why there is no answer, or none that helps.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum ClientError {
    #[error("cannot reach {base}: {reason}; is `headcount serve` running?")]
    Unreachable { base: String, reason: String },
    #[error("no answer from {base}: {reason}")]
    Lost { base: String, reason: String },
    #[error("{base} answered {}", .refusal)]
    Refused { base: String, refusal: Box<Refusal> },
    #[error("{base} answered something else than headcount would: {reason}; is this its URL?")]
    Nonsense { base: String, reason: String },
}

/// An answer that is no success.
#[derive(Debug, Default)]
pub(in crate::cli) struct Refusal {
    pub(in crate::cli) status: StatusCode,
    /// The stable code of the problem document, if there was one.
    pub(in crate::cli) code: Option<String>,
    /// What went wrong, in a sentence.
    pub(in crate::cli) detail: Option<String>,
    /// How long the service asks to wait.
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

/// The part of a problem document (RFC 9457) that people need.
#[derive(Deserialize)]
pub(super) struct Problem {
    pub(super) code: Option<String>,
    pub(super) title: Option<String>,
    pub(super) detail: Option<String>,
}

/// The innermost reason, which is the one that says something.
pub(super) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    match cause.downcast_ref::<std::io::Error>() {
        Some(io) if io.kind() == std::io::ErrorKind::ConnectionRefused => {
            "connection refused".into()
        }
        _ => harmless(&cause.to_string()),
    }
}
