//! The moment at which a process is killed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;

/// The limit of a wait for a file. A snapshot is due once a second.
const DEADLINE: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy)]
pub enum KillPoint {
    /// After this number of responses, with other requests in flight, plus this number of microseconds.
    Responses(usize, u64),
    /// This number of microseconds after the start of the load.
    Micros(u64),
    /// This number of microseconds after the temporary file of a snapshot appears.
    Snapshot(u64),
    /// This number of microseconds after the temporary file of a rotation appears.
    Rotation(u64),
}

impl KillPoint {
    /// A random kill point. Without snapshots it is never `Snapshot`.
    pub fn any(random: &mut fastrand::Rng, has_snapshots: bool) -> Self {
        match random.u8(..8) {
            0 | 1 => Self::Responses(random.usize(1..60), random.u64(..3_000)),
            // Log-uniform: short times are as likely as long ones.
            2 | 3 => Self::Micros(10_f64.powf(random.f64() * 6.1) as u64),
            4..=6 if has_snapshots => Self::Snapshot(random.u64(..12_000)),
            _ => Self::Rotation(random.u64(..1_500)),
        }
    }

    /// Waits for the kill point. The last part runs in a thread of its own, so that the kill is on time.
    pub async fn wait(self, dir: &Path, answered: &mut UnboundedReceiver<()>) {
        if let Self::Responses(responses, _) = self {
            for _ in 0..responses {
                // The channel is closed once every writer has stopped.
                if answered.recv().await.is_none() {
                    return;
                }
            }
        }
        let dir = dir.to_path_buf();
        let rest = move || match self {
            Self::Responses(_, micros) | Self::Micros(micros) => pause(micros),
            Self::Snapshot(micros) => {
                wait_for(&dir, ".snapshot.new");
                pause(micros);
            }
            Self::Rotation(micros) => {
                wait_for(&dir, ".log.new");
                pause(micros);
            }
        };
        tokio::task::spawn_blocking(rest).await.unwrap();
    }
}

fn pause(micros: u64) {
    std::thread::sleep(Duration::from_micros(micros));
}

fn wait_for(dir: &Path, suffix: &str) {
    let began = Instant::now();
    while began.elapsed() < DEADLINE {
        if names(dir).iter().any(|name| name.ends_with(suffix)) {
            return;
        }
        pause(20);
    }
}

/// The file names in a directory, empty if it does not exist yet.
pub fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let path =
        |entry: std::io::Result<std::fs::DirEntry>| -> Option<PathBuf> { Some(entry.ok()?.path()) };
    let names = entries.filter_map(path);
    names
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect()
}
