//! The one task that connects and probes, for as long as its link lives.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backon::BackoffBuilder;
use redis::{ErrorKind, RedisError};
use tokio::time::{Instant, sleep, timeout};

use super::LinkOptions;
use super::breaker::{Breaker, State, unavailable};
use super::connection::Connection;
use super::error::{LinkError, meaning};
use super::outage_log::OutageLog;

/// The longest pause after the first failed probe; it doubles from one to the next.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause: Redis is back in use half a second after it came back.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A connection that served for this long was a good one: the next pause is the first again.
const STEADY: Duration = Duration::from_secs(2);
/// How many times the time of one connection a whole cluster may take.
const CLUSTER_PATIENCE: u32 = 4;

/// Connects, publishes the connection, waits until it does not serve any more, and begins again; for ever.
pub(super) async fn keep(breaker: Arc<Breaker>, options: LinkOptions) {
    let mut keeper = Keeper {
        breaker,
        log: OutageLog::new(options.user, options.meanwhile),
        options,
        generation: 0,
    };
    // Apart from other instances, so that a server that comes back is not met by all at once. Jitter adds up to as much
    // again.
    let doubling = supervisor::doubling(FIRST_PAUSE / 2, LONGEST_PAUSE / 2).with_jitter();
    let mut pauses = doubling.build();
    let mut connection: Option<Connection> = None;
    loop {
        match keeper.probe(connection.take()).await {
            Ok(working) => {
                keeper.publish(&working);
                let since = Instant::now();
                connection = keeper.watch(working).await;
                if since.elapsed() >= STEADY {
                    keeper.log.steady();
                    pauses = doubling.build();
                }
                if let State::Down(reason) = &*keeper.breaker.state.borrow() {
                    keeper.log.away(reason);
                }
                if since.elapsed() >= STEADY {
                    continue;
                }
            }
            Err(error) => {
                let server = &keeper.breaker.server;
                let reason = unavailable(server, &refusal(&error, server));
                keeper.log.away(&reason);
                keeper.breaker.state.send_replace(State::Down(reason));
            }
        }
        sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
    }
}

struct Keeper {
    breaker: Arc<Breaker>,
    log: OutageLog,
    options: LinkOptions,
    generation: u64,
}

impl Keeper {
    /// The connection that there was, if it still serves (its server may have been slow for a moment), else a new
    /// one.
    async fn probe(&self, connection: Option<Connection>) -> Result<Connection, RedisError> {
        let probe = async {
            if let Some(mut connection) = connection
                && self.answers(&mut connection).await
            {
                return Ok(connection);
            }
            Connection::open(&self.options).await
        };
        // A cluster is connected to node by node, and one that hangs must not keep the others away.
        let nodes = if self.breaker.is_cluster {
            CLUSTER_PATIENCE
        } else {
            1
        };
        // The former connection has its time, and the new one its own.
        let patience = self.options.connect_timeout * (nodes + 1);
        timeout(patience, probe)
            .await
            .unwrap_or_else(|_| Err(timed_out()))
    }

    async fn answers(&self, connection: &mut Connection) -> bool {
        let pong = timeout(self.options.connect_timeout, connection.ping()).await;
        pong.is_ok_and(|pong| pong.is_ok())
    }

    fn publish(&mut self, connection: &Connection) {
        self.generation += 1;
        self.log.back(&self.breaker.server);
        self.breaker.close(connection.clone(), self.generation);
    }

    /// Waits until the breaker is open, and opens it when the server does not answer. The connection, if it may
    /// still be a good one.
    async fn watch(&mut self, mut connection: Connection) -> Option<Connection> {
        loop {
            self.breaker.look.notified().await;
            let is_misled = self.breaker.is_misled.load(Ordering::Relaxed);
            let is_up = matches!(&*self.breaker.state.borrow(), State::Up(..));
            match (is_up, is_misled) {
                (false, true) => return None,
                (false, false) => return Some(connection),
                // Some node of a cluster is not what the driver took it for. The others serve while it is found out
                // anew which one is.
                (true, true) => {
                    if let Ok(anew) = self.probe(None).await {
                        connection = anew;
                        self.publish(&connection);
                    }
                    sleep(LONGEST_PAUSE).await;
                }
                (true, false) => {
                    if !self.answers(&mut connection).await {
                        self.breaker.open(self.generation, &LinkError::Timeout);
                        return None;
                    }
                    // Calls go on meanwhile, and those that fail are counted.
                    sleep(FIRST_PAUSE).await;
                }
            }
        }
    }
}

/// What a failure to connect means. A server that answers the handshake with an error (no such database, too many
/// clients) will go on doing so.
fn refusal(error: &RedisError, server: &str) -> LinkError {
    match meaning(error, server) {
        LinkError::Protocol(text) if error.code().is_some() => LinkError::Misconfigured(text),
        other => other,
    }
}

fn timed_out() -> RedisError {
    RedisError::from((ErrorKind::Io, "did not answer in time"))
}
