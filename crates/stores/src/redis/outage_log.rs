//! Logs outages: a line when Redis becomes unavailable, one when the reason changes, and one when it recovers.

use std::time::Duration;

use tokio::time::Instant;

use super::error::ClientError;

/// The shortest interval between two log lines about the same reason, for a server that fails and recovers repeatedly.
const MIN_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct OutageLog {
    user: &'static str,
    meanwhile: &'static str,
    /// The last logged reason and its time, until a connection has served for a while.
    logged: Option<(ClientError, Instant)>,
    is_recovery_logged: bool,
}

impl OutageLog {
    pub(super) fn new(user: &'static str, meanwhile: &'static str) -> Self {
        Self {
            user,
            meanwhile,
            logged: None,
            is_recovery_logged: false,
        }
    }

    /// Redis is unavailable for this reason.
    pub(super) fn down(&mut self, reason: &ClientError) {
        if let Some((last, at)) = &self.logged {
            let is_same = std::mem::discriminant(last) == std::mem::discriminant(reason);
            if is_same && (!self.is_recovery_logged || at.elapsed() < MIN_INTERVAL) {
                return;
            }
        }
        let user = self.user;
        match reason {
            ClientError::Misconfigured(_) => tracing::error!(%reason, "{user} is misconfigured"),
            _ => tracing::warn!(%reason, "{user} is unavailable; {}", self.meanwhile),
        }
        self.logged = Some((reason.clone(), Instant::now()));
        self.is_recovery_logged = false;
    }

    /// Redis is available.
    pub(super) fn up(&mut self, server: &str) {
        if self.logged.is_some() && !self.is_recovery_logged {
            tracing::info!(server, "{} is available again", self.user);
            self.is_recovery_logged = true;
        }
    }

    /// A connection has served for a while: the next failure is a new outage.
    pub(super) fn stable(&mut self) {
        self.logged = None;
    }
}
