//! Error replies of a real Redis that is reachable and can't serve: it loads its data, or is a replica without its
//! master. They are not counts, and the cache recovers once the server serves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::cache::{CacheError, CountCache};
use domain::store::conformance::frame;
use domain::{Count, Secret, Segment, Timestamp};
use stores::redis::cache::{RedisCache, RedisCacheOptions};
use stores::redis::{Prefix, RedisServer};

use crate::support::redis::Redis;

const PATIENCE: Duration = Duration::from_secs(120);

fn cache(redis: &Redis) -> Arc<RedisCache> {
    let server = RedisServer::parse(&Secret::new(redis.url())).unwrap();
    let prefix = Prefix::new("headcount").unwrap();
    let minutes = Duration::from_mins(15);
    // A timeout for a slow machine.
    let options = RedisCacheOptions {
        command_timeout: Duration::from_secs(20),
        connect_timeout: Duration::from_secs(20),
        ..RedisCacheOptions::new(server, prefix, minutes, minutes)
    };
    Arc::new(RedisCache::open(options).unwrap())
}

fn sports() -> Segment {
    Segment::new("sports").unwrap()
}

/// Polls until the cache returns what `is_it` expects.
async fn until<T>(
    mut ask: impl AsyncFnMut() -> Result<T, CacheError>,
    is_it: impl Fn(&Result<T, CacheError>) -> bool,
) -> Result<T, CacheError> {
    let began = Instant::now();
    loop {
        let answer = ask().await;
        if is_it(&answer) {
            return answer;
        }
        let said = answer.err().map(|error| error.to_string());
        assert!(began.elapsed() < PATIENCE, "{said:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Stores a count of seven users once the cache serves.
async fn keep(cache: &RedisCache) {
    let count = Count {
        users: 7,
        as_of: Timestamp::now(),
    };
    let window = frame(60).full_window();
    let kept = async || cache.put(&sports(), window, count).await;
    until(kept, Result::is_ok).await.unwrap();
}

async fn users(cache: &RedisCache) -> Result<Option<u64>, CacheError> {
    let window = frame(60).full_window();
    let cached = cache.get(&sports(), window).await?;
    Ok(cached.map(|count| count.users))
}

#[tokio::test]
async fn a_replica_without_its_master_returns_no_counts() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let cache = cache(&redis);
    keep(&cache).await;
    redis.cli(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
    assert_eq!(redis.cli(&["REPLICAOF", "127.0.0.1", "1"]), "OK");
    assert!(redis.cli(&["GET", "x"]).starts_with("MASTERDOWN"));
    let error = until(async || users(&cache).await, Result::is_err).await;
    assert!(
        matches!(error, Err(CacheError::Unavailable(_))),
        "{error:?}"
    );
    assert_eq!(redis.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    let found = until(async || users(&cache).await, Result::is_ok).await;
    assert_eq!(found.unwrap(), Some(7));
}

#[tokio::test]
async fn a_server_that_loads_its_data_returns_no_counts() {
    let args = [
        "--save",
        "",
        // Loading each key takes time, and the server handles requests meanwhile.
        "--key-load-delay",
        "1000",
        "--loading-process-events-interval-bytes",
        "1024",
        "--enable-debug-command",
        "yes",
    ];
    let Some(mut redis) = Redis::start_with(&args).await else {
        return;
    };
    let cache = cache(&redis);
    keep(&cache).await;
    redis.cli(&["DEBUG", "POPULATE", "5000"]);
    assert_eq!(redis.cli(&["SAVE"]), "OK");
    redis.kill();
    redis.restart();
    let began = Instant::now();
    while !redis.cli(&["GET", "x"]).starts_with("LOADING") {
        assert!(began.elapsed() < PATIENCE, "it does not load");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let error = users(&cache).await;
    assert!(
        matches!(error, Err(CacheError::Unavailable(_) | CacheError::Timeout)),
        "{error:?}"
    );
    let found = until(async || users(&cache).await, Result::is_ok).await;
    assert_eq!(found.unwrap(), Some(7));
}
