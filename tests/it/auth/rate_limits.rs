//! Rate limits on requests and on pairs.

use super::*;

fn lines(pairs: usize) -> String {
    (0..pairs)
        .map(|user| format!("{}\n", json!({"user_id": user, "segment": "a"})))
        .collect()
}

async fn post(app: &App, authorization: &str, pairs: usize) -> Response {
    app.post_with(&[NDJSON, ("authorization", authorization)], lines(pairs))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_per_token() {
    let mut own = token("own", &Scope::ALL);
    own.pairs_per_second = NonZeroU32::new(2_000_000);
    own.requests_per_second = NonZeroU32::new(1_000_000);
    let file = TokensFile::new(&[token("a", &Scope::ALL), token("b", &Scope::ALL), own]);
    let settings = [
        ("tokens_file", file.path()),
        ("jwt_key", SECRET),
        ("limit_requests", "1"),
        ("limit_pairs", "10"),
    ];
    let app = App::start_with(&settings).await;
    // The limit is one request a second: repeated requests eventually exceed it.
    let limited = async |authorization: &str| {
        poll("a 429", async || {
            let response = send_as(&app, "GET", "/v1/segments", Some(authorization)).await;
            (response.status == 429).then_some(response)
        })
        .await
    };
    let response = limited(&bearer("a")).await;
    assert_eq!(response.problem(), (429, "rate_limited"));
    assert_eq!(response.headers["retry-after"], "1");
    assert_eq!(response.json["limit"], 1);
    assert!(
        app.metric("headcount_auth_limited_total{what=\"requests\"}")
            .await
            >= 1.0
    );
    // Other tokens have their own limit. Open routes have none. The limit of `a` passes with time.
    assert_eq!(status_of(&app, "b").await, 200);
    for _ in 0..5 {
        assert_eq!(status_of(&app, "own").await, 200);
        assert_eq!(app.get("/healthz").await.status, 200);
    }
    wait_for_status(&app, "a", 200).await;

    // Two tokens of one subject share a limit.
    let jwt = |salt: u32| {
        let claims = json!({"sub": "uss", "scope": "read write", "exp": NOON + 3600, "salt": salt});
        format!("Bearer {}", Signer::hs256(SECRET).token(&claims))
    };
    limited(&jwt(1)).await;
    let mut salt = 1;
    poll("a 429 for a token on its first use", async || {
        salt += 1;
        let response = send_as(&app, "GET", "/v1/segments", Some(&jwt(salt))).await;
        (response.status == 429).then_some(())
    })
    .await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_are_rate_limited() {
    let mut own = token("own", &Scope::ALL);
    own.pairs_per_second = NonZeroU32::new(2_000_000);
    let file = TokensFile::new(&[token("a", &Scope::ALL), own]);
    let app = App::start_with(&[("tokens_file", file.path()), ("limit_pairs", "10")]).await;
    let response = post(&app, &bearer("a"), 11).await;
    assert_eq!(
        response.problem(),
        (413, "too_many_pairs"),
        "a retry could never succeed"
    );
    assert_eq!(response.json["limit"], 10);
    let refused = poll("a 429", async || {
        let response = post(&app, &bearer("a"), 10).await;
        (response.status != 200).then_some(response)
    })
    .await;
    assert_eq!(refused.problem(), (429, "rate_limited"));
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(
        app.metric("headcount_auth_limited_total{what=\"pairs\"}")
            .await
            >= 2.0
    );
    assert_eq!(post(&app, &bearer("own"), 10_000).await.status, 200);
    poll("a later request passes", async || {
        (post(&app, &bearer("a"), 10).await.status == 200).then_some(())
    })
    .await;
    app.stop().await;
}
