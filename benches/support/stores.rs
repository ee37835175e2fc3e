//! Stores opened, filled and asked for their size, as any bench does it.

use std::path::Path;
use std::time::{Duration, Instant};

use domain::store::PairStore;
use domain::{Batch, Secret};
use futures::StreamExt;
use stores::redis::store::{RedisStore, RedisStoreOptions};
use stores::redis::{Prefix, RedisServer};

use super::traffic::frame;

/// Records batches from so many callers at once; how long that took.
pub async fn record_all(store: &dyn PairStore, batches: &[Batch], callers: usize) -> Duration {
    let started = Instant::now();
    futures::stream::iter(batches)
        .map(async |batch| {
            // A busy machine may be too slow for a deadline; a service would spool, and try again as well.
            while let Err(error) = store.record(batch).await {
                println!("again after: {error}");
            }
        })
        .buffer_unordered(callers)
        .collect::<()>()
        .await;
    started.elapsed()
}

/// A store in Redis under a prefix, with more patience than the service has.
pub fn redis_store(url: &str, prefix: &str) -> RedisStore {
    let server = RedisServer::parse(&Secret::new(url)).unwrap();
    let options = RedisStoreOptions {
        command_timeout: Duration::from_secs(60),
        ..RedisStoreOptions::new(server, Prefix::new(prefix).unwrap(), frame())
    };
    RedisStore::open(options).unwrap()
}

/// The bytes of all files in a directory and below.
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
