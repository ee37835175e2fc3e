//! Two services behind HAProxy, two live processes, InfluxDB and Redis, all real.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use domain::store::PairStore;
use domain::{Segment, Timestamp};
use futures::StreamExt;
use serde_json::Value;
use std::collections::BTreeSet;
use stores::influx::{InfluxStore, set_up};
use tempfile::TempDir;

use crate::support::influxd::{Influxd, ORG, TOKEN};
use crate::support::program::headcount;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::servers::{Process, find, free_port};
use crate::support::service::{Service, poll};
use crate::support::two_weeks;

pub const SERVICES: usize = 2;
pub const LIVES: usize = 2;

/// Everything. Processes end when it is dropped.
pub struct Site {
    pub influx: Influxd,
    pub redis: Redis,
    /// Between Redis and everything else.
    pub redis_proxy: Proxy,
    pub services: Vec<Role>,
    pub lives: Vec<Role>,
    front: Front,
    store: InfluxStore,
    _directory: TempDir,
}

/// A process with its directory, which survives the process.
pub struct Role {
    pub service: Service,
    command: &'static str,
    directory: PathBuf,
    port: u16,
    settings: Vec<(String, String)>,
}

struct Front {
    port: u16,
    _process: Process,
}

impl Role {
    fn start(command: &'static str, directory: PathBuf, settings: Vec<(String, String)>) -> Self {
        std::fs::create_dir_all(&directory).unwrap();
        let port = free_port();
        let service = launch(command, &directory, &settings, port, &[]);
        Self {
            service,
            command,
            directory,
            port,
            settings,
        }
    }

    pub fn kill(&mut self) {
        self.service.kill();
    }

    /// Starts it again on its port and directory.
    pub fn restart(&mut self) {
        self.restart_with(&[]);
    }

    /// The same with environment variables for other programs.
    pub fn restart_with(&mut self, variables: &[(&str, String)]) {
        self.service.kill();
        self.service = launch(
            self.command,
            &self.directory,
            &self.settings,
            self.port,
            variables,
        );
    }

    /// Changes a setting, from the next start on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// Ends it as a supervisor does, and starts it again.
    pub async fn replace(&mut self) {
        self.service.signal("TERM");
        poll(async || self.service.has_ended().then_some(())).await;
        self.restart();
    }

    /// Its disk is lost with it.
    pub fn lose_directory(&mut self) {
        self.kill();
        std::fs::remove_dir_all(&self.directory).unwrap();
        std::fs::create_dir_all(&self.directory).unwrap();
    }

    pub async fn metric(&self, name: &str) -> f64 {
        let metrics = self.service.text("/metrics").await;
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap().trim().parse().unwrap()
    }
}

fn launch(
    command: &str,
    directory: &Path,
    settings: &[(String, String)],
    port: u16,
    variables: &[(&str, String)],
) -> Service {
    let settings: Vec<_> = settings
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    let listen = format!("127.0.0.1:{port}");
    let is_off = settings.contains(&("live", "off"));
    let flag = match command {
        // A worker that recounts.
        "worker" if is_off => "--worker-listen",
        _ => "--listen",
    };
    let mut program = headcount(directory, &settings, &[command, flag, &listen]);
    program.envs(variables.iter().map(|(name, value)| (*name, value)));
    Service::run(directory, &mut program)
}

impl Site {
    /// `None` where a server is not installed.
    pub async fn start() -> Option<Self> {
        let site = Self::start_with("live", "redis").await?;
        site.wait_until_live().await;
        Some(site)
    }

    /// An installation without live counts: a worker recounts.
    pub async fn start_without_live_counts() -> Option<Self> {
        Self::start_with("worker", "off").await
    }

