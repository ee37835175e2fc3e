//! Opens what live counts need, for a service and for a live process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;

use super::live_process::HttpLiveProcess;
use super::{open_cache, open_store};
use crate::config::{LiveMode, RedisSettings, Settings};
use domain::Floor;
use domain::cache::{CacheError, CountCache};
use domain::store::StoreError;
use engine::{Backends, EngineOptions, LiveParts, Opened, OwedLog};
use stores::local_feed::{LocalFeed, LocalFeedOptions};
use stores::redis::feed::{RedisFeed, RedisFeedOptions};
use stores::redis::published::{RedisPublishedCounts, RedisPublishedOptions};
use telemetry::Metrics;
use wal::{LogError, OsDisk};

/// The folder of owed entries in the directory of the spool.
const OWED: &str = "owed";

/// The backends of `headcount live`: it records no pairs, and publishes the counts of its replica.
#[derive(Debug)]
pub struct LiveBackends<'a> {
    settings: &'a Settings,
    address: String,
}

impl<'a> LiveBackends<'a> {
    /// Those of a process that listens on `listen`.
    pub fn new(settings: &'a Settings, listen: SocketAddr) -> Self {
        let address = match &settings.live.address {
            Some(address) => address.clone(),
            None => format!("http://{}", reachable(settings, listen)),
        };
        Self { settings, address }
    }

    /// The URL at which services reach the process.
    pub fn address(&self) -> &str {
        &self.address
    }
}

#[async_trait]
impl Backends for LiveBackends<'_> {
    fn engine_options(&self) -> EngineOptions {
        EngineOptions {
            // Services send ids as they are stored.
            user_key: None,
            spool: None,
            refreshes: true,
            // Services apply the privacy floor, and a live process returns every count to them.
            min_users: Floor::default(),
            ..self.settings.into()
        }
    }

    async fn open_store(&self, metrics: &Arc<Metrics>) -> Result<Opened, StoreError> {
        let mut opened = open_store(self.settings, metrics).await?;
        let redis = redis(self.settings)?;
        opened.live = Some(LiveParts::Process {
            feed: Arc::new(shared_feed(redis)),
            dir: self.settings.live.dir.join("replica"),
            published: Arc::new(published(redis)),
            address: self.address.clone(),
        });
        Ok(opened)
    }

    fn open_cache(&self) -> Result<Arc<dyn CountCache>, CacheError> {
        open_cache(self.settings)
    }
}

/// What a service needs for live counts, if there are any.
pub(super) async fn open_live(settings: &Settings) -> Result<Option<LiveParts>, StoreError> {
    match settings.live.mode {
        LiveMode::Off => Ok(None),
        LiveMode::Here => Ok(Some(here(settings).await?)),
        LiveMode::Redis => Ok(Some(service(settings).await?)),
    }
}

async fn here(settings: &Settings) -> Result<LiveParts, StoreError> {
    let feed = LocalFeedOptions::new(settings.live.dir.join("feed"));
    let feed = opened("the change feed (setting `live_dir`)", move || {
        LocalFeed::open(feed)
    });
    Ok(LiveParts::Here {
        feed: Arc::new(feed.await?),
        dir: settings.live.dir.join("replica"),
    })
}

async fn service(settings: &Settings) -> Result<LiveParts, StoreError> {
    let owed = match &settings.ingest.spool {
        Some(spool) => {
            let dir = spool.dir.join(OWED);
            let log = opened("the log of owed entries (setting `spool_dir`)", move || {
                OwedLog::open(Arc::new(OsDisk), &dir)
            });
            Some(log.await?)
        }
        None => None,
    };
    let process = HttpLiveProcess::new(settings.frame)
        .map_err(|error| StoreError::Unavailable(format!("can't set up HTTP: {error}")))?;
    let redis = redis(settings)?;
    Ok(LiveParts::Service {
        feed: Arc::new(shared_feed(redis)),
        published: Arc::new(published(redis)),
        owed,
        process: Arc::new(process),
    })
}

/// Opens a log on a thread of its own: reading it must not block the runtime's threads.
async fn opened<T: Send + 'static>(
    what: &str,
    open: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, StoreError> {
    let failed =
        |error: &dyn std::fmt::Display| StoreError::Unavailable(format!("{what}: {error}"));
    let opened = tokio::task::spawn_blocking(open).await;
    let opened = opened.map_err(|error| failed(&error))?;
    opened.map_err(|error| failed(&error))
}

fn redis(settings: &Settings) -> Result<&RedisSettings, StoreError> {
    let missing = || StoreError::Rejected("redis_url is missing".to_owned());
    settings.cache.redis.as_ref().ok_or_else(missing)
}

fn shared_feed(redis: &RedisSettings) -> RedisFeed {
    RedisFeed::open(RedisFeedOptions::new(
        redis.server.clone(),
        redis.prefix.clone(),
    ))
}

fn published(redis: &RedisSettings) -> RedisPublishedCounts {
    RedisPublishedCounts::open(RedisPublishedOptions::new(
        redis.server.clone(),
        redis.prefix.clone(),
    ))
}

/// The address of a process that listens on `listen`, as others see it: services reach Redis, so they reach the address from
/// which this process does.
fn reachable(settings: &Settings, listen: SocketAddr) -> SocketAddr {
    let towards_redis = || settings.cache.redis.as_ref()?.server.source_address();
    let ip = match listen.ip().is_unspecified() {
        true => towards_redis().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        false => listen.ip(),
    };
    SocketAddr::new(ip, listen.port())
}
