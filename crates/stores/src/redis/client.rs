//! The Redis client: calls with a timeout, a circuit breaker, and one background task that reconnects.
//!
//! A call never connects and never probes. It uses the connection that the task published, or fails at once. So
//! however Redis fails (refuses, hangs, drops packets), a caller waits for at most the timeout of its own request.
//! Only the first callers wait: once the task has detected that Redis is unavailable, every call fails at once.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::breaker::{Breaker, State};
use super::chunks::ChunkLimits;
use super::connection::Connection;
use super::error::{ClientError, Failure, failure, meaning};
use super::reconnect::reconnect;
use super::{RedisServer, Request};
use supervisor::Watch;

/// How long a call whose connection broke waits for a new one, or a fifth of the call's timeout where that is longer.
/// An available server accepts a connection within a few milliseconds.
const RECONNECTION: Duration = Duration::from_millis(400);

/// The server, the timeouts of a client, and its wording in the log.
#[derive(Debug, Clone)]
pub(crate) struct ClientOptions {
    /// The address of the server or cluster.
    pub(crate) server: RedisServer,
    /// How requests are split into chunks, and the timeout of each chunk, which includes waiting for a first connection.
    pub(crate) limits: ChunkLimits,
    /// The timeout for connecting to one server. Calls don't wait for it: the background task does.
    pub(crate) connect_timeout: Duration,
    /// How often the driver retries a request after a moved slot or an unavailable node.
    pub(crate) cluster_retries: u32,
    /// The shortest wait before such a retry; the longest is twice as long.
    pub(crate) cluster_retry_wait: Duration,
    /// The user of the client, for the log: `the cache`.
    pub(crate) user: &'static str,
    /// What happens while Redis is unavailable, for the log.
    pub(crate) meanwhile: &'static str,
}

/// A client that reconnects in the background. Dropping it ends its task.
#[derive(Debug)]
pub(crate) struct Client {
    breaker: Arc<Breaker>,
    limits: ChunkLimits,
    /// One permit for each chunk in flight that is not small.
    permits: Semaphore,
    /// The timeout of a health check.
    ping_timeout: Duration,
    _reconnect: AbortOnDropHandle<()>,
}

impl Client {
    /// Starts to connect in the background. Must be called within a tokio runtime.
    pub(crate) fn open(options: ClientOptions) -> Self {
        let name = options.server.name.clone();
        let breaker = Arc::new(Breaker::new(name, options.server.is_cluster));
        let limits = options.limits;
        let ping_timeout = options.connect_timeout.max(limits.base_timeout);
        let shared = Arc::clone(&breaker);
        let task = tokio::spawn(async move {
            // The task is aborted when the client is dropped.
            let never = CancellationToken::new();
            let make = || reconnect(Arc::clone(&shared), options.clone());
            Watch::default()
                .keep_alive("redis connection", &never, make)
                .await;
        });
        Self {
            breaker,
            limits,
            permits: Semaphore::new(limits.max_in_flight.min(Semaphore::MAX_PERMITS)),
            ping_timeout,
            _reconnect: AbortOnDropHandle::new(task),
        }
    }

