//! The accept loop: bounded connections, deadlines for heads, and a drain that ends.

use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::activity::Activity;
use super::cors::Policy;
use super::gate::Gate;
use super::idle::Heard;
use super::quiet;
use super::service::{Web, WebParts};
use super::session::Sessions;
use super::site::Visitors;
use super::trail::Trail;
use super::transport;
use super::{health_routes, routes};
use crate::auth::Auth;
use crate::settings::HttpSettings;
use engine::Headcount;
use telemetry::Metrics;

/// When the process has no descriptor left, trying again at once would only burn a processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the end of a stream of events may take to reach its client. One that does not read would never get it.
const STREAM_END: Duration = Duration::from_secs(1);
/// How often it is looked whether a connection has anything left but streams.
const LOOK_PERIOD: Duration = Duration::from_millis(100);

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut because they outlasted `shutdown_grace`.
    pub abandoned: usize,
}

/// Serves `app` on `listener`, to whom `auth` knows, until `stop` is cancelled and `shutdown_delay` has passed, then
/// lets requests under way finish for at most `shutdown_grace`. The caller owns the socket and the signal, and closes
/// `app` afterwards.
pub async fn serve(
    listener: TcpListener,
    app: Arc<Headcount>,
    auth: Arc<Auth>,
    settings: &HttpSettings,
    stop: CancellationToken,
) -> Drained {
    let closing = CancellationToken::new();
    let sessions = Sessions::new(settings.session_key.as_ref());
    let gate = Gate::new(auth, sessions, Arc::clone(app.metrics()));
    let routes = routes(&app, settings, gate.clone(), stop.clone(), closing.clone());
    let stops = Stops { stop, closing };
    let trail = Trail::new(Some(Arc::clone(&app)));
    serve_routes(
        listener,
        routes,
        gate,
        trail,
        app.metrics(),
        settings,
        stops,
    )
    .await
}

/// The same with nothing but `/healthz`, `/readyz` and `/metrics`, and for everybody: for a process that serves nobody.
pub async fn serve_health(
    listener: TcpListener,
    app: Arc<Headcount>,
    settings: &HttpSettings,
    stop: CancellationToken,
) -> Drained {
    let auth = Arc::new(Auth::off(Arc::clone(app.clock())));
    let routes = health_routes(&app, &auth, stop.clone());
    let closing = CancellationToken::new();
    let stops = Stops { stop, closing };
    let gate = Gate::new(auth, Sessions::new(None), Arc::clone(app.metrics()));
    let trail = Trail::new(None);
    serve_routes(
        listener,
        routes,
        gate,
        trail,
        app.metrics(),
        settings,
        stops,
    )
    .await
}

/// The steps of the end.
struct Stops {
    /// The caller wants it.
    stop: CancellationToken,
    /// Nothing is accepted any more: what has no end of its own ends.
    closing: CancellationToken,
}

async fn serve_routes(
    listener: TcpListener,
    routes: BoxedFilter<(Response,)>,
    gate: Gate,
    trail: Trail,
    metrics: &Arc<Metrics>,
    settings: &HttpSettings,
    Stops { stop, closing }: Stops,
) -> Drained {
    let metrics = Arc::clone(metrics);
    let (tasks, cut) = (TaskTracker::new(), CancellationToken::new());
    let auth = gate.auth();
    let (current, until) = (Arc::clone(auth), cut.clone());
    tasks.spawn(async move { current.keep_current(until).await });
    let web = Web::new(WebParts {
        routes,
        visitors: Visitors::new(auth, &settings.cors),
        gate,
        cors: Policy::new(settings.cors.clone()),
        metrics: Arc::clone(&metrics),
        trail,
        trusted_proxies: settings.trusted_proxies.clone(),
    });
    let streams = Streams {
        tasks: tasks.clone(),
        cut: cut.clone(),
    };
    let server = Server {
        web,
        metrics,
        builder: Arc::new(transport::builder(settings.header_timeout, streams)),
        limits: quiet::Limits {
            head: settings.header_timeout,
            idle: settings.idle_timeout,
        },
        max_connections: settings.max_connections,
        room: Arc::new(Semaphore::new(settings.max_connections)),
        tasks,
        closing: closing.clone(),
        cut,
        graceful: GracefulShutdown::new(),
    };
    tokio::select! {
        () = leave(&stop, settings.shutdown_delay) => {}
        () = server.accept_all(&listener) => {}
    }
    // From here on clients are refused at once instead of waiting in a queue that nobody serves.
    drop(listener);
    closing.cancel();
    server.drain(settings.shutdown_grace).await
}

/// Waits for the end of accepting: `delay` after the stop, in which `/readyz` sends load balancers away while
/// what they still send is answered.
async fn leave(stop: &CancellationToken, delay: Duration) {
    stop.cancelled().await;
    if !delay.is_zero() {
        tracing::info!(?delay, "not ready any more; accepting still");
        tokio::time::sleep(delay).await;
    }
}

