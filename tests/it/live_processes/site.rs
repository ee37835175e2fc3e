//! Two services behind HAProxy, two live processes, InfluxDB and Redis, all real.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use domain::store::PairStore;
use domain::{Segment, Slot, Timestamp};
use futures::StreamExt;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use stores::influx::InfluxStore;
use tempfile::TempDir;

use crate::support::influxd::{Influxd, settings_at};
use crate::support::program::{headcount, run};
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::servers::{Process, find, free_port};
use crate::support::service::{Service, poll};
use crate::support::two_weeks;

pub const SERVICES: usize = 2;
pub const LIVES: usize = 2;

/// The clocks of services are ahead by less than this number of slots.
const SLOTS_AHEAD: u64 = 15;

/// The servers of an installation.
pub struct Servers {
    pub influx: Influxd,
    redis: Redis,
    haproxy: PathBuf,
}

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
    client: reqwest::Client,
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
        self.find_metric(name).await.unwrap()
    }

    async fn find_metric(&self, name: &str) -> Option<f64> {
        let metrics = self.service.text("/metrics").await;
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Some(line?.trim().parse().unwrap())
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

impl Servers {
    /// `None` where one of them is not installed.
    pub async fn start() -> Option<Self> {
        Some(Self {
            haproxy: find("haproxy", "HEADCOUNT_TEST_HAPROXY")?,
            influx: Influxd::start().await?,
            redis: Redis::start().await?,
        })
    }

    /// Runs `headcount setup`. Returns what it printed.
    pub fn set_up(&self) -> String {
        let directory = tempfile::tempdir().unwrap();
        let url = self.influx.url();
        let done = run(directory.path(), &settings_at(&url, &[]), &["setup"]);
        assert_eq!(done.code, Some(0), "{done:?}");
        done.out
    }
}

impl Site {
    /// `None` where a server is not installed.
    pub async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// The same with further settings.
    pub async fn start_with(settings: &[(&str, &str)]) -> Option<Self> {
        let servers = Servers::start().await?;
        servers.set_up();
        let settings = [&[("live", "redis")], settings].concat();
        let site = Self::on(servers, "live", &settings).await;
        site.wait_until_live().await;
        Some(site)
    }

    /// Without live counts: workers recount.
    pub async fn without_live_counts(servers: Servers) -> Self {
        Self::on(servers, "worker", &[("live", "off")]).await
    }

    async fn on(servers: Servers, command: &'static str, settings: &[(&str, &str)]) -> Self {
        let Servers {
            influx,
            redis,
            haproxy,
        } = servers;
        let redis_proxy = Proxy::to(redis.port()).await;
        let redis_url = format!("redis://{}", redis_proxy.address());
        let of_cache = [
            ("cache", "redis"),
            ("redis_url", &redis_url),
            ("refresh_windows", "1d"),
            ("refresh_interval", "1s"),
        ];
        let url = influx.url();
        let settings: Vec<_> = settings_at(&url, &[&of_cache, settings].concat())
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let directory = tempfile::tempdir().unwrap();
        let role = |command, number: usize| {
            let directory = directory.path().join(format!("{command}-{number}"));
            Role::start(command, directory, settings.clone())
        };
        let lives: Vec<_> = (0..LIVES).map(|number| role(command, number)).collect();
        let services: Vec<_> = (0..SERVICES).map(|number| role("serve", number)).collect();
        Self {
            front: Front::start(&haproxy, &services),
            store: InfluxStore::open(influx.options("b", two_weeks())).unwrap(),
            client: reqwest::Client::new(),
            influx,
            redis,
            redis_proxy,
            services,
            lives,
            _directory: directory,
        }
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

    /// The number of recounts of everything that services have completed.
    pub async fn recounts(&self) -> f64 {
        let mut recounts = 0.0;
        for role in &self.services {
            let name = "headcount_refresh_duration_seconds_count{outcome=\"ok\"}";
            // It has no value before the first recount.
            recounts += role.find_metric(name).await.unwrap_or(0.0);
        }
        recounts
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

    /// Posts users to an instance until the response is 200: every later count has them.
    pub async fn record(&self, url: &str, users: &[String], segment: &str) {
        let pair = |user| json!({"user_id": user, "segment": segment});
        let pairs: Vec<_> = users.iter().map(pair).collect();
        poll(async || {
            let request = self.client.post(format!("{url}/v1/pairs")).json(&pairs);
            (request.send().await.ok()?.status() == 200).then_some(())
        })
        .await;
    }

    /// Erases a user by way of a service, as soon as that is possible.
    pub async fn erase(&self, service: usize, user: &str) {
        let url = self.services[service].service.url();
        let url = format!("{url}/v1/users/{}", user.replace(' ', "%20"));
        poll(async || {
            let response = self.client.delete(&url).send().await.ok()?;
            (response.status() == 200).then_some(())
        })
        .await;
    }

    /// Gets a document through the load balancer; `None` without a 200.
    pub async fn get_at_front(&self, path: &str) -> Option<Value> {
        let request = self.client.get(format!("{}{path}", self.front()));
        let response = request.send().await.ok()?.error_for_status().ok()?;
        response.json().await.ok()
    }

    /// The users that InfluxDB has in a segment, with those of a service whose clock is ahead.
    pub async fn stored(&self, segment: &str) -> BTreeSet<String> {
        self.stored_until(segment, SLOTS_AHEAD).await
    }

    /// The same without those that were seen in the future.
    pub async fn stored_until_now(&self, segment: &str) -> BTreeSet<String> {
        self.stored_until(segment, 0).await
    }

    async fn stored_until(&self, segment: &str, slots_ahead: u64) -> BTreeSet<String> {
        let segment = Segment::new(segment).unwrap();
        let now = two_weeks().resolution().slot_of(Timestamp::now());
        let window = two_weeks().full_window().slots_as_of(now);
        let slots = *window.start()..=Slot::new(now.number() + slots_ahead);
        let mut users = BTreeSet::new();
        let mut batches = self.store.export_stream(&segment, slots);
        while let Some(batch) = batches.next().await {
            let batch = batch.unwrap();
            users.extend(batch.pairs().map(|pair| pair.user.as_str().to_owned()));
        }
        users
    }

    /// InfluxDB's own count of a segment.
    pub async fn counted_by_influxdb(&self, segment: &str) -> u64 {
        let segment = Segment::new(segment).unwrap();
        let window = two_weeks().full_window();
        let count = self.store.count(&segment, window, Timestamp::now()).await;
        count.unwrap().users
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
