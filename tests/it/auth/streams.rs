//! Streams of events, and the tokens that they were opened with.

use super::*;
use crate::support::events::Listener;

async fn listen(app: &App, name: &str) -> Listener {
    let url = format!("http://{}/v1/events", app.addr);
    Listener::open_with(&url, &[("authorization", &bearer(name))]).await
}

/// Waits for the end of a stream; signs of life may come before it.
async fn ends(mut listener: Listener) {
    while listener.piece().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_token() {
    let mut brief = token("brief", &[Scope::Read]);
    brief.expires = Some(Timestamp::from_second(NOON + 60).unwrap());
    let file = TokensFile::new(&[
        token("revoked", &[Scope::Read]),
        token("kept", &[Scope::Read]),
        brief,
    ]);
    let app = App::start_with(&[("tokens_file", file.path())]).await;
    let (revoked, brief) = (listen(&app, "revoked").await, listen(&app, "brief").await);
    let mut kept = listen(&app, "kept").await;
    auth::edit(&file.path, |tokens| Ok(tokens.remove("revoked"))).unwrap();
    ends(revoked).await;
    app.advance(60);
    ends(brief).await;
    // The others go on.
    let pair = json!({"user_id": "u1", "segment": "a"}).to_string();
    file.add(token("uss", &[Scope::Write]));
    let authorization = bearer("uss");
    poll("the token of the writer", async || {
        let headers = [NDJSON, ("authorization", authorization.as_str())];
        (app.post_with(&headers, pair.clone()).await.status == 200).then_some(())
    })
    .await;
    kept.wait_for("a", 1).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_takes_all_places() {
    let file = TokensFile::new(&[token("many", &[Scope::Read]), token("one", &[Scope::Read])]);
    let app = App::start_with(&[
        ("tokens_file", file.path()),
        ("max_event_clients_per_token", "2"),
    ])
    .await;
    let first = listen(&app, "many").await;
    let second = listen(&app, "many").await;
    let refused = as_whom(&app, "GET", "/v1/events", Some(&bearer("many"))).await;
    assert_eq!(refused.problem(), (429, "busy"));
    assert!(refused.headers.contains_key("retry-after"));
    let other = listen(&app, "one").await;
    drop(first);
    // The service notices that the client has gone when it has something to say, or at once.
    poll("a place that was given back", async || {
        let url = format!("http://{}/v1/events", app.addr);
        let request = app.client.get(url).header("authorization", bearer("many"));
        (request.send().await.unwrap().status() == 200).then_some(())
    })
    .await;
    drop((second, other));
    app.stop().await;
}
