//! Signals: the first starts a graceful shutdown, the second exits immediately.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The exit code of an interrupted program by the convention of shells: 128 + SIGINT.
const INTERRUPTED: i32 = 130;

/// SIGXFSZ on Linux, the BSDs and macOS, on the supported architectures. tokio has no name for it.
const FILE_SIZE_EXCEEDED: i32 = 25;

/// Listens for SIGTERM, SIGINT, SIGQUIT and SIGHUP until dropped.
#[derive(Debug)]
pub struct Signals {
    stop: CancellationToken,
    listener: JoinHandle<()>,
}

impl Signals {
    /// Installs the handlers. From then on none of these signals terminates the process by default. A SIGHUP that is
    /// already ignored, as under `nohup`, stays ignored.
    ///
    /// SIGXFSZ does not terminate the process either. The system sends it to a process that exceeds its file size limit
    /// (`ulimit -f`). With a handler installed, even an unused one, the write fails instead, as on a full disk.
    pub fn listen() -> io::Result<Self> {
        Self::listen_and(|| ())
    }

    /// The same, and runs `last` before a second signal ends the process.
    pub fn listen_and(last: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        // The handler stays installed for the life of the process, even after this is dropped.
        drop(signal(SignalKind::from_raw(FILE_SIZE_EXCEEDED))?);
        let mut signals = StopSignals::listen()?;
        let stop = CancellationToken::new();
        let first = stop.clone();
        let listener = tokio::spawn(async move {
            let name = signals.next().await;
            tracing::info!(signal = name, "stopping; a second signal exits immediately");
            first.cancel();
            let name = signals.next().await;
            tracing::error!(signal = name, "exiting immediately, with work in progress");
            last();
            std::process::exit(INTERRUPTED);
        });
        Ok(Self { stop, listener })
    }

    /// Cancelled by the first signal.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// The signals that stop the service.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hang_up: Option<Signal>,
}

impl StopSignals {
    fn listen() -> io::Result<Self> {
        let hang_up = match is_ignored(SignalKind::hangup()) {
            true => None,
            false => Some(signal(SignalKind::hangup())?),
        };
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hang_up,
        })
    }

    async fn next(&mut self) -> &'static str {
        let hung_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.quit.recv() => "SIGQUIT",
            _ = hung_up => "SIGHUP",
        }
    }
}

/// Whether this process inherited `signal` as ignored. Without unsafe code this is known on Linux only.
fn is_ignored(signal: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal.as_raw_value() - 1) & 1 == 1)
}
