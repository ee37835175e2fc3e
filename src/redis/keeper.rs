//! The one task that connects and probes, for as long as its link lives.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{ErrorKind, RedisError};
use tokio::time::{Instant, sleep, timeout};

use super::LinkOptions;
use super::connection::Connection;
use super::error::{LinkError, meaning};
use super::link::{Shared, State, unavailable};

/// The pause after the first failed probe; it doubles from one to the next.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause: Redis is back in use half a second after it came back.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A connection that served for this long was a good one: the next pause is the first again.
const STEADY: Duration = Duration::from_secs(2);
/// How many times the time of one connection a whole cluster may take.
const CLUSTER_PATIENCE: u32 = 4;

/// Connects, publishes the connection, waits until a call fails, and begins again; for ever.
pub(super) async fn keep(shared: Arc<Shared>, options: LinkOptions) {
    let mut pause = FIRST_PAUSE;
    let mut generation = 0;
    let mut connection: Option<Connection> = None;
    let mut logged: Option<LinkError> = None;
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
                    tracing::info!(server = %shared.server, "{} answers again", options.user);
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
                log_once(&mut logged, &reason, &options);
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
    options: &LinkOptions,
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
fn refusal(error: &RedisError, server: &str) -> LinkError {
    match meaning(error, server) {
        LinkError::Protocol(text) if error.code().is_some() => LinkError::Misconfigured(text),
        other => other,
    }
}

fn timed_out() -> RedisError {
    RedisError::from((ErrorKind::Io, "did not answer in time"))
}

/// A line when Redis went away and when the reason changed, not one for each probe.
fn log_once(logged: &mut Option<LinkError>, reason: &LinkError, options: &LinkOptions) {
    let is_new = match logged {
        Some(last) => std::mem::discriminant(last) != std::mem::discriminant(reason),
        None => true,
    };
    if !is_new {
        return;
    }
    let user = options.user;
    match reason {
        LinkError::Misconfigured(_) => tracing::error!(%reason, "{user} needs attention"),
        _ => tracing::warn!(%reason, "{user} is away; {}", options.meanwhile),
    }
    *logged = Some(reason.clone());
}