struct Server {
    web: Web,
    metrics: Arc<Metrics>,
    builder: Arc<auto::Builder<Streams>>,
    limits: quiet::Limits,
    max_connections: usize,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    /// Cancelled when the drain begins.
    closing: CancellationToken,
    /// Cancelled when the drain is over.
    cut: CancellationToken,
    graceful: GracefulShutdown,
}

impl Server {
    async fn accept_all(&self, listener: &TcpListener) {
        // Without room nothing is accepted: clients wait in the listener's queue, which is bounded too.
        let mut failing = false;
        while let Ok(permit) = Arc::clone(&self.room).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    self.begin(stream, peer.ip(), permit);
                    if std::mem::take(&mut failing) {
                        tracing::info!("connections are accepted again");
                    }
                }
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    self.metrics.http.accept_errors.inc();
                    // Said once and not ten times a second: it may last for hours.
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "no connection can be accepted; trying again and again");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn begin(&self, stream: TcpStream, peer: IpAddr, permit: OwnedSemaphorePermit) {
        transport::prepare(&stream, self.limits.head);
        let (web, activity) = self.web.for_connection(peer);
        activity.quiet().opened();
        let connection = Connection {
            stream,
            web,
            activity,
            builder: Arc::clone(&self.builder),
            limits: self.limits,
            room: Arc::clone(&self.room),
            watcher: self.graceful.watcher(),
            closing: self.closing.clone(),
            cut: self.cut.clone(),
        };
        let (room, metrics) = (Arc::clone(&self.room), Arc::clone(&self.metrics));
        let maximum = self.max_connections;
        let show_open = move || {
            let open = maximum.saturating_sub(room.available_permits());
            metrics.http.connections.set(open as u64);
        };
        show_open();
        self.tasks.spawn(async move {
            connection.serve().await;
            drop(permit);
            show_open();
        });
    }

    async fn drain(self, grace: Duration) -> Drained {
        tracing::info!(connections = self.graceful.count(), ?grace, "draining");
        // What is left when the time is up is counted below.
        let _ = tokio::time::timeout(grace, self.graceful.shutdown()).await;
        let abandoned = self
            .max_connections
            .saturating_sub(self.room.available_permits());
        if abandoned > 0 {
            let metrics = &self.metrics.http;
            metrics.connections_abandoned.inc_by(abandoned as u64);
        }
        self.cut.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        Drained { abandoned }
    }
}

/// Everything that one connection needs.
struct Connection {
    stream: TcpStream,
    web: Web,
    activity: Arc<Activity>,
    builder: Arc<auto::Builder<Streams>>,
    limits: quiet::Limits,
    room: Arc<Semaphore>,
    watcher: Watcher,
    closing: CancellationToken,
    cut: CancellationToken,
}

impl Connection {
    async fn serve(self) {
        let heard = Heard::new(self.stream, Arc::clone(&self.activity));
        let served = self.builder.serve_connection(TokioIo::new(heard), self.web);
        let mut served = pin!(self.watcher.watch(served));
        let is_crowded = || self.room.available_permits() == 0;
        let mut ended = pin!(self.activity.quiet().has_ended(self.limits, is_crowded));
        let mut unread = pin!(only_streams_left(&self.closing, &self.activity));
        let longest_stall = transport::longest_stall(self.limits.head);
        let mut stalled = pin!(self.activity.has_stalled(longest_stall));
        tokio::select! {
            // What has come is read before a limit is looked at: a process that was held up itself blames no client.
            biased;
            result = served.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "a connection ended early");
                }
            }
            () = self.cut.cancelled() => {}
            () = unread.as_mut() => {
                tracing::debug!("a client that did not read to the end of its events was cut off");
            }
            () = stalled.as_mut() => {
                tracing::debug!("a client that took nothing of an answer was cut off");
            }
            () = ended.as_mut() => {
                tracing::debug!("a connection without a request was closed");
            }
        }
    }
}

/// Waits until the drain goes on without hope for a connection: all that is left there are streams that have ended,
/// of which their clients read nothing.
async fn only_streams_left(closing: &CancellationToken, activity: &Activity) {
    closing.cancelled().await;
    tokio::time::sleep(STREAM_END).await;
    while !activity.is_streaming_only() {
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}

/// Runs the streams of HTTP/2 connections, and ends them with the drain.
#[derive(Clone)]
struct Streams {
    tasks: TaskTracker,
    cut: CancellationToken,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let cut = self.cut.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = cut.cancelled() => {}
                () = stream => {}
            }
        });
    }
}

/// Whether the peer of one connection is to blame, so that the next may be accepted at once.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
