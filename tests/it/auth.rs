//! Who may do what: every route, tokens, JWTs, limits, and web pages of other origins.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use headcount::auth::{self, Digest, Scope, Token};
use headcount::config::Settings;
use headcount::domain::Timestamp;
use headcount::http;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::app::{Answer, App, NOON};
use crate::support::jwt::{Signer, pem, unsigned};

const SECRET: &str = "a secret that is long enough, by far";
const DEADLINE: Duration = Duration::from_secs(30);
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

/// Everything that the service answers: method, template, a path, the scope, and the status with the right token.
const ROUTES: &[(&str, &str, &str, Option<Scope>, u16)] = &[
    // Without a body and its type.
    ("POST", "/v1/pairs", "/v1/pairs", Some(Scope::Write), 415),
    (
        "GET",
        "/v1/segments/{segment}/count",
        "/v1/segments/a/count",
        Some(Scope::Read),
        200,
    ),
    (
        "HEAD",
        "/v1/segments/{segment}/count",
        "/v1/segments/a/count",
        Some(Scope::Read),
        200,
    ),
    (
        "GET",
        "/v1/segments",
        "/v1/segments",
        Some(Scope::Read),
        200,
    ),
    (
        "HEAD",
        "/v1/segments",
        "/v1/segments",
        Some(Scope::Read),
        200,
    ),
    (
        "GET",
        "/v1/segments/{segment}/trend",
        "/v1/segments/a/trend",
        Some(Scope::Read),
        200,
    ),
    (
        "HEAD",
        "/v1/segments/{segment}/trend",
        "/v1/segments/a/trend",
        Some(Scope::Read),
        200,
    ),
    // One that is no segment's name: a stream would not end.
    (
        "GET",
        "/v1/events",
        "/v1/events?segment=%20",
        Some(Scope::Read),
        400,
    ),
    ("HEAD", "/v1/events", "/v1/events", Some(Scope::Read), 200),
    (
        "GET",
        "/v1/users/{user_id}",
        "/v1/users/u1",
        Some(Scope::Read),
        200,
    ),
    (
        "HEAD",
        "/v1/users/{user_id}",
        "/v1/users/u1",
        Some(Scope::Read),
        200,
    ),
    (
        "DELETE",
        "/v1/users/{user_id}",
        "/v1/users/u1",
        Some(Scope::Admin),
        200,
    ),
    (
        "POST",
        "/v1/admin/refresh",
        "/v1/admin/refresh",
        Some(Scope::Admin),
        200,
    ),
    (
        "POST",
        "/v1/admin/archive",
        "/v1/admin/archive",
        Some(Scope::Admin),
        200,
    ),
    ("GET", "/healthz", "/healthz", None, 200),
    ("HEAD", "/healthz", "/healthz", None, 200),
    ("GET", "/readyz", "/readyz", None, 200),
    ("HEAD", "/readyz", "/readyz", None, 200),
    ("GET", "/metrics", "/metrics", None, 200),
    ("HEAD", "/metrics", "/metrics", None, 200),
    ("GET", "/openapi.json", "/openapi.json", None, 200),
    ("HEAD", "/openapi.json", "/openapi.json", None, 200),
    ("GET", "/docs", "/docs", None, 200),
    ("HEAD", "/docs", "/docs", None, 200),
    ("GET", "/docs/{file}", "/docs/headcount.js", None, 200),
    ("HEAD", "/docs/{file}", "/docs/headcount.js", None, 200),
    ("GET", "/", "/", Some(Scope::Read), 200),
    ("HEAD", "/", "/", Some(Scope::Read), 200),
    (
        "GET",
        "/segments/{segment}",
        "/segments/a",
        Some(Scope::Read),
        200,
    ),
    (
        "HEAD",
        "/segments/{segment}",
        "/segments/a",
        Some(Scope::Read),
        200,
    ),
    ("GET", "/sign-in", "/sign-in", None, 200),
    ("HEAD", "/sign-in", "/sign-in", None, 200),
    // From nowhere: the page's own form says where it is from.
    ("POST", "/sign-in", "/sign-in", None, 403),
    ("POST", "/sign-out", "/sign-out", None, 403),
    ("GET", "/assets/{file}", "/assets/page.css", None, 200),
    ("HEAD", "/assets/{file}", "/assets/page.css", None, 200),
];

