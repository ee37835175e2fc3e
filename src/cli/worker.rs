//! `headcount worker`: recounts at `refresh_interval`, and serves nobody but those who ask how it is.

use std::sync::Arc;

use tokio::net::TcpListener;

use super::Failure;
use super::args::ServeArgs;
use super::serve::{bind, unless_stopped, warn_of};
use super::start_line;
use super::variables::Variables;
use crate::config::{CacheKind, RefreshMode, Settings, StoreKind};
use crate::open_files;
use crate::shutdown::Signals;
use engine::Headcount;
use http;
use telemetry;

pub(super) fn run(args: ServeArgs, variables: Variables) -> Result<(), Failure> {
    let loaded = args.settings.load_for_log(variables.into_vec())?;
    let mut settings = loaded.settings;
    if settings.store.kind == StoreKind::Embedded {
        return Err(Failure::usage(
            "a worker needs a store that two processes may share; with `store = \"embedded\"` the service \
             recounts by itself (`refresh_mode = \"loop\"`)",
        ));
    }
    settings.refresh.mode = RefreshMode::Loop;
    // Pairs don't come in here, and the directory may be a service's.
    settings.ingest.spool = None;
    telemetry::init(&settings.telemetry).map_err(|error| Failure::usage(error.to_string()))?;
    start_line::log(&settings, "worker");
    warn_of(&loaded.warnings);
    if settings.cache.kind == CacheKind::Memory {
        tracing::warn!(
            "`cache = \"memory\"` is this process's own memory: services don't see the counts that this worker makes, only its \
             trends; set `cache = \"redis\"` here and there"
        );
    }
    open_files::make_room_for(&mut settings.http.max_connections);
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::failed(format!("can't start the runtime: {error}")))?;
    let worked = runtime.block_on(work(&settings));
    runtime.shutdown_background();
    worked
}

async fn work(settings: &Settings) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::failed(error.to_string());
    let signals = Signals::listen().map_err(|error| failed(&error))?;
    let listener: Option<TcpListener> = match settings.refresh.worker_listen {
        Some(address) => Some(bind("worker_listen", address).await?),
        None => None,
    };
    let Some(headcount) = unless_stopped(&signals.stop(), Headcount::open(settings)).await? else {
        return Ok(());
    };
    let headcount = Arc::new(headcount);
    tracing::info!(interval = ?settings.refresh.interval, "recounting");
    let stop = signals.stop();
    match listener {
        None => stop.cancelled().await,
        Some(listener) => {
            if let Ok(address) = listener.local_addr() {
                tracing::info!("listening on http://{address}");
            }
            http::serve_health(listener, Arc::clone(&headcount), &settings.http, stop).await;
        }
    }
    headcount
        .shut_down()
        .await
        .map_err(|error| failed(&error))?;
    tracing::info!("stopped");
    Ok(())
}
