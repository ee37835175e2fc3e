//! `headcount serve`.

use std::sync::Arc;

use super::Failure;
use super::args::ServeArgs;
use super::process::{self, bind, unless_stopped};
use super::variables::Variables;
use crate::config::Settings;
use crate::shutdown::Signals;
use domain::{Clock, SteadyClock};
use engine::Headcount;
use http::Listeners;
use http::auth::Auth;
use http::settings::Cors;
use telemetry::Metrics;

pub(super) fn run(args: ServeArgs, variables: Variables) -> Result<(), Failure> {
    // Errors in the settings are reported before anything is opened or bound.
    let loaded = args.settings.load_for_log(variables.into_vec())?;
    loaded.may_serve()?;
    process::run("serve", loaded, serve)
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
    let internal = bind("listen", settings.listen).await?;
    let address = internal.local_addr().unwrap_or(settings.listen);
    let public = match settings.public_listen {
        Some(public) => Some(bind("public_listen", public).await?),
        None => None,
    };
    let opening = Headcount::open_with(settings, clock, metrics);
    let Some(app) = unless_stopped(&signals.stop(), opening).await? else {
        return Ok(());
    };
    let app = Arc::new(app);
    let public_address = public.as_ref().and_then(|it| it.local_addr().ok());
    for (address, deeds) in [
        (Some(address), "read, write and erase"),
        (public_address, "read and write"),
    ] {
        let reachable = address.filter(|it| !it.ip().to_canonical().is_loopback());
        if let Some(address) = reachable.filter(|_| !auth.is_on()) {
            tracing::warn!("anyone who can reach {address} can {deeds}: no token is required");
        }
    }
    if !auth.is_on() && settings.http.cors == Cors::Any {
        tracing::warn!(
            "every web page in a browser that reaches {address} can read all counts: `cors_origins` is * and no token is required"
        );
    }
    tracing::info!("listening on http://{address}");
    if let Some(address) = public_address {
        tracing::info!("writes of pairs and reads of counts are also at http://{address}");
    }
    let listeners = Listeners { internal, public };
    let (served, stop) = (Arc::clone(&app), signals.stop());
    http::serve(listeners, served, Arc::new(auth), &settings.http, stop).await;
    process::end(&app).await
}
