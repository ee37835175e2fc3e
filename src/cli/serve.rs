//! `headcount serve`.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::args::ServeArgs;
use super::start_line;
use super::variables::Variables;
use crate::config::Settings;
use crate::open_files;
use crate::shutdown::Signals;
use domain::{Clock, SteadyClock};
use engine::Headcount;
use engine::headcount::OpenError;
use http;
use http::auth::Auth;
use http::settings::Cors;
use telemetry;
use telemetry::Metrics;

pub(super) fn run(args: ServeArgs, variables: Variables) -> Result<(), Failure> {
    // Errors in the settings are reported before anything is opened or bound.
    let loaded = args.settings.load_for_log(variables.into_vec())?;
    loaded.may_serve()?;
    let mut settings = loaded.settings;
    telemetry::init(&settings.telemetry).map_err(|error| Failure::usage(error.to_string()))?;
    start_line::log(&settings, "serve");
    log_warnings(&loaded.warnings);
    open_files::limit_connections(&mut settings.http.max_connections);
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::failed(format!("can't start the runtime: {error}")))?;
    let served = runtime.block_on(serve(&settings));
    // If a signal cancelled the opening of the store, a thread may still be reading its directory.
    runtime.shutdown_background();
    served
}

async fn serve(settings: &Settings) -> Result<(), Failure> {
    let signals = Signals::listen()
        .map_err(|error| Failure::failed(format!("can't listen for signals: {error}")))?;
    let clock: Arc<dyn Clock> = Arc::new(SteadyClock::default());
    let metrics = Arc::<Metrics>::default();
    let auth = Auth::open(&settings.auth, Arc::clone(&clock), Arc::clone(&metrics))
        .map_err(|error| Failure::usage(error.to_string()))?;
    // Bound before the store is opened, so that a port in use is reported at once. Clients that connect earlier wait
    // until replay is complete.
    let listener = bind("listen", settings.listen).await?;
    let address = listener.local_addr().unwrap_or(settings.listen);
    let opening = Headcount::open_with(settings, clock, metrics);
    let Some(app) = unless_stopped(&signals.stop(), opening).await? else {
        return Ok(());
    };
    let app = Arc::new(app);
    if !auth.is_on() && !address.ip().to_canonical().is_loopback() {
        tracing::warn!(
            "anyone who can reach {address} can read, write and erase: no token is required"
        );
    }
    if !auth.is_on() && settings.http.cors == Cors::Any {
        tracing::warn!(
            "every web page in a browser that reaches {address} can read all counts: `cors_origins` is * and no token is required"
        );
    }
    tracing::info!("listening on http://{address}");
    let (served, stop) = (Arc::clone(&app), signals.stop());
    http::serve(listener, served, Arc::new(auth), &settings.http, stop).await;
    app.shut_down()
        .await
        .map_err(|error| Failure::failed(error.to_string()))?;
    tracing::info!("stopped");
    Ok(())
}

/// Logs the warnings about the settings.
pub(super) fn log_warnings(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

/// The result of `opening`, or `None` if a signal came first.
pub(super) async fn unless_stopped(
    stop: &CancellationToken,
    opening: impl Future<Output = Result<Headcount, OpenError>>,
) -> Result<Option<Headcount>, Failure> {
    let opened = tokio::select! {
        () = stop.cancelled() => {
            tracing::info!("stopped before the store was open");
            return Ok(None);
        }
        opened = opening => opened,
    };
    opened
        .map(Some)
        .map_err(|error| Failure::failed(error.to_string()))
}

pub(super) async fn bind(setting: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::failed(format!(
            "can't listen on {address} (setting `{setting}`): {error}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_ends_an_opening_that_takes_its_time() {
        let stop = CancellationToken::new();
        let mut waiting = std::pin::pin!(unless_stopped(&stop, std::future::pending()));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        stop.cancel();
        assert!(waiting.await.unwrap().is_none());
    }
}
