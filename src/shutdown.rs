//! Signals: the first asks the service to finish, the second ends it at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The exit code of a program that was interrupted, as shells have it: 128 + SIGINT.
const INTERRUPTED: i32 = 130;

/// SIGXFSZ on Linux, the BSDs and macOS, on the processors that this is built for. tokio has no name for it.
const FILE_SIZE_EXCEEDED: i32 = 25;

/// Listens for SIGTERM and SIGINT until dropped.
#[derive(Debug)]
pub struct Signals {
    stop: CancellationToken,
    listener: JoinHandle<()>,
}

impl Signals {
    /// Begins to listen. From here on neither signal ends the process by itself.
    ///
    /// Nor does SIGXFSZ, with which the system ends a process that writes beyond its limit of file sizes
    /// (`ulimit -f`). With a handler, even one that nobody asks, the write fails instead, like one to a full disk.
    pub fn listen() -> io::Result<Self> {
        // Handlers stay for the life of the process.
        drop(signal(SignalKind::from_raw(FILE_SIZE_EXCEEDED))?);
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = CancellationToken::new();
        let told = stop.clone();
        let listener = tokio::spawn(async move {
            let name = either(&mut terminate, &mut interrupt).await;
            tracing::info!(signal = name, "stopping; a second signal ends this at once");
            told.cancel();
            let name = either(&mut terminate, &mut interrupt).await;
            tracing::error!(signal = name, "ended at once, with work still under way");
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

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
