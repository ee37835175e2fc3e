//! The published counts in Redis, on real servers.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use domain::published::conformance::{check_losses, check_published};
use domain::published::{Fence, PublishError, PublishedCounts, Tick, Update};
use domain::{Secret, Segment, Timestamp};
use stores::redis::published::{RedisPublishedCounts, RedisPublishedOptions};
use stores::redis::{Prefix, RedisServer};

use crate::support::redis::{Redis, RedisCluster};

/// A timeout that a busy machine does not reach.
const GENEROUS: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(3600);
/// The parts of a board.
const KEYS: [&str; 5] = ["counts", "tick", "delta", "lock", "fence"];

fn options(url: &str) -> RedisPublishedOptions {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let prefix = format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let server = RedisServer::parse(&Secret::new(url)).unwrap();
    RedisPublishedOptions {
        command_timeout: GENEROUS,
        connect_timeout: GENEROUS,
        ..RedisPublishedOptions::new(server, Prefix::new(&prefix).unwrap())
    }
}

fn key(options: &RedisPublishedOptions, name: &str) -> String {
    format!("{}:{{live}}:{name}", options.prefix.as_str())
}

/// A tick with this many changed segments; the first replaces all.
fn tick(revision: u64, segments: u64) -> Tick {
    let segment = |n| Segment::new(&format!("segment {n}")).unwrap();
    Tick {
        revision,
        as_of: Timestamp::UNIX_EPOCH,
        window: 1_209_600,
        address: String::new(),
        complete: true,
        changed: (0..segments)
            .map(|n| (segment(n), vec![(3_600, revision)]))
            .collect(),
        replaces_all: revision == 1,
    }
}

async fn acquire(board: &RedisPublishedCounts) -> Fence {
    board.acquire(1, LONG).await.unwrap().unwrap()
}

#[tokio::test]
async fn one_server_publishes() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let url = redis.url();
    let new = async || {
        let board = RedisPublishedCounts::open(options(&url));
        Arc::new(board) as Arc<dyn PublishedCounts>
    };
    check_published(new, tokio::time::sleep).await;
}

#[tokio::test]
async fn a_cluster_publishes() {
    let Some(cluster) = RedisCluster::start().await else {
        return;
    };
    let url = cluster.url();
    let new = async || {
        let board = RedisPublishedCounts::open(options(&url));
        Arc::new(board) as Arc<dyn PublishedCounts>
    };
    check_published(new, tokio::time::sleep).await;
}

#[tokio::test]
async fn losses_are_noticed() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let board = RedisPublishedCounts::open(options(&redis.url()));
    let redis = RefCell::new(redis);
    let save = async || assert_eq!(redis.borrow().cli(&["SAVE"]), "OK");
    // It starts with what it saved, as a promoted replica has what it got.
    let restore = async || redis.borrow_mut().restart_from_saved_data();
    let empty = async || assert_eq!(redis.borrow().cli(&["FLUSHALL"]), "OK");
    check_losses(&board, save, restore, empty).await;
}

#[tokio::test]
async fn a_board_without_one_of_its_keys_is_published_again() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    for name in ["counts", "tick", "delta", "fence"] {
        let options = options(&redis.url());
        let board = RedisPublishedCounts::open(options.clone());
        let fence = acquire(&board).await;
        board.publish(fence, &tick(1, 3)).await.unwrap();
        let before = board.load().await.unwrap().unwrap();
        assert_eq!(redis.cli(&["DEL", &key(&options, name)]), "1");

        let refused = board.publish(fence, &tick(2, 1)).await;
        assert_eq!(refused, Err(PublishError::Fenced), "without {name}");
        // Readers need no fence.
        let is_whole = name == "fence";
        assert_eq!(board.load().await.unwrap().is_some(), is_whole, "{name}");
        let update = board.follow(&before.position).await.unwrap();
        assert_eq!(update != Update::Lost, is_whole, "without {name}");

        let again = acquire(&board).await;
        assert_eq!(again == fence, name != "fence");
        let all = Tick {
            replaces_all: true,
            ..tick(3, 4)
        };
        board.publish(again, &all).await.unwrap();
        assert_eq!(board.load().await.unwrap().unwrap().counts.len(), 4);
        let update = board.follow(&before.position).await.unwrap();
        assert_eq!(update, Update::Lost, "without {name}");
    }
}

