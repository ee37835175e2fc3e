//! The accept loop: a limit on connections, timeouts for request heads, and a drain with a deadline.

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

use super::activity::Activity;
use super::api::Routes;
use super::audit::AuditTrail;
use super::authorization::Authorizer;
use super::cors;
use super::middleware::{self, ConnectionService, Stack};
use super::monitored_stream::MonitoredStream;
use super::origin::OriginPolicy;
use super::refusal_log::RefusalLog;
use super::request_timer::Timeouts;
use super::response_budget::ResponseBudget;
use super::service::{ConnectionInfo, Entrance, Web};
use super::session::Sessions;
use super::transport;
use crate::auth::Auth;
use crate::settings::HttpSettings;
use engine::Headcount;
use telemetry::Metrics;

/// Backoff after a failed accept. When the process has no file descriptor left, an immediate retry only uses CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the end of an event stream may take to reach its client. A client that does not read never receives it.
const STREAM_END: Duration = Duration::from_secs(1);
/// How often the drain checks whether only event streams are left on a connection.
const CHECK_PERIOD: Duration = Duration::from_millis(100);

/// The result of a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were closed because they were still open after `shutdown_grace`.
    pub abandoned: usize,
}

/// The bound addresses of a service.
#[derive(Debug)]
pub struct Listeners {
    /// Serves everything.
    pub internal: TcpListener,
    /// Serves only writes of pairs and reads of counts, for networks that must not reach administration, user ids and the
    /// pages, whatever a proxy in front forwards.
    pub public: Option<TcpListener>,
}

impl From<TcpListener> for Listeners {
    fn from(internal: TcpListener) -> Self {
        Self {
            internal,
            public: None,
        }
    }
}

/// Serves `app` on `listeners` to clients that `auth` authenticates, until `stop` is cancelled and `shutdown_delay` has
/// passed. Requests in flight then have `shutdown_grace` to finish. The caller owns the sockets and the signal, and
/// closes `app` afterwards.
pub async fn serve(
    listeners: impl Into<Listeners>,
    app: Arc<Headcount>,
    auth: Arc<Auth>,
    settings: &HttpSettings,
    stop: CancellationToken,
) -> Drained {
    let closing = CancellationToken::new();
    let sessions = Sessions::new(settings.session_key.as_ref());
    let authorizer = Authorizer::new(auth, sessions, Arc::clone(app.metrics()));
    app.coverage().begin_recording();
    let routes = Routes::of_service(
        &app,
        settings,
        authorizer.clone(),
        stop.clone(),
        closing.clone(),
    );
    let stops = Stops { stop, closing };
    let audit_trail = AuditTrail::new(Some(Arc::clone(&app)));
    serve_routes(
        listeners.into(),
        routes,
        authorizer,
        audit_trail,
        app.metrics(),
        settings,
        stops,
    )
    .await
}

/// Like [`serve`], for a live process: services may read counts and memberships and compare counts, with the token that
/// [`Headcount::live_token`] returns.
pub async fn serve_live(
    listener: TcpListener,
    app: Arc<Headcount>,
    settings: &HttpSettings,
    stop: CancellationToken,
) -> Drained {
    let known = Arc::clone(&app);
    let auth = Auth::of_services(Arc::clone(app.clock()), move || known.live_token());
    let auth = Arc::new(auth);
    let routes = Routes::of_live_process(&app, &auth, stop.clone());
    serve_process(listener, app, routes, auth, settings, stop).await
}

/// Like [`serve`], but serves only `/healthz`, `/readyz` and `/metrics`, and without authentication: for a process that
/// does not serve the API.
pub async fn serve_health(
    listener: TcpListener,
    app: Arc<Headcount>,
    settings: &HttpSettings,
    stop: CancellationToken,
) -> Drained {
    let auth = Arc::new(Auth::off(Arc::clone(app.clock())));
    let routes = Routes::of_worker(&app, &auth, stop.clone());
    serve_process(listener, app, routes, auth, settings, stop).await
}

