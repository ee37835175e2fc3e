//! The change feed in Redis, on real servers.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use domain::Secret;
use domain::feed::conformance::{check_feed, check_losses};
use domain::feed::{Append, ChangeFeed, Cursor, FeedError, WriterId};
use stores::redis::feed::{RedisFeed, RedisFeedOptions};
use stores::redis::{Prefix, RedisServer};

use crate::support::redis::{Redis, RedisCluster};

/// A timeout that a busy machine does not reach.
const GENEROUS: Duration = Duration::from_secs(20);

fn options(url: &str) -> RedisFeedOptions {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let prefix = format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let server = RedisServer::parse(&Secret::new(url)).unwrap();
    RedisFeedOptions {
        command_timeout: GENEROUS,
        connect_timeout: GENEROUS,
        ..RedisFeedOptions::new(server, Prefix::new(&prefix).unwrap())
    }
}

fn append(writer: WriterId, sequence: u64, bytes: usize) -> Append {
    Append {
        writer,
        sequence,
        skips: false,
        record: vec![7; bytes],
    }
}

#[tokio::test]
async fn one_server_is_a_feed() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let url = redis.url();
    check_feed(async || Arc::new(RedisFeed::open(options(&url))) as Arc<dyn ChangeFeed>).await;
}

#[tokio::test]
async fn a_cluster_is_a_feed() {
    let Some(cluster) = RedisCluster::start().await else {
        return;
    };
    let url = cluster.url();
    check_feed(async || Arc::new(RedisFeed::open(options(&url))) as Arc<dyn ChangeFeed>).await;
}

/// Removes the newest entries, as a promoted replica lacks them.
const LOSE: &str = r"
local last = tonumber(ARGV[1])
local lost = redis.call('XRANGE', KEYS[1], string.format('%d-0', last + 1), '+')
for _, entry in ipairs(lost) do
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  local own = tonumber(string.match(redis.call('HGET', KEYS[3], fields.w), '^%d+'))
  redis.call('HSET', KEYS[3], fields.w, math.min(own, fields.n - 1) .. ' 0')
  redis.call('XDEL', KEYS[1], entry[1])
end
redis.call('XSETID', KEYS[1], last .. '-0')
redis.call('HSET', KEYS[2], 'last', last)
return #lost
";

#[tokio::test]
async fn losses_are_noticed() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let url = redis.url();
    let redis = RefCell::new(redis);
    let options = options(&url);
    let key = |name| format!("{}:{{live}}:{name}", options.prefix.as_str());
    let keys = ["feed", "state", "writers"].map(key);
    let feed = RedisFeed::open(options.clone());
    let lose_after = async |last: u64| {
        let last = last.to_string();
        let mut args = vec!["EVAL", LOSE, "3"];
        args.extend(keys.iter().map(String::as_str));
        args.push(&last);
        assert_eq!(redis.borrow().cli(&args), "3");
        assert_eq!(redis.borrow().cli(&["SAVE"]), "OK");
        // Another process serves now, as after a promotion.
        redis.borrow_mut().restart_from_saved_data();
    };
    let empty = async || assert_eq!(redis.borrow().cli(&["FLUSHALL"]), "OK");
    check_losses(&feed, lose_after, empty).await;
}

#[tokio::test]
async fn a_feed_without_a_reader_is_bounded() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let feed = RedisFeed::open(RedisFeedOptions {
        max_bytes: 1_000_000,
        ..options(&redis.url())
    });
    let writer = WriterId::random();
    let mut id = None;
    for sequence in 1..=300 {
        let appended = feed.append(id, &append(writer, sequence, 10_000)).await;
        id = Some(appended.unwrap().feed);
        let bytes = feed.size().await.unwrap().bytes;
        assert!(bytes <= 1_020_000, "{bytes} bytes");
    }
    let lost = feed.read(&Cursor::start(id.unwrap()), 1).await;
    assert!(
        matches!(lost, Err(FeedError::Discontinued { trimmed: true, .. })),
        "{lost:?}"
    );
}

#[tokio::test]
async fn evicted_keys_make_a_new_feed() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let options = options(&redis.url());
    let feed = RedisFeed::open(options.clone());
    let key = |name| format!("{}:{{live}}:{name}", options.prefix.as_str());
    let writer = WriterId::random();
    let mut id = None;
    for sequence in 1..=3 {
        let appended = feed.append(id, &append(writer, sequence, 3)).await.unwrap();
        id = Some(appended.feed);
    }
    // Writers append again what they have.
    for lost in ["feed", "state"] {
        redis.cli(&["DEL", &key(lost)]);
        let start = Cursor::start(id.unwrap());
        let Err(FeedError::Renewed(renewed)) = feed.read(&start, 1).await else {
            panic!("without {lost} it is a new feed");
        };
        let late = feed.append(id, &append(writer, 4, 3)).await;
        assert_eq!(late, Err(FeedError::Renewed(renewed)));
        assert_eq!(feed.end().await.unwrap(), Cursor::start(renewed));
        id = Some(renewed);
        feed.append(id, &append(writer, 1, 3)).await.unwrap();
    }
}

#[tokio::test]
async fn a_full_or_unavailable_server_is_an_error_that_ends() {
    let Some(mut redis) =
        Redis::start_with(&["--save", "", "--maxmemory-policy", "noeviction"]).await
    else {
        return;
    };
    let options = RedisFeedOptions {
        command_timeout: Duration::from_secs(2),
        ..options(&redis.url())
    };
    let feed = RedisFeed::open(options);
    let writer = WriterId::random();
    let id = Some(feed.append(None, &append(writer, 1, 3)).await.unwrap().feed);
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let full = feed.append(id, &append(writer, 2, 3)).await;
    assert!(matches!(full, Err(FeedError::Full(_))), "{full:?}");
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    feed.append(id, &append(writer, 2, 3)).await.unwrap();
    redis.kill();
    let gone = feed.append(id, &append(writer, 3, 3)).await.unwrap_err();
    assert!(gone.is_transient(), "{gone:?}");
}
