//! How the processes `serve`, `worker` and `live` start and end.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Failure, start_line};
use crate::config::{Loaded, Settings};
use crate::open_files;
use engine::Headcount;
use engine::headcount::OpenError;

/// Starts logging and the runtime, and does the work of the process named `role`.
pub(super) fn run(
    role: &str,
    loaded: Loaded,
    work: impl AsyncFnOnce(&Settings) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut settings = loaded.settings;
    let telemetry = telemetry::init(&settings.telemetry, role)
        .map_err(|error| Failure::usage(error.to_string()))?;
    start_line::log(&settings, role);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    open_files::limit_connections(&mut settings.http.max_connections);
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::failed(format!("can't start the runtime: {error}")))?;
    let worked = runtime.block_on(work(&settings));
    telemetry.end();
    // If a signal cancelled the opening of the store, a thread may still be reading its directory.
    runtime.shutdown_background();
    worked
}

/// Finishes the work in progress.
pub(super) async fn end(headcount: &Headcount) -> Result<(), Failure> {
    headcount
        .shut_down()
        .await
        .map_err(|error| Failure::failed(error.to_string()))?;
    tracing::info!("stopped");
    Ok(())
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
