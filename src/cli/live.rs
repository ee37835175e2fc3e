//! `headcount live`: keeps a replica of all counts and publishes them through Redis, beside services with `live = "redis"`.

use std::sync::Arc;

use tokio::net::TcpListener;

use super::Failure;
use super::args::ServeArgs;
use super::serve::{bind, log_warnings, unless_stopped};
use super::start_line;
use super::variables::Variables;
use crate::config::{LiveMode, Loaded, Settings};
use crate::open_files;
use crate::shutdown::Signals;
use crate::wiring::LiveBackends;
use engine::Headcount;

pub(super) fn run(args: ServeArgs, variables: Variables) -> Result<(), Failure> {
    let loaded = args.settings.load_for_log(variables.into_vec())?;
    if loaded.settings.live.mode != LiveMode::Redis {
        return Err(Failure::usage(
            "a live process needs `live = \"redis\"` here and on every service, and `redis_url`: pairs and counts go through \
             Redis; a single service needs no live process, but `live = \"here\"`",
        ));
    }
    run_with(loaded)
}

/// Runs with settings whose `live` is `redis`.
pub(super) fn run_with(loaded: Loaded) -> Result<(), Failure> {
    let mut settings = loaded.settings;
    telemetry::init(&settings.telemetry).map_err(|error| Failure::usage(error.to_string()))?;
    start_line::log(&settings, "live");
    log_warnings(&loaded.warnings);
    open_files::limit_connections(&mut settings.http.max_connections);
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::failed(format!("can't start the runtime: {error}")))?;
    let ran = runtime.block_on(work(&settings));
    runtime.shutdown_background();
    ran
}

async fn work(settings: &Settings) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::failed(error.to_string());
    let signals = Signals::listen().map_err(|error| failed(&error))?;
    let listener: TcpListener = bind("listen", settings.listen).await?;
    let address = listener.local_addr().unwrap_or(settings.listen);
    let backends = LiveBackends::new(settings, address);
    let opening = Headcount::open(&backends);
    let Some(headcount) = unless_stopped(&signals.stop(), opening).await? else {
        return Ok(());
    };
    let headcount = Arc::new(headcount);
    tracing::info!("listening on http://{address}");
    tracing::info!("services reach this process at {}", backends.address());
    http::serve_live(
        listener,
        Arc::clone(&headcount),
        &settings.http,
        signals.stop(),
    )
    .await;
    headcount
        .shut_down()
        .await
        .map_err(|error| failed(&error))?;
    tracing::info!("stopped");
    Ok(())
}
