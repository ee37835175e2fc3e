//! The service as a separate process, and its resource usage.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crate::ledger::Ledger;

/// The timeout of a start. A start takes far less.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// The resource usage of a process at an instant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) resident_mib: f64,
    pub(crate) files: u64,
    pub(crate) threads: u64,
    pub(crate) disk_mib: f64,
    /// The load average of the whole machine over the last minute, which shows other activity.
    pub(crate) load: f64,
}

/// A `headcount serve` process. It is killed on drop.
pub(crate) struct Service {
    child: Child,
    address: SocketAddr,
    directory: PathBuf,
    warnings: Arc<Mutex<Vec<String>>>,
}

impl Service {
    /// Starts it on the data in `directory`.
    pub(crate) fn start(directory: &Path, ledger: &Ledger) -> Self {
        Self::start_with(directory, ledger, Arc::default())
    }

    fn start_with(directory: &Path, ledger: &Ledger, warnings: Arc<Mutex<Vec<String>>>) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_headcount"))
            .arg("serve")
            .current_dir(directory)
            .env("HEADCOUNT_LISTEN", "127.0.0.1:0")
            .env("HEADCOUNT_LOG", "info")
            .env("HEADCOUNT_WINDOW", format!("{}s", ledger.window()))
            .env("HEADCOUNT_RESOLUTION", format!("{}s", ledger.resolution()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let address = follow_log(child.stderr.take().unwrap(), Arc::clone(&warnings));
        let address = address.recv_timeout(START_TIMEOUT).unwrap();
        Self {
            child,
            address,
            directory: directory.to_owned(),
            warnings,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its current resource usage.
    pub(crate) fn usage(&self) -> Usage {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = std::fs::read_to_string(process.join("status")).unwrap();
        let field = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let value = line.and_then(|line| line.split_whitespace().next());
            value.unwrap().parse().unwrap()
        };
        Usage {
            resident_mib: field("VmRSS:") as f64 / 1024.0,
            files: std::fs::read_dir(process.join("fd")).unwrap().count() as u64,
            threads: field("Threads:"),
            disk_mib: bytes_in(&self.directory) as f64 / f64::from(1 << 20),
            load: load_average(),
        }
    }

    /// Sends SIGKILL, starts it again on the same data, and waits until it listens.
    pub(crate) fn kill_and_restart(self, ledger: &Ledger) -> Self {
        let (directory, warnings) = (self.directory.clone(), Arc::clone(&self.warnings));
        drop(self);
        Self::start_with(&directory, ledger, warnings)
    }

    /// The warnings and errors in the log of both processes.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap().clone()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // An error means that the process has already exited.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

/// Reads the log to its end. Sends the address once, and keeps warnings and errors.
fn follow_log(log: ChildStderr, warnings: Arc<Mutex<Vec<String>>>) -> mpsc::Receiver<SocketAddr> {
    let (found, address) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            if let Some((_, address)) = line.split_once("listening on http://") {
                found.send(address.trim().parse().unwrap()).unwrap();
            }
            if line.contains("WARN") || line.contains("ERROR") {
                warnings.lock().unwrap().push(line);
            }
        }
    });
    address
}

/// The load average of the last minute.
fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// The total size of files. A file that is removed meanwhile counts as 0.
fn bytes_in(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => bytes_in(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
