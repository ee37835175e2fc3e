//! The Redis cache on real servers: its promises, and its behaviour while they are unavailable.

mod contract;
mod failover;
mod misconfiguration;
mod outages;
mod segments;
mod tls;

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::cache::{CacheError, CountCache};
use domain::{Count, Secret, Segment, TimeFrame, Timestamp, Window};
use stores::redis::cache::{RedisCache, RedisCacheOptions};
use stores::redis::{Prefix, RedisServer};

/// A timeout for tests that need a response, so that they pass on a busy machine.
const GENEROUS: Duration = Duration::from_secs(20);
/// How soon the cache must serve after its server does, on a busy machine.
const RECOVERY: Duration = Duration::from_secs(120);

fn options(url: &str, prefix: &str) -> RedisCacheOptions {
    let server = RedisServer::parse(&Secret::new(url)).unwrap();
    let minutes = Duration::from_mins(15);
    RedisCacheOptions::new(server, Prefix::new(prefix).unwrap(), minutes, minutes)
}

/// A cache with timeouts that a busy machine does not reach.
fn cache_with_long_timeouts(url: &str, prefix: &str) -> Arc<RedisCache> {
    let options = RedisCacheOptions {
        command_timeout: GENEROUS,
        connect_timeout: GENEROUS,
        ..options(url, prefix)
    };
    Arc::new(RedisCache::open(options).unwrap())
}

/// A cache with the service's timeouts.
fn cache_with_default_timeouts(url: &str) -> Arc<RedisCache> {
    Arc::new(RedisCache::open(options(url, "headcount")).unwrap())
}

fn sports() -> Segment {
    Segment::new("sports").unwrap()
}

fn window() -> Window {
    let minute = Duration::from_secs(60);
    TimeFrame::new(minute * 60, minute, minute)
        .unwrap()
        .full_window()
}

fn count(users: u64) -> Count {
    Count {
        users,
        as_of: Timestamp::from_second(1_700_000_000).unwrap(),
    }
}

async fn refresh(cache: &dyn CountCache, users: u64) {
    let segment = sports();
    let put = cache.put(&segment, window(), count(users));
    put.await.unwrap();
}

async fn wait_until_it_serves(cache: &RedisCache) {
    served(async || cache.ping().await).await;
}

/// Retries a call until it succeeds, for a cache whose timeout is short for a slow machine.
async fn served<T>(mut call: impl AsyncFnMut() -> Result<T, CacheError>) -> T {
    let began = Instant::now();
    loop {
        match call().await {
            Ok(result) => return result,
            Err(error) => assert!(began.elapsed() < RECOVERY, "it does not recover: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Refreshes with a cache whose timeout is short for a slow machine.
async fn served_refresh(cache: &RedisCache, users: u64) {
    served(async || cache.put(&sports(), window(), count(users)).await).await;
}

/// The cached users, from a cache whose timeout is short for a slow machine.
async fn served_users(cache: &RedisCache) -> Option<u64> {
    let cached = served(async || cache.get(&sports(), window()).await).await;
    cached.map(|count| count.users)
}
