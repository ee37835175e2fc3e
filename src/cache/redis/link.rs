//! The link to Redis: calls with a time limit, a breaker, and one task that restores the connection.
//!
//! A call never connects and never probes. It uses the connection that the task published, or fails at once. So
//! however Redis fails (refuses, hangs, drops packets), a caller waits for `command_timeout` at most, and only the
//! first ones do: they open the breaker, the task probes, everybody else fails at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::{ErrorKind, RedisError, Value};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::connection::{Connection, is_about_the_server, meaning};
use super::options::RedisCacheOptions;
use super::scripts::Request;
use crate::cache::CacheError;

/// The pause after the first failed probe; it doubles from one to the next.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause: Redis is back in use half a second after it came back.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A connection that served for this long was a good one: the next pause is the first again.
const STEADY: Duration = Duration::from_secs(2);
/// Failures in a row that open the breaker of a cluster. One dead node must not cost the others' segments, and with
/// the others alive so many in a row are rare.
const CLUSTER_TOLERANCE: u32 = 16;
/// How many times the time of one connection a whole cluster may take.
const CLUSTER_PATIENCE: u32 = 4;

/// A connection that repairs itself. Dropping it ends its task.
#[derive(Debug)]
pub(super) struct Link {
    shared: Arc<Shared>,
    command_timeout: Duration,
    _keeper: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Shared {
    server: String,
    state: watch::Sender<State>,
    /// Wakes the task when the breaker opened.
    opened: Notify,
    failures: AtomicU32,
    tolerance: u32,
}

#[derive(Debug, Clone)]
enum State {
    /// Never connected so far; calls wait for the first attempt, within their time.
    Connecting,
    /// Served as the `n`th connection or confirmation.
    Up(Connection, u64),
    /// Failing; calls fail at once with this.
    Down(CacheError),
}

impl Link {
    /// Begins to connect in the background. Must be called within a tokio runtime.
    pub(super) fn open(options: RedisCacheOptions) -> Self {
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
        let command_timeout = options.command_timeout;
        let keeper = tokio::spawn(keep(Arc::clone(&shared), options));
        Self {
            shared,
            command_timeout,
            _keeper: AbortOnDropHandle::new(keeper),
        }
    }

    /// One round trip for all requests; their answers in order.
    pub(super) async fn ask(&self, requests: &[Request<'_>]) -> Result<Vec<Value>, CacheError> {
        let deadline = Instant::now() + self.command_timeout;
        let (mut connection, generation) = self.connection(deadline).await?;
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
                self.shared.failed(generation, &CacheError::Timeout);
                Err(CacheError::Timeout)
            }
        }
    }

    /// A round trip of its own, so that a probe of health proves something.
    pub(super) async fn ping(&self) -> Result<(), CacheError> {
        let deadline = Instant::now() + self.command_timeout;
        let (mut connection, generation) = self.connection(deadline).await?;
        let reason = match tokio::time::timeout_at(deadline, connection.ping()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => meaning(&error, &self.shared.server),
            Err(_) => CacheError::Timeout,
        };
        self.shared.failed(generation, &reason);
        Err(reason)
    }

    async fn connection(&self, deadline: Instant) -> Result<(Connection, u64), CacheError> {
        if let State::Up(connection, generation) = &*self.shared.state.borrow() {
            return Ok((connection.clone(), *generation));
        }
        let mut state = self.shared.state.subscribe();
        let known = state.wait_for(|state| !matches!(state, State::Connecting));
        match tokio::time::timeout_at(deadline, known).await {
            Ok(Ok(state)) => match &*state {
                State::Up(connection, generation) => Ok((connection.clone(), *generation)),
                State::Down(reason) => Err(reason.clone()),
                State::Connecting => Err(CacheError::Timeout),
            },
            // The sender lives as long as this link.
            Ok(Err(_)) | Err(_) => Err(CacheError::Timeout),
        }
    }
}

impl Shared {
    /// A call failed on the connection of this generation.
    fn failed(&self, generation: u64, reason: &CacheError) {
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
fn unavailable(server: &str, reason: &CacheError) -> CacheError {
    match reason {
        CacheError::Timeout => CacheError::Unavailable(format!("{server} did not answer in time")),
        other => other.clone(),
    }
}

/// Connects, publishes the connection, waits until a call fails, and begins again; for ever.
async fn keep(shared: Arc<Shared>, options: RedisCacheOptions) {
    let mut pause = FIRST_PAUSE;
    let mut generation = 0;
    let mut connection: Option<Connection> = None;
    let mut logged: Option<CacheError> = None;
    // A cluster is connected to node by node, and one that hangs must not keep the others away.
    let nodes = if options.server.is_cluster {
        CLUSTER_PATIENCE
    } else {
        1
    };
    let probe_timeout = options.connect_timeout * nodes;
    loop {
        let probed = timeout(probe_timeout, probe(connection.take(), &options)).await;
        let probed = probed.unwrap_or_else(|_| Err(timed_out()));
        match probed {
            Ok(working) => {
                if logged.take().is_some() {
                    tracing::info!(server = %shared.server, "the cache answers again");
                }
                generation += 1;
                shared.failures.store(0, Ordering::Relaxed);
                shared
                    .state
                    .send_replace(State::Up(working.clone(), generation));
                let since = Instant::now();
                shared.opened.notified().await;
                connection = Some(working);
                if since.elapsed() >= STEADY {
                    pause = FIRST_PAUSE;
                    continue;
                }
            }
            Err(error) => {
                let reason = unavailable(&shared.server, &refusal(&error, &shared.server));
                log_once(&mut logged, &reason);
                shared.state.send_replace(State::Down(reason));
            }
        }
        // Apart from other instances, so that a server that comes back is not met by all at once.
        sleep(pause.mul_f64(0.75 + fastrand::f64() / 4.0)).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

/// The connection that there was, if it still serves (its server may have been slow for a moment), else a new one.
async fn probe(
    connection: Option<Connection>,
    options: &RedisCacheOptions,
) -> Result<Connection, RedisError> {
    if let Some(mut connection) = connection
        && timeout(options.connect_timeout / 2, connection.ping())
            .await
            .is_ok_and(|pong| pong.is_ok())
    {
        return Ok(connection);
    }
    Connection::open(options).await
}

/// What a failure to connect means. A server that answers the handshake with an error (no such database, too many
/// clients) will go on doing so.
fn refusal(error: &RedisError, server: &str) -> CacheError {
    match meaning(error, server) {
        CacheError::Protocol(text) if error.code().is_some() => CacheError::Misconfigured(text),
        other => other,
    }
}

fn timed_out() -> RedisError {
    RedisError::from((ErrorKind::Io, "did not answer in time"))
}

/// A line when Redis went away and when the reason changed, not one for each probe.
fn log_once(logged: &mut Option<CacheError>, reason: &CacheError) {
    let is_new = match logged {
        Some(last) => std::mem::discriminant(last) != std::mem::discriminant(reason),
        None => true,
    };
    if !is_new {
        return;
    }
    match reason {
        CacheError::Misconfigured(_) => tracing::error!(%reason, "the cache needs attention"),
        _ => tracing::warn!(%reason, "the cache is away; counts come from the store"),
    }
    *logged = Some(reason.clone());
}
