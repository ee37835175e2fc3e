//! Expiry of the Redis store, second by second, and a change of the resolution.

use crate::support::app::App;
use crate::support::program::run;
use crate::support::redis::Redis;

#[tokio::test(flavor = "multi_thread")]
async fn a_window_of_four_minutes_expires_second_by_second() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let url = redis.url();
    let settings = [
        ("store", "redis"),
        ("redis_url", &*url),
        ("window", "4m"),
        ("resolution", "1s"),
        ("max_ahead", "10s"),
        ("spool_dir", "off"),
    ];
    let app = App::start_with(&settings).await;
    let post = async |user: &str, segment: &str| {
        let body = format!(r#"{{"user_id": "{user}", "segment": "{segment}"}}"#);
        assert_eq!(app.post("application/json", body).await.status, 200);
    };
    let fresh = async |query: &str| {
        let answer = app
            .get(&format!("/v1/segments/s/count?fresh=true{query}"))
            .await;
        answer.json["users"].as_u64().unwrap()
    };
    post("u1", "s").await;
    post("u1", "t").await;
    app.advance(1);
    post("u2", "s").await;
    assert_eq!((fresh("").await, fresh("&window=1s").await), (2, 1));
    // u1 was seen in second 0 and leaves at second 240.
    app.advance(238);
    assert_eq!(fresh("").await, 2);
    app.advance(1);
    assert_eq!(fresh("").await, 1);
    let listed = app.get("/v1/segments").await;
    assert!(!listed.text.contains("\"t\""), "{listed:?}");
    let gone = app.get("/v1/users/u1").await;
    assert_eq!(gone.json["segments"].as_array().unwrap().len(), 0);
    app.advance(1);
    assert_eq!(fresh("").await, 0);
    // Once no cached count of them is trusted any more, they are removed from Redis.
    app.advance(3_600);
    post("u3", "s").await;
    let archived = app.send(reqwest::Method::POST, "/v1/admin/archive").await;
    assert_eq!(archived.json["removed"], 3);
    assert_eq!(fresh("").await, 1);
    app.stop().await;

    // The same keys with slots of a minute.
    let directory = tempfile::tempdir().unwrap();
    let settings = [("store", "redis"), ("redis_url", url.as_str())];
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    let refused = run(directory.path(), &settings, &serve);
    assert_ne!(refused.code, Some(0));
    assert!(refused.err.contains("resolution = \"1s\""), "{refused:?}");
}
