//! Real Redis servers and clusters, each test with its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::servers::{Process, find, free_port};

/// The timeout of a server's start.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server in its own directory. Both are removed on drop.
#[derive(Debug)]
pub struct Redis {
    // Declared before the directory, so that it is dropped first.
    process: Process,
    program: PathBuf,
    directory: TempDir,
    port: u16,
    args: Vec<String>,
}

impl Redis {
    /// A fresh server without persistence, or `None` if redis-server is not installed.
    pub async fn start() -> Option<Self> {
        Self::start_with(&["--save", ""]).await
    }

    /// A fresh server with additional arguments.
    pub async fn start_with(args: &[&str]) -> Option<Self> {
        let server = Self::launch(args)?;
        server
            .wait_until(|answer| answer.contains("PONG") || answer.contains("NOAUTH"))
            .await;
        Some(server)
    }

    /// Two fresh servers, the second a replica of the first.
    pub async fn pair() -> Option<(Self, Self)> {
        let args = ["--save", "", "--repl-diskless-sync-delay", "0"];
        let master = Self::start_with(&args).await?;
        let replica = Self::start_with(&args).await?;
        replica.follow(&master).await;
        Some((master, replica))
    }

    /// Becomes a replica of `master` without ending client sessions, and waits until it is in sync.
    pub async fn follow(&self, master: &Self) {
        let port = master.port.to_string();
        assert_eq!(self.cli(&["REPLICAOF", "127.0.0.1", &port]), "OK");
        self.wait_for_its_master().await;
    }

    async fn wait_for_its_master(&self) {
        let began = Instant::now();
        while !self
            .cli(&["INFO", "replication"])
            .contains("master_link_status:up")
        {
            assert!(began.elapsed() < PATIENCE, "the replica does not follow");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn launch(args: &[&str]) -> Option<Self> {
        let program = find("redis-server", "HEADCOUNT_TEST_REDIS")?;
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let args: Vec<_> = args.iter().map(|arg| arg.to_string()).collect();
        let process = run(&program, directory.path(), port, &args);
        Some(Self {
            process,
            program,
            directory,
            port,
            args,
        })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory of its files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on its former port and data, without waiting for it.
    pub fn restart(&mut self) {
        self.process = run(&self.program, self.directory.path(), self.port, &self.args);
    }

    /// Kills it and starts it again with the data that it saved, as another process that serves them.
    pub fn restart_from_saved_data(&mut self) {
        self.kill();
        self.restart();
        let began = Instant::now();
        while !self.cli(&["PING"]).contains("PONG") {
            assert!(began.elapsed() < PATIENCE, "it does not serve");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Suspends the process. Its sockets stay open.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Resumes the process.
    pub fn resume(&self) {
        self.process.resume();
    }

    /// The output of redis-cli for a command.
    pub fn cli(&self, args: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli")
            .args(["-p", &port])
            .args(args)
            .output()
            .unwrap();
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        text.trim_end().to_owned()
    }

    async fn wait_until(&self, is_there: impl Fn(&str) -> bool) {
        let began = Instant::now();
        while !is_there(&self.cli(&["PING"])) {
            assert!(began.elapsed() < PATIENCE, "redis-server does not respond");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn run(program: &Path, directory: &Path, port: u16, args: &[String]) -> Process {
    let mut command = Command::new(program);
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .arg("--dir")
        .arg(directory)
        .args(args);
    Process::start(&mut command)
}

/// Three masters that share the slots.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// A fresh cluster, or `None` if redis-server is not installed.
    pub async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// A fresh cluster whose nodes have additional arguments.
    pub async fn start_with(further: &[&str]) -> Option<Self> {
        let args = [
            "--save",
            "",
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "2000",
        ];
        let args = [&args[..], further].concat();
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(Redis::start_with(&args).await?);
        }
        let addresses: Vec<_> = nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect();
        let created = Command::new("redis-cli")
            .args(["--cluster", "create", "--cluster-yes"])
            .args(&addresses)
            .output()
            .unwrap();
        assert!(
            created.status.success(),
            "{}",
            String::from_utf8_lossy(&created.stdout)
        );
        let began = Instant::now();
        for node in &nodes {
            while !node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok") {
                assert!(began.elapsed() < PATIENCE, "the cluster does not form");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Some(Self { nodes })
    }

    /// Its URL, with two of the nodes.
    pub fn url(&self) -> String {
        let [one, two, ..] = &self.nodes[..] else {
            panic!("a cluster has three nodes")
        };
        format!(
            "redis+cluster://127.0.0.1:{},127.0.0.1:{}",
            one.port, two.port
        )
    }

    /// Adds a replica of the first node, as the last node, and waits until it is in sync.
    pub async fn add_replica(&mut self) {
        let args = [
            "--save",
            "",
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "2000",
        ];
        let replica = Redis::start_with(&args).await.unwrap();
        let master = self.nodes[0].cli(&["CLUSTER", "MYID"]);
        let port = self.nodes[0].port.to_string();
        assert_eq!(replica.cli(&["CLUSTER", "MEET", "127.0.0.1", &port]), "OK");
        let began = Instant::now();
        // The replica has to learn of that node first.
        while replica.cli(&["CLUSTER", "REPLICATE", &master]) != "OK" {
            assert!(
                began.elapsed() < PATIENCE,
                "the node does not become a replica"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        replica.wait_for_its_master().await;
        self.nodes.push(replica);
    }

    /// Its nodes.
    pub fn nodes(&mut self) -> &mut [Redis] {
        &mut self.nodes
    }
}
