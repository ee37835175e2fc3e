//! The documented behaviour while InfluxDB, Redis or both are unavailable, checked line by line, under load.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use domain::Timestamp;
use parking_lot::Mutex;
use stores::influx::set_up;
use tokio::task::JoinSet;

use crate::support::influxd::{Influxd, ORG, TOKEN};
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::service::Service;
use crate::support::two_weeks;

/// A change to a proxy, and its name.
type Switch = (&'static str, fn(&Proxy));

const PATIENCE: Duration = Duration::from_secs(120);
/// Writers per service. Each writes to its own segment.
const WRITERS: usize = 4;
/// Users in one post, which appear in no other post.
const GROUP: u64 = 10;
/// The pause of a writer between posts. Among some ten thousand users of one segment in one minute, a collision of two
/// pairs on one point, which would hide a pair, is very unlikely.
const REST: Duration = Duration::from_millis(10);

/// Results of requests that began and ended between two switches.
#[derive(Debug, Default, Clone)]
struct Seen {
    /// Posts by status.
    writes: BTreeMap<u16, u64>,
    /// Counts: the status, and for a 200 its source and whether it was stale.
    reads: BTreeMap<(u16, String, bool), u64>,
}

impl Seen {
    fn written(&self, status: u16) -> u64 {
        self.writes.get(&status).copied().unwrap_or_default()
    }

    fn read_from(&self, source: &str, is_stale: bool) -> u64 {
        let reads = self.reads.get(&(200, source.to_owned(), is_stale));
        reads.copied().unwrap_or_default()
    }

    fn stale(&self) -> u64 {
        let stale = self.reads.iter().filter(|((_, _, is_stale), _)| *is_stale);
        stale.map(|(_, reads)| reads).sum()
    }

    /// Every read returned a count.
    fn assert_reads_continue(&self) {
        assert!(
            self.reads.keys().all(|(status, _, _)| *status == 200),
            "{self:?}"
        );
    }

    /// Every post was accepted, with the pairs in the store or on disk.
    fn assert_writes_continue(&self) {
        assert!(
            self.writes.keys().all(|status| matches!(status, 200 | 202)),
            "{self:?}"
        );
    }
}

/// Writers and readers that run continuously until it is stopped.
struct Load {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    epoch: AtomicU64,
    seen: Mutex<Seen>,
    /// Acknowledged users by segment.
    acknowledged: [AtomicU64; WRITERS],
}

impl State {
    /// Records a result observed since `epoch`, unless something was switched since.
    fn note(&self, epoch: u64, note: impl FnOnce(&mut Seen)) {
        let mut seen = self.seen.lock();
        if self.epoch.load(Ordering::SeqCst) == epoch {
            note(&mut seen);
        }
    }
}

impl Load {
    fn on(services: &[Arc<Service>]) -> Self {
        let mut load = Self {
            tasks: JoinSet::new(),
            stop: Arc::default(),
            state: Arc::default(),
        };
        for (number, service) in services.iter().enumerate() {
            for writer in 0..WRITERS {
                let (service, stop, state) = load.shared(service);
                load.tasks.spawn(async move {
                    let name = format!("{number}-{writer}");
                    write(&service, &name, writer, &stop, &state).await;
                });
            }
            let (service, stop, state) = load.shared(service);
            load.tasks
                .spawn(async move { read(&service, &stop, &state).await });
        }
        load
    }

    fn shared(&self, service: &Arc<Service>) -> (Arc<Service>, Arc<AtomicBool>, Arc<State>) {
        (
            Arc::clone(service),
            Arc::clone(&self.stop),
            Arc::clone(&self.state),
        )
    }

    /// Switches something, and returns the results from then on once `is_enough`.
    async fn after(&self, switch: impl FnOnce(), is_enough: impl Fn(&Seen) -> bool) -> Seen {
        switch();
        // Requests in flight now belong to neither side of the switch.
        {
            let mut seen = self.state.seen.lock();
            self.state.epoch.fetch_add(1, Ordering::SeqCst);
            *seen = Seen::default();
        }
        let began = Instant::now();
        loop {
            let seen = self.state.seen.lock().clone();
            if is_enough(&seen) {
                return seen;
            }
            assert!(began.elapsed() < PATIENCE, "only saw {seen:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the load. Returns the number of acknowledged users by segment.
    async fn stop(mut self) -> Vec<u64> {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        let acknowledged = self.state.acknowledged.iter();
        acknowledged
            .map(|users| users.load(Ordering::SeqCst))
            .collect()
    }
}

/// Posts new users, and retries each post until it is acknowledged, as a careful client does.
async fn write(service: &Service, name: &str, writer: usize, stop: &AtomicBool, state: &State) {
    for round in 0.. {
        let users: Vec<_> = (0..GROUP).map(|n| format!("{name}-{round}-{n}")).collect();
        loop {
            let epoch = state.epoch.load(Ordering::SeqCst);
            let status = service.post(&users, &format!("s{writer}")).await;
            state.note(epoch, |seen| *seen.writes.entry(status).or_default() += 1);
            if matches!(status, 200 | 202) {
                state.acknowledged[writer].fetch_add(GROUP, Ordering::SeqCst);
                break;
            }
            tokio::time::sleep(REST).await;
        }
        tokio::time::sleep(REST).await;
        if stop.load(Ordering::SeqCst) {
            return;
        }
    }
}

async fn read(service: &Service, stop: &AtomicBool, state: &State) {
    for segment in (0..WRITERS).cycle() {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let epoch = state.epoch.load(Ordering::SeqCst);
        let path = format!("/v1/segments/s{segment}/count");
        let (status, answer) = service.try_get(&path).await;
        let source = answer["source"].as_str().unwrap_or_default().to_owned();
        let is_stale = answer["stale"] == true;
        state.note(epoch, |seen| {
            *seen.reads.entry((status, source, is_stale)).or_default() += 1;
        });
        // A pause, since this test does not load the readers.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Both servers behind proxies, set up, and the settings of a service that uses them.
struct Servers {
    influxd: Influxd,
    redis: Redis,
    to_influxd: Proxy,
    to_redis: Proxy,
}

impl Servers {
    async fn start() -> Option<Self> {
        let influxd = Influxd::start().await?;
        let redis = Redis::start_with(&["--appendonly", "yes"]).await?;
        set_up(&influxd.options("b", two_weeks()), false)
            .await
            .unwrap();
        Some(Self {
            to_influxd: Proxy::to(influxd.port()).await,
            to_redis: Proxy::to(redis.port()).await,
            influxd,
            redis,
        })
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let texts = [
            ("store", "influx"),
            ("influx_org", ORG),
            ("influx_bucket", "b"),
            ("influx_token", TOKEN),
            ("cache", "redis"),
            ("cache_ttl", "2s"),
            // So that every response shows the source of its count.
            ("memory_ttl", "0s"),
            ("refresh_interval", "1s"),
        ];
        let mut settings: Vec<_> = texts.map(|(name, text)| (name, text.to_owned())).into();
        settings.push((
            "influx_url",
            format!("http://{}", self.to_influxd.address()),
        ));
        settings.push(("redis_url", format!("redis://{}", self.to_redis.address())));
        settings
    }
}

/// The counts of all segments, once `service` serves cached ones as of now or later.
async fn settled(service: &Service) -> Vec<u64> {
    let mut counts = Vec::new();
    let (began, now) = (Instant::now(), Timestamp::now());
    while counts.len() < WRITERS {
        let path = format!("/v1/segments/s{}/count", counts.len());
        let (_, answer) = service.try_get(&path).await;
        let as_of = answer["as_of"].as_str().map(str::parse::<Timestamp>);
        let is_new = matches!(as_of, Some(Ok(as_of)) if as_of >= now);
        if is_new && answer["stale"] == false && answer["source"] == "cache" {
            counts.push(answer["users"].as_u64().unwrap());
            continue;
        }
        assert!(began.elapsed() < PATIENCE, "never settled: {answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    counts
}

fn borrowed<'a>(settings: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    let settings = settings.iter();
    settings
        .map(|(name, value)| (*name, value.as_str()))
        .collect()
}

async fn fresh(service: &Service) -> Vec<u64> {
    let mut counts = Vec::new();
    for segment in 0..WRITERS {
        let path = format!("/v1/segments/s{segment}/count?fresh=true");
        counts.push(service.get(&path).await["users"].as_u64().unwrap());
    }
    counts
}

/// The value of a metric, summed over its labels.
async fn metric(service: &Service, name: &str) -> f64 {
    let text = service.text("/metrics").await;
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_outage_under_load_has_only_the_documented_effects() {
    let Some(servers) = Servers::start().await else {
        return;
    };
    let (influxd, redis) = (&servers.to_influxd, &servers.to_redis);
    let directory = tempfile::tempdir().unwrap();
    let service = Arc::new(Service::start(directory.path(), &borrowed(&servers.settings())).await);
    let load = Load::on(std::slice::from_ref(&service));

    let well = load
        .after(
            || {},
            |seen| seen.written(200) > 60 && seen.read_from("cache", false) > 20,
        )
        .await;
    well.assert_reads_continue();
    assert_eq!(well.written(202) + well.stale(), 0, "{well:?}");

    // Redis is unavailable: nothing changes for writers, and readers get a count from InfluxDB.
    let switches: [Switch; 2] = [("cut", Proxy::cut), ("stalled", Proxy::stall)];
    for (how, switch) in switches {
        let away = load
            .after(
                || switch(redis),
                |seen| seen.written(200) > 60 && seen.read_from("store", false) > 20,
            )
            .await;
        assert_eq!(away.writes.len(), 1, "Redis {how}: {away:?}");
        away.assert_reads_continue();
        assert_eq!(away.stale(), 0, "Redis {how}: {away:?}");
    }
    assert!(metric(&service, "headcount_cache_fallbacks_total").await > 0.0);
    let back = load
        .after(
            || redis.restore(),
            |seen| seen.read_from("cache", false) > 20,
        )
        .await;
    back.assert_reads_continue();
    assert_eq!(back.written(202) + back.stale(), 0, "{back:?}");

    // InfluxDB is unavailable, then both: pairs go to disk, and the last known count is served.
    for (how, switch) in switches {
        let away = load
            .after(
                || switch(influxd),
                |seen| seen.written(202) > 30 && seen.stale() > 10,
            )
            .await;
        away.assert_writes_continue();
        away.assert_reads_continue();
        let both = load
            .after(
                || switch(redis),
                |seen| seen.written(202) > 30 && seen.stale() > 10,
            )
            .await;
        assert_eq!(both.written(200), 0, "both {how}: {both:?}");
        both.assert_writes_continue();
        both.assert_reads_continue();
        assert_eq!(both.read_from("store", false), 0, "both {how}: {both:?}");
        if how == "cut" {
            let (status, unknown) = service.try_get("/v1/segments/never/count").await;
            assert_eq!((status, &unknown["code"]), (503, &"unavailable".into()));
        }
        let (_, ready) = service.try_get("/readyz").await;
        assert_eq!(ready["writes"], true, "both {how}: {ready}");
        let half = load
            .after(
                || influxd.restore(),
                |seen| seen.written(200) > 30 && seen.read_from("store", false) > 10,
            )
            .await;
        half.assert_writes_continue();
        half.assert_reads_continue();
        let back = load
            .after(
                || redis.restore(),
                |seen| seen.written(200) > 30 && seen.read_from("cache", false) > 10,
            )
            .await;
        back.assert_writes_continue();
        back.assert_reads_continue();
    }

    let acknowledged = load.stop().await;
    service.wait_until_drained().await;
    assert_eq!(fresh(&service).await, acknowledged, "each once");
    assert_eq!(settled(&service).await, acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_services_and_a_worker_agree_after_each_server_is_killed_under_load() {
    let Some(mut servers) = Servers::start().await else {
        return;
    };
    let mut settings = servers.settings();
    settings.push(("refresh_mode", "off".to_owned()));
    let directories = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [first, second, third] = &directories;
    let services = [
        Arc::new(Service::start(first.path(), &borrowed(&settings)).await),
        Arc::new(Service::start(second.path(), &borrowed(&settings)).await),
    ];
    let _worker = Service::worker(third.path(), &borrowed(&settings));
    let load = Load::on(&services);
    load.after(|| {}, |seen| seen.written(200) > 100).await;

    servers.redis.kill();
    let away = load
        .after(
            || {},
            |seen| seen.written(200) > 100 && seen.read_from("store", false) > 20,
        )
        .await;
    away.assert_reads_continue();
    assert_eq!(away.writes.len(), 1, "{away:?}");
    servers.redis.restart();
    load.after(|| {}, |seen| seen.read_from("cache", false) > 40)
        .await
        .assert_reads_continue();

    servers.influxd.kill();
    let away = load
        .after(|| {}, |seen| seen.written(202) > 60 && seen.stale() > 20)
        .await;
    away.assert_reads_continue();
    away.assert_writes_continue();
    servers.redis.kill();
    let away = load
        .after(|| {}, |seen| seen.written(202) > 60 && seen.stale() > 20)
        .await;
    away.assert_reads_continue();
    away.assert_writes_continue();
    servers.influxd.restart().await;
    servers.redis.restart();
    load.after(
        || {},
        |seen| seen.written(200) > 60 && seen.read_from("cache", false) > 40,
    )
    .await;

    let acknowledged = load.stop().await;
    for service in &services {
        service.wait_until_drained().await;
    }
    for service in &services {
        assert_eq!(fresh(service).await, acknowledged, "each once");
        assert_eq!(settled(service).await, acknowledged, "the same from both");
    }
}
