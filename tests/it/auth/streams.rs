//! Event streams and the tokens that opened them.

use super::*;
use crate::support::events::Listener;

async fn listen(app: &App, name: &str) -> Listener {
    let url = format!("http://{}/v1/events", app.addr);
    Listener::open_with(&url, &[("authorization", &bearer(name))]).await
}

/// Waits for the end of a stream. Keep-alive comments may precede it.
async fn wait_for_end(mut listener: Listener) {
    while listener.next_block().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_its_token_expires_or_is_revoked() {
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
    wait_for_end(revoked).await;
    app.advance(60);
    wait_for_end(brief).await;
    // Other streams stay open.
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
async fn event_streams_are_limited_per_token() {
    let file = TokensFile::new(&[token("many", &[Scope::Read]), token("one", &[Scope::Read])]);
    let app = App::start_with(&[
        ("tokens_file", file.path()),
        ("max_event_clients_per_token", "2"),
    ])
    .await;
    let first = listen(&app, "many").await;
    let second = listen(&app, "many").await;
    let refused = send_as(&app, "GET", "/v1/events", Some(&bearer("many"))).await;
    assert_eq!(refused.problem(), (429, "busy"));
    assert!(refused.headers.contains_key("retry-after"));
    let other = listen(&app, "one").await;
    drop(first);
    // The service detects the disconnect at once, or when it next writes.
    poll("a slot that was freed", async || {
        let url = format!("http://{}/v1/events", app.addr);
        let request = app.client.get(url).header("authorization", bearer("many"));
        (request.send().await.unwrap().status() == 200).then_some(())
    })
    .await;
    drop((second, other));
    app.stop().await;
}