/// Serves a process that has no page and no event streams.
async fn serve_process(
    listener: TcpListener,
    app: Arc<Headcount>,
    routes: Routes,
    auth: Arc<Auth>,
    settings: &HttpSettings,
    stop: CancellationToken,
) -> Drained {
    let closing = CancellationToken::new();
    let stops = Stops { stop, closing };
    let authorizer = Authorizer::new(auth, Sessions::new(None), Arc::clone(app.metrics()));
    let audit_trail = AuditTrail::new(None);
    serve_routes(
        listener.into(),
        routes,
        authorizer,
        audit_trail,
        app.metrics(),
        settings,
        stops,
    )
    .await
}

/// The steps of a shutdown.
struct Stops {
    /// The caller asks for the shutdown.
    stop: CancellationToken,
    /// No connection is accepted any more. Event streams end.
    closing: CancellationToken,
}

async fn serve_routes(
    listeners: Listeners,
    routes: Routes,
    authorizer: Authorizer,
    audit_trail: AuditTrail,
    metrics: &Arc<Metrics>,
    settings: &HttpSettings,
    Stops { stop, closing }: Stops,
) -> Drained {
    let metrics = Arc::clone(metrics);
    let (tasks, cut) = (TaskTracker::new(), CancellationToken::new());
    let auth = authorizer.auth();
    let (current, until) = (Arc::clone(auth), cut.clone());
    tasks.spawn(async move { current.keep_current(until).await });
    let web = Web {
        routes,
        origin_policy: OriginPolicy::new(auth, &settings.cors),
        authorizer,
        metrics: Arc::clone(&metrics),
        audit_trail,
        refusal_log: RefusalLog::new(),
        trusted_proxies: settings.trusted_proxies.clone(),
        response_budget: ResponseBudget::new(),
    };
    let streams = Streams {
        tasks: tasks.clone(),
        cut: cut.clone(),
    };
    let server = Server {
        stack: middleware::around(web, cors::layer(&settings.cors), &metrics),
        metrics,
        builder: Arc::new(transport::builder(settings.header_timeout, streams)),
        timeouts: Timeouts {
            head: settings.header_timeout,
            idle: settings.idle_timeout,
        },
        max_connections: settings.max_connections,
        permits: Arc::new(Semaphore::new(settings.max_connections)),
        tasks,
        closing: closing.clone(),
        cut,
        graceful: GracefulShutdown::new(),
    };
    tokio::select! {
        () = wait_for_stop(&stop, settings.shutdown_delay) => {}
        () = server.accept_all(&listeners.internal, Entrance::Internal) => {}
        () = server.accept_public(listeners.public.as_ref()) => {}
    }
    // From here on clients are refused at once instead of waiting in a listen queue that is not served.
    drop(listeners);
    closing.cancel();
    server.drain(settings.shutdown_grace).await
}

/// Waits for `stop` and then for `delay`. During the delay `/readyz` tells load balancers to send no more requests, and
/// the requests that they still send are served.
async fn wait_for_stop(stop: &CancellationToken, delay: Duration) {
    stop.cancelled().await;
    if !delay.is_zero() {
        tracing::info!(?delay, "no longer ready; still accepting connections");
        tokio::time::sleep(delay).await;
    }
}

struct Server {
    stack: Arc<Stack>,
    metrics: Arc<Metrics>,
    builder: Arc<auto::Builder<Streams>>,
    timeouts: Timeouts,
    max_connections: usize,
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
    /// Cancelled when the drain begins.
    closing: CancellationToken,
    /// Cancelled when the drain is over.
    cut: CancellationToken,
    graceful: GracefulShutdown,
}

impl Server {
    async fn accept_public(&self, listener: Option<&TcpListener>) {
        match listener {
            Some(listener) => self.accept_all(listener, Entrance::Public).await,
            None => std::future::pending().await,
        }
    }

