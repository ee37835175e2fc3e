//! The Redis cache on real servers: its promises, and its behaviour while they are unavailable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use domain::cache::conformance::{check_cache, check_scenario};
use domain::cache::{CacheError, Cached, CountCache, LockToken};
use domain::{Count, Secret, Segment, TimeFrame, Timestamp, Window};
use futures::FutureExt;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use stores::redis::cache::{RedisCache, RedisCacheOptions};
use stores::redis::{Prefix, RedisServer};

use crate::support::proxy::Proxy;
use crate::support::redis::{Redis, RedisCluster};
use crate::support::servers::find;

/// A timeout for tests that need a response, so that they pass on a busy machine.
const GENEROUS: Duration = Duration::from_secs(20);
/// How soon the cache must serve after its server does, on a busy machine.
const RECOVERY: Duration = Duration::from_secs(120);

fn options(url: &str, prefix: &str) -> RedisCacheOptions {
    let server = RedisServer::parse(&Secret::new(url)).unwrap();
    let minutes = Duration::from_mins(15);
    RedisCacheOptions::new(server, Prefix::new(prefix).unwrap(), minutes, minutes)
}

/// A cache with a timeout for a slow machine.
fn patient(url: &str, prefix: &str) -> Arc<RedisCache> {
    let options = RedisCacheOptions {
        command_timeout: GENEROUS,
        connect_timeout: GENEROUS,
        ..options(url, prefix)
    };
    Arc::new(RedisCache::open(options).unwrap())
}

/// A cache with the service's timeouts.
fn impatient(url: &str) -> Arc<RedisCache> {
    Arc::new(RedisCache::open(options(url, "headcount")).unwrap())
}

fn next_prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed))
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
    let mark = cache.mark(&sports()).await.unwrap();
    cache
        .put(&sports(), window(), count(users), mark)
        .await
        .unwrap();
}

async fn pending(cache: &dyn CountCache) -> Option<u64> {
    cache
        .get(&sports(), window())
        .await
        .unwrap()
        .unwrap()
        .pending
}

async fn wait_until_it_serves(cache: &RedisCache) {
    served(async || cache.ping().await).await;
}

