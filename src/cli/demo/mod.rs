//! `headcount demo`: a service in a temporary directory, with simulated users.

mod crowd;
mod replay;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::crowd::{Crowd, Visit};
use self::replay::ReplayClock;
use super::Failure;
use super::args::DemoArgs;
use super::output::{grouped, note, print};
use super::process::unless_stopped;
use crate::config::Settings;
use crate::shutdown::Signals;
use domain::Timestamp;
use engine::Headcount;
use http;
use http::auth::Auth;
use telemetry;

/// The default port, if it is free.
const PORT: u16 = 8080;
/// The number of pairs per batch while the past is recorded.
const BATCH: usize = 20_000;
/// The maximum number of attempts to remove the directory. Nearly always one is enough.
const REMOVALS: u32 = 1_000;
/// An empty store opens in milliseconds, even on a busy machine.
const LONGEST_OPENING: Duration = Duration::from_secs(30);
/// The interval at which new visits are recorded.
const TICK: Duration = Duration::from_millis(500);

pub(super) fn run(args: DemoArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::failed(format!("can't start the runtime: {error}")))?;
    let folder = tempfile::Builder::new()
        .prefix("headcount-demo-")
        .tempdir()
        .map_err(|error| Failure::failed(format!("can't create a directory: {error}")))?;
    let served = runtime.block_on(demo(args.port, folder.path()));
    // After a signal during the start, the store may still be opening and would create the directory again.
    runtime.shutdown_timeout(LONGEST_OPENING);
    let removed = remove(folder.path());
    served?;
    removed.map_err(|error| Failure::failed(format!("can't remove the demo's directory: {error}")))
}

async fn demo(port: Option<u16>, folder: &Path) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::failed(error.to_string());
    let settings = settings(folder)?;
    // Without traces, nothing is left to send at the end.
    let _ = telemetry::init(&settings.telemetry, "demo").map_err(|error| failed(&error))?;
    let left = folder.to_owned();
    // If the removal fails, the files stay in the system's temporary directory.
    let last = move || drop(remove(&left));
    let signals = Signals::listen_and(last).map_err(|error| failed(&error))?;
    let listener = listener(port).await?;
    let address = listener.local_addr().map_err(|error| failed(&error))?;
    let now = Timestamp::now();
    let clock = Arc::new(ReplayClock::at(Crowd::begin(now)));
    let opening =
        Headcount::open_with(&settings, Arc::<ReplayClock>::clone(&clock), Arc::default());
    let Some(app) = unless_stopped(&signals.stop(), opening).await? else {
        return Ok(());
    };
    let app = Arc::new(app);
    // Before there are pairs, so that the service knows where they come from.
    app.coverage().begin_recording();
    let known = app.coverage().read().await;
    known.map_err(|error| failed(&error))?;
    note("Generating four weeks of visits ...");
    let mut crowd = Crowd::new(now, *app.frame(), fastrand::Rng::new());
    let stop = signals.stop();
    let pairs = tokio::select! {
        () = stop.cancelled() => return app.shut_down().await.map_err(|error| failed(&error)),
        filled = fill(&app, &clock, &mut crowd) => filled?,
    };
    print(&format!(
        "\n  http://{address}/\n\n{} pairs of four weeks are loaded, and more keep coming. Ctrl-C stops the demo and removes \
         its data.\n",
        grouped(pairs as u64)
    ))?;
    let feeder = tokio::spawn(keep_feeding(Arc::clone(&app), crowd, stop.clone()));
    let auth = Auth::open(
        &settings.auth,
        Arc::clone(app.clock()),
        Arc::clone(app.metrics()),
    );
    let auth = Arc::new(auth.map_err(|error| failed(&error))?);
    http::serve(listener, Arc::clone(&app), auth, &settings.http, stop).await;
    // The feeder stops on the same token.
    let _ = feeder.await;
    app.shut_down().await.map_err(|error| failed(&error))
}

/// Removes the directory. Threads of the store may still write there, so the removal is repeated until it succeeds.
fn remove(folder: &Path) -> io::Result<()> {
    let mut rounds = 1;
    loop {
        match std::fs::remove_dir_all(folder) {
            Err(_) if folder.exists() && rounds < REMOVALS => rounds += 1,
            Err(error) if folder.exists() => return Err(error),
            Ok(()) | Err(_) => return Ok(()),
        }
    }
}

fn settings(folder: &Path) -> Result<Settings, Failure> {
    let folder = folder.to_string_lossy();
    Ok(Settings::with([
        ("data_dir", folder.as_ref()),
        ("refresh_interval", "10s"),
        ("shutdown_grace", "1s"),
        ("log", "warn"),
    ])?)
}

/// Listens on the given port; without one, on the default port or any free port.
async fn listener(port: Option<u16>) -> Result<TcpListener, Failure> {
    let at = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if let Some(port) = port {
        return super::process::bind("--port", at(port)).await;
    }
    match TcpListener::bind(at(PORT)).await {
        Ok(listener) => Ok(listener),
        Err(_) => super::process::bind("--port", at(0)).await,
    }
}

/// Records the past visits of the crowd, in order of time, their trend, and the settings of the segments. Returns the number of
/// pairs.
async fn fill(app: &Headcount, clock: &ReplayClock, crowd: &mut Crowd) -> Result<usize, Failure> {
    let visits = crowd.visits();
    let steps = visits.chunk_by(|one, next| crowd.step_of(one.at) == crowd.step_of(next.at));
    for step in steps {
        if let Some(last) = step.last() {
            clock.go_to(last.at);
        }
        for batch in step.chunks(BATCH) {
            record(app, batch).await?;
        }
    }
    clock.catch_up();
    let trend = app.record_trend(&crowd.trend()).await;
    trend.map_err(|error| Failure::failed(error.to_string()))?;
    crowd.forget_past();
    for (segment, settings) in crowd::settings(app.frame()) {
        let set = app.segments().put(&segment, settings).await;
        set.map_err(|error| Failure::failed(error.to_string()))?;
    }
    Ok(visits.len())
}

async fn keep_feeding(app: Arc<Headcount>, mut crowd: Crowd, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TICK) => {}
        }
        let visits = crowd.come(app.clock().now());
        if visits.is_empty() {
            continue;
        }
        if let Err(Failure::Failed(error) | Failure::Usage(error)) = record(&app, &visits).await {
            tracing::warn!(error, "the generated visits were not recorded");
        }
    }
}

async fn record(app: &Headcount, visits: &[Visit]) -> Result<(), Failure> {
    let mut intake = app.ingest().intake(visits.len());
    for visit in visits {
        // A visit that has left the window since is ignored.
        let _ = intake.push(&visit.user_id(), visit.segment, Some(visit.at));
    }
    let accepted = app.ingest().accept(intake.finish()).await;
    accepted.map_err(|error| Failure::failed(error.to_string()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_while_it_is_removed_goes_too() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("demo");
        std::fs::create_dir(&folder).unwrap();
        let (begun, begins) = std::sync::mpsc::channel();
        let writer = std::thread::spawn({
            let folder = folder.clone();
            move || {
                for number in 0..20_000 {
                    // Fails once the directory is removed.
                    if std::fs::write(folder.join(number.to_string()), "").is_err() {
                        return;
                    }
                    // The test waits for the first file only.
                    let _ = begun.send(());
                }
            }
        });
        begins.recv().unwrap();
        remove(&folder).unwrap();
        writer.join().unwrap();
        assert!(!folder.exists());
    }
}
