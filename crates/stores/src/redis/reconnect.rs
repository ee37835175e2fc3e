//! The background task of a client: it connects, probes the connection, and reconnects.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backon::BackoffBuilder;
use redis::{ErrorKind, RedisError};
use tokio::time::{Instant, sleep, timeout};

use super::ClientOptions;
use super::breaker::{Breaker, State, unavailable};
use super::connection::Connection;
use super::error::{ClientError, meaning};
use super::outage_log::OutageLog;

/// The longest backoff after the first failed probe; it doubles with each further failure.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The longest backoff: Redis is in use again at most half a second after it becomes available.
const MAX_BACKOFF: Duration = Duration::from_millis(500);
/// A connection that served for this long resets the backoff.
const STABLE: Duration = Duration::from_secs(2);
/// How many times `connect_timeout` connecting to a whole cluster may take.
const CLUSTER_TIMEOUT_FACTOR: u32 = 4;

/// Connects, publishes the connection, waits until it fails, and starts again; never returns.
pub(super) async fn reconnect(breaker: Arc<Breaker>, options: ClientOptions) {
    let mut task = Reconnect {
        breaker,
        log: OutageLog::new(options.user, options.meanwhile),
        options,
        generation: 0,
    };
    // Jitter keeps instances from reconnecting to a recovered server all at once. It adds up to 100 %, hence the halves.
    let doubling = supervisor::doubling(FIRST_BACKOFF / 2, MAX_BACKOFF / 2).with_jitter();
    let mut backoff = doubling.build();
    let mut connection: Option<Connection> = None;
    loop {
        match task.probe(connection.take()).await {
            Ok(working) => {
                task.publish(&working);
                let since = Instant::now();
                connection = task.watch(working).await;
                if since.elapsed() >= STABLE {
                    task.log.stable();
                    backoff = doubling.build();
                }
                if let State::Down(reason) = &*task.breaker.state.borrow() {
                    task.log.down(reason);
                }
                if since.elapsed() >= STABLE {
                    continue;
                }
            }
            Err(error) => {
                let server = &task.breaker.server;
                let reason = unavailable(server, &connect_error(&error, server));
                task.log.down(&reason);
                task.breaker.state.send_replace(State::Down(reason));
            }
        }
        sleep(backoff.next().unwrap_or(MAX_BACKOFF)).await;
    }
}

struct Reconnect {
    breaker: Arc<Breaker>,
    log: OutageLog,
    options: ClientOptions,
    generation: u64,
}

impl Reconnect {
    /// Returns the existing connection if it still responds (the server may have been slow for a moment), else a new
    /// one.
    async fn probe(&self, connection: Option<Connection>) -> Result<Connection, RedisError> {
        let probe = async {
            if let Some(mut connection) = connection
                && self.responds(&mut connection).await
            {
                return Ok(connection);
            }
            Connection::open(&self.options).await
        };
        // The driver connects to a cluster node by node, and one node that hangs must not use up the time of the others.
        let nodes = if self.breaker.is_cluster {
            CLUSTER_TIMEOUT_FACTOR
        } else {
            1
        };
        // One `connect_timeout` for the ping on the existing connection, the rest for the new one.
        let time_limit = self.options.connect_timeout * (nodes + 1);
        timeout(time_limit, probe)
            .await
            .unwrap_or_else(|_| Err(timed_out()))
    }

    async fn responds(&self, connection: &mut Connection) -> bool {
        let pong = timeout(self.options.connect_timeout, connection.ping()).await;
        pong.is_ok_and(|pong| pong.is_ok())
    }

    fn publish(&mut self, connection: &Connection) {
        self.generation += 1;
        self.log.up(&self.breaker.server);
        self.breaker.close(connection.clone(), self.generation);
    }

    /// Waits until the breaker is open, and opens it when the server does not respond. Returns the connection if it
    /// may still work.
    async fn watch(&mut self, mut connection: Connection) -> Option<Connection> {
        loop {
            self.breaker.wake.notified().await;
            let is_wrong_server = self.breaker.is_wrong_server.load(Ordering::Relaxed);
            let is_up = matches!(&*self.breaker.state.borrow(), State::Up(..));
            match (is_up, is_wrong_server) {
                (false, true) => return None,
                (false, false) => return Some(connection),
                // The driver's map of the cluster is outdated, for example after a failover. The other nodes serve
                // while a new connection reads the map again.
                (true, true) => {
                    if let Ok(renewed) = self.probe(None).await {
                        connection = renewed;
                        self.publish(&connection);
                    }
                    sleep(MAX_BACKOFF).await;
                }
                (true, false) => {
                    if !self.responds(&mut connection).await {
                        self.breaker.open(self.generation, &ClientError::Timeout);
                        return None;
                    }
                    // Calls continue meanwhile, and the breaker counts those that fail.
                    sleep(FIRST_BACKOFF).await;
                }
            }
        }
    }
}

/// The meaning of a failed connection attempt. An error in response to the handshake (no such database, too many
/// clients) is a misconfiguration: the next attempts would get the same response.
fn connect_error(error: &RedisError, server: &str) -> ClientError {
    match meaning(error, server) {
        ClientError::Protocol(text) if error.code().is_some() => ClientError::Misconfigured(text),
        other => other,
    }
}

fn timed_out() -> RedisError {
    RedisError::from((ErrorKind::Io, "did not respond in time"))
}
