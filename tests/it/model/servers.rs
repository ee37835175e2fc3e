//! The real servers of a test, with an empty namespace for each case.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::support::influxd::{Influxd, ORG, TOKEN};
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;

const PATIENCE: Duration = Duration::from_secs(120);

/// The server of a store.
#[derive(Debug)]
pub enum StoreServer {
    Influx(Influxd),
    Postgres(Postgres),
}

impl StoreServer {
    pub async fn influx() -> Option<Self> {
        Influxd::start().await.map(Self::Influx)
    }

    pub async fn postgres() -> Option<Self> {
        Postgres::start().await.map(Self::Postgres)
    }

    fn port(&self) -> u16 {
        match self {
            Self::Influx(server) => server.port(),
            Self::Postgres(server) => server.port(),
        }
    }

    /// Settings that use the namespace with this number through a proxy on `port`.
    fn settings(&self, port: u16, place: u32) -> Vec<(&'static str, String)> {
        match self {
            Self::Influx(_) => vec![
                ("store", "influx".to_owned()),
                ("influx_url", format!("http://127.0.0.1:{port}")),
                ("influx_org", ORG.to_owned()),
                ("influx_token", TOKEN.to_owned()),
                ("influx_bucket", format!("b{place}")),
                ("influx_trend_bucket", format!("b{place}_trend")),
            ],
            Self::Postgres(server) => vec![
                ("store", "postgres".to_owned()),
                ("postgres_url", server.url_at(port)),
                ("postgres_schema", format!("s{place}")),
            ],
        }
    }

    async fn kill(&mut self) {
        match self {
            Self::Influx(server) => {
                server.kill();
                server.restart().await;
            }
            Self::Postgres(server) => {
                server.kill();
                server.restart().await;
            }
        }
    }
}

async fn kill(server: &mut Redis) {
    server.kill();
    server.restart();
    let began = Instant::now();
    while !server.cli(&["PING"]).contains("PONG") {
        assert!(began.elapsed() < PATIENCE, "redis-server does not restart");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The servers that the instances of all cases share.
#[derive(Debug)]
pub struct Servers {
    store: Mutex<StoreServer>,
    cache: Mutex<Redis>,
    place: AtomicU32,
}

impl Servers {
    pub async fn start(store: Option<StoreServer>) -> Option<Self> {
        Some(Self {
            store: Mutex::new(store?),
            cache: Mutex::new(Redis::start().await?),
            place: AtomicU32::new(0),
        })
    }

    /// Selects another namespace for the next case.
    pub fn move_on(&self) {
        self.place.fetch_add(1, Ordering::Relaxed);
    }

    pub async fn store_port(&self) -> u16 {
        self.store.lock().await.port()
    }

    pub async fn cache_port(&self) -> u16 {
        self.cache.lock().await.port()
    }

    /// Settings for an instance whose connections use these ports.
    pub async fn settings(&self, store: u16, cache: u16) -> Vec<(&'static str, String)> {
        let place = self.place.load(Ordering::Relaxed);
        let server = self.store.lock().await;
        let mut settings = server.settings(store, place);
        settings.push(("redis_prefix", format!("p{place}")));
        settings.push(("cache", "redis".to_owned()));
        settings.push(("redis_url", format!("redis://127.0.0.1:{cache}")));
        settings
    }

    pub async fn kill_store(&self) {
        self.store.lock().await.kill().await;
    }

    pub async fn kill_cache(&self) {
        kill(&mut *self.cache.lock().await).await;
    }

    pub async fn flush_cache(&self) {
        assert_eq!(self.cache.lock().await.cli(&["FLUSHALL"]), "OK");
    }

    /// Removes what would otherwise only expire: a lock that was not released, and the trust in a list of segments.
    pub async fn pass_time(&self) {
        let place = self.place.load(Ordering::Relaxed);
        let (lock, list) = (format!("p{place}:lock"), format!("p{place}:segments"));
        self.cache.lock().await.cli(&["DEL", &lock, &list]);
    }
}
