//! The link to Redis: calls with a time limit, a breaker, and one task that restores the connection.
//!
//! A call never connects and never probes. It uses the connection that the task published, or fails at once. So
//! however Redis fails (refuses, hangs, drops packets), a caller waits for the time of its own request at most, and
//! only the first ones do: the task finds out that Redis is away, and from then on everybody fails at once.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::breaker::{Breaker, State};
use super::connection::Connection;
use super::error::{Failure, LinkError, failure, meaning};
use super::keeper::keep;
use super::pieces::Pieces;
use super::{RedisServer, Request};
use supervisor::Watch;

/// How long a call whose connection broke waits for a new one, or a fifth of `command_timeout` where that is longer. A
/// server that is there takes a few milliseconds.
const RECONNECTION: Duration = Duration::from_millis(400);

/// How patient a link is, and what it says in the log.
#[derive(Debug, Clone)]
pub(crate) struct LinkOptions {
    /// Where Redis is.
    pub(crate) server: RedisServer,
    /// How requests are cut, and how long each piece may take, waiting for a first connection included.
    pub(crate) pieces: Pieces,
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
    breaker: Arc<Breaker>,
    pieces: Pieces,
    /// One permit for each piece under way that is not small.
    turns: Semaphore,
    /// The most that a look at the server's health may take.
    patience: Duration,
    _keeper: AbortOnDropHandle<()>,
}

impl Link {
    /// Begins to connect in the background. Must be called within a tokio runtime.
    pub(crate) fn open(options: LinkOptions) -> Self {
        let name = options.server.name.clone();
        let breaker = Arc::new(Breaker::new(name, options.server.is_cluster));
        let pieces = options.pieces;
        let patience = options.connect_timeout.max(pieces.shortest);
        let kept = Arc::clone(&breaker);
        let keeper = tokio::spawn(async move {
            // It ends with the link, by being aborted.
            let never = CancellationToken::new();
            let make = || keep(Arc::clone(&kept), options.clone());
            Watch::default()
                .keep_alive("redis connection", &never, make)
                .await;
        });
        Self {
            breaker,
            pieces,
            turns: Semaphore::new(pieces.under_way.min(Semaphore::MAX_PERMITS)),
            patience,
            _keeper: AbortOnDropHandle::new(keeper),
        }
    }

    /// The answers to all requests, in order; one round trip for each piece.
    pub(crate) async fn ask(&self, requests: &[Request<'_>]) -> Result<Vec<Value>, LinkError> {
        let mut answers = Vec::with_capacity(requests.len());
        for piece in self.pieces.cut(requests) {
            let _turn = self.turn(piece).await;
            let deadline = Instant::now() + self.pieces.time_for(piece);
            let (connection, generation) = self.connection(deadline).await?;
            let asked = self.ask_on(connection, generation, deadline, piece).await;
            answers.append(&mut asked?);
        }
        Ok(answers)
    }

    /// The same for requests that may be repeated: once more, if the connection turned out to be broken and a new
    /// one is there at once. So a server that closed an idle connection, or was restarted, costs nobody an error.
    pub(crate) async fn ask_again(
        &self,
        requests: &[Request<'_>],
    ) -> Result<Vec<Value>, LinkError> {
        let mut answers = Vec::with_capacity(requests.len());
        for piece in self.pieces.cut(requests) {
            let _turn = self.turn(piece).await;
            answers.append(&mut self.ask_piece_again(piece).await?);
        }
        Ok(answers)
    }

    async fn ask_piece_again(&self, piece: &[Request<'_>]) -> Result<Vec<Value>, LinkError> {
        let deadline = Instant::now() + self.pieces.time_for(piece);
        let (connection, generation) = self.connection(deadline).await?;
        let first = self.ask_on(connection, generation, deadline, piece).await;
        // The driver of a cluster has repeated it already.
        if self.breaker.is_cluster || !matches!(first, Err(LinkError::Unavailable(_))) {
            return first;
        }
        let patience =
            deadline.min(Instant::now() + RECONNECTION.max(self.pieces.time_for(piece) / 5));
        match self.newer(generation, patience).await {
            Some((connection, generation)) => {
                self.ask_on(connection, generation, deadline, piece).await
            }
            None => first,
        }
    }

    /// What the server, or each master of a cluster, answers to `command`.
    pub(crate) async fn ask_masters(&self, command: &Cmd) -> Result<Vec<Value>, LinkError> {
        let deadline = Instant::now() + self.pieces.shortest;
        let (mut connection, _) = self.connection(deadline).await?;
        match timeout_at(deadline, connection.ask_masters(command)).await {
            Ok(answers) => answers.map_err(|error| meaning(&error, &self.breaker.server)),
            Err(_) => Err(LinkError::Timeout),
        }
    }

    /// Which connection calls use now, by number; it changes when the connection was found broken.
    pub(crate) async fn generation(&self) -> Result<u64, LinkError> {
        let deadline = Instant::now() + self.pieces.shortest;
        self.connection(deadline)
            .await
            .map(|(_, generation)| generation)
    }

    async fn turn(&self, piece: &[Request<'_>]) -> Option<tokio::sync::SemaphorePermit<'_>> {
        if Pieces::is_small(piece) {
            return None;
        }
        // It is never closed. Who holds a turn has a time limit, so the wait ends.
        self.turns.acquire().await.ok()
    }

    async fn ask_on(
        &self,
        mut connection: Connection,
        generation: u64,
        deadline: Instant,
        piece: &[Request<'_>],
    ) -> Result<Vec<Value>, LinkError> {
        let began = Instant::now();
        match timeout_at(deadline, connection.ask(piece)).await {
            Ok(Ok(answers)) => {
                self.breaker.answered();
                Ok(answers)
            }
            Ok(Err(error)) => {
                let reason = meaning(&error, &self.breaker.server);
                match failure(&error, self.breaker.is_cluster) {
                    Some(failure) => self.breaker.failed(generation, began, failure, &reason),
                    None => self.breaker.answered(),
                }
                Err(reason)
            }
            Err(_) => {
                let reason = LinkError::Timeout;
                self.breaker
                    .failed(generation, began, Failure::Silence, &reason);
                Err(reason)
            }
        }
    }

    /// A round trip of its own, so that a probe of health proves something.
    pub(crate) async fn ping(&self) -> Result<(), LinkError> {
        let deadline = Instant::now() + self.patience;
        let (mut connection, generation) = self.connection(deadline).await?;
        let began = Instant::now();
        let (failure, reason) = match timeout_at(deadline, connection.ping()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => {
                let failure = failure(&error, self.breaker.is_cluster);
                (failure, meaning(&error, &self.breaker.server))
            }
            Err(_) => (Some(Failure::Silence), LinkError::Timeout),
        };
        if let Some(failure) = failure {
            self.breaker.failed(generation, began, failure, &reason);
        }
        Err(reason)
    }

    /// The connection that follows on the one of this generation, if it is there in time.
    async fn newer(&self, generation: u64, deadline: Instant) -> Option<(Connection, u64)> {
        let mut state = self.breaker.state.subscribe();
        if matches!(&*state.borrow(), State::Up(_, current) if *current == generation) {
            // What failed was not the connection.
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

    async fn connection(&self, deadline: Instant) -> Result<(Connection, u64), LinkError> {
        if let State::Up(connection, generation) = &*self.breaker.state.borrow() {
            return Ok((connection.clone(), *generation));
        }
        let mut state = self.breaker.state.subscribe();
        let known = state.wait_for(|state| !matches!(state, State::Connecting));
        match timeout_at(deadline, known).await {
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