    /// Returns the responses to all requests, in order; one round trip for each chunk.
    pub(crate) async fn send(&self, requests: &[Request<'_>]) -> Result<Vec<Value>, ClientError> {
        let mut responses = Vec::with_capacity(requests.len());
        for chunk in self.limits.split(requests) {
            let _permit = self.permit(chunk).await;
            let deadline = Instant::now() + self.limits.timeout(chunk);
            let (connection, generation) = self.connection(deadline).await?;
            let sent = self
                .send_chunk(connection, generation, deadline, chunk)
                .await;
            responses.append(&mut sent?);
        }
        Ok(responses)
    }

    /// The same for idempotent requests: retries once if the connection turned out to be broken and a new one is
    /// published in time. So an idle connection that the server closed, or a restart of the server, causes no error.
    pub(crate) async fn send_with_retry(
        &self,
        requests: &[Request<'_>],
    ) -> Result<Vec<Value>, ClientError> {
        let mut responses = Vec::with_capacity(requests.len());
        for chunk in self.limits.split(requests) {
            let _permit = self.permit(chunk).await;
            responses.append(&mut self.send_chunk_with_retry(chunk).await?);
        }
        Ok(responses)
    }

    async fn send_chunk_with_retry(
        &self,
        chunk: &[Request<'_>],
    ) -> Result<Vec<Value>, ClientError> {
        let deadline = Instant::now() + self.limits.timeout(chunk);
        let (connection, generation) = self.connection(deadline).await?;
        let first = self
            .send_chunk(connection, generation, deadline, chunk)
            .await;
        // The cluster driver has retried it already.
        if self.breaker.is_cluster || !matches!(first, Err(ClientError::Unavailable(_))) {
            return first;
        }
        let reconnect_deadline =
            deadline.min(Instant::now() + RECONNECTION.max(self.limits.timeout(chunk) / 5));
        match self.newer(generation, reconnect_deadline).await {
            Some((connection, generation)) => {
                self.send_chunk(connection, generation, deadline, chunk)
                    .await
            }
            None => first,
        }
    }

    /// Returns the response of the server, or of each master of a cluster, to `command`.
    pub(crate) async fn send_to_masters(&self, command: &Cmd) -> Result<Vec<Value>, ClientError> {
        let deadline = Instant::now() + self.limits.base_timeout;
        let (mut connection, _) = self.connection(deadline).await?;
        match timeout_at(deadline, connection.send_to_masters(command)).await {
            Ok(responses) => responses.map_err(|error| meaning(&error, &self.breaker.server)),
            Err(_) => Err(ClientError::Timeout),
        }
    }

    /// The number of the connection in use. It changes when a broken connection is replaced.
    pub(crate) async fn generation(&self) -> Result<u64, ClientError> {
        let deadline = Instant::now() + self.limits.base_timeout;
        self.connection(deadline)
            .await
            .map(|(_, generation)| generation)
    }

    async fn permit(&self, chunk: &[Request<'_>]) -> Option<tokio::sync::SemaphorePermit<'_>> {
        if ChunkLimits::is_small(chunk) {
            return None;
        }
        // The semaphore is never closed. Each call that holds a permit has a timeout, so the wait ends.
        self.permits.acquire().await.ok()
    }

    async fn send_chunk(
        &self,
        mut connection: Connection,
        generation: u64,
        deadline: Instant,
        chunk: &[Request<'_>],
    ) -> Result<Vec<Value>, ClientError> {
        let began = Instant::now();
        match timeout_at(deadline, connection.send(chunk)).await {
            Ok(Ok(responses)) => {
                self.breaker.succeeded();
                Ok(responses)
            }
            Ok(Err(error)) => {
                let reason = meaning(&error, &self.breaker.server);
                match failure(&error, self.breaker.is_cluster) {
                    Some(failure) => self.breaker.failed(generation, began, failure, &reason),
                    None => self.breaker.succeeded(),
                }
                Err(reason)
            }
            Err(_) => {
                let reason = ClientError::Timeout;
                self.breaker
                    .failed(generation, began, Failure::Timeout, &reason);
                Err(reason)
            }
        }
    }

    /// A health check: sends a `PING` of its own instead of relying on the last known state.
    pub(crate) async fn ping(&self) -> Result<(), ClientError> {
        let deadline = Instant::now() + self.ping_timeout;
        let (mut connection, generation) = self.connection(deadline).await?;
        let began = Instant::now();
        let (failure, reason) = match timeout_at(deadline, connection.ping()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => {
                let failure = failure(&error, self.breaker.is_cluster);
                (failure, meaning(&error, &self.breaker.server))
            }
            Err(_) => (Some(Failure::Timeout), ClientError::Timeout),
        };
        if let Some(failure) = failure {
            self.breaker.failed(generation, began, failure, &reason);
        }
        Err(reason)
    }

    /// The connection that replaces the one of this generation, if it is published before the deadline.
    async fn newer(&self, generation: u64, deadline: Instant) -> Option<(Connection, u64)> {
        let mut state = self.breaker.state.subscribe();
        if matches!(&*state.borrow(), State::Up(_, current) if *current == generation) {
            // The connection did not break; the request failed for another reason.
            return None;
        }
        let is_newer =
            |state: &State| matches!(state, State::Up(_, current) if *current > generation);
        let state = timeout_at(deadline, state.wait_for(is_newer)).await;
        match &*state.ok()?.ok()? {
            State::Up(connection, generation) => Some((connection.clone(), *generation)),
            State::Connecting | State::Down(_) => None,
        }
    }

    async fn connection(&self, deadline: Instant) -> Result<(Connection, u64), ClientError> {
        if let State::Up(connection, generation) = &*self.breaker.state.borrow() {
            return Ok((connection.clone(), *generation));
        }
        let mut state = self.breaker.state.subscribe();
        let known = state.wait_for(|state| !matches!(state, State::Connecting));
        match timeout_at(deadline, known).await {
            Ok(Ok(state)) => match &*state {
                State::Up(connection, generation) => Ok((connection.clone(), *generation)),
                State::Down(reason) => Err(reason.clone()),
                State::Connecting => Err(ClientError::Timeout),
            },
            // The sender lives as long as this client.
            Ok(Err(_)) | Err(_) => Err(ClientError::Timeout),
        }
    }
}
