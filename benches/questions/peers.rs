//! Peers by their Python packages: see `peers.py`.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;

/// The exit code of the script if the package is missing.
const MISSING: i32 = 3;

/// All overlaps that a peer counted in one way over one window.
#[derive(Deserialize)]
pub(crate) struct Answer {
    pub(crate) way: String,
    pub(crate) identity: Identity,
    /// The first slot of the window; `None` if the peer has no window.
    pub(crate) start: Option<u64>,
    seconds: f64,
    /// Two segments and the users in both.
    pairs: Vec<(usize, usize, u64)>,
}

/// What a peer knows of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Identity {
    /// 48 bits.
    Hash,
    /// From 0 on.
    Number,
}

impl Answer {
    pub(crate) fn took(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    pub(crate) fn counts(&self) -> HashMap<(usize, usize), u64> {
        let pairs = self.pairs.iter();
        pairs.map(|(a, b, both)| ((*a, *b), *both)).collect()
    }
}

/// The overlaps in a peer over windows with these first slots. Nothing if the package is missing, after a message.
pub(crate) fn ask(peer: &str, directory: &Path, starts: &[u64]) -> Vec<Answer> {
    let named = std::env::var_os("HEADCOUNT_BENCH_PYTHON");
    let python = named.unwrap_or_else(|| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/questions/peers.py");
    println!("... {peer}");
    let output = Command::new(&python)
        .arg(script)
        .arg(peer)
        .arg(directory)
        .args(starts.iter().map(u64::to_string))
        .stderr(Stdio::inherit())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            let lines = output.stdout.split(|byte| *byte == b'\n');
            let answers = lines.filter(|line| !line.is_empty());
            answers
                .map(|line| serde_json::from_slice(line).unwrap())
                .collect()
        }
        Ok(output) if output.status.code() == Some(MISSING) => {
            println!("skipped {peer}: {} lacks its package", python.display());
            Vec::new()
        }
        Ok(output) => panic!("{peer}: {}", output.status),
        Err(error) => {
            println!("skipped {peer}: {}: {error}", python.display());
            Vec::new()
        }
    }
}
