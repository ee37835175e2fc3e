//! `headcount worker`: recounts at `refresh_interval`, and serves nobody.

use super::Failure;
use super::args::ServeArgs;
use super::variables::Variables;
use crate::app::Headcount;
use crate::config::{RefreshMode, StoreKind};
use crate::shutdown::Signals;
use crate::telemetry;

pub(super) fn run(args: ServeArgs, variables: Variables) -> Result<(), Failure> {
    let mut settings = args.settings.load(variables.into_vec())?.settings;
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
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::failed(format!("can't start the runtime: {error}")))?;
    runtime.block_on(async {
        let failed = |error: &dyn std::fmt::Display| Failure::failed(error.to_string());
        let signals = Signals::listen().map_err(|error| failed(&error))?;
        let headcount = Headcount::open(&settings)
            .await
            .map_err(|error| failed(&error))?;
        tracing::info!(interval = ?settings.refresh.interval, "recounting");
        signals.stop().cancelled().await;
        headcount
            .shut_down()
            .await
            .map_err(|error| failed(&error))?;
        tracing::info!("stopped");
        Ok(())
    })
}
