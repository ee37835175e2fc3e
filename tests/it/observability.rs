//! What an operator sees in the log: the start line, and lines of refused requests without secrets.

use http::auth::{self, Scope};
use reqwest::Method;
use serde_json::Value;

use crate::support::service::Service;
use crate::support::tokens::token;

const TOKEN: &str = "hc_a-token-that-nobody-may-see";

fn only(service: &Service, text: &str) -> Vec<Value> {
    let lines = service.logged(text);
    let parsed = lines.iter().map(|line| serde_json::from_str(line).unwrap());
    parsed.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_line_has_the_same_fields_in_both_formats() {
    for format in ["text", "json"] {
        let folder = tempfile::tempdir().unwrap();
        let settings = [
            ("log_format", format),
            ("window", "7d"),
            ("user_key", "correct horse battery"),
        ];
        let service = Service::start(folder.path(), &settings).await;
        let pid = service.process().id();
        let log = service.log();
        let first = log.lines().next().unwrap();
        if format == "json" {
            let line: Value = serde_json::from_str(first).unwrap();
            assert_eq!(line["message"], "headcount starts");
            assert_eq!(line["version"], env!("CARGO_PKG_VERSION"));
            assert_eq!(line["pid"], pid);
            for (field, value) in [
                ("role", "serve"),
                ("listen", "127.0.0.1:0"),
                ("store", "embedded"),
                ("cache", "memory"),
                ("live", "off"),
                ("window", "7d"),
                ("auth", "none, loopback only"),
            ] {
                assert_eq!(line[field], value, "{line}");
            }
        } else {
            for part in [
                format!("version=\"{}\"", env!("CARGO_PKG_VERSION")),
                format!("pid={pid}"),
                "role=\"serve\"".to_owned(),
                "listen=\"127.0.0.1:0\"".to_owned(),
                "window=\"7d\"".to_owned(),
                "live=\"off\"".to_owned(),
            ] {
                assert!(first.contains(&part), "{part}: {first}");
            }
        }
        assert!(!log.contains("correct horse"), "{log}");
        assert_eq!(service.terminate().await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_requests_are_logged_without_what_the_client_sent() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens.toml");
    let scopes = [Scope::Read, Scope::Write];
    auth::edit(&tokens, |all| all.add(token("collector", TOKEN, &scopes))).unwrap();
    let settings = [
        ("log_format", "json"),
        ("tokens_file", tokens.to_str().unwrap()),
        ("trusted_proxies", "127.0.0.1"),
    ];
    let service = Service::start(folder.path(), &settings).await;
    let client = reqwest::Client::new();
    let send = async |method: Method, target: &str, token: &str, body: &'static str| {
        let request = client
            .request(method, format!("{}{target}", service.url()))
            .bearer_auth(token)
            .header("cookie", "session=c00kie-of-a-person")
            .header("x-forwarded-for", "203.0.113.9")
            .header("x-request-id", "r-1")
            .header("content-type", "text/plain")
            .body(body);
        request.send().await.unwrap().status().as_u16()
    };
    let credentials = "u=somebody&p=hunter2&db=x";
    for (method, target, token, status, code, path) in [
        (
            Method::POST,
            "/v1/pairs",
            TOKEN,
            415,
            "unsupported_media_type",
            "/v1/pairs",
        ),
        (
            Method::GET,
            "/v1/segments?u=somebody&p=hunter2",
            TOKEN,
            400,
            "unknown_parameter",
            "/v1/segments",
        ),
        (
            Method::POST,
            "/write?u=somebody&p=hunter2&db=x",
            TOKEN,
            400,
            "nothing_accepted",
            "/write",
        ),
        (
            Method::POST,
            "/v9/x/u104010?p=hunter2",
            TOKEN,
            404,
            "not_found",
            "/v9/...",
        ),
        (
            Method::PATCH,
            "/v1/segments/a/count?p=hunter2",
            TOKEN,
            405,
            "method_not_allowed",
            "/v1/segments/{segment}/count",
        ),
    ] {
        let before = only(&service, "request refused").len();
        assert_eq!(send(method.clone(), target, token, "u104010").await, status);
        let lines = only(&service, "request refused");
        assert_eq!(lines.len(), before + 1, "{lines:?}");
        let line = lines.last().unwrap();
        assert_eq!(line["target"], "access");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["method"], method.as_str());
        assert_eq!(line["path"], path);
        assert_eq!(line["status"], status);
        assert_eq!(line["code"], code);
        assert_eq!(line["from"], "203.0.113.9");
        assert_eq!(line["request_id"], "r-1");
    }
    // Lines of the audit trail, and not of this log as well.
    let refusals = only(&service, "request refused").len();
    let target = format!("/v1/segments?{credentials}");
    assert_eq!(
        send(Method::GET, &target, "hc_a-wrong-token", "").await,
        401
    );
    assert_eq!(
        send(Method::DELETE, "/v1/users/u104010", TOKEN, "").await,
        403
    );
    assert_eq!(only(&service, "request refused").len(), refusals);
    let audited: Vec<_> = only(&service, "\"refused\"");
    let told = |line: &Value| {
        (
            line["method"].as_str().unwrap().to_owned(),
            line["route"].as_str().unwrap().to_owned(),
            line["status"].as_u64().unwrap(),
        )
    };
    let told: Vec<_> = audited.iter().map(told).collect();
    assert_eq!(
        told,
        [
            ("GET".to_owned(), "/v1/segments".to_owned(), 401),
            ("DELETE".to_owned(), "/v1/users/{user_id}".to_owned(), 403),
        ]
    );
    // A flood.
    for _ in 0..50 {
        send(Method::POST, "/v1/pairs", TOKEN, "u104010").await;
    }
    let lines = only(&service, "request refused");
    assert_eq!(lines.len(), 10, "ten a minute for an address: {lines:?}");
    let log = service.log();
    for secret in [
        TOKEN,
        "hc_a-wrong-token",
        "c00kie",
        "hunter2",
        "somebody",
        "u104010",
    ] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
    assert_eq!(service.terminate().await, Some(0));
}
