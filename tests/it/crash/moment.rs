//! When a process is killed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;

/// What is waited for at most. A snapshot is due once a second.
const DEADLINE: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy)]
pub enum Moment {
    /// After so many answers, with other requests at any point of their way, and then so many microseconds.
    Answers(usize, u64),
    /// So many microseconds after the load began.
    Micros(u64),
    /// So many microseconds after the unfinished file of a snapshot came up.
    Snapshot(u64),
    /// So many microseconds after the unfinished file of a rotation came up.
    Rotation(u64),
}

impl Moment {
    /// Any; those of a snapshot only where there are some.
    pub fn any(random: &mut fastrand::Rng, has_snapshots: bool) -> Self {
        match random.u8(..8) {
            0 | 1 => Self::Answers(random.usize(1..60), random.u64(..3_000)),
            // As many short times as long ones.
            2 | 3 => Self::Micros(10_f64.powf(random.f64() * 6.1) as u64),
            4..=6 if has_snapshots => Self::Snapshot(random.u64(..12_000)),
            _ => Self::Rotation(random.u64(..1_500)),
        }
    }

    /// Waits for the moment. It ends in a thread that does nothing else, so that the kill comes in time.
    pub async fn wait(self, dir: &Path, answered: &mut UnboundedReceiver<()>) {
        if let Self::Answers(answers, _) = self {
            for _ in 0..answers {
                // None comes any more where everybody was refused.
                if answered.recv().await.is_none() {
                    return;
                }
            }
        }
        let dir = dir.to_path_buf();
        let rest = move || match self {
            Self::Answers(_, micros) | Self::Micros(micros) => pause(micros),
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

/// The names in a directory; one that is not there yet has none.
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
