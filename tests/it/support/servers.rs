//! Real servers on this machine: located, started on free ports, and killed at the end of the test.

#![allow(dead_code, reason = "each kind of server uses parts of it")]

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;

/// The program of a server: named by the variable, or on PATH.
///
/// `None` means that the test is to be skipped, which is printed visibly once. A server that `HEADCOUNT_TEST_REQUIRE`
/// lists must be installed.
pub fn find(program: &str, variable: &str) -> Option<PathBuf> {
    find_among(program, variable, &[])
}

/// The same, and also searches directories that are not on PATH.
pub fn find_among(program: &str, variable: &str, directories: &[PathBuf]) -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(variable) {
        return Some(PathBuf::from(named));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(directories.iter().cloned())
        .map(|directory| directory.join(program));
    if let Some(found) = found.into_iter().find(|candidate| candidate.is_file()) {
        return Some(found);
    }
    let required = std::env::var("HEADCOUNT_TEST_REQUIRE").unwrap_or_default();
    assert!(
        !required
            .split(',')
            .any(|name| is_name_of(program, name.trim())),
        "HEADCOUNT_TEST_REQUIRE lists {program}, which is neither on PATH nor named by {variable}"
    );
    static SAID: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    let mut said = SAID.lock().unwrap();
    if said.get_or_insert_default().insert(program.to_owned()) {
        // Not with a print macro: the test harness hides their output in tests that pass.
        let line =
            format!("SKIPPED: tests that need {program}: not on PATH ({variable} names it)\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    None
}

/// Whether `name` means this program: `redis` matches `redis-server`.
fn is_name_of(program: &str, name: &str) -> bool {
    name == program || program.strip_suffix("-server") == Some(name)
}

/// A port for a server that the test starts, may kill, and may restart on the same port.
///
/// It is below the ephemeral ports of the system, so that no connection takes it in between. A file lock reserves it
/// against other test processes until this one ends. A Redis cluster node also uses the port 10,000 above it.
pub fn free_port() -> u16 {
    static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());
    const PORTS: RangeInclusive<u16> = 12_000..=21_999;
    let folder = std::env::temp_dir().join("headcount-test-ports");
    std::fs::create_dir_all(&folder).unwrap();
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut held = HELD.lock().unwrap();
    for _ in 0..10_000 {
        // At random, so that concurrent test runs rarely try the same port.
        let port = fastrand::u16(PORTS);
        let mut options = File::options();
        let lock = options.create(true).write(true).truncate(false);
        let Ok(lock) = lock.open(folder.join(port.to_string())) else {
            continue;
        };
        if lock.try_lock().is_ok() && is_free(port) && is_free(port + 10_000) {
            held.push(lock);
            return port;
        }
    }
    panic!("no port is free");
}

/// A child process that does not outlive its test.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts `command` with its output discarded.
    pub fn start(command: &mut Command) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    /// Starts `command` with its log in a file.
    pub fn start_logging(command: &mut Command, log: &std::path::Path) -> Self {
        let log = std::fs::File::create(log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        Self(child.unwrap())
    }

    /// Suspends the process with SIGSTOP. Its sockets stay open and do not respond.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Resumes a suspended process.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Sends it a signal by name.
    pub fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        let done = Command::new("kill")
            .args([format!("-{name}"), pid])
            .status();
        assert!(done.unwrap().success(), "kill -{name} failed");
    }

    /// Kills it with SIGKILL, and waits until it has ended.
    pub fn kill(&mut self) {
        // It may have exited already.
        drop(self.0.kill());
        self.0.wait().unwrap();
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) {
        self.0.wait().unwrap();
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        self.ended().is_none()
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().unwrap()
    }

    /// Its resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.0.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() * 1024
    }

    /// The number of its open files.
    pub fn open_files(&self) -> usize {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.0.id()));
        files.unwrap().count()
    }

    /// The ids of its child processes.
    pub fn children(&self) -> Vec<u32> {
        let id = self.0.id();
        let list = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let list = list.unwrap_or_default();
        list.split_whitespace()
            .map(|child| child.parse().unwrap())
            .collect()
    }

    /// Fails the test if the process has exited by itself.
    pub fn assert_running(&mut self) {
        assert!(self.is_running(), "the server exited by itself");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
