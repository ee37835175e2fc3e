//! What the log says of outages: a line when Redis went away and when the reason changed, and one when it is back.

use std::time::Duration;

use tokio::time::Instant;

use super::error::LinkError;

/// A server that comes and goes is not told of more often than this.
const QUIET: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct OutageLog {
    user: &'static str,
    meanwhile: &'static str,
    /// The reason that was told last, and when, until a connection served for a while.
    told: Option<(LinkError, Instant)>,
    is_back_told: bool,
}

impl OutageLog {
    pub(super) fn new(user: &'static str, meanwhile: &'static str) -> Self {
        Self {
            user,
            meanwhile,
            told: None,
            is_back_told: false,
        }
    }

    /// Redis does not serve, for this reason.
    pub(super) fn away(&mut self, reason: &LinkError) {
        if let Some((last, at)) = &self.told {
            let is_same = std::mem::discriminant(last) == std::mem::discriminant(reason);
            if is_same && (!self.is_back_told || at.elapsed() < QUIET) {
                return;
            }
        }
        let user = self.user;
        match reason {
            LinkError::Misconfigured(_) => tracing::error!(%reason, "{user} needs attention"),
            _ => tracing::warn!(%reason, "{user} is away; {}", self.meanwhile),
        }
        self.told = Some((reason.clone(), Instant::now()));
        self.is_back_told = false;
    }

    /// Redis serves.
    pub(super) fn back(&mut self, server: &str) {
        if self.told.is_some() && !self.is_back_told {
            tracing::info!(server, "{} answers again", self.user);
            self.is_back_told = true;
        }
    }

    /// It served for a while: what comes next is another outage.
    pub(super) fn steady(&mut self) {
        self.told = None;
    }
}
