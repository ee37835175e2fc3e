//! A real Postgres for each test.

#![allow(dead_code, reason = "tests and benches use parts of it")]

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use domain::{Secret, TimeFrame};
use stores::postgres::{PostgresOptions, PostgresServer, PostgresStore, set_up};
use tempfile::TempDir;
use tokio_postgres::NoTls;

use super::servers::{Process, find_among, free_port};

/// The role that owns the server.
pub const ROLE: &str = "headcount";
/// Its password, which must be encoded in a URL.
const PASSWORD: &str = "p&ss word/";
const ENCODED: &str = "p%26ss%20word%2F";
/// Debian's `nobody`: Postgres refuses to run as root.
const NOBODY: u32 = 65_534;

/// A server in its own directory. Both are removed on drop.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    directory: TempDir,
    port: u16,
    settings: Vec<String>,
    process: Process,
}

impl Postgres {
    /// A fresh server, or `None` if Postgres is not installed.
    pub async fn start() -> Option<Self> {
        Self::start_with(|_| Vec::new()).await
    }

    /// A fresh server with settings as `name=value`, which may need files in its directory.
    pub async fn start_with(settings: impl FnOnce(&Path) -> Vec<String>) -> Option<Self> {
        let program = find_among("postgres", "HEADCOUNT_TEST_POSTGRES", &debian())?;
        // A symlink on PATH leads to the directory of the other programs.
        let program = program.canonicalize().unwrap();
        let programs = program.parent().unwrap().to_owned();
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path();
        std::fs::write(home.join("password"), PASSWORD).unwrap();
        let settings = settings(home);
        own(home);
        let mut initdb = Command::new(programs.join("initdb"));
        initdb
            .args([
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ])
            .arg(format!("--username={ROLE}"))
            .arg(format!("--pwfile={}", home.join("password").display()))
            .arg("--pgdata")
            .arg(home.join("data"));
        let made = unprivileged(&mut initdb, home)
            .stdout(Stdio::null())
            .status();
        assert!(made.unwrap().success(), "initdb failed");
        let port = free_port();
        let process = launch(&programs, home, port, &settings);
        let mut server = Self {
            programs,
            directory,
            port,
            settings,
            process,
        };
        server.wait_until_ready().await;
        Some(server)
    }

    /// Kills every process of the server as `kill -9` does.
    pub fn kill(&mut self) {
        let children = self.process.children();
        self.process.kill();
        for child in children {
            // It may have exited already.
            let _ = Command::new("kill")
                .args(["-9", &child.to_string()])
                .stderr(Stdio::null())
                .status();
            // A new server could not use resources that the old one still holds.
            let began = Instant::now();
            while is_running(child) && began.elapsed() < Duration::from_secs(120) {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    /// Makes the server end its sessions and stop.
    pub fn stop(&mut self) {
        self.process.signal("INT");
        self.process.wait();
    }

    /// Starts it again on its former port and data.
    pub async fn restart(&mut self) {
        self.process = launch(
            &self.programs,
            self.directory.path(),
            self.port,
            &self.settings,
        );
        self.wait_until_ready().await;
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A program of the same installation, with the environment to connect to the server.
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", ROLE)
            .env("PGPASSWORD", PASSWORD)
            .env("PGDATABASE", "postgres");
        command
    }

    /// Its URL.
    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// The URL for a proxy on `port`.
    pub fn url_at(&self, port: u16) -> String {
        format!("postgres://{ROLE}:{ENCODED}@127.0.0.1:{port}/postgres")
    }

    /// The URL of its Unix socket.
    pub fn socket_url(&self) -> String {
        let home = self.directory.path().display();
        format!(
            "postgres:///postgres?host={home}&port={}&user={ROLE}&password={ENCODED}",
            self.port
        )
    }

    /// Options for a store in `schema`, which may not exist yet.
    pub fn options(&self, schema: &str, frame: TimeFrame) -> PostgresOptions {
        let mut options = PostgresOptions::new(parsed(&self.url()), schema, frame);
        // A busy machine takes long for a million pairs.
        options.statement_timeout = Duration::from_mins(10);
        options
    }

    /// An empty store in a new schema.
    pub async fn store(&self, schema: &str, frame: TimeFrame) -> PostgresStore {
        let options = self.options(schema, frame);
        set_up(&options).await.unwrap();
        PostgresStore::open(options).unwrap()
    }

    /// A connection with all privileges, as another program would open.
    pub async fn client(&self) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    async fn wait_until_ready(&mut self) {
        for _ in 0..2_400 {
            self.process.assert_running();
            if let Ok((client, connection)) = tokio_postgres::connect(&self.url(), NoTls).await {
                tokio::spawn(connection);
                if client.simple_query("select 1").await.is_ok() {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("postgres did not become ready within two minutes");
    }
}

impl Drop for Postgres {
    /// Immediately, and it releases its system resources.
    fn drop(&mut self) {
        if self.process.is_running() {
            self.process.signal("QUIT");
            self.process.wait();
        }
    }
}

/// Parses a URL that is known to be valid.
pub fn parsed(url: &str) -> PostgresServer {
    PostgresServer::parse(&Secret::new(url)).unwrap()
}

/// Whether a process that is not a child of this one is running, and not a zombie.
fn is_running(process: impl std::fmt::Display) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// Debian's server directories, the newest first.
fn debian() -> Vec<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    let mut found: Vec<(u32, PathBuf)> = versions
        .into_iter()
        .flatten()
        .filter_map(|version| {
            let version = version.ok()?;
            let number = version.file_name().to_str()?.parse().ok()?;
            Some((number, version.path().join("bin")))
        })
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

fn launch(programs: &Path, home: &Path, port: u16, settings: &[String]) -> Process {
    let mut command = Command::new(programs.join("postgres"));
    command
        .arg("-D")
        .arg(home.join("data"))
        .arg("-k")
        .arg(home)
        .args(["-h", "127.0.0.1", "-p", &port.to_string()])
        // Written data survives the death of every process. Only the death of the machine would need fsync, which takes
        // a hundredth of a second for each write.
        .args(["-c", "fsync=off"]);
    for setting in settings {
        command.args(["-c", setting]);
    }
    Process::start(unprivileged(&mut command, home))
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout == b"0\n"
}

/// Runs a command as an unprivileged user, in a directory that the user may enter.
fn unprivileged<'a>(command: &'a mut Command, home: &Path) -> &'a mut Command {
    command.current_dir(home);
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Gives the directory and the files in it to the user that the server runs as.
fn own(home: &Path) {
    if !is_root() {
        return;
    }
    let give = |path: &Path| std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    give(home);
    for entry in std::fs::read_dir(home).unwrap() {
        give(&entry.unwrap().path());
    }
}
