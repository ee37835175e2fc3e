//! Wrong URLs: passwords, users, databases, and a cluster node as a single server.

use domain::cache::{CacheError, CountCache};

use super::{cache_with_long_timeouts, refresh, sports, window};
use crate::support::redis::{Redis, RedisCluster};

#[tokio::test]
async fn a_cluster_node_is_not_accepted_as_a_single_server() {
    let Some(mut cluster) = RedisCluster::start().await else {
        return;
    };
    let cache = cache_with_long_timeouts(&cluster.nodes()[0].url(), "headcount");
    let error = cache.get(&sports(), window()).await.unwrap_err();
    assert!(matches!(error, CacheError::Misconfigured(_)), "{error:?}");
    assert!(error.to_string().contains("redis+cluster://"), "{error}");
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
        let cache = cache_with_long_timeouts(&wrong, "headcount");
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
    let cache = cache_with_long_timeouts(
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
    let exists = redis.cli(&[&cli[..], &["headcount:{sports}:counts"]].concat());
    assert_eq!(exists, "1", "in database 3");
}
