//! The servers and processes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use domain::store::PairStore;
use domain::{Secret, Timestamp};
use stores::influx::{InfluxStore, set_up};
use stores::redis::feed::{RedisFeed, RedisFeedOptions};
use stores::redis::{Prefix, RedisServer};
use tempfile::TempDir;

use crate::support::influxd::{Influxd, ORG, TOKEN};
use crate::support::program::headcount;
use crate::support::redis::Redis;
use crate::support::resident;
use crate::support::service::{Service, poll};
use crate::support::traffic::frame;

pub(crate) struct Site {
    pub(crate) influx: Influxd,
    redis: Redis,
    lives: [Option<Service>; 2],
    services: Vec<Service>,
    plain: Vec<Service>,
    directory: TempDir,
}

impl Site {
    pub(crate) async fn start() -> Option<Self> {
        let influx = Influxd::start().await?;
        let redis = Redis::start().await?;
        for bucket in ["live", "plain"] {
            let mut options = influx.options(bucket, frame());
            options.trend_bucket = format!("{bucket}_trend");
            set_up(&options, false).await.unwrap();
        }
        Some(Self {
            influx,
            redis,
            lives: [None, None],
            services: Vec::new(),
            plain: Vec::new(),
            directory: tempfile::tempdir().unwrap(),
        })
    }

    fn folder(&self, name: &str) -> PathBuf {
        let folder = self.directory.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn launch(&self, command: &str, folder: &str, bucket: &str, live: &str) -> Service {
        let (url, redis) = (self.influx.url(), self.redis.url());
        let trend = format!("{bucket}_trend");
        let settings = [
            ("store", "influx"),
            ("influx_url", &url),
            ("influx_org", ORG),
            ("influx_token", TOKEN),
            ("influx_bucket", bucket),
            ("influx_trend_bucket", &trend),
            ("cache", "redis"),
            ("redis_url", &redis),
            ("redis_prefix", bucket),
            ("refresh_windows", "1d,7d"),
            // What is not live answers from memory all the time.
            ("memory_ttl", "1h"),
            ("refresh_mode", if live == "off" { "off" } else { "loop" }),
            ("live", live),
            ("log", "warn,headcount=info"),
        ];
        let folder = self.folder(folder);
        let mut program = headcount(&folder, &settings, &[command, "--listen", "127.0.0.1:0"]);
        Service::run(&folder, &mut program)
    }

    pub(crate) async fn start_services(&mut self) {
        for number in 0..2 {
            let live = self.launch("serve", &format!("service-{number}"), "live", "redis");
            let plain = self.launch("serve", &format!("plain-{number}"), "plain", "off");
            poll(async || {
                let (_, ready) = live.try_get("/readyz").await;
                (ready["components"]["live"]["ok"] == true).then_some(())
            })
            .await;
            self.services.push(live);
            self.plain.push(plain);
        }
    }

    pub(crate) fn live_urls(&self) -> Vec<String> {
        self.services.iter().map(Service::url).collect()
    }

    pub(crate) fn plain_urls(&self) -> Vec<String> {
        self.plain.iter().map(Service::url).collect()
    }

    pub(crate) fn start_live(&mut self, number: usize) {
        let live = self.launch("live", &format!("live-{number}"), "live", "redis");
        self.lives[number] = Some(live);
    }

    pub(crate) fn kill_live(&mut self, number: usize) {
        self.lives[number] = None;
    }

    pub(crate) async fn stop_live(&mut self, number: usize) {
        let live = self.lives[number].take().unwrap();
        assert_eq!(live.terminate().await, Some(0));
    }

    fn live(&self, number: usize) -> &Service {
        self.lives[number].as_ref().unwrap()
    }

    pub(crate) fn live_id(&self, number: usize) -> u32 {
        self.live(number).process().id()
    }

    pub(crate) fn influx_id(&self) -> u32 {
        self.influx.process().id()
    }

    pub(crate) fn resident(&self, number: usize) -> u64 {
        resident(&self.live_id(number).to_string())
    }

    pub(crate) async fn metric(&self, number: usize, name: &str) -> f64 {
        let metrics = self.live(number).text("/metrics").await;
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap().trim().parse().unwrap()
    }

    /// Waits until a live process has every segment and follows the feed.
    pub(crate) async fn wait_until_complete(&self, number: usize) {
        poll(async || {
            let is_complete = self.metric(number, "headcount_live_complete").await == 1.0;
            let is_current = !self
                .metric(number, "headcount_live_age_seconds")
                .await
                .is_nan();
            (is_complete && is_current).then_some(())
        })
        .await;
    }

    pub(crate) async fn wait_until_applied(&self, number: usize, entries: f64) {
        poll(async || {
            let applied = self
                .metric(number, "headcount_live_applied_entries_total")
                .await;
            (applied >= entries).then_some(())
        })
        .await;
    }

    pub(crate) async fn publisher(&self) -> usize {
        poll(async || {
            for number in 0..2 {
                if self.metric(number, "headcount_live_publishes").await == 1.0 {
                    return Some(number);
                }
            }
            None
        })
        .await
    }

    /// The feed of the services with live counts.
    pub(crate) fn feed(&self) -> Arc<RedisFeed> {
        let server = RedisServer::parse(&Secret::new(self.redis.url())).unwrap();
        let options = RedisFeedOptions::new(server, Prefix::new("live").unwrap());
        Arc::new(RedisFeed::open(RedisFeedOptions {
            command_timeout: Duration::from_secs(60),
            ..options
        }))
    }

    /// The CPU time of Redis.
    pub(crate) fn redis_cpu(&self) -> Duration {
        let info = self.redis.cli(&["INFO", "cpu"]);
        let seconds = ["used_cpu_sys:", "used_cpu_user:"].map(|name| -> f64 {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim().parse().unwrap()
        });
        Duration::from_secs_f64(seconds.iter().sum())
    }

    /// The bytes of all entries that were ever appended to the feed.
    pub(crate) fn redis_records(&self) -> u64 {
        let bytes = self.redis.cli(&["HGET", "live:{live}:state", "bytes"]);
        bytes.trim().parse().unwrap()
    }

    /// Compares every live count with the store's own. Returns the number of users that the store hides: two users whose points
    /// have one segment and one timestamp. Fails if a segment lacks a user, or has more than one too many, which is very unlikely
    /// at 20,000 users a minute and segment.
    pub(crate) async fn compare(&self, store: &InfluxStore) -> u64 {
        let window = frame().full_window();
        let mut hidden = 0;
        for segment in store.segments(Timestamp::now()).await.unwrap() {
            let path = format!("/v1/segments/{segment}/count?fresh=true");
            let mut live = self.services[1].get(&path).await;
            while live["source"] != "live" {
                tokio::time::sleep(Duration::from_millis(100)).await;
                live = self.services[1].get(&path).await;
            }
            let counted = store.count(&segment, window, Timestamp::now()).await;
            let counted = counted.unwrap().users;
            let more = live["users"].as_u64().unwrap().checked_sub(counted);
            assert!(
                more.is_some_and(|more| more <= 1),
                "{segment} has {counted} users in InfluxDB: {live}"
            );
            hidden += more.unwrap_or(0);
        }
        hidden
    }
}

/// The CPU time of a process.
pub(crate) fn cpu(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks: u64 = [11, 12]
        .map(|at| fields[at].parse::<u64>().unwrap())
        .iter()
        .sum();
    // Linux reports hundredths of a second to programs.
    Duration::from_millis(ticks * 10)
}
