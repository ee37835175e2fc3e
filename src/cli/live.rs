//! `headcount live`: keeps a replica of all counts and publishes them through Redis, beside services with `live = "redis"`.

use std::sync::Arc;

use tokio::net::TcpListener;

use super::Failure;
use super::args::ServeArgs;
use super::process::{self, bind, unless_stopped};
use super::variables::Variables;
use crate::config::{LiveMode, Settings};
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
    process::run("live", loaded, work)
}

/// The work of a process whose `live` is `redis`.
pub(super) async fn work(settings: &Settings) -> Result<(), Failure> {
    let signals = Signals::listen()
        .map_err(|error| Failure::failed(format!("can't listen for signals: {error}")))?;
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
    process::end(&headcount).await
}
