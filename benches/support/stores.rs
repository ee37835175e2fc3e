//! Opens and fills stores, and measures their size.

use std::path::Path;
use std::time::{Duration, Instant};

use domain::store::PairStore;
use domain::{Batch, Secret};
use futures::StreamExt;
use stores::redis::store::{RedisStore, RedisStoreOptions};
use stores::redis::{Prefix, RedisServer};

use super::traffic::frame;

/// Records batches from concurrent callers. Returns the duration.
pub async fn record_all(store: &dyn PairStore, batches: &[Batch], callers: usize) -> Duration {
    let started = Instant::now();
    futures::stream::iter(batches)
        .map(async |batch| {
            // On a machine under load, a write may exceed its timeout. The service would also spool and retry.
            while let Err(error) = store.record(batch).await {
                println!("retrying after: {error}");
            }
        })
        .buffer_unordered(callers)
        .collect::<()>()
        .await;
    started.elapsed()
}

/// A store in Redis with a key prefix, and with a longer timeout than in the service.
pub fn redis_store(url: &str, prefix: &str) -> RedisStore {
    let server = RedisServer::parse(&Secret::new(url)).unwrap();
    let options = RedisStoreOptions {
        command_timeout: Duration::from_secs(60),
        ..RedisStoreOptions::new(server, Prefix::new(prefix).unwrap(), frame())
    };
    RedisStore::open(options).unwrap()
}

/// The total size in bytes of all files below a directory.
pub fn size_of(directory: &Path) -> f64 {
    let entries = std::fs::read_dir(directory).unwrap();
    let sizes = entries.map(|entry| {
        let entry = entry.unwrap();
        match entry.metadata().unwrap() {
            data if data.is_dir() => size_of(&entry.path()),
            data => data.len() as f64,
        }
    });
    sizes.sum()
}
