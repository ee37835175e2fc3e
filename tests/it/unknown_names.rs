//! Requests for unknown names and windows, and bodies without valid pairs, fill nothing and block nothing.

use std::time::Duration;

use domain::Segment;
use futures::StreamExt;
use futures::stream;

use crate::support::app::App;
use crate::support::redis::{Redis, RedisCluster};
use crate::support::wait::until;

const JSON: &str = "application/json";

fn pair(segment: &str) -> String {
    format!(r#"{{"user_id": "u", "segment": "{segment}"}}"#)
}

/// A service with both its pairs and its counts in the Redis at `url`.
async fn over_redis(url: &str) -> App {
    App::start_with(&[
        ("store", "redis"),
        ("cache", "redis"),
        ("redis_url", url),
        ("spool_dir", "off"),
        ("resolution", "1s"),
        ("window", "2h"),
        ("refresh_windows", "1h"),
    ])
    .await
}

/// Reads counts of made-up names, and of a known one over made-up windows. `keys` lists the keys in Redis.
async fn read_made_up(app: &App, number: u32, keys: impl Fn() -> Vec<String>) {
    assert_eq!(app.post(JSON, pair("real")).await.status, 200);
    assert_eq!(app.users("real").await, 1);
    assert_eq!(app.users("real").await, 1);
    let before = keys();
    let counts = app.headcount.counts();
    let full = app.headcount.frame().full_window();
    let asked = (1..=number).map(|index| async move {
        let name = Segment::new(&format!("made up {index}")).unwrap();
        let answer = counts.get(&name, full, index % 2 == 0).await.unwrap();
        assert_eq!(answer.count.users, 0);
        let window = Duration::from_secs(u64::from(index));
        let window = app.headcount.frame().window(window).unwrap();
        let real = Segment::new("real").unwrap();
        let answer = counts.get(&real, window, index % 2 == 0).await.unwrap();
        assert_eq!(answer.count.users, 1);
    });
    let mut asked = stream::iter(asked).buffer_unordered(16);
    while asked.next().await.is_some() {}
    let answer = app.get("/v1/segments/made%20up/count?window=30m").await;
    assert_eq!(answer.json["users"], 0, "{answer:?}");
    assert_eq!(answer.json["known"], false, "{answer:?}");
    let after = keys();
    let count_over_an_hour = "headcount:{real}:count:3600".to_owned();
    let new: Vec<_> = after
        .iter()
        .filter(|key| !before.contains(key) && **key != count_over_an_hour)
        .collect();
    assert!(
        new.is_empty(),
        "{} new keys, such as {:?}",
        new.len(),
        new[0]
    );
}

fn keys(redis: &Redis) -> Vec<String> {
    let keys = redis.cli(&["KEYS", "*"]);
    keys.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_made_up_names_and_windows_leave_no_key_in_redis() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let app = over_redis(&redis.url()).await;
    read_made_up(&app, 5_000, || keys(&redis)).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_made_up_names_and_windows_leave_no_key_in_a_redis_cluster() {
    let Some(mut cluster) = RedisCluster::start().await else {
        return;
    };
    let app = over_redis(&cluster.url()).await;
    let nodes = std::cell::RefCell::new(cluster.nodes());
    let all = || nodes.borrow().iter().flat_map(keys).collect();
    read_made_up(&app, 200, all).await;
    app.stop().await;
}

#[tokio::test]
async fn a_count_reports_whether_the_name_was_ever_seen() {
    let app = App::start().await;
    assert_eq!(app.post(JSON, pair("sports")).await.status, 200);
    app.advance(3_600);
    let known = async |target: &str| {
        let answer = app.get(target).await;
        (
            answer.json["users"].as_u64().unwrap(),
            answer.json["known"].as_bool().unwrap(),
        )
    };
    assert_eq!(known("/v1/segments/sports/count").await, (1, true));
    let short = "/v1/segments/sports/count?window=1m";
    assert_eq!(known(short).await, (0, true), "empty, and not a typo");
    assert_eq!(known("/v1/segments/sprots/count").await, (0, false));
    assert_eq!(
        known("/v1/segments/sprots/count?fresh=true").await,
        (0, false),
        "a read does not make it known"
    );
    app.stop().await;
}

/// An instance immediately knows a name that another one recorded, from the list that they share.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_another_instance_recorded_is_known() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let (one, other) = (
        over_redis(&redis.url()).await,
        over_redis(&redis.url()).await,
    );
    assert_eq!(one.post(JSON, pair("sports")).await.status, 200);
    other.advance(1_200);
    let answer = other.get("/v1/segments/sports/count?window=1m").await;
    assert_eq!(answer.json["users"], 0, "{answer:?}");
    assert_eq!(answer.json["known"], true, "{answer:?}");
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_rejected_body_uses_no_segment_capacity() {
    let app = App::start_with(&[("max_segments", "5")]).await;
    let five: Vec<_> = (0..5).map(|index| pair(&format!("bad {index}"))).collect();
    let malformed = format!("[{}, nonsense]", five.join(", "));
    for _ in 0..3 {
        assert_eq!(app.post(JSON, malformed.clone()).await.status, 400);
    }
    let good: Vec<_> = (0..5).map(|index| pair(&format!("good {index}"))).collect();
    let answer = app.post(JSON, format!("[{}]", good.join(", "))).await;
    assert_eq!((answer.status, &answer.json["accepted"]), (200, &5.into()));
    let answer = app.post(JSON, pair("a sixth")).await;
    assert_eq!(answer.errors(), [(0, "too_many_segments")]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_that_can_t_be_stored_use_no_segment_capacity() {
    let Some(mut redis) = Redis::start().await else {
        return;
    };
    let url = redis.url();
    let app = App::start_with(&[
        ("store", "redis"),
        ("redis_url", &url),
        ("spool_dir", "off"),
        ("max_segments", "1"),
    ])
    .await;
    redis.kill();
    let answer = app.post(JSON, pair("refused")).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    redis.restart();
    until("pairs are accepted again", async || {
        let answer = app.post(JSON, pair("accepted")).await;
        assert!(matches!(answer.status, 200 | 503), "{answer:?}");
        answer.status == 200
    })
    .await;
    app.stop().await;
}