    async fn start_with(command: &'static str, live: &str) -> Option<Self> {
        let haproxy = find("haproxy", "HEADCOUNT_TEST_HAPROXY")?;
        let influx = Influxd::start().await?;
        let redis = Redis::start().await?;
        let options = influx.options("b", two_weeks());
        set_up(&options, false).await.unwrap();
        let store = InfluxStore::open(options).unwrap();
        let redis_proxy = Proxy::to(redis.port()).await;
        let directory = tempfile::tempdir().unwrap();
        let settings: Vec<(String, String)> = [
            ("store", "influx".to_owned()),
            ("influx_url", influx.url()),
            ("influx_org", ORG.to_owned()),
            ("influx_bucket", "b".to_owned()),
            ("influx_token", TOKEN.to_owned()),
            ("cache", "redis".to_owned()),
            ("redis_url", format!("redis://{}", redis_proxy.address())),
            ("live", live.to_owned()),
            ("refresh_windows", "1d".to_owned()),
            ("refresh_interval", "1s".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
        let role = |command, number: usize| {
            let directory = directory.path().join(format!("{command}-{number}"));
            Role::start(command, directory, settings.clone())
        };
        let lives: Vec<_> = (0..LIVES).map(|number| role(command, number)).collect();
        let services: Vec<_> = (0..SERVICES).map(|number| role("serve", number)).collect();
        let front = Front::start(&haproxy, &services);
        Some(Self {
            influx,
            redis,
            redis_proxy,
            services,
            lives,
            front,
            store,
            _directory: directory,
        })
    }

    /// The URL of the load balancer.
    pub fn front(&self) -> String {
        format!("http://127.0.0.1:{}", self.front.port)
    }

    /// Waits until every service has live counts of all segments, and owes and spools nothing.
    pub async fn wait_until_live(&self) {
        for role in &self.services {
            poll(async || {
                let (_, ready) = role.service.try_get("/readyz").await;
                let parts = &ready["components"];
                let is_spooled = parts["spool"]["detail"].is_string();
                let is_live = parts["live"]["ok"] == true;
                (is_live && parts["store"]["ok"] == true && !is_spooled).then_some(())
            })
            .await;
        }
    }

    /// The live process that publishes.
    pub async fn publisher(&self) -> usize {
        poll(async || {
            for (number, role) in self.lives.iter().enumerate() {
                let (status, _) = role.service.try_get("/healthz").await;
                if status == 200 && role.metric("headcount_live_publishes").await == 1.0 {
                    return Some(number);
                }
            }
            None
        })
        .await
    }

    /// Whether a live process publishes that is not this one, which may not respond.
    pub async fn publisher_but(&self, but: usize) -> bool {
        for (number, role) in self.lives.iter().enumerate() {
            if number != but && role.metric("headcount_live_publishes").await == 1.0 {
                return true;
            }
        }
        false
    }

    /// Has the live process compare everything with the store. Returns the number of segments that differed.
    pub async fn compare(&self) -> u64 {
        let url = format!("{}/v1/admin/refresh", self.services[0].service.url());
        poll(async || {
            let response = reqwest::Client::new().post(&url).send().await.ok()?;
            let document: Value = response.json().await.ok()?;
            let is_whole = document["failed"] == 0;
            is_whole.then(|| document["differences"].as_u64()).flatten()
        })
        .await
    }

    /// The users that InfluxDB has in a segment.
    pub async fn stored(&self, segment: &str) -> BTreeSet<String> {
        let segment = Segment::new(segment).unwrap();
        let now = two_weeks().resolution().slot_of(Timestamp::now());
        let slots = two_weeks().full_window().slots_as_of(now);
        let mut users = BTreeSet::new();
        let mut batches = self.store.export_stream(&segment, slots);
        while let Some(batch) = batches.next().await {
            let batch = batch.unwrap();
            users.extend(batch.pairs().map(|pair| pair.user.as_str().to_owned()));
        }
        users
    }
}

impl Front {
    /// The load balancer with its committed configuration.
    fn start(haproxy: &Path, services: &[Role]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let port = free_port();
        let nowhere = || format!("127.0.0.1:{}", free_port());
        let process = Process::start(
            Command::new(haproxy)
                .arg("-db")
                .arg("-f")
                .arg(root.join("deploy/haproxy/haproxy.cfg"))
                .env("FRONT_BIND", format!("127.0.0.1:{port}"))
                .env("FRONT_POSTGRES_BIND", nowhere())
                .env("FRONT_REDIS_BIND", nowhere())
                .env("FRONT_METRICS_BIND", nowhere())
                .env("HEADCOUNT_1", services[0].service.address().to_string())
                .env("HEADCOUNT_2", services[1].service.address().to_string())
                .env("HEADCOUNT_POSTGRES", nowhere())
                .env("HEADCOUNT_REDIS", nowhere()),
        );
        Self {
            port,
            _process: process,
        }
    }
}

/// Lets the load go on.
pub async fn seconds(number: u64) {
    tokio::time::sleep(Duration::from_secs(number)).await;
}