/// Retries a call until it succeeds, for a cache whose timeout is short for a slow machine.
async fn served<T>(mut call: impl AsyncFnMut() -> Result<T, CacheError>) -> T {
    let began = Instant::now();
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(error) => assert!(began.elapsed() < RECOVERY, "it does not recover: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Refreshes with a cache whose timeout is short for a slow machine.
async fn served_refresh(cache: &RedisCache, users: u64) {
    served(async || {
        let mark = cache.mark(&sports()).await?;
        cache.put(&sports(), window(), count(users), mark).await
    })
    .await;
}

async fn served_pending(cache: &RedisCache) -> Option<u64> {
    let cached = served(async || cache.get(&sports(), window()).await).await;
    cached.unwrap().pending
}

/// The first calls fail after their timeout, and all later ones immediately: their future is ready when it is first
/// polled.
async fn assert_fails_fast(cache: &RedisCache, what: &str) {
    let mut waited = 0;
    for _ in 0..200 {
        // A new budget. Otherwise tokio may make a future yield that could proceed.
        tokio::task::yield_now().await;
        let segment = sports();
        let mut call = std::pin::pin!(cache.get(&segment, window()));
        let failed = match call.as_mut().now_or_never() {
            Some(failed) => failed,
            None => {
                waited += 1;
                call.await
            }
        };
        assert!(failed.is_err(), "{what}: {failed:?}");
    }
    assert!(waited <= 10, "{what}: {waited} of 200 calls waited");
}

#[tokio::test]
async fn keeps_the_promises_of_a_count_cache() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let url = redis.url();
    check_cache(async || patient(&url, &next_prefix()) as Arc<dyn CountCache>).await;
    let keys = redis.cli(&["KEYS", "*"]);
    for key in keys.lines().filter(|key| !key.is_empty()) {
        let ttl: i64 = redis.cli(&["PTTL", key]).parse().unwrap();
        assert!(ttl > 0, "{key} has no TTL");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_promises_on_a_cluster() {
    let Some(mut cluster) = RedisCluster::start().await else {
        return;
    };
    let url = cluster.url();
    check_cache(async || patient(&url, &next_prefix()) as Arc<dyn CountCache>).await;
    for node in cluster.nodes() {
        assert_ne!(
            node.cli(&["DBSIZE"]),
            "0",
            "a node of the cluster has no key"
        );
    }
    let one = patient(&url, "both");
    let other = patient(&url, "both");
    check_scenarios(one, other, 16, || {
        for node in cluster.nodes() {
            node.cli(&["FLUSHALL"]);
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn users_plus_pending_is_never_too_low() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let one = patient(&redis.url(), "both");
    let other = patient(&redis.url(), "both");
    check_scenarios(one, other, 64, || {
        redis.cli(&["FLUSHALL"]);
    });
}

/// Random interleavings of two clients and of the loss of all data.
fn check_scenarios(
    one: Arc<RedisCache>,
    other: Arc<RedisCache>,
    cases: u32,
    mut flush: impl FnMut(),
) {
    let flush = std::cell::RefCell::new(&mut flush);
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let checked = runner.run(&proptest::collection::vec(any::<u8>(), 0..60), |script| {
        flush.borrow_mut()();
        let forget = async || flush.borrow_mut()();
        let clients: [&dyn CountCache; 2] = [&*one, &*other];
        tokio::task::block_in_place(|| {
            let runtime = tokio::runtime::Handle::current();
            runtime.block_on(check_scenario(&clients, &script, forget));
        });
        Ok(())
    });
    if let Err(error) = checked {
        panic!("{error}");
    }
}

#[tokio::test]
async fn two_instances_share_counters_and_the_lock() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let (one, other) = (patient(&redis.url(), "both"), patient(&redis.url(), "both"));
    refresh(&*one, 5).await;
    other.add_pending(&[(sports(), 2)]).await.unwrap();
    one.add_pending(&[(sports(), 1)]).await.unwrap();
    let expected = Some(Cached {
        count: count(5),
        pending: Some(3),
    });
    assert_eq!(one.get(&sports(), window()).await.unwrap(), expected);
    assert_eq!(other.get(&sports(), window()).await.unwrap(), expected);

    let minute = Duration::from_secs(60);
    let (ours, theirs) = (LockToken::random(), LockToken::random());
    assert!(one.lock(&ours, minute).await.unwrap());
    assert!(!other.lock(&theirs, minute).await.unwrap());
    one.unlock(&ours).await.unwrap();
    assert!(other.lock(&theirs, minute).await.unwrap());
    one.note_run(minute).await.unwrap();
    let ago = other.last_run().await.unwrap().unwrap();
    assert!(ago >= minute, "both know of the run: {ago:?}");
}

#[tokio::test]
async fn a_flush_makes_pending_unknown_until_the_next_refresh() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let cache = patient(&redis.url(), "headcount");
    cache.add_pending(&[(sports(), 7)]).await.unwrap();
    let mark = cache.mark(&sports()).await.unwrap();
    redis.cli(&["FLUSHALL"]);
    // The scripts are lost as well, as after a restart.
    redis.cli(&["SCRIPT", "FLUSH"]);
    cache.add_pending(&[(sports(), 7)]).await.unwrap();
    cache
        .put(&sports(), window(), count(7), mark)
        .await
        .unwrap();
    assert_eq!(pending(&*cache).await, None);
    refresh(&*cache, 14).await;
    assert_eq!(pending(&*cache).await, Some(0));

    redis.cli(&["DEL", "headcount:{sports}:pending"]);
    assert_eq!(pending(&*cache).await, None, "evicted counters");
    cache.add_pending(&[(sports(), 1)]).await.unwrap();
    assert_eq!(
        pending(&*cache).await,
        None,
        "evicted counters that restarted at 0"
    );
    refresh(&*cache, 15).await;
    cache.add_pending(&[(sports(), 1)]).await.unwrap();
    assert_eq!(pending(&*cache).await, Some(1));
    redis.cli(&["DEL", "headcount:segments"]);
    cache
        .complete_segments(&[sports()], Duration::from_secs(60))
        .await
        .unwrap();
    assert!(cache.segments().await.unwrap().complete);
    redis.cli(&["DEL", "headcount:segments"]);
    assert!(
        !cache.segments().await.unwrap().complete,
        "a lost list is incomplete"
    );
}

#[tokio::test]
async fn an_older_state_after_a_restart_is_recognised() {
    let Some(mut redis) = Redis::start_with(&["--save", "", "--appendonly", "no"]).await else {
        return;
    };
    let cache = patient(&redis.url(), "headcount");
    cache.add_pending(&[(sports(), 1)]).await.unwrap();
    refresh(&*cache, 1).await;
    cache
        .complete_segments(&[], Duration::from_secs(60))
        .await
        .unwrap();
    redis.cli(&["SAVE"]);
    cache.add_pending(&[(sports(), 10)]).await.unwrap();
    assert_eq!(pending(&*cache).await, Some(10));
    redis.kill();
    redis.restart();
    wait_until_it_serves(&cache).await;
    // The server restarts from the snapshot, without the ten.
    let cached = cache.get(&sports(), window()).await.unwrap().unwrap();
    assert_eq!(
        cached,
        Cached {
            count: count(1),
            pending: None
        }
    );
    assert!(
        !cache.segments().await.unwrap().complete,
        "the list may lack later segments"
    );
    cache.add_pending(&[(sports(), 1)]).await.unwrap();
    assert_eq!(pending(&*cache).await, None);
    refresh(&*cache, 12).await;
    assert_eq!(pending(&*cache).await, Some(0));
}

#[tokio::test]
async fn a_server_that_starts_late_is_used() {
    let Some(mut redis) = Redis::start().await else {
        return;
    };
    redis.kill();
    let cache = impatient(&redis.url());
    assert_fails_fast(&cache, "down at the start").await;
    redis.restart();
    served_refresh(&cache, 1).await;
}

#[tokio::test]
async fn a_server_that_was_killed_is_used_after_its_restart() {
    let Some(mut redis) = Redis::start().await else {
        return;
    };
    let cache = impatient(&redis.url());
    served_refresh(&cache, 1).await;
    redis.kill();
    assert_fails_fast(&cache, "killed").await;
    redis.restart();
    let kept = served(async || cache.get(&sports(), window()).await).await;
    assert_eq!(kept, None, "nothing was kept");
    served_refresh(&cache, 1).await;
}

#[tokio::test]
async fn a_paused_server_fails_fast_and_is_used_once_resumed() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let cache = impatient(&redis.url());
    served_refresh(&cache, 1).await;
    redis.pause();
    assert_fails_fast(&cache, "paused").await;
    redis.resume();
    assert_eq!(served_pending(&cache).await, Some(0));
}

/// A slow response costs a reader at most the timeout of its own request, and does not make later readers bypass the
/// cache.
#[tokio::test]
async fn a_slow_response_does_not_make_later_reads_bypass_the_cache() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let options = RedisCacheOptions {
        // Long, so that a busy machine is not treated as an unavailable server.
        connect_timeout: 4 * GENEROUS,
        ..options(&redis.url(), "headcount")
    };
    let cache = RedisCache::open(options).unwrap();
    wait_until_it_serves(&cache).await;
    refresh(&*patient(&redis.url(), "headcount"), 1).await;

    redis.pause();
    let (sports, window) = (sports(), window());
    let calls = (0..100).map(|_| cache.get(&sports, window));
    for answer in futures::future::join_all(calls).await {
        let error = answer.unwrap_err();
        assert!(matches!(error, CacheError::Timeout), "{error:?}");
    }
    let error = cache.get(&sports, window).await.unwrap_err();
    assert!(
        matches!(error, CacheError::Timeout),
        "a hundred slow calls at once do not fail later ones: {error:?}"
    );
    redis.resume();
    loop {
        match cache.get(&sports, window).await {
            Ok(cached) => break assert_eq!(cached.unwrap().count, count(1)),
            Err(error) => assert!(matches!(error, CacheError::Timeout), "{error:?}"),
        }
    }
}

#[tokio::test]
async fn reads_do_not_write() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let cache = patient(&redis.url(), "headcount");
    refresh(&*cache, 1).await;
    cache.add_pending(&[(sports(), 1)]).await.unwrap();
    let minute = Duration::from_mins(1);
    cache.complete_segments(&[sports()], minute).await.unwrap();
    let changes = || {
        let info = redis.cli(&["INFO", "persistence"]);
        let of = |line: &str| {
            line.strip_prefix("rdb_changes_since_last_save:")
                .map(str::to_owned)
        };
        info.lines().find_map(of).unwrap()
    };
    let before = changes();
    for _ in 0..10 {
        assert_eq!(pending(&*cache).await, Some(1));
        cache.get_many(&[sports()], window()).await.unwrap();
        assert_eq!(cache.segments().await.unwrap().names, [sports()]);
        cache.ping().await.unwrap();
    }
    assert_eq!(changes(), before);
}

/// A count by a clock that is ahead must neither look new nor block later counts until that time has come.
#[tokio::test]
async fn a_count_from_the_future_is_stored_as_of_now() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let cache = patient(&redis.url(), "headcount");
    let mark = cache.mark(&sports()).await.unwrap();
    let now = |users, seconds: i64| {
        let micros = Timestamp::now().as_microsecond() + seconds * 1_000_000;
        let as_of = Timestamp::from_microsecond(micros).unwrap();
        Count { users, as_of }
    };
    let ahead = now(1, 1800);
    let kept = cache.put(&sports(), window(), ahead, mark).await.unwrap();
    let kept = kept.unwrap().count;
    assert_eq!(kept.users, 1);
    assert!(kept.as_of <= Timestamp::now(), "{kept:?}");
    let right = now(2, 0);
    let kept = cache.put(&sports(), window(), right, mark).await.unwrap();
    assert_eq!(
        kept.unwrap().count,
        right,
        "the count of a right clock is later"
    );

    // A count that an earlier version stored unchanged.
    let key = "headcount:{sports}:count:3600";
    let micros = ahead.as_of.as_microsecond().to_string();
    redis.cli(&["HSET", key, "as_of", &micros]);
    let right = now(3, 0);
    let kept = cache.put(&sports(), window(), right, mark).await.unwrap();
    assert_eq!(kept.unwrap().count, right);
}

