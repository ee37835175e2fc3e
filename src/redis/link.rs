//! The link to Redis: calls with a time limit, a breaker, and one task that restores the connection.
//!
//! A call never connects and never probes. It uses the connection that the task published, or fails at once. So
//! however Redis fails (refuses, hangs, drops packets), a caller waits for `command_timeout` at most, and only the
//! first ones do: they open the breaker, the task probes, everybody else fails at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::connection::Connection;
use super::error::{LinkError, is_about_the_server, meaning};
use super::keeper::keep;
use super::{RedisServer, Request};

/// Failures in a row that open the breaker of a cluster. One dead node must not cost the others' segments, and with
/// the others alive so many in a row are rare.
const CLUSTER_TOLERANCE: u32 = 16;
/// How long a call whose connection broke waits for a new one. A server that is there takes a few milliseconds.
const RECONNECTION: Duration = Duration::from_millis(400);

/// How patient a link is, and what it says in the log.
#[derive(Debug, Clone)]
pub(crate) struct LinkOptions {
    /// Where Redis is.
    pub(crate) server: RedisServer,
    /// The most that a call may take, waiting for a first connection included.
    pub(crate) command_timeout: Duration,
    /// The most that connecting to one server may take. Calls don't wait for it: the background does.
    pub(crate) connect_timeout: Duration,
    /// How often the driver sends a request again that met a moved slot or a node that went away.
    pub(crate) cluster_retries: u32,
    /// How long it waits before that; at most twice as long.
    pub(crate) cluster_retry_wait: Duration,
    /// Who uses the link, for the log: `the cache`.
    pub(crate) user: &'static str,
    /// What happens while Redis is away, for the log.
    pub(crate) meanwhile: &'static str,
}

/// A connection that repairs itself. Dropping it ends its task.
#[derive(Debug)]
pub(crate) struct Link {
    shared: Arc<Shared>,
    command_timeout: Duration,
    is_cluster: bool,
    _keeper: AbortOnDropHandle<()>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) server: String,
    pub(super) state: watch::Sender<State>,
    /// Wakes the task when the breaker opened.
    pub(super) opened: Notify,
    pub(super) failures: AtomicU32,
    tolerance: u32,
}

#[derive(Debug, Clone)]
pub(super) enum State {
    /// Never connected so far; calls wait for the first attempt, within their time.
    Connecting,
    /// Served as the `n`th connection or confirmation.
    Up(Connection, u64),
    /// Failing; calls fail at once with this.
    Down(LinkError),
}

impl Link {
    /// Begins to connect in the background. Must be called within a tokio runtime.
    pub(crate) fn open(options: LinkOptions) -> Self {
        let shared = Arc::new(Shared {
            server: options.server.name.clone(),
            state: watch::Sender::new(State::Connecting),
            opened: Notify::new(),
            failures: AtomicU32::new(0),
            tolerance: if options.server.is_cluster {
                CLUSTER_TOLERANCE
            } else {
                1
            },
        });
        let (command_timeout, is_cluster) = (options.command_timeout, options.server.is_cluster);
        let keeper = tokio::spawn(keep(Arc::clone(&shared), options));
        Self {
            shared,
            command_timeout,
            is_cluster,
            _keeper: AbortOnDropHandle::new(keeper),
        }
    }

