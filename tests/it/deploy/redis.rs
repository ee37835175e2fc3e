//! Redis as cache and for live counts: its configuration, and the rights that the documentation gives its user.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use domain::Secret;
use domain::cache::CountCache;
use domain::cache::conformance::check_cache;
use domain::feed::ChangeFeed;
use domain::feed::conformance::check_feed;
use domain::published::PublishedCounts;
use domain::published::conformance::check_published;
use stores::redis::cache::{RedisCache, RedisCacheOptions};
use stores::redis::feed::{RedisFeed, RedisFeedOptions};
use stores::redis::published::{RedisPublishedCounts, RedisPublishedOptions};
use stores::redis::{Prefix, RedisServer};

use super::tools::read;
use crate::support::redis::Redis;

/// A timeout that a busy machine does not reach.
const GENEROUS: Duration = Duration::from_secs(20);

/// The settings of a file, without those of its container.
fn settings(file: &str) -> Vec<String> {
    let text = read(file);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let own = lines.filter(|line| !line.starts_with("include ") && !line.starts_with("dir "));
    own.map(str::to_owned).collect()
}

#[tokio::test]
async fn redis_accepts_the_settings_and_the_demo_has_the_same() {
    let compose = settings("deploy/redis/cache.conf");
    assert_eq!(compose, settings("k8s/overlays/demo/redis.conf"));
    let words = compose.iter().flat_map(|line| line.split_once(' '));
    let args: Vec<String> = words
        .flat_map(|(name, value)| [format!("--{name}"), value.trim_matches('"').to_owned()])
        .collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let Some(redis) = Redis::start_with(&args).await else {
        return;
    };
    let policy = redis.cli(&["CONFIG", "GET", "maxmemory-policy"]);
    assert!(policy.contains("volatile-ttl"), "{policy}");
}

/// The rights of the documentation, with another password.
fn documented_user() -> Vec<String> {
    let page = read("docs/stores/live.md");
    let mut lines = page.lines().map(str::trim);
    let line = lines.find(|line| line.starts_with("ACL SETUSER")).unwrap();
    let line = line.replace("PASSWORD", "secret");
    line.split(' ').map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_user_may_do_everything() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let words = documented_user();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_eq!(redis.cli(&words), "OK");
    let url = format!("redis://headcount:secret@127.0.0.1:{}", redis.port());
    let server = || RedisServer::parse(&Secret::new(url.as_str())).unwrap();
    let numbers = AtomicU32::new(0);
    let prefix = || {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        Prefix::new(&format!("headcount:{number}")).unwrap()
    };
    let new_feed = async || {
        let options = RedisFeedOptions {
            command_timeout: GENEROUS,
            ..RedisFeedOptions::new(server(), prefix())
        };
        Arc::new(RedisFeed::open(options)) as Arc<dyn ChangeFeed>
    };
    check_feed(new_feed).await;
    check_published(
        async || {
            let options = RedisPublishedOptions {
                command_timeout: GENEROUS,
                ..RedisPublishedOptions::new(server(), prefix())
            };
            Arc::new(RedisPublishedCounts::open(options)) as Arc<dyn PublishedCounts>
        },
        tokio::time::sleep,
    )
    .await;
    check_cache(async || {
        let options = RedisCacheOptions {
            command_timeout: GENEROUS,
            ..RedisCacheOptions::new(server(), prefix(), GENEROUS, GENEROUS)
        };
        Arc::new(RedisCache::open(options).unwrap()) as Arc<dyn CountCache>
    })
    .await;
    assert_eq!(redis.cli(&["ACL", "LOG"]), "", "nothing was denied");
}
