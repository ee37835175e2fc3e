//! Multiple JWT keys: selection by `kid`, loading from a JWKS file or a directory, and reload.

use super::*;

fn claims() -> Value {
    json!({"sub": "uss", "scope": "read", "exp": NOON + 3600, "iat": NOON - 60})
}

/// The response status for a token that `signer` signed with the header `kid`.
async fn status(app: &App, signer: &Signer, kid: Option<&str>) -> u16 {
    let mut header = json!({"alg": signer.algorithm(), "typ": "JWT"});
    if let Some(kid) = kid {
        header["kid"] = kid.into();
    }
    let bearer = format!("Bearer {}", signer.token_with(&header, &claims()));
    send_as(app, "GET", "/v1/segments", Some(&bearer))
        .await
        .status
}

async fn wait_for(app: &App, signer: &Signer, kid: &str, expected: u16) {
    poll("the change of keys", async || {
        (status(app, signer, Some(kid)).await == expected).then_some(())
    })
    .await;
}

fn set(keys: &[Value]) -> String {
    json!({"keys": keys}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwks_file_is_reloaded_as_keys_rotate() {
    let (old, new, other) = (Signer::rs256(), Signer::eddsa(), Signer::hs256(SECRET));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    // Issuers publish keys of types that the service does not support.
    let foreign = json!({"kty": "EC", "kid": "ec", "crv": "P-256", "x": "AA", "y": "AA"});
    std::fs::write(
        &path,
        set(&[foreign.clone(), old.jwk("2025"), other.jwk("h")]),
    )
    .unwrap();
    let app = App::start_with(&[("jwt_keys", path.to_str().unwrap())]).await;
    assert_eq!(status(&app, &old, Some("2025")).await, 200);
    assert_eq!(status(&app, &old, None).await, 200, "`kid` is optional");
    assert_eq!(status(&app, &other, Some("h")).await, 200);
    assert_eq!(status(&app, &new, Some("2026")).await, 401);
    // A key is valid only under its own `kid`.
    assert_eq!(status(&app, &old, Some("h")).await, 401);
    assert_eq!(status(&app, &other, Some("2025")).await, 401);
    assert_eq!(status(&app, &old, Some("unheard of")).await, 401);
    // The public key is not accepted as a secret of HS256, whatever the header names.
    let confused = Signer::Hs256(old.verifying_key().into_bytes());
    assert_eq!(status(&app, &confused, Some("2025")).await, 401);

    std::fs::write(&path, set(&[old.jwk("2025"), new.jwk("2026")])).unwrap();
    wait_for(&app, &new, "2026", 200).await;
    assert_eq!(status(&app, &old, Some("2025")).await, 200);

    // A broken file keeps the loaded keys and is reported.
    std::fs::write(&path, set(&[foreign])).unwrap();
    let line = "headcount_auth_file_broken{file=\"jwt_keys\"}";
    poll("the alarm", async || {
        (app.metric(line).await == 1.0).then_some(())
    })
    .await;
    assert_eq!(status(&app, &new, Some("2026")).await, 200);
    let ready = app.get("/readyz").await;
    assert_eq!(
        (ready.status, &ready.json["status"]),
        (200, &json!("degraded"))
    );
    assert_eq!(ready.json["components"]["jwt_keys"]["ok"], false);

    // A removed key verifies no token, including previously verified tokens.
    std::fs::write(&path, set(&[new.jwk("2026")])).unwrap();
    wait_for(&app, &old, "2025", 401).await;
    assert_eq!(status(&app, &new, Some("2026")).await, 200);
    assert_eq!(app.metric(line).await, 0.0);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_pem_files_is_reloaded() {
    let (one, two) = (Signer::eddsa(), Signer::rs256());
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, signer: &Signer| {
        std::fs::write(folder.path().join(name), signer.verifying_key()).unwrap();
    };
    write("one.pem", &one);
    write("README", &Signer::hs256("no key at all"));
    let app = App::start_with(&[("jwt_keys", folder.path().to_str().unwrap())]).await;
    assert_eq!(status(&app, &one, Some("one")).await, 200);
    assert_eq!(status(&app, &one, Some("two")).await, 401);
    write("two.pem", &two);
    wait_for(&app, &two, "two", 200).await;
    std::fs::remove_file(folder.path().join("one.pem")).unwrap();
    wait_for(&app, &one, "one", 401).await;
    assert_eq!(status(&app, &two, Some("two")).await, 200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_access_tokens_within_the_maximum_age_are_accepted() {
    let signer = Signer::hs256(SECRET);
    let app = App::start_with(&[("jwt_key", SECRET), ("jwt_max_age", "1h")]).await;
    let send = async |typ: Value, issued: Value| {
        let mut claims = claims();
        claims["exp"] = json!(NOON + 10 * 365 * 86_400);
        claims["iat"] = issued;
        let mut header = json!({"alg": "HS256"});
        if !typ.is_null() {
            header["typ"] = typ;
        }
        let bearer = format!("Bearer {}", signer.token_with(&header, &claims));
        let response = send_as(&app, "GET", "/v1/segments", Some(&bearer)).await;
        let detail = response.json["detail"].as_str().unwrap_or("").to_owned();
        (response.status, detail)
    };
    for (typ, status) in [
        (json!(null), 200),
        (json!("JWT"), 200),
        (json!("jwt"), 200),
        (json!("at+jwt"), 200),
        (json!("application/at+JWT"), 200),
        (json!("logout+jwt"), 401),
        (json!("secevent+jwt"), 401),
        (json!("id_token"), 401),
        (json!(""), 401),
    ] {
        assert_eq!(send(typ.clone(), json!(NOON)).await.0, status, "{typ}");
    }
    for (issued, status, detail) in [
        (json!(NOON - 3600 - 29), 200, ""),
        (json!(NOON - 3600 - 30), 401, "issued longer ago"),
        (json!(NOON + 30), 200, ""),
        (json!(NOON + 31), 401, "not valid yet"),
        (json!(null), 401, "`iat`"),
        (json!("today"), 401, "wrong type"),
    ] {
        let (given, message) = send(json!("JWT"), issued.clone()).await;
        assert_eq!(given, status, "{issued}: {message}");
        assert!(message.contains(detail), "{issued}: {message}");
    }
    // The maximum age applies to cached tokens as well.
    assert_eq!(send(json!("JWT"), json!(NOON)).await.0, 200);
    app.advance(3600 + 30);
    assert_eq!(send(json!("JWT"), json!(NOON)).await.0, 401);
    app.stop().await;
}

#[test]
fn unusable_jwt_keys_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let error = || {
        let settings = Settings::with([("jwt_keys", path.to_str().unwrap())]).unwrap();
        let clock = std::sync::Arc::new(domain::SteadyClock::default());
        let opened = auth::Auth::open(&settings.auth, clock, std::sync::Arc::default());
        opened.map(|auth| auth.is_on()).unwrap_err().to_string()
    };
    let message = error();
    assert!(
        message.starts_with("setting `jwt_keys` names the file "),
        "{message}"
    );
    for (text, what) in [
        ("", "not a JWK set"),
        ("{\"keys\":[]}", "no usable key"),
        (SECRET, "not a JWK set"),
    ] {
        std::fs::write(&path, text).unwrap();
        let message = error();
        assert!(
            message.contains(what) && !message.contains(SECRET),
            "{message}"
        );
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(error().contains("ends in .pem"), "{}", error());
    std::fs::write(path.join("a.pem"), SECRET).unwrap();
    let message = error();
    assert!(
        message.contains("a.pem") && !message.contains(SECRET),
        "{message}"
    );
    let given = [("jwt_key", SECRET), ("jwt_keys", "x")];
    let message = Settings::with(given).unwrap_err().to_string();
    assert!(message.starts_with("setting `jwt_keys` is "), "{message}");
    let message = Settings::with([("jwt_max_age", "1h")])
        .unwrap_err()
        .to_string();
    assert!(
        message.starts_with("setting `jwt_max_age` is "),
        "{message}"
    );
}
