//! The tokens file, and its reload while the service runs.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_running_service_reloads_the_tokens_file() {
    let file = TokensFile::new(&[token("old", &[Scope::Read])]);
    let app = App::start_with(&[("tokens_file", file.path())]).await;
    assert_eq!(
        (status_of(&app, "old").await, status_of(&app, "new").await),
        (200, 401)
    );
    file.add(token("new", &[Scope::Read]));
    wait_for_status(&app, "new", 200).await;
    assert_eq!(app.metric("headcount_tokens").await, 2.0);

    // A broken file changes nothing and is reported.
    std::fs::write(&file.path, "version = 1\n[[token]]\nname = ").unwrap();
    let counted =
        async || (app.metric("headcount_tokens_file_errors_total").await == 1.0).then_some(());
    poll("the error", counted).await;
    assert_eq!(
        (status_of(&app, "old").await, status_of(&app, "new").await),
        (200, 200)
    );
    // The report persists: an ineffective revocation must not look like an effective one.
    let broken = "headcount_auth_file_broken{file=\"tokens_file\"}";
    poll("the gauge", async || {
        (app.metric(broken).await == 1.0).then_some(())
    })
    .await;
    let ready = app.get("/readyz").await;
    assert_eq!(
        (ready.status, &ready.json["status"]),
        (200, &json!("degraded"))
    );
    // Unauthenticated clients see only that something is wrong. Tokens with `read` see the details.
    assert_eq!(
        ready.json["components"]["tokens_file"],
        json!({"ok": false, "age_seconds": 0.0})
    );
    let reader = [("authorization", "Bearer old-token")];
    let ready = app.send_with(Method::GET, "/readyz", &reader).await;
    let component = &ready.json["components"]["tokens_file"];
    let detail = component["detail"].as_str().unwrap();
    assert!(detail.contains("revocations have no effect"), "{detail}");
    assert!(
        !detail.contains(file.path()),
        "the path is not shown: {detail}"
    );

    // The web page reports the problem as well.
    let page = app.send_with(Method::GET, "/status", &reader).await.text;
    assert!(
        page.contains("revocations have no effect") && !page.contains("Everything works"),
        "{page}"
    );

    std::fs::remove_file(&file.path).unwrap();
    let counted =
        async || (app.metric("headcount_tokens_file_errors_total").await == 2.0).then_some(());
    poll("the second error", counted).await;
    assert_eq!(status_of(&app, "old").await, 200);

    file.add(token("new", &[Scope::Write]));
    wait_for_status(&app, "old", 401).await;
    assert_eq!(status_of(&app, "new").await, 403);
    poll("the gauge", async || {
        (app.metric(broken).await == 0.0).then_some(())
    })
    .await;
    let ready = app.get("/readyz").await;
    let component = &ready.json["components"]["tokens_file"];
    assert_eq!(*component, json!({"ok": true, "age_seconds": 0.0}));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opaque_token_expires_on_time() {
    let mut brief = token("brief", &[Scope::Read]);
    brief.expires = Some(Timestamp::from_second(NOON + 60).unwrap());
    let file = TokensFile::new(&[brief]);
    let app = App::start_with(&[("tokens_file", file.path())]).await;
    app.advance(59);
    assert_eq!(status_of(&app, "brief").await, 200);
    app.advance(1);
    assert_eq!(status_of(&app, "brief").await, 401);
    app.stop().await;
}

#[test]
fn a_missing_or_invalid_tokens_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    let open = |path: &Path| {
        let settings = Settings::with([("tokens_file", path.to_str().unwrap())]).unwrap();
        let clock = std::sync::Arc::new(domain::SteadyClock::default());
        auth::Auth::open(&settings.auth, clock, std::sync::Arc::default()).map(|auth| auth.is_on())
    };
    for (text, what) in [
        (None, "can't be read"),
        (Some(""), "version"),
        (Some("[["), "line 1"),
    ] {
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let error = open(&path).unwrap_err().to_string();
        assert!(
            error.starts_with("setting `tokens_file` names the file "),
            "{error}"
        );
        assert!(error.contains(what), "{error}");
    }
    std::fs::write(&path, "version = 1\n").unwrap();
    assert!(
        open(&path).unwrap(),
        "an empty tokens file denies access; it does not turn authentication off"
    );
}
