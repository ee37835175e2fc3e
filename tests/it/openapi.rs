//! /openapi.json matches the service, in both directions.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use http::auth::Scope;
use reqwest::Method;
use serde_json::Value;

use crate::support::app::{App, Response};
use crate::support::schema::{resolve, undefined_members, violations};
use crate::support::service::Service;
use crate::support::{program, servers};

/// Pages for people with a browser. Their resources have no `described`, so the document omits them.
const PAGES: [&str; 13] = [
    "/",
    "/combine",
    "/compare",
    "/overlaps",
    "/segments.csv",
    "/status",
    "/trends.csv",
    "/segments/{segment}",
    "/sign-in",
    "/sign-out",
    "/assets/{file}",
    "/docs",
    "/docs/{file}",
];
const JSON: &str = "application/json";
/// A fixed seed gives the same requests every time.
const SEED: &str = "1";
/// The maximum number of test cases for each operation. Two runs with this many take a minute at most.
const EXAMPLES: &str = "25";

fn document() -> Value {
    serde_json::from_str(&http::openapi().unwrap()).unwrap()
}

/// Fails unless the document defines `answer` for this operation.
fn assert_documented(document: &Value, method: &str, template: &str, answer: &Response) {
    let operation = &document["paths"][template][method];
    let response = &operation["responses"][answer.status.to_string()];
    assert!(
        response.is_object(),
        "{method} {template} answers {answer:?}"
    );
    for (name, header) in response["headers"].as_object().unwrap() {
        let header = resolve(document, header);
        assert_eq!(header["required"], true, "{name}");
        assert!(
            answer.headers.contains_key(name),
            "{template} without {name}: {answer:?}"
        );
    }
    if answer.status == 304 {
        assert!(response["content"].is_null() && answer.text.is_empty());
        return;
    }
    let kind = answer.headers["content-type"].to_str().unwrap();
    let kind = kind.split(';').next().unwrap();
    let content = &response["content"][kind];
    assert!(content.is_object(), "{method} {template} answers {kind}");
    if kind.ends_with("json") && template != "/openapi.json" {
        let wrong = violations(document, &content["schema"], &answer.json);
        assert_eq!(wrong, [""; 0], "{method} {template} {answer:?}");
        let unknown = undefined_members(document, &content["schema"], &answer.json);
        assert_eq!(unknown, [""; 0], "{method} {template} {answer:?}");
        if answer.status >= 400 && kind == "application/problem+json" {
            let codes = response["x-error-codes"].as_array().unwrap();
            let code = &answer.json["code"];
            assert!(codes.contains(code), "{method} {template} {answer:?}");
        }
    }
}

#[test]
fn its_operations_and_scopes_match_the_service() {
    let document = document();
    let mut documented = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            // Where a token is required only by configuration, the document also allows access without one.
            let ways = operation["security"].as_array().unwrap();
            let scope = match ways.as_slice() {
                [way] => Some(way["bearer"][0].as_str().unwrap()),
                // The token may be in the body instead.
                [way, _] if method == "post" => Some(way["bearer"][0].as_str().unwrap()),
                _ => None,
            };
            documented.insert((method.to_uppercase(), path.as_str(), scope));
        }
    }
    let (head, known): (Vec<_>, Vec<_>) = http::resources()
        .filter(|(_, template, _)| !PAGES.contains(template))
        .partition(|(method, ..)| *method == "HEAD");
    let known: BTreeSet<_> = known
        .into_iter()
        .map(|(method, template, scope)| (method.to_owned(), template, scope.map(Scope::as_str)))
        .collect();
    assert_eq!(documented, known);
    // The description covers HEAD.
    let gets: Vec<_> = known
        .iter()
        .filter(|(method, ..)| method == "GET")
        .map(|known| known.1)
        .collect();
    let heads: BTreeSet<_> = head.iter().map(|known| known.1).collect();
    assert_eq!(heads, BTreeSet::from_iter(gets));
}

#[test]
fn operations_have_unique_names_summaries_and_examples() {
    let document = document();
    let mut names = BTreeSet::new();
    for operation in document["paths"].as_object().unwrap().values() {
        for operation in operation.as_object().unwrap().values() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name), "{name} twice");
            assert!(operation["summary"].is_string() && operation["description"].is_string());
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert!(parameter["description"].is_string(), "{name} {parameter}");
            }
            for (status, response) in operation["responses"].as_object().unwrap() {
                let content = &response["content"][JSON];
                if let Some(example) = content.get("example") {
                    let wrong = violations(&document, &content["schema"], example);
                    assert_eq!(wrong, [""; 0], "the example of {name} {status}");
                }
            }
        }
    }
}

