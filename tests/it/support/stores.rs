//! Every store that this machine can run, each on its own server.

use std::sync::Arc;
use std::time::Duration;

use domain::store::PairStore;
use domain::{FingerprintKey, Secret, TimeFrame};
use stores::embedded::{EmbeddedOptions, EmbeddedStore};
use stores::redis::store::{RedisStore, RedisStoreOptions};
use stores::redis::{Prefix, RedisServer};
use tempfile::TempDir;

use super::influxd::{self, Influxd};
use super::postgres::Postgres;
use super::redis::{Redis, RedisCluster};

/// The key of the InfluxDB store. It is constant, because InfluxDB keeps one of two users whose fingerprints give the same
/// nanosecond of a slot: a test that compares counts chooses users without such a pair.
pub const INFLUX_KEY: [u8; 16] = *b"of a test only..";

/// Empty stores with the same frame, and their servers.
pub struct Stores {
    stores: Vec<(&'static str, Arc<dyn PairStore>)>,
    _directory: TempDir,
    _influxd: Option<Influxd>,
    _postgres: Option<Postgres>,
    _redis: Option<Redis>,
    _cluster: Option<RedisCluster>,
}

impl Stores {
    /// Starts every installed server. The embedded store is always included.
    pub async fn start(frame: TimeFrame) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let embedded = EmbeddedStore::open(EmbeddedOptions::new(directory.path(), frame)).unwrap();
        let mut stores: Vec<(_, Arc<dyn PairStore>)> = vec![("embedded", Arc::new(embedded))];
        let influxd = Influxd::start().await;
        if let Some(influxd) = &influxd {
            let mut options = influxd.options("b", frame);
            options.key = Some(FingerprintKey::new(INFLUX_KEY));
            stores.push(("influx", Arc::new(influxd::open(options).await)));
        }
        let postgres = Postgres::start().await;
        if let Some(postgres) = &postgres {
            let store = postgres.store("headcount", frame).await;
            stores.push(("postgres", Arc::new(store)));
        }
        let redis = Redis::start().await;
        if let Some(redis) = &redis {
            stores.push(("redis", in_redis(&redis.url(), frame)));
        }
        let cluster = RedisCluster::start().await;
        if let Some(cluster) = &cluster {
            stores.push(("redis cluster", in_redis(&cluster.url(), frame)));
        }
        Self {
            stores,
            _directory: directory,
            _influxd: influxd,
            _postgres: postgres,
            _redis: redis,
            _cluster: cluster,
        }
    }

    /// Each store and its name.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &dyn PairStore)> {
        self.stores.iter().map(|(name, store)| (*name, &**store))
    }

    /// Closes them all.
    pub async fn close(&self) {
        for (name, store) in &self.stores {
            let closed = store.close().await;
            assert!(closed.is_ok(), "{name}: {closed:?}");
        }
    }
}

fn in_redis(url: &str, frame: TimeFrame) -> Arc<dyn PairStore> {
    let server = RedisServer::parse(&Secret::new(url)).unwrap();
    let prefix = Prefix::new("hc").unwrap();
    let options = RedisStoreOptions {
        // A busy machine is slow, and that is not an error.
        command_timeout: Duration::from_secs(20),
        ..RedisStoreOptions::new(server, prefix, frame)
    };
    Arc::new(RedisStore::open(options).unwrap())
}