/// A tokens file. A token's text is its name, then `-token`.
struct TokensFile {
    path: PathBuf,
    _folder: TempDir,
}

impl TokensFile {
    fn new(tokens: &[Token]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = Self {
            path: folder.path().join("tokens.toml"),
            _folder: folder,
        };
        auth::edit(&file.path, |_| Ok(())).unwrap();
        tokens.iter().for_each(|token| file.add(token.clone()));
        file
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    fn add(&self, token: Token) {
        auth::edit(&self.path, |tokens| tokens.add(token)).unwrap();
    }
}

fn token(name: &str, scopes: &[Scope]) -> Token {
    Token {
        name: name.to_owned(),
        scopes: scopes.to_vec(),
        sha256: Digest::of(format!("{name}-token").as_bytes()),
        created: Timestamp::from_second(NOON - 60).unwrap(),
        expires: None,
        requests_per_second: None,
        pairs_per_second: None,
    }
}

fn bearer(name: &str) -> String {
    format!("Bearer {name}-token")
}

async fn as_whom(app: &App, method: &str, path: &str, authorization: Option<&str>) -> Answer {
    let method = method.parse().unwrap();
    match authorization {
        Some(value) => {
            app.send_with(method, path, &[("authorization", value)])
                .await
        }
        None => app.send(method, path).await,
    }
}

/// Fails unless `answer` refuses with this status, code and challenge; a HEAD's answer has no body to look at.
fn assert_refused(answer: &Answer, method: &str, status: u16, code: &str, challenge: &str) {
    let given = answer.headers["www-authenticate"].to_str().unwrap();
    assert_eq!((answer.status, given), (status, challenge), "{answer:?}");
    if method != "HEAD" {
        assert_eq!(answer.problem(), (status, code));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_asks_for_its_scope_and_no_other() {
    let known: BTreeSet<_> = http::resources()
        .map(|(m, t, s)| (m, t, s.map(Scope::as_str)))
        .collect();
    let tested: BTreeSet<_> = ROUTES
        .iter()
        .map(|(m, t, _, s, _)| (*m, *t, s.map(Scope::as_str)))
        .collect();
    assert_eq!(
        known, tested,
        "each route of the service must be in the table of this test"
    );

    let mut expired = token("expired", &Scope::ALL);
    expired.expires = Some(Timestamp::from_second(NOON).unwrap());
    let file = TokensFile::new(&[
        token("read", &[Scope::Read]),
        token("write", &[Scope::Write]),
        token("admin", &[Scope::Admin]),
        token("all", &Scope::ALL),
        expired,
    ]);
    let app = App::start_with(&[("tokens_file", file.path())]).await;
    for &(method, template, path, scope, status) in ROUTES {
        let Some(scope) = scope else {
            for given in [None, Some("Bearer nonsense"), Some("Bearer")] {
                let answer = as_whom(&app, method, path, given).await;
                assert_eq!(answer.status, status, "{method} {template}");
            }
            continue;
        };
        let refused = |answer: Answer, code: &str, challenge: &str| {
            let status = if code == "insufficient_scope" {
                403
            } else {
                401
            };
            assert_refused(
                &answer,
                method,
                status,
                code,
                &format!("Bearer realm=\"headcount\"{challenge}"),
            );
        };
        let answer = as_whom(&app, method, path, None).await;
        refused(answer, "unauthenticated", "");
        let invalid =
            |why: &str| format!(", error=\"invalid_token\", error_description=\"the token {why}\"");
        let answer = as_whom(&app, method, path, Some("Bearer nonsense")).await;
        refused(
            answer,
            "invalid_token",
            &invalid("is unknown, revoked or not rightly signed"),
        );
        let answer = as_whom(&app, method, path, Some(&bearer("expired"))).await;
        refused(answer, "invalid_token", &invalid("has expired"));
        for other in Scope::ALL.into_iter().filter(|other| *other != scope) {
            let answer = as_whom(&app, method, path, Some(&bearer(other.as_str()))).await;
            let challenge = format!(", error=\"insufficient_scope\", scope=\"{scope}\"");
            refused(answer, "insufficient_scope", &challenge);
        }
        for right in [scope.as_str(), "all"] {
            let answer = as_whom(&app, method, path, Some(&bearer(right))).await;
            assert_eq!(answer.status, status, "{method} {template} {answer:?}");
            assert!(!answer.headers.contains_key("www-authenticate"));
        }
    }
    // What does not exist is no secret.
    assert_eq!(app.get("/v1/nothing").await.problem(), (404, "not_found"));
    assert_eq!(
        app.get("/v1/pairs").await.problem(),
        (405, "method_not_allowed")
    );
    let asking = ROUTES.iter().filter(|route| route.3.is_some()).count() as f64;
    for (reason, times) in [
        ("missing", 1.0),
        ("unknown", 1.0),
        ("expired", 1.0),
        ("scope", 2.0),
    ] {
        let line = format!("headcount_auth_refusals_total{{reason=\"{reason}\"}}");
        assert_eq!(app.metric(&line).await, asking * times, "{reason}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tokens_nobody_is_asked_and_metrics_can_be_closed() {
    let app = App::start().await;
    for &(method, template, path, _, status) in ROUTES {
        let answer = as_whom(&app, method, path, None).await;
        assert_eq!(answer.status, status, "{method} {template}");
    }
    app.stop().await;

    let file = TokensFile::new(&[
        token("read", &[Scope::Read]),
        token("write", &[Scope::Write]),
    ]);
    let app = App::start_with(&[("tokens_file", file.path()), ("metrics_open", "false")]).await;
    assert_eq!(app.get("/metrics").await.status, 401);
    assert_eq!(
        as_whom(&app, "GET", "/metrics", Some(&bearer("write")))
            .await
            .status,
        403
    );
    assert_eq!(
        as_whom(&app, "GET", "/metrics", Some(&bearer("read")))
            .await
            .status,
        200
    );
    assert_eq!(app.get("/healthz").await.status, 200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_headers_are_refused_alike() {
    let file = TokensFile::new(&[token("read", &[Scope::Read])]);
    let app = App::start_with(&[("tokens_file", file.path())]).await;
    for (headers, status, code) in [
        (&["Bearer read-token"][..], 200, ""),
        (&["bEaReR   read-token  "], 200, ""),
        (&["Bearer\tread-token"], 401, "unauthenticated"),
        (&[""], 401, "unauthenticated"),
        (&["Basic cmVhZDp0b2tlbg=="], 401, "unauthenticated"),
        (&["read-token"], 401, "unauthenticated"),
        (&["Bearer"], 401, "invalid_token"),
        (&["Bearer "], 401, "invalid_token"),
        (&["Bearer read-token x"], 401, "invalid_token"),
        (&["Bearer READ-TOKEN"], 401, "invalid_token"),
        (&["Bearer read-toke"], 401, "invalid_token"),
        (&["Bearer r\u{e9}ad-token"], 401, "invalid_token"),
        (
            &["Bearer read-token", "Bearer read-token"],
            400,
            "invalid_request",
        ),
        (&["Basic eDp5", "Bearer read-token"], 400, "invalid_request"),
    ] {
        let lines: String = headers
            .iter()
            .map(|value| format!("authorization: {value}\r\n"))
            .collect();
        let request =
            format!("GET /v1/segments HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}\r\n");
        let answer = app.say(request.as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{headers:?}: {head}"
        );
        assert_eq!(
            head.contains("www-authenticate: Bearer realm=\"headcount\""),
            status != 200
        );
        assert!(
            body.contains(&format!("\"code\":\"{code}\"")) || status == 200,
            "{body}"
        );
        assert!(
            !answer.contains("read-toke"),
            "a token is never repeated: {answer}"
        );
    }
    app.stop().await;
}

fn claims() -> Value {
    json!({"sub": "uss", "scope": "openid read", "exp": NOON + 3600, "nbf": NOON - 3600, "iss": "https://id.example", "aud": ["headcount", "other"]})
}

/// The good claims with one changed, or taken out where the value is null.
fn changed(name: &str, value: Value) -> Value {
    let mut claims = claims();
    let members = claims.as_object_mut().unwrap();
    match value {
        Value::Null => members.remove(name),
        value => members.insert(name.to_owned(), value),
    };
    claims
}

async fn app_for(signer: &Signer) -> App {
    let key = signer.verifying_key();
    App::start_with(&[
        ("jwt_key", key.as_str()),
        ("jwt_audience", "headcount"),
        ("jwt_issuer", "https://id.example"),
    ])
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn jwts_are_taken_by_the_key_and_not_by_what_they_say() {
    let (hmac, rsa, ed) = (Signer::hs256(SECRET), Signer::rs256(), Signer::eddsa());
    for signer in [&hmac, &rsa, &ed] {
        let app = app_for(signer).await;
        let status = async |token: &str| {
            let answer = as_whom(
                &app,
                "GET",
                "/v1/segments",
                Some(&format!("Bearer {token}")),
            )
            .await;
            if answer.status == 401 {
                assert_eq!(answer.problem().1, "invalid_token");
            }
            answer.status
        };
        assert_eq!(status(&signer.token(&claims())).await, 200);
        // Again, from what is remembered.
        assert_eq!(status(&signer.token(&claims())).await, 200);

        // Others sign, whatever the header says.
        for other in [
            &hmac,
            &rsa,
            &ed,
            &Signer::rs256(),
            &Signer::eddsa(),
            &Signer::hs256(&SECRET.to_uppercase()),
        ] {
            if std::ptr::eq(other, signer) {
                continue;
            }
            assert_eq!(status(&other.token(&claims())).await, 401);
            for alg in ["HS256", "RS256", "EdDSA"] {
                assert_eq!(
                    status(&other.token_with(&json!({"alg": alg}), &claims())).await,
                    401,
                    "{alg}"
                );
            }
        }
        // The public key as the secret of HS256, which a parser that believes the header would take.
        let confusing = Signer::Hs256(signer.verifying_key().into_bytes());
        if !std::ptr::eq(signer, &hmac) {
            assert_eq!(status(&confusing.token(&claims())).await, 401);
            let trimmed = Signer::hs256(signer.verifying_key().trim_end());
            assert_eq!(status(&trimmed.token(&claims())).await, 401);
        }
        // No signature, and the right one under another name.
        for alg in ["none", "None", "NONE", "nOnE", ""] {
            let message = unsigned(&json!({"alg": alg, "typ": "JWT"}), &claims());
            assert_eq!(status(&format!("{message}.")).await, 401, "{alg}");
            assert_eq!(
                status(&signer.token_with(&json!({"alg": alg}), &claims())).await,
                401
            );
        }
        for alg in ["HS384", "HS512", "RS384", "PS256", "ES256"] {
            assert_eq!(
                status(&signer.token_with(&json!({"alg": alg}), &claims())).await,
                401,
                "{alg}"
            );
        }
        // A changed token is another token, also when the right one was just seen.
        let good = signer.token(&claims());
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let admin = unsigned(&json!({"alg": "HS256"}), &changed("scope", json!("admin")));
        for bad in [
            format!("{admin}.{signature}"),
            format!("{signed}."),
            signed.to_owned(),
            format!("{signed}.{}", "A".repeat(signature.len())),
            format!("{good}."),
            format!("{good}A"),
            ".".into(),
            "..".into(),
            "...".into(),
        ] {
            assert_eq!(status(&bad).await, 401, "{bad}");
        }
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_are_checked_at_each_request() {
    let signer = Signer::hs256(SECRET);
    let app = app_for(&signer).await;
    let ask = async |claims: &Value| {
        let bearer = format!("Bearer {}", signer.token(claims));
        let answer = as_whom(&app, "GET", "/v1/segments", Some(&bearer)).await;
        let detail = answer.json["detail"].as_str().unwrap_or("").to_owned();
        (answer.status, detail)
    };
    for (name, value, status, detail) in [
        ("exp", Value::Null, 401, "`exp`"),
        ("exp", json!("tomorrow"), 401, "wrong kind"),
        ("exp", json!(-1), 401, "`exp`"),
        ("exp", json!(0), 401, "expired"),
        ("exp", json!(NOON - 31), 401, "expired"),
        ("exp", json!(NOON - 30), 401, "expired"),
        // Clocks differ a little.
        ("exp", json!(NOON - 29), 200, ""),
        ("exp", json!(NOON as f64 + 0.5), 200, ""),
        ("exp", json!(1e300), 401, "`exp`"),
        ("nbf", Value::Null, 200, ""),
        ("nbf", json!(NOON + 30), 200, ""),
        ("nbf", json!(NOON + 31), 401, "not valid yet"),
        ("nbf", json!("soon"), 401, "wrong kind"),
        ("aud", json!("headcount"), 200, ""),
        ("aud", json!("another"), 401, "audience"),
        ("aud", json!(["another"]), 401, "audience"),
        ("aud", json!([]), 401, "audience"),
        ("aud", Value::Null, 401, "`aud`"),
        ("aud", json!(7), 401, "`aud`"),
        ("iss", json!("https://id.example/"), 401, "issuer"),
        ("iss", Value::Null, 401, "`iss`"),
        ("iss", json!({}), 401, "`iss`"),
        ("scope", Value::Null, 403, "scope read"),
        ("scope", json!(""), 403, "scope read"),
        ("scope", json!("reader READ write admin"), 403, "scope read"),
        ("scope", json!(["write", "read"]), 200, ""),
        ("scope", json!(7), 401, "wrong kind"),
        ("sub", Value::Null, 200, ""),
    ] {
        let (given, said) = ask(&changed(name, value.clone())).await;
        assert_eq!(given, status, "{name} {value}: {said}");
        assert!(said.contains(detail), "{name} {value}: {said}");
    }
    let critical = json!({"alg": "HS256", "crit": ["b64"], "b64": false});
    let critical = format!("Bearer {}", signer.token_with(&critical, &claims()));
    assert_eq!(
        as_whom(&app, "GET", "/v1/segments", Some(&critical))
            .await
            .status,
        401
    );

    // A remembered token expires all the same.
    assert_eq!(ask(&claims()).await.0, 200);
    app.advance(3600 + 31);
    assert_eq!(ask(&claims()).await.0, 401);
    app.stop().await;

    // A token for somebody is not for a service that is nobody in particular (RFC 7519, section 4.1.3).
    let app = App::start_with(&[("jwt_key", SECRET)]).await;
    for (claims, status) in [(claims(), 401), (changed("aud", Value::Null), 200)] {
        let bearer = format!("Bearer {}", signer.token(&claims));
        assert_eq!(
            as_whom(&app, "GET", "/v1/segments", Some(&bearer))
                .await
                .status,
            status
        );
    }
    app.stop().await;
}

#[test]
fn keys_that_protect_nothing_stop_the_start() {
    let rsa = Signer::rs256().verifying_key();
    let ed = Signer::eddsa().verifying_key();
    for good in [SECRET, rsa.as_str(), ed.as_str()] {
        assert!(Settings::with([("jwt_key", good)]).is_ok(), "{good}");
    }
    // RSA of 1024 bits, and a point of the curve P-256: what a PEM of each is like does not matter here.
    let short_rsa = pem("RSA PUBLIC KEY", &der_of_short_rsa());
    for bad in [
        "too short",
        "-----BEGIN PUBLIC KEY-----\nnonsense that is long enough\n-----END PUBLIC KEY-----\n",
        short_rsa.as_str(),
        &rsa.replace("PUBLIC KEY", "PRIVATE KEY"),
        &rsa.replace("PUBLIC KEY", "CERTIFICATE"),
        &rsa.replace("PUBLIC KEY", "EC PUBLIC KEY"),
    ] {
        let error = Settings::with([("jwt_key", bad)]).unwrap_err().to_string();
        assert!(
            error.starts_with("setting `jwt_key` is *** (program): give "),
            "{error}"
        );
        assert!(!error.contains(bad), "{error}");
    }
    for (given, name) in [
        (&[("jwt_audience", "x")][..], "jwt_audience"),
        (&[("jwt_issuer", "x")], "jwt_issuer"),
        (&[("limit_pairs", "5")], "limit_pairs"),
        (&[("jwt_key", SECRET), ("limit_pairs", "0")], "limit_pairs"),
        (
            &[("jwt_key", SECRET), ("limit_requests", "10000001")],
            "limit_requests",
        ),
        (&[("jwt_key", SECRET), ("auth", "off")], "auth"),
        (&[("tokens_file", "x"), ("auth", "off")], "auth"),
        (&[("auth", "on")], "auth"),
        (&[("cors_origins", "app.example")], "cors_origins"),
        (&[("cors_origins", "https://app.example/")], "cors_origins"),
        (&[("cors_origins", "https://App.example")], "cors_origins"),
        (&[("cors_origins", "null")], "cors_origins"),
        (&[("cors_origins", "*,https://app.example")], "cors_origins"),
        (&[("cors_origins", "file:///x")], "cors_origins"),
    ] {
        let error = Settings::with(given.iter().copied())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(&format!("setting `{name}` is ")),
            "{error}"
        );
    }
}

/// SEQUENCE of a modulus of 1024 bits and the exponent 65537.
fn der_of_short_rsa() -> Vec<u8> {
    let mut modulus = vec![0xc5; 128];
    modulus[127] |= 1;
    let integer =
        |bytes: &[u8]| [&[0x02, 0x81, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let body = [
        integer(&[&[0][..], &modulus].concat()),
        vec![0x02, 0x03, 0x01, 0x00, 0x01],
    ]
    .concat();
    [&[0x30, 0x81, u8::try_from(body.len()).unwrap()], &body[..]].concat()
}

/// Asks until `done` is content, and gives up long after it should have been.
async fn poll<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn status_of(app: &App, name: &str) -> u16 {
    as_whom(app, "GET", "/v1/segments", Some(&bearer(name)))
        .await
        .status
}

async fn wait_for_status(app: &App, name: &str, status: u16) {
    let reached = async || (status_of(app, name).await == status).then_some(());
    poll(&format!("{status} for {name}"), reached).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_service_takes_up_the_tokens_file() {
    let file = TokensFile::new(&[token("old", &[Scope::Read])]);
    let app = App::start_with(&[("tokens_file", file.path())]).await;
    assert_eq!(
        (status_of(&app, "old").await, status_of(&app, "new").await),
        (200, 401)
    );
    file.add(token("new", &[Scope::Read]));
    wait_for_status(&app, "new", 200).await;
    assert_eq!(app.metric("headcount_tokens").await, 2.0);

    // Broken: everything stays as it was, and somebody is told.
    std::fs::write(&file.path, "version = 1\n[[token]]\nname = ").unwrap();
    let counted =
        async || (app.metric("headcount_tokens_file_errors_total").await == 1.0).then_some(());
    poll("the error", counted).await;
    assert_eq!(
        (status_of(&app, "old").await, status_of(&app, "new").await),
        (200, 200)
    );

    std::fs::remove_file(&file.path).unwrap();
    let counted =
        async || (app.metric("headcount_tokens_file_errors_total").await == 2.0).then_some(());
    poll("the second error", counted).await;
    assert_eq!(status_of(&app, "old").await, 200);

    file.add(token("new", &[Scope::Write]));
    wait_for_status(&app, "old", 401).await;
    assert_eq!(status_of(&app, "new").await, 403);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opaque_token_expires_at_its_time() {
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

fn lines(pairs: usize) -> String {
    (0..pairs)
        .map(|user| format!("{}\n", json!({"user_id": user, "segment": "a"})))
        .collect()
}

async fn post(app: &App, authorization: &str, pairs: usize) -> Answer {
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
    // Two within a second are too many: sooner or later two are.
    let limited = async |authorization: &str| {
        poll("a 429", async || {
            let answer = as_whom(&app, "GET", "/v1/segments", Some(authorization)).await;
            (answer.status == 429).then_some(answer)
        })
        .await
    };
    let answer = limited(&bearer("a")).await;
    assert_eq!(answer.problem(), (429, "rate_limited"));
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(answer.json["limit"], 1);
    assert!(
        app.metric("headcount_auth_limited_total{what=\"requests\"}")
            .await
            >= 1.0
    );
    // Others have their own; what is open has none; it passes.
    assert_eq!(status_of(&app, "b").await, 200);
    for _ in 0..5 {
        assert_eq!(status_of(&app, "own").await, 200);
        assert_eq!(app.get("/healthz").await.status, 200);
    }
    wait_for_status(&app, "a", 200).await;

    // Two tokens of one subject are one caller.
    let jwt = |salt: u32| {
        let claims = json!({"sub": "uss", "scope": "read write", "exp": NOON + 3600, "salt": salt});
        format!("Bearer {}", Signer::hs256(SECRET).token(&claims))
    };
    limited(&jwt(1)).await;
    let mut salt = 1;
    poll("a 429 for a token that was never seen", async || {
        salt += 1;
        let answer = as_whom(&app, "GET", "/v1/segments", Some(&jwt(salt))).await;
        (answer.status == 429).then_some(())
    })
    .await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_are_limited_too() {
    let mut own = token("own", &Scope::ALL);
    own.pairs_per_second = NonZeroU32::new(2_000_000);
    let file = TokensFile::new(&[token("a", &Scope::ALL), own]);
    let app = App::start_with(&[("tokens_file", file.path()), ("limit_pairs", "10")]).await;
    let answer = post(&app, &bearer("a"), 11).await;
    assert_eq!(
        answer.problem(),
        (413, "too_many_pairs"),
        "it would wait for ever"
    );
    assert_eq!(answer.json["limit"], 10);
    let refused = poll("a 429", async || {
        let answer = post(&app, &bearer("a"), 10).await;
        (answer.status != 200).then_some(answer)
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
    poll("what waits passes", async || {
        (post(&app, &bearer("a"), 10).await.status == 200).then_some(())
    })
    .await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn web_pages_ask_where_they_may() {
    const GOOD: (&str, &str) = ("origin", "https://app.example");
    const PREFLIGHT: (&str, &str) = ("access-control-request-method", "GET");
    let file = TokensFile::new(&[token("read", &[Scope::Read])]);
    let origins = ("cors_origins", "https://app.example, http://localhost:3000");
    let app = App::start_with(&[("tokens_file", file.path()), origins]).await;
    let allowed = |answer: &Answer| {
        let headers = &answer.headers;
        assert!(!headers.contains_key("access-control-allow-credentials"));
        let origin = headers.get("access-control-allow-origin");
        origin.map(|origin| origin.to_str().unwrap().to_owned())
    };
    let path = "/v1/segments";
    let answer = app
        .send_with(Method::OPTIONS, path, &[GOOD, PREFLIGHT])
        .await;
    assert_eq!(
        (answer.status, allowed(&answer).as_deref()),
        (204, Some(GOOD.1)),
        "without a token"
    );
    assert_eq!(answer.headers["access-control-allow-methods"], "GET, HEAD");
    assert!(
        answer.headers["access-control-allow-headers"]
            .to_str()
            .unwrap()
            .contains("authorization")
    );
    assert_eq!(answer.headers["vary"], "origin");
    let authorization = bearer("read");
    for (headers, status, origin) in [
        (
            &[GOOD, ("authorization", authorization.as_str())][..],
            200,
            Some(GOOD.1),
        ),
        // The page may read why it was refused.
        (&[GOOD], 401, Some(GOOD.1)),
        (
            &[("origin", "http://localhost:3000")],
            401,
            Some("http://localhost:3000"),
        ),
        (&[("origin", "https://app.example.evil.example")], 401, None),
        (&[("origin", "https://APP.example")], 401, None),
        (&[("origin", "http://app.example")], 401, None),
        (&[("origin", "null")], 401, None),
        (&[], 401, None),
    ] {
        let answer = app.send_with(Method::GET, path, headers).await;
        assert_eq!(
            (answer.status, allowed(&answer).as_deref()),
            (status, origin),
            "{headers:?}"
        );
        assert_eq!(answer.headers["vary"], "origin", "caches must know");
    }
    let evil = ("origin", "https://evil.example");
    let answer = app
        .send_with(Method::OPTIONS, path, &[evil, PREFLIGHT])
        .await;
    assert_eq!((answer.status, allowed(&answer)), (405, None));
    let answer = app
        .send_with(Method::OPTIONS, "/v1/nothing", &[GOOD, PREFLIGHT])
        .await;
    assert_eq!(answer.status, 404);
    app.stop().await;

    let app = App::start_with(&[("cors_origins", "*")]).await;
    let answer = app.send_with(Method::GET, path, &[GOOD]).await;
    assert_eq!(
        (answer.status, allowed(&answer).as_deref()),
        (200, Some("*"))
    );
    app.stop().await;
    let app = App::start().await;
    for headers in [&[GOOD][..], &[GOOD, PREFLIGHT]] {
        let answer = app.send_with(Method::GET, path, headers).await;
        assert_eq!((allowed(&answer), answer.headers.get("vary")), (None, None));
    }
    assert_eq!(
        app.send_with(Method::OPTIONS, path, &[GOOD, PREFLIGHT])
            .await
            .status,
        405
    );
    app.stop().await;
}

#[test]
fn the_tokens_file_must_be_there_and_right() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    let open = |path: &Path| {
        let settings = Settings::with([("tokens_file", path.to_str().unwrap())]).unwrap();
        let clock = std::sync::Arc::new(headcount::domain::SteadyClock::default());
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
        "nobody may come in, which is not the same as everybody"
    );
}