/// Every schema of the document's operations and components, with its place. Examples are no schemas.
fn schemas<'a>(value: &'a Value, place: String, found: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                schemas(item, format!("{place}/{index}"), found);
            }
        }
        Value::Object(members) => {
            let is_schema = ["type", "enum", "allOf", "anyOf", "oneOf"]
                .iter()
                .any(|keyword| members.get(*keyword).is_some_and(|it| !it.is_object()));
            if is_schema {
                found.push((place.clone(), value));
            }
            let members = members.iter();
            for (name, member) in members.filter(|(name, _)| !name.starts_with("example")) {
                schemas(member, format!("{place}/{name}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn errors_have_one_schema_and_shared_schemas_have_names() {
    let document = document();
    let mut codes = BTreeSet::from(["not_found", "method_not_allowed"]);
    for operation in document["paths"].as_object().unwrap().values() {
        for operation in operation.as_object().unwrap().values() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                let schema = &response["content"]["application/problem+json"]["schema"];
                // A service that is not ready says so with its readiness.
                let is_error = status.as_str() >= "400"
                    && !(status == "503" && operation["operationId"] == "getReady");
                let is_problem = schema["$ref"] == "#/components/schemas/Problem";
                assert_eq!(is_error, is_problem, "{operation}");
                let listed = response["x-error-codes"].as_array();
                for code in listed.into_iter().flatten().filter_map(Value::as_str) {
                    let about = response["description"].as_str().unwrap();
                    assert!(about.contains(&format!("`{code}`: ")), "{code} in {about}");
                    codes.insert(code);
                }
            }
        }
    }
    let known = &document["components"]["schemas"]["ErrorCode"]["enum"];
    let known = known.as_array().unwrap().iter().filter_map(Value::as_str);
    assert_eq!(BTreeSet::from_iter(known), codes);

    let mut found = Vec::new();
    schemas(&document["paths"], String::new(), &mut found);
    schemas(
        &document["components"]["schemas"],
        String::new(),
        &mut found,
    );
    for (place, schema) in found {
        // A component is `/NAME`, and the parts of one are its own.
        let own = place.split_once("/allOf/").map_or(&*place, |(own, _)| own);
        let is_component = own.matches('/').count() == 1;
        let is_new_type = schema["enum"].is_array() || schema["properties"].is_object();
        assert!(
            is_component || !is_new_type,
            "{place} has no name: {schema}"
        );
    }
}

#[test]
fn the_page_of_errors_has_every_code() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/errors.md");
    let page = std::fs::read_to_string(page).unwrap();
    let document = document();
    let codes = &document["components"]["schemas"]["ErrorCode"]["enum"];
    for code in codes.as_array().unwrap() {
        let code = code.as_str().unwrap();
        assert!(
            page.contains(&format!("`{code}`")),
            "{code} is not on the page"
        );
    }
}