    async fn accept_all(&self, listener: &TcpListener, entrance: Entrance) {
        // Without a free permit no connection is accepted: clients wait in the listen queue, which is bounded too.
        let mut failing = false;
        while let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    self.begin(stream, peer.ip(), entrance, permit);
                    if std::mem::take(&mut failing) {
                        tracing::info!("connections are accepted again");
                    }
                }
                Err(error) if is_peer_error(&error) => {}
                Err(error) => {
                    self.metrics.http.accept_errors.inc();
                    // Logged once, not ten times a second: the failure may last for hours.
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "can't accept connections; retrying");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn begin(
        &self,
        stream: TcpStream,
        peer: IpAddr,
        entrance: Entrance,
        permit: OwnedSemaphorePermit,
    ) {
        transport::prepare(&stream, self.timeouts.head);
        let activity = Arc::<Activity>::default();
        let service = ConnectionService {
            stack: Arc::clone(&self.stack),
            connection: ConnectionInfo {
                activity: Arc::clone(&activity),
                peer,
                entrance,
            },
        };
        activity.timer().opened();
        let connection = Connection {
            stream,
            service,
            activity,
            builder: Arc::clone(&self.builder),
            timeouts: self.timeouts,
            permits: Arc::clone(&self.permits),
            watcher: self.graceful.watcher(),
            closing: self.closing.clone(),
            cut: self.cut.clone(),
        };
        let (permits, metrics) = (Arc::clone(&self.permits), Arc::clone(&self.metrics));
        let maximum = self.max_connections;
        let show_open = move || {
            let open = maximum.saturating_sub(permits.available_permits());
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
        // Connections that are left after the timeout are counted below.
        let _ = tokio::time::timeout(grace, self.graceful.shutdown()).await;
        let abandoned = self
            .max_connections
            .saturating_sub(self.permits.available_permits());
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

/// One connection and what it needs to be served.
struct Connection {
    stream: TcpStream,
    service: ConnectionService,
    activity: Arc<Activity>,
    builder: Arc<auto::Builder<Streams>>,
    timeouts: Timeouts,
    permits: Arc<Semaphore>,
    watcher: Watcher,
    closing: CancellationToken,
    cut: CancellationToken,
}

impl Connection {
    async fn serve(self) {
        let stream = MonitoredStream::new(self.stream, Arc::clone(&self.activity));
        let served = self
            .builder
            .serve_connection(TokioIo::new(stream), self.service);
        let mut served = pin!(self.watcher.watch(served));
        let is_full = || self.permits.available_permits() == 0;
        let mut expired = pin!(self.activity.timer().expired(self.timeouts, is_full));
        let mut streams_only = pin!(only_streams_left(&self.closing, &self.activity));
        let longest_stall = transport::longest_stall(self.timeouts.head);
        let mut stalled = pin!(self.activity.has_stalled(longest_stall));
        tokio::select! {
            // Received bytes are read before a timeout is checked: after a stall of this process, no client is blamed.
            biased;
            result = served.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "a connection ended early");
                }
            }
            () = self.cut.cancelled() => {}
            () = streams_only.as_mut() => {
                tracing::debug!("closed the connection of a client that did not read the end of its event stream");
            }
            () = stalled.as_mut() => {
                tracing::debug!("closed the connection of a client that read nothing of a response");
            }
            () = expired.as_mut() => {
                tracing::debug!("a connection without a request was closed");
            }
        }
    }
}

/// Waits until only ended event streams that their clients do not read are left on the connection. The drain need not
/// wait for such a connection.
async fn only_streams_left(closing: &CancellationToken, activity: &Activity) {
    closing.cancelled().await;
    tokio::time::sleep(STREAM_END).await;
    while !activity.is_streaming_only() {
        tokio::time::sleep(CHECK_PERIOD).await;
    }
}

/// Runs the streams of HTTP/2 connections and aborts them at the end of the drain.
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

/// Whether the error concerns only the connection that was to be accepted, so that the next accept needs no backoff.
fn is_peer_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
