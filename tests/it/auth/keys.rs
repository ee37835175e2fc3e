//! Several keys of JWTs: by `kid`, from a JWKS file or a directory, and how they change.

use super::*;

fn claims() -> Value {
    json!({"sub": "uss", "scope": "read", "exp": NOON + 3600, "iat": NOON - 60})
}

/// The status of a token that `signer` made under `kid`.
async fn status(app: &App, signer: &Signer, kid: Option<&str>) -> u16 {
    let mut header = json!({"alg": signer.algorithm(), "typ": "JWT"});
    if let Some(kid) = kid {
        header["kid"] = kid.into();
    }
    let bearer = format!("Bearer {}", signer.token_with(&header, &claims()));
    as_whom(app, "GET", "/v1/segments", Some(&bearer))
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
async fn a_jwks_file_is_followed_as_keys_come_and_go() {
    let (old, new, other) = (Signer::rs256(), Signer::eddsa(), Signer::hs256(SECRET));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    // Issuers publish keys that nobody signs with here.
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
    // A key is good under its own name alone.
    assert_eq!(status(&app, &old, Some("h")).await, 401);
    assert_eq!(status(&app, &other, Some("2025")).await, 401);
    assert_eq!(status(&app, &old, Some("unheard of")).await, 401);
    // The public key is no secret of HS256, whatever the header says.
    let confused = Signer::Hs256(old.verifying_key().into_bytes());
    assert_eq!(status(&app, &confused, Some("2025")).await, 401);

    std::fs::write(&path, set(&[old.jwk("2025"), new.jwk("2026")])).unwrap();
    wait_for(&app, &new, "2026", 200).await;
    assert_eq!(status(&app, &old, Some("2025")).await, 200);

    // Broken: what was there stays, and somebody is told.
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

    // A key that is gone lets nobody in, not even those whose tokens were seen before.
    std::fs::write(&path, set(&[new.jwk("2026")])).unwrap();
    wait_for(&app, &old, "2025", 401).await;
    assert_eq!(status(&app, &new, Some("2026")).await, 200);
    assert_eq!(app.metric(line).await, 0.0);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_pem_files_is_followed_too() {
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
async fn only_access_tokens_that_are_young_enough_let_in() {
    let signer = Signer::hs256(SECRET);
    let app = App::start_with(&[("jwt_key", SECRET), ("jwt_max_age", "1h")]).await;
    let ask = async |typ: Value, issued: Value| {
        let mut claims = claims();
        claims["exp"] = json!(NOON + 10 * 365 * 86_400);
        claims["iat"] = issued;
        let mut header = json!({"alg": "HS256"});
        if !typ.is_null() {
            header["typ"] = typ;
        }
        let bearer = format!("Bearer {}", signer.token_with(&header, &claims));
        let answer = as_whom(&app, "GET", "/v1/segments", Some(&bearer)).await;
        let detail = answer.json["detail"].as_str().unwrap_or("").to_owned();
        (answer.status, detail)
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
        assert_eq!(ask(typ.clone(), json!(NOON)).await.0, status, "{typ}");
    }
    for (issued, status, detail) in [
        (json!(NOON - 3600 - 29), 200, ""),
        (json!(NOON - 3600 - 30), 401, "issued longer ago"),
        (json!(NOON + 30), 200, ""),
        (json!(NOON + 31), 401, "not valid yet"),
        (json!(null), 401, "`iat`"),
        (json!("today"), 401, "wrong type"),
    ] {
        let (given, said) = ask(json!("JWT"), issued.clone()).await;
        assert_eq!(given, status, "{issued}: {said}");
        assert!(said.contains(detail), "{issued}: {said}");
    }
    // A remembered token grows old all the same.
    assert_eq!(ask(json!("JWT"), json!(NOON)).await.0, 200);
    app.advance(3600 + 30);
    assert_eq!(ask(json!("JWT"), json!(NOON)).await.0, 401);
    app.stop().await;
}

#[test]
fn keys_that_can_not_be_used_stop_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let error = || {
        let settings = Settings::with([("jwt_keys", path.to_str().unwrap())]).unwrap();
        let clock = std::sync::Arc::new(domain::SteadyClock::default());
        let opened = auth::Auth::open(&settings.auth, clock, std::sync::Arc::default());
        opened.map(|auth| auth.is_on()).unwrap_err().to_string()
    };
    let said = error();
    assert!(
        said.starts_with("setting `jwt_keys` names the file "),
        "{said}"
    );
    for (text, what) in [
        ("", "not a JWK set"),
        ("{\"keys\":[]}", "no usable key"),
        (SECRET, "not a JWK set"),
    ] {
        std::fs::write(&path, text).unwrap();
        let said = error();
        assert!(said.contains(what) && !said.contains(SECRET), "{said}");
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(error().contains("ends in .pem"), "{}", error());
    std::fs::write(path.join("a.pem"), SECRET).unwrap();
    let said = error();
    assert!(said.contains("a.pem") && !said.contains(SECRET), "{said}");
    let given = [("jwt_key", SECRET), ("jwt_keys", "x")];
    let said = Settings::with(given).unwrap_err().to_string();
    assert!(said.starts_with("setting `jwt_keys` is "), "{said}");
    let said = Settings::with([("jwt_max_age", "1h")])
        .unwrap_err()
        .to_string();
    assert!(said.starts_with("setting `jwt_max_age` is "), "{said}");
}