#[test]
fn the_committed_copy_is_the_document() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == http::openapi().unwrap(),
        "docs/openapi.json is not what the service says: renew it by `cargo run -- openapi > docs/openapi.json`, and \
         look at what changed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_and_the_command_line_return_the_same_document() {
    let app = App::start().await;
    let answer = app.get("/openapi.json").await;
    assert_eq!(
        (answer.status, &answer.headers["content-type"]),
        (200, &JSON.parse().unwrap())
    );
    let folder = tempfile::tempdir().unwrap();
    let printed = program::run(folder.path(), &[], &["openapi"]);
    assert_eq!((printed.code, &printed.out), (Some(0), &answer.text));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn real_responses_match_the_document() {
    let document = document();
    let app = App::start_with(&[("max_body", "2 KiB")]).await;
    let pairs = "/v1/pairs";
    for (kind, body, status) in [
        (
            JSON,
            r#"{"user_id": "u1", "segment": "sports"}"#.to_owned(),
            200,
        ),
        (
            JSON,
            r#"[{"user_id": 1, "segment": "sports"}, {"user_id": 1}]"#.to_owned(),
            200,
        ),
        (
            "application/x-ndjson",
            "{\"user_id\": 1, \"segment\": \"a\"}\nx".to_owned(),
            200,
        ),
        (JSON, "{".to_owned(), 400),
        (JSON, "\"".repeat(3000), 413),
        ("text/plain", "x".to_owned(), 415),
        (JSON, "[]".to_owned(), 422),
        (
            JSON,
            r#"{"user_id": 1, "segment": "a", "at": 0}"#.to_owned(),
            422,
        ),
        (
            JSON,
            r#"{"user_id": 1, "segment": "a", "at": "2027-01-01T00:00:00Z"}"#.to_owned(),
            422,
        ),
    ] {
        let answer = app.post(kind, body).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_documented(&document, "post", pairs, &answer);
    }
    for (body, status) in [
        ("{\"user_id\": 1, \"segment\": \"a\"}\nx", 200),
        ("", 400),
        ("\n", 422),
        ("x", 422),
    ] {
        let (kind, lines) = ("application/octet-stream", "/v1/pairs/ndjson");
        let answer = app.send_body(Method::POST, lines, kind, body).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_documented(&document, "post", lines, &answer);
    }
    let settings = "/v1/segments/{segment}";
    for (body, status) in [
        (r#"{"window": "7d", "description": "d", "group": "g"}"#, 200),
        ("{", 400),
        (r#"{"window": "1y"}"#, 400),
    ] {
        let answer = app
            .send_body(Method::PUT, "/v1/segments/sports", JSON, body)
            .await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_documented(&document, "put", settings, &answer);
    }
    for (method, template, target, status) in [
        (
            "GET",
            "/v1/segments/{segment}/count",
            "/v1/segments/sports/count",
            200,
        ),
        (
            "GET",
            "/v1/segments/{segment}/count",
            "/v1/segments/sports/count?fresh=true&window=1h",
            200,
        ),
        (
            "GET",
            "/v1/segments/{segment}/count",
            "/v1/segments/%20/count",
            400,
        ),
        (
            "GET",
            "/v1/segments/{segment}/count",
            "/v1/segments/a/count?window=1s",
            400,
        ),
        (
            "GET",
            "/v1/segments/{segment}/count",
            "/v1/segments/a/count?fresh=maybe",
            400,
        ),
        ("GET", "/v1/segments", "/v1/segments?limit=1", 200),
        (
            "GET",
            "/v1/segments",
            "/v1/segments?segment=sports&segment=x&q=s",
            200,
        ),
        ("GET", "/v1/segments", "/v1/segments?segment=%20", 400),
        (
            "GET",
            "/v1/segments",
            "/v1/segments?sort=users&prefix=sp",
            200,
        ),
        ("GET", "/v1/segments", "/v1/segments?sort=age", 400),
        ("GET", "/v1/segments", "/v1/segments?cursor=x", 400),
        ("POST", "/v1/admin/refresh", "/v1/admin/refresh", 200),
        (
            "POST",
            "/v1/admin/refresh",
            "/v1/admin/refresh?segment=%0a",
            400,
        ),
        (
            "GET",
            "/v1/segments/{segment}/trend",
            "/v1/segments/sports/trend",
            200,
        ),
        (
            "GET",
            "/v1/segments/{segment}/trend",
            "/v1/segments/sports/trend?from=2&to=1",
            400,
        ),
        (
            "GET",
            "/v1/segments/{segment}/flow",
            "/v1/segments/sports/flow",
            200,
        ),
        (
            "GET",
            "/v1/segments/{segment}/flow",
            "/v1/segments/sports/flow?step=90s",
            400,
        ),
        ("GET", "/v1/count", "/v1/count?expr=sports+NOT+x", 200),
        ("GET", "/v1/count", "/v1/count?expr=sports+NOT", 400),
        ("GET", "/v1/count", "/v1/count", 400),
        (
            "GET",
            "/v1/overlap",
            "/v1/overlap?segment=sports&segment=x",
            200,
        ),
        ("GET", "/v1/overlap", "/v1/overlap?segment=sports", 400),
        ("GET", "/v1/overlap/top", "/v1/overlap/top?at_least=0", 200),
        ("GET", "/v1/overlap/top", "/v1/overlap/top?by=name", 400),
        ("GET", "/v1/segments/{segment}", "/v1/segments/sports", 200),
        ("GET", "/v1/segments/{segment}", "/v1/segments/%20", 400),
        ("PUT", "/v1/segments/{segment}", "/v1/segments/sports", 415),
        (
            "DELETE",
            "/v1/segments/{segment}/users/{user_id}",
            "/v1/segments/sports/users/1",
            200,
        ),
        (
            "DELETE",
            "/v1/segments/{segment}/users/{user_id}",
            "/v1/segments/sports/users/%00",
            400,
        ),
        ("DELETE", "/v1/segments/{segment}", "/v1/segments/a", 200),
        ("DELETE", "/v1/segments/{segment}", "/v1/segments/%20", 400),
        ("GET", "/v1/events", "/v1/events?segment=%20", 400),
        ("GET", "/v1/users/{user_id}", "/v1/users/u1", 200),
        ("GET", "/v1/users/{user_id}", "/v1/users/%00", 400),
        ("DELETE", "/v1/users/{user_id}", "/v1/users/u1", 200),
        ("DELETE", "/v1/users/{user_id}", "/v1/users/%00", 400),
        ("POST", "/v1/admin/archive", "/v1/admin/archive", 200),
        ("GET", "/v1/coverage", "/v1/coverage", 200),
        (
            "PUT",
            "/v1/admin/coverage",
            "/v1/admin/coverage?since=2026-01-01",
            200,
        ),
        (
            "PUT",
            "/v1/admin/coverage",
            "/v1/admin/coverage?since=x",
            400,
        ),
        ("GET", "/healthz", "/healthz", 200),
        ("GET", "/readyz", "/readyz", 200),
        ("GET", "/metrics", "/metrics", 200),
        ("GET", "/metrics/segments", "/metrics/segments", 200),
        ("GET", "/metrics/segments", "/metrics/segments?limit=0", 400),
        (
            "GET",
            "/metrics/segments",
            "/metrics/segments?segment=%20",
            400,
        ),
        ("GET", "/openapi.json", "/openapi.json", 200),
    ] {
        let answer = app.send(method.parse::<Method>().unwrap(), target).await;
        assert_eq!(answer.status, status, "{method} {target} {answer:?}");
        assert_documented(&document, &method.to_lowercase(), template, &answer);
    }
    for (template, target) in [
        ("/v1/segments/{segment}/count", "/v1/segments/sports/count"),
        ("/v1/segments", "/v1/segments"),
        ("/v1/segments/{segment}/trend", "/v1/segments/sports/trend"),
        ("/v1/segments/{segment}/flow", "/v1/segments/sports/flow"),
        ("/v1/count", "/v1/count?expr=sports"),
    ] {
        for (header, status) in [
            (("accept", "text/csv"), 200),
            (("accept", "text/html"), 406),
            (("if-none-match", "*"), 304),
        ] {
            let answer = app.send_with(Method::GET, target, &[header]).await;
            assert_eq!(answer.status, status, "{target} {header:?}");
            assert_documented(&document, "get", template, &answer);
        }
    }
    for (kind, body, status) in [
        (JSON, r#"{"segments": ["sports"], "step": 60}"#, 200),
        (JSON, r#"{"segments": []}"#, 400),
        (JSON, "{", 400),
        ("text/plain", "{}", 415),
    ] {
        let answer = app.send_body(Method::POST, "/v1/trends", kind, body).await;
        assert_eq!(answer.status, status, "{body} {answer:?}");
        assert_documented(&document, "post", "/v1/trends", &answer);
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_without_a_valid_token_match_the_document() {
    let document = document();
    let folder = tempfile::tempdir().unwrap();
    let new = [
        "token",
        "new",
        "--name",
        "slow",
        "--scope",
        "read",
        "--limit-requests",
        "1",
        "--tokens-file",
        "t.toml",
    ];
    let token = program::run(folder.path(), &[], &new).out;
    let bearer = format!("Bearer {}", token.trim());
    let file = folder.path().join("t.toml");
    let app = App::start_with(&[("tokens_file", file.to_str().unwrap())]).await;
    let (path, template) = ("/v1/segments", "/v1/segments");
    let answer = app.get(path).await;
    assert_eq!(answer.problem(), (401, "unauthenticated"));
    assert_documented(&document, "get", template, &answer);
    let answer = app
        .send_with(Method::GET, path, &[("authorization", "Bearer x")])
        .await;
    assert_eq!(answer.problem(), (401, "invalid_token"));
    assert_documented(&document, "get", template, &answer);
    let archive = "/v1/admin/archive";
    let answer = app
        .send_with(Method::POST, archive, &[("authorization", &bearer)])
        .await;
    assert_eq!(answer.problem(), (403, "insufficient_scope"));
    assert_documented(&document, "post", archive, &answer);
    for _ in 0..1000 {
        let answer = app
            .send_with(Method::GET, path, &[("authorization", &bearer)])
            .await;
        assert_documented(&document, "get", template, &answer);
        if answer.status == 429 {
            return;
        }
    }
    panic!("a thousand concurrent requests did not exceed one a second");
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_without_the_store_match_the_document() {
    let document = document();
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    for (spool, status) in [(spool.to_str().unwrap(), 202), ("off", 503)] {
        let app = App::start_with(&[
            ("store", "influx"),
            // An address without a listener.
            ("influx_url", "http://127.0.0.1:9"),
            ("influx_token", "none"),
            ("spool_dir", spool),
        ])
        .await;
        let answer = app
            .post(JSON, r#"{"user_id": "u1", "segment": "sports"}"#)
            .await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_documented(&document, "post", "/v1/pairs", &answer);
        let answer = app.get("/v1/segments/sports/count").await;
        assert_eq!(answer.problem(), (503, "unavailable"));
        assert_documented(&document, "get", "/v1/segments/{segment}/count", &answer);
        app.begin_stop();
    }
}

/// Runs schemathesis against a service with these settings. Its findings are in the panic message.
async fn run_schemathesis(settings: &[(&str, &str)], arguments: &[&str]) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The directory into which `.ci/run` installs it.
    let installed = [repository.join("target/tools/bin")];
    let variable = "HEADCOUNT_TEST_SCHEMATHESIS";
    let Some(schemathesis) = servers::find_among("schemathesis", variable, &installed) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let server = Service::start(folder.path(), settings).await;
    let own = repository.join("tests/schemathesis");
    let output = Command::new(schemathesis)
        .arg("--config-file")
        .arg(own.join("schemathesis.toml"))
        .args([
            "run",
            &format!("{}/openapi.json", server.url()),
            "--no-color",
        ])
        .args(["--seed", SEED, "--max-examples", EXAMPLES])
        // A missing response is a finding, and must not hang the test.
        .args(["--request-timeout", "120"])
        .args(arguments)
        .env("SCHEMATHESIS_HOOKS", own.join("hooks.py"))
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{wrong}");
    assert_eq!(
        server.terminate().await,
        Some(0),
        "the service exits cleanly afterwards"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_reports_no_failure_without_tokens() {
    // This service requires no token, so it accepts requests without one, as the document states for such a service.
    let not_here = "ignored_auth,missing_required_header,negative_data_rejection";
    run_schemathesis(&[], &["--exclude-checks", not_here]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_reports_no_failure_with_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let new = [
        "token",
        "new",
        "--name",
        "all",
        "--scope",
        "read,write,admin",
        "--tokens-file",
        "tokens.toml",
    ];
    let token = program::run(folder.path(), &[], &new);
    let header = format!("Authorization: Bearer {}", token.out.trim());
    let file = folder.path().join("tokens.toml");
    let settings = [("TOKENS_FILE", file.to_str().unwrap())];
    run_schemathesis(&settings, &["--header", &header]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_viewer_shows_every_operation_without_a_csp_violation() {
    let Some(chromium) = servers::find("chromium", "HEADCOUNT_TEST_CHROMIUM") else {
        return;
    };
    let app = App::start().await;
    let policy = app.get("/docs").await.headers["content-security-policy"].clone();
    let policy = policy.to_str().unwrap();
    assert!(
        policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert!(
        !policy.contains("http") && !policy.contains('*'),
        "{policy}"
    );

    // An expanded operation, so that the inner parts are rendered as well.
    let url = format!("http://{}/docs#/pairs/postPairs", app.addr);
    let folder = tempfile::tempdir().unwrap();
    let profile = format!("--user-data-dir={}", folder.path().display());
    let run = tokio::task::spawn_blocking(move || {
        Command::new(chromium)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ])
            .args([
                "--no-first-run",
                "--disable-background-networking",
                "--enable-logging=stderr",
            ])
            .args([&profile, "--virtual-time-budget=20000", "--dump-dom", &url])
            .output()
            .unwrap()
    });
    let output = run.await.unwrap();
    let (page, log) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let said: Vec<_> = log
        .lines()
        .filter(|line| line.contains("CONSOLE"))
        .collect();
    assert_eq!(said, [""; 0], "the browser logs errors");
    for (path, _) in document()["paths"].as_object().unwrap() {
        assert!(
            page.contains(&format!("data-path=\"{path}\"")),
            "no {path} in {page}"
        );
    }
    assert!(
        page.contains("opblock-body"),
        "no operation is expanded in {page}"
    );
    app.stop().await;
}