    /// One round trip for all requests; their answers in order.
    pub(crate) async fn ask(&self, requests: &[Request<'_>]) -> Result<Vec<Value>, LinkError> {
        let deadline = Instant::now() + self.command_timeout;
        let (connection, generation) = self.connection(deadline).await?;
        self.ask_on(connection, generation, deadline, requests)
            .await
    }

    /// The same for requests that may be repeated: once more, if the connection turned out to be broken and a new
    /// one is there at once. So a server that closed an idle connection, or was restarted, costs nobody an error.
    pub(crate) async fn ask_again(
        &self,
        requests: &[Request<'_>],
    ) -> Result<Vec<Value>, LinkError> {
        let deadline = Instant::now() + self.command_timeout;
        let (connection, generation) = self.connection(deadline).await?;
        let first = self
            .ask_on(connection, generation, deadline, requests)
            .await;
        // The driver of a cluster has repeated it already.
        if self.is_cluster || !matches!(first, Err(LinkError::Unavailable(_))) {
            return first;
        }
        let patience = deadline.min(Instant::now() + RECONNECTION);
        match self.newer(generation, patience).await {
            Some((connection, generation)) => {
                self.ask_on(connection, generation, deadline, requests)
                    .await
            }
            None => first,
        }
    }

    /// What the server, or each master of a cluster, answers to `command`.
    pub(crate) async fn ask_masters(&self, command: &Cmd) -> Result<Vec<Value>, LinkError> {
        let deadline = Instant::now() + self.command_timeout;
        let (mut connection, _) = self.connection(deadline).await?;
        match tokio::time::timeout_at(deadline, connection.ask_masters(command)).await {
            Ok(answers) => answers.map_err(|error| meaning(&error, &self.shared.server)),
            Err(_) => Err(LinkError::Timeout),
        }
    }

    /// Which connection calls use now, by number; it changes when the connection was found broken.
    pub(crate) async fn generation(&self) -> Result<u64, LinkError> {
        let deadline = Instant::now() + self.command_timeout;
        self.connection(deadline)
            .await
            .map(|(_, generation)| generation)
    }

    async fn ask_on(
        &self,
        mut connection: Connection,
        generation: u64,
        deadline: Instant,
        requests: &[Request<'_>],
    ) -> Result<Vec<Value>, LinkError> {
        let answer = tokio::time::timeout_at(deadline, connection.ask(requests)).await;
        match answer {
            Ok(Ok(answers)) => {
                self.shared.failures.store(0, Ordering::Relaxed);
                Ok(answers)
            }
            Ok(Err(error)) => {
                let reason = meaning(&error, &self.shared.server);
                if is_about_the_server(&error) {
                    self.shared.failed(generation, &reason);
                }
                Err(reason)
            }
            Err(_) => {
                self.shared.failed(generation, &LinkError::Timeout);
                Err(LinkError::Timeout)
            }
        }
    }

    /// A round trip of its own, so that a probe of health proves something.
    pub(crate) async fn ping(&self) -> Result<(), LinkError> {
        let deadline = Instant::now() + self.command_timeout;
        let (mut connection, generation) = self.connection(deadline).await?;
        let reason = match tokio::time::timeout_at(deadline, connection.ping()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => meaning(&error, &self.shared.server),
            Err(_) => LinkError::Timeout,
        };
        self.shared.failed(generation, &reason);
        Err(reason)
    }

    /// The connection that follows on the one of this generation, if it is there in time.
    async fn newer(&self, generation: u64, deadline: Instant) -> Option<(Connection, u64)> {
        let mut state = self.shared.state.subscribe();
        if matches!(&*state.borrow(), State::Up(_, current) if *current == generation) {
            // What failed was not the connection.
            return None;
        }
        let is_newer =
            |state: &State| matches!(state, State::Up(_, current) if *current > generation);
        let state = tokio::time::timeout_at(deadline, state.wait_for(is_newer)).await;
        match &*state.ok()?.ok()? {
            State::Up(connection, generation) => Some((connection.clone(), *generation)),
            State::Connecting | State::Down(_) => None,
        }
    }

    async fn connection(&self, deadline: Instant) -> Result<(Connection, u64), LinkError> {
        if let State::Up(connection, generation) = &*self.shared.state.borrow() {
            return Ok((connection.clone(), *generation));
        }
        let mut state = self.shared.state.subscribe();
        let known = state.wait_for(|state| !matches!(state, State::Connecting));
        match tokio::time::timeout_at(deadline, known).await {
            Ok(Ok(state)) => match &*state {
                State::Up(connection, generation) => Ok((connection.clone(), *generation)),
                State::Down(reason) => Err(reason.clone()),
                State::Connecting => Err(LinkError::Timeout),
            },
            // The sender lives as long as this link.
            Ok(Err(_)) | Err(_) => Err(LinkError::Timeout),
        }
    }
}

impl Shared {
    /// A call failed on the connection of this generation.
    fn failed(&self, generation: u64, reason: &LinkError) {
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 < self.tolerance {
            return;
        }
        let opened = self.state.send_if_modified(|state| {
            // A failure on a former connection says nothing about this one.
            if !matches!(state, State::Up(_, current) if *current == generation) {
                return false;
            }
            *state = State::Down(unavailable(&self.server, reason));
            true
        });
        if opened {
            self.opened.notify_one();
        }
    }
}

/// What calls are told while the breaker is open.
pub(super) fn unavailable(server: &str, reason: &LinkError) -> LinkError {
    match reason {
        LinkError::Timeout => LinkError::Unavailable(format!("{server} did not answer in time")),
        other => other.clone(),
    }
}