#[tokio::test]
async fn a_failover_that_keeps_sessions_is_followed() {
    let Some((former, promoted)) = Redis::pair().await else {
        return;
    };
    let proxy = Proxy::to(former.port()).await;
    let cache = patient(&format!("redis://{}", proxy.address()), "headcount");
    refresh(&*cache, 1).await;

    assert_eq!(promoted.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    former.follow(&promoted).await;
    // The address leads to the demoted server, which responds to every `PING` and accepts no write.
    cache.add_pending(&[(sports(), 1)]).await.unwrap_err();
    let began = Instant::now();
    let error = loop {
        match cache.ping().await {
            Err(CacheError::Unavailable(text)) => break text,
            other => assert!(began.elapsed() < RECOVERY, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(error.contains("is a read-only replica"), "{error}");

    proxy.redirect_to(promoted.port());
    wait_until_it_serves(&cache).await;
    cache.add_pending(&[(sports(), 2)]).await.unwrap();
    refresh(&*cache, 3).await;
    let key = "headcount:{sports}:count:3600";
    assert_eq!(promoted.cli(&["HGET", key, "users"]), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_in_a_cluster_is_followed() {
    let Some(mut cluster) = RedisCluster::start().await else {
        return;
    };
    cluster.add_replica().await;
    let cache = patient(&cluster.url(), "headcount");
    let names: Vec<_> = (0..30)
        .map(|index| Segment::new(&format!("s{index}")).unwrap())
        .collect();
    let put = async |users| {
        for name in &names {
            let began = Instant::now();
            loop {
                let put = async {
                    let mark = cache.mark(name).await?;
                    cache.put(name, window(), count(users), mark).await
                };
                match put.await {
                    Ok(kept) => break assert_eq!(kept.unwrap().count, count(users)),
                    Err(error) => assert!(began.elapsed() < 6 * RECOVERY, "{name}: {error}"),
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    put(1).await;
    let replica = cluster.nodes().last().unwrap();
    assert_eq!(replica.cli(&["CLUSTER", "FAILOVER"]), "OK");
    let began = Instant::now();
    while !replica.cli(&["ROLE"]).starts_with("master") {
        assert!(began.elapsed() < 6 * RECOVERY, "no failover");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    put(2).await;
    let cached = cache.get_many(&names, window()).await.unwrap();
    assert!(cached.iter().all(|it| it.unwrap().count == count(2)));
}

#[tokio::test]
async fn a_cluster_node_is_not_accepted_as_a_single_server() {
    let Some(mut cluster) = RedisCluster::start().await else {
        return;
    };
    let cache = patient(&cluster.nodes()[0].url(), "headcount");
    let error = cache.get(&sports(), window()).await.unwrap_err();
    assert!(matches!(error, CacheError::Misconfigured(_)), "{error:?}");
    assert!(error.to_string().contains("redis+cluster://"), "{error}");
}

#[tokio::test]
async fn dropped_packets_and_cut_connections_fail_fast() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let proxy = Proxy::to(redis.port()).await;
    let cache = impatient(&format!("redis://{}", proxy.address()));
    served_refresh(&cache, 1).await;
    proxy.stall();
    assert_fails_fast(&cache, "packets dropped").await;
    proxy.restore();
    wait_until_it_serves(&cache).await;
    proxy.cut();
    assert_fails_fast(&cache, "connections cut").await;
    proxy.restore();
    assert_eq!(served_pending(&cache).await, Some(0));
}

#[tokio::test]
async fn a_failed_increment_makes_pending_unknown_immediately() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let proxy = Proxy::to(redis.port()).await;
    let cache = impatient(&format!("redis://{}", proxy.address()));
    served_refresh(&cache, 1).await;
    proxy.cut();
    cache.add_pending(&[(sports(), 1)]).await.unwrap_err();
    cache.mark_pending_unknown(&[sports()]).await.unwrap_err();
    proxy.restore();
    assert_eq!(
        served_pending(&cache).await,
        None,
        "this instance knows that an increment is missing"
    );
    served(async || cache.mark_pending_unknown(&[sports()]).await).await;
    let other = patient(&redis.url(), "headcount");
    assert_eq!(pending(&*other).await, None, "now all instances know");
    served_refresh(&cache, 2).await;
    assert_eq!(served_pending(&cache).await, Some(0));
}

#[tokio::test]
async fn a_server_that_refuses_writes_makes_pending_unknown_to_all_instances() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let writer = patient(&redis.url(), "headcount");
    let reader = patient(&redis.url(), "headcount");
    refresh(&*writer, 5).await;

    // As if the disk were full or the replicas unavailable.
    redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    writer.add_pending(&[(sports(), 1)]).await.unwrap_err();
    let counted = Some(Cached {
        count: count(5),
        pending: None,
    });
    assert_eq!(reader.get(&sports(), window()).await.unwrap(), counted);
    redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    refresh(&*writer, 6).await;
    writer.mark_pending_unknown(&[sports()]).await.unwrap();
    refresh(&*writer, 6).await;
    assert_eq!(pending(&*reader).await, Some(0));

    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    writer.add_pending(&[(sports(), 1)]).await.unwrap_err();
    writer.mark_pending_unknown(&[sports()]).await.unwrap_err();
    assert_eq!(
        pending(&*reader).await,
        None,
        "the gap is known although memory is full"
    );
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    refresh(&*writer, 7).await;
    assert_eq!(pending(&*reader).await, Some(0));
    assert_eq!(
        pending(&*writer).await,
        None,
        "the writer has not reported the gap yet"
    );
}

#[tokio::test]
async fn a_wrong_password_is_reported_and_a_right_one_is_used() {
    let args = [
        "--save",
        "",
        "--requirepass",
        "correct horse",
        "--databases",
        "4",
    ];
    let Some(redis) = Redis::start_with(&args).await else {
        return;
    };
    let address = format!("127.0.0.1:{}", redis.port());
    for wrong in [
        format!("redis://{address}"),
        format!("redis://:hunter2@{address}"),
        format!("redis://joe:hunter2@{address}"),
        format!("redis://:correct%20horse@{address}/9"),
    ] {
        let cache = patient(&wrong, "headcount");
        let error = cache.get(&sports(), window()).await.unwrap_err();
        assert!(
            matches!(error, CacheError::Misconfigured(_)),
            "{wrong}: {error:?}"
        );
        let text = error.to_string();
        assert!(
            text.contains(&address) && !text.contains("hunter2"),
            "{text}"
        );
        assert!(!text.contains("horse"), "{text}");
    }
    let cache = patient(
        &format!("redis://:correct%20horse@{address}/3"),
        "headcount",
    );
    refresh(&*cache, 1).await;
    let cli = [
        "-a",
        "correct horse",
        "--no-auth-warning",
        "-n",
        "3",
        "EXISTS",
    ];
    let exists = redis.cli(&[&cli[..], &["headcount:{sports}:pending"]].concat());
    assert_eq!(exists, "1", "in database 3");
}

#[tokio::test]
async fn a_user_without_the_info_command_gets_counts_without_pending() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let made = redis.cli(&[
        "ACL",
        "SETUSER",
        "joe",
        "on",
        ">pw",
        "~*",
        "+@all",
        "-@dangerous",
    ]);
    assert_eq!(made, "OK");
    let cache = patient(
        &format!("redis://joe:pw@127.0.0.1:{}", redis.port()),
        "headcount",
    );
    cache.add_pending(&[(sports(), 1)]).await.unwrap();
    refresh(&*cache, 3).await;
    let cached = cache.get(&sports(), window()).await.unwrap();
    assert_eq!(
        cached,
        Some(Cached {
            count: count(3),
            pending: None
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_recovers_when_a_lost_node_returns() {
    let Some(mut cluster) = RedisCluster::start().await else {
        return;
    };
    let cache = impatient(&cluster.url());
    let names: Vec<_> = (0..30)
        .map(|index| Segment::new(&format!("s{index}")).unwrap())
        .collect();
    for name in &names {
        served(async || {
            let mark = cache.mark(name).await?;
            cache.put(name, window(), count(1), mark).await
        })
        .await;
    }
    cluster.nodes()[2].kill();
    for name in names.iter().cycle().take(150) {
        // Some fail, and every call returns.
        let _ = cache.get(name, window()).await;
    }
    cluster.nodes()[2].restart();
    for name in &names {
        served(async || cache.get(name, window()).await).await;
    }
}

mod tls {
    use super::*;
    use std::process::Command;

    /// Creates a certificate authority and a certificate for 127.0.0.1 in `directory`.
    fn certificates(directory: &std::path::Path) {
        let script = "set -e
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.crt \
  -addext basicConstraints=critical,CA:TRUE
openssl req -newkey rsa:2048 -nodes -subj /CN=redis -keyout redis.key -out redis.csr
printf 'subjectAltName=IP:127.0.0.1\n' > san
openssl x509 -req -in redis.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
  -extfile san -out redis.crt";
        let made = Command::new("sh")
            .args(["-c", script])
            .current_dir(directory)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
    }

    #[tokio::test]
    async fn the_certificate_is_verified_by_default() {
        if find("openssl", "HEADCOUNT_TEST_OPENSSL").is_none() {
            return;
        }
        // TLS gets its own port: that of a server that has stopped.
        let Some(port) = Redis::start().await.map(|redis| redis.port()) else {
            return;
        };
        let directory = tempfile::tempdir().unwrap();
        certificates(directory.path());
        let file = |name: &str| directory.path().join(name).display().to_string();
        let (certificate, key, authority) = (file("redis.crt"), file("redis.key"), file("ca.crt"));
        let port_text = port.to_string();
        let args = [
            "--save",
            "",
            "--tls-port",
            &port_text,
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &authority,
            "--tls-auth-clients",
            "no",
        ];
        let Some(_redis) = Redis::start_with(&args).await else {
            return;
        };

        let url = format!("rediss://127.0.0.1:{port}");
        let strict = patient(&url, "headcount");
        let error = strict.ping().await.unwrap_err().to_string();
        assert!(error.contains("certificate"), "{error}");
        let trusting = patient(&format!("{url}/#insecure"), "headcount");
        refresh(&*trusting, 1).await;

        // The trusted file is read from the environment at the start of a process, so another process runs this test
        // again.
        let again = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--ignored",
                "redis_cache::tls::a_certificate_of_a_trusted_authority_is_accepted",
            ])
            .env("SSL_CERT_FILE", &authority)
            .env("HEADCOUNT_TEST_REDISS_URL", &url)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&again.stdout);
        assert!(
            again.status.success() && text.contains("1 passed"),
            "{text}"
        );
    }

    #[tokio::test]
    #[ignore = "run by the_certificate_is_verified_by_default with the authority in its environment"]
    async fn a_certificate_of_a_trusted_authority_is_accepted() {
        let url = std::env::var("HEADCOUNT_TEST_REDISS_URL").unwrap();
        refresh(&*patient(&url, "headcount"), 1).await;
    }
}
