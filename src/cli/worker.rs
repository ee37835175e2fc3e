//! `headcount worker`: recounts at `refresh_interval`, and serves only health and metrics. With live counts through Redis it is
//! a live process.

use std::sync::Arc;

use tokio::net::TcpListener;

use super::Failure;
use super::args::ServeArgs;
use super::live;
use super::process::{self, bind, unless_stopped};
use super::variables::Variables;
use crate::config::{CacheKind, LiveMode, RefreshMode, Settings, StoreKind};
use crate::shutdown::Signals;
use engine::Headcount;
use http;

pub(super) fn run(args: ServeArgs, variables: Variables) -> Result<(), Failure> {
    let mut loaded = args.settings.load_for_log(variables.into_vec())?;
    let settings = &mut loaded.settings;
    if settings.store.kind == StoreKind::Embedded {
        return Err(Failure::usage(
            "a worker needs a store that two processes may share; with `store = \"embedded\"` the service \
             recounts by itself (`refresh_mode = \"loop\"`)",
        ));
    }
    if settings.live.mode == LiveMode::Redis {
        // Nothing is left to recount.
        return process::run("live", loaded, live::work);
    }
    settings.refresh.mode = RefreshMode::Loop;
    // A worker receives no pairs, and the directory may belong to a service.
    settings.ingest.spool = None;
    settings.live.mode = LiveMode::Off;
    if settings.cache.kind == CacheKind::Memory {
        let warning = "`cache = \"memory\"` is this process's own memory: services don't see the counts of this worker, only its \
                       trends; set `cache = \"redis\"` for both";
        loaded.warnings.push(warning.to_owned());
    }
    process::run("worker", loaded, work)
}

async fn work(settings: &Settings) -> Result<(), Failure> {
    let signals = Signals::listen()
        .map_err(|error| Failure::failed(format!("can't listen for signals: {error}")))?;
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
    process::end(&headcount).await
}