#[tokio::test]
async fn large_changes_are_bounded() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let options = RedisPublishedOptions {
        max_bytes: 100_000,
        ..options(&redis.url())
    };
    let board = RedisPublishedCounts::open(options.clone());
    let fence = acquire(&board).await;
    board.publish(fence, &tick(1, 500)).await.unwrap();
    let start = board.load().await.unwrap().unwrap().position;
    for revision in 2..=60 {
        board.publish(fence, &tick(revision, 500)).await.unwrap();
    }
    let entries: u64 = redis
        .cli(&["XLEN", &key(&options, "delta")])
        .parse()
        .unwrap();
    // A tick has about 9,000 bytes.
    assert!((5..=13).contains(&entries), "{entries} entries");
    assert_eq!(board.follow(&start).await.unwrap(), Update::Lost);
    // Ticks that are larger than the bound are still published and followed.
    let before = board.load().await.unwrap().unwrap().position;
    board.publish(fence, &tick(61, 20_000)).await.unwrap();
    let update = board.follow(&before).await.unwrap();
    assert!(matches!(update, Update::Changes { changed, .. } if changed.len() == 20_000));
    board.publish(fence, &tick(62, 1)).await.unwrap();
    let loaded = board.load().await.unwrap().unwrap();
    assert_eq!(
        (loaded.counts.len(), loaded.position.revision),
        (20_000, 62)
    );
}

#[tokio::test]
async fn every_key_expires_and_quiet_ticks_add_nothing() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let options = options(&redis.url());
    let board = RedisPublishedCounts::open(options.clone());
    let fence = acquire(&board).await;
    board.publish(fence, &tick(1, 3)).await.unwrap();
    let keys = KEYS.map(|name| key(&options, name));
    for key in &keys {
        assert_eq!(redis.cli(&["PEXPIRE", key, "60000"]), "1");
    }
    for revision in 2..=20 {
        board.publish(fence, &tick(revision, 0)).await.unwrap();
    }
    acquire(&board).await;
    let mut existing: Vec<_> = redis
        .cli(&["KEYS", "*"])
        .lines()
        .map(String::from)
        .collect();
    existing.sort_unstable();
    let mut expected = keys.to_vec();
    expected.sort_unstable();
    assert_eq!(existing, expected);
    for key in &keys {
        let ttl: u64 = redis.cli(&["TTL", key]).parse().unwrap();
        let most = if key.ends_with("lock") { 3_600 } else { 86_400 };
        assert!(
            (most - 60..=most).contains(&ttl),
            "{key} expires in {ttl} s"
        );
    }
    assert_eq!(redis.cli(&["XLEN", &keys[2]]), "1");
}

#[tokio::test]
async fn a_full_or_unavailable_server_is_an_error_that_ends() {
    let Some(mut redis) =
        Redis::start_with(&["--save", "", "--maxmemory-policy", "noeviction"]).await
    else {
        return;
    };
    let board = RedisPublishedCounts::open(RedisPublishedOptions {
        command_timeout: Duration::from_secs(2),
        ..options(&redis.url())
    });
    let fence = acquire(&board).await;
    board.publish(fence, &tick(1, 3)).await.unwrap();
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let replacing = Tick {
        replaces_all: true,
        ..tick(2, 1)
    };
    for tick in [tick(2, 1), tick(2, 0), replacing] {
        let full = board.publish(fence, &tick).await;
        let is_full = matches!(
            &full,
            Err(PublishError::Board(domain::published::BoardError::Full(_)))
        );
        assert!(is_full, "{full:?}");
    }
    // Readers still read, and nothing changed.
    let loaded = board.load().await.unwrap().unwrap();
    assert_eq!((loaded.counts.len(), loaded.position.revision), (3, 1));
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    board.publish(fence, &tick(2, 1)).await.unwrap();
    redis.kill();
    let gone = board.load().await.unwrap_err();
    assert!(gone.is_transient(), "{gone:?}");
    let Err(PublishError::Board(gone)) = board.publish(fence, &tick(3, 1)).await else {
        panic!("a server that is gone takes no tick");
    };
    assert!(gone.is_transient(), "{gone:?}");
}
