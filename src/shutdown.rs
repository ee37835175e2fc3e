//! Signals: the first asks the service to finish, the second ends it at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The exit code of a program that was interrupted, as shells have it: 128 + SIGINT.
const INTERRUPTED: i32 = 130;

/// SIGXFSZ on Linux, the BSDs and macOS, on the processors that this is built for. tokio has no name for it.
const FILE_SIZE_EXCEEDED: i32 = 25;

/// Listens for SIGTERM, SIGINT, SIGQUIT and SIGHUP until dropped.
#[derive(Debug)]
pub struct Signals {
    stop: CancellationToken,
    listener: JoinHandle<()>,
}

impl Signals {
    /// Begins to listen. From here on none of these signals ends the process by itself. A SIGHUP that is ignored, as
    /// `nohup` has it, stays ignored.
    ///
    /// Nor does SIGXFSZ, with which the system ends a process that writes beyond its limit of file sizes
    /// (`ulimit -f`). With a handler, even one that nobody asks, the write fails instead, like one to a full disk.
    pub fn listen() -> io::Result<Self> {
        Self::listen_and(|| ())
    }

    /// The same, with something to do before a second signal ends the process.
    pub fn listen_and(last: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        // Handlers stay for the life of the process.
        drop(signal(SignalKind::from_raw(FILE_SIZE_EXCEEDED))?);
        let mut ends = Ends::listen()?;
        let stop = CancellationToken::new();
        let told = stop.clone();
        let listener = tokio::spawn(async move {
            let name = ends.next().await;
            tracing::info!(signal = name, "stopping; a second signal ends this at once");
            told.cancel();
            let name = ends.next().await;
            tracing::error!(signal = name, "ended at once, with work still under way");
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

/// The signals that ask for the end.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hang_up: Option<Signal>,
}

impl Ends {
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

/// Whether whoever started this process has it ignore `signal`. Only Linux tells without unsafe code.
fn is_ignored(signal: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal.as_raw_value() - 1) & 1 == 1)
}
