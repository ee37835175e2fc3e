//! The write endpoints of InfluxDB.

use reqwest::Method;

use super::*;

const WRITE: &str = "/api/v2/write?org=o&bucket=b";
const LINE: &str = "pair,segment=sports user=\"u1\"";

#[tokio::test(flavor = "multi_thread")]
async fn a_token_may_come_in_each_way_that_clients_use() {
    let (app, _folder) = app().await;
    let (token, bearer) = (format!("Token {TOKEN}"), format!("bearer {TOKEN}"));
    let (password, key) = (basic("any", TOKEN), basic(TOKEN, ""));
    let by_query = format!("/write?db=d&u=any&p={TOKEN}");
    for (target, authorization) in [
        (WRITE, token.as_str()),
        (WRITE, &bearer),
        (WRITE, &password),
        ("/write?db=d", &password),
        ("/write?db=d", &key),
        (&by_query, ""),
        // Vector with the settings of InfluxDB 1.
        (&by_query, "Token "),
    ] {
        let response = post(&app, target, authorization, LINE).await;
        assert_eq!(
            response.status, 204,
            "{target} {authorization}: {response:?}"
        );
        assert_eq!(response.text, "");
    }
    for (target, authorization, code) in [
        (WRITE, String::new(), "unauthenticated"),
        (WRITE, "Token nonsense".to_owned(), "invalid_token"),
        (WRITE, "Token ".to_owned(), "unauthenticated"),
        (WRITE, "Bearer ".to_owned(), "invalid_token"),
        (WRITE, basic("any", "nonsense"), "invalid_token"),
        (WRITE, "Basic !".to_owned(), "invalid_token"),
        (WRITE, format!("Digest {TOKEN}"), "unauthenticated"),
        ("/write?db=d&p=nonsense", String::new(), "invalid_token"),
        // Other routes take a bearer token only.
        ("/v1/pairs", format!("Token {TOKEN}"), "unauthenticated"),
        ("/v1/pairs", basic("any", TOKEN), "unauthenticated"),
    ] {
        let response = post(&app, target, &authorization, LINE).await;
        assert_eq!(response.problem(), (401, code), "{target} {authorization}");
    }
    let other = format!("/v1/pairs?p={TOKEN}");
    assert_eq!(
        post(&app, &other, "", LINE).await.problem(),
        (401, "unauthenticated")
    );
    assert_eq!(users(&app, "sports").await, 1);
    app.stop().await;
}

/// A body of Vector's sink `influxdb_logs` by its source: tags in the order of their names, a tag of its own, fields in any order,
/// nanoseconds, a line break at the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_vector_is_taken() {
    let (app, _folder) = app().await;
    assert_eq!(app.get("/ping").await.status, 204);
    let body = "pair,metric_type=logs,segment=mail\\ weekly user=\"say \\\"hi\\\" \\\\ ü\" 1795262399000000011\n\
                pair,metric_type=logs,segment=sports other=true,user=104010i,visits=3 1795262399000000011\n\
                pair,host=a\\,b,metric_type=logs,segment=sports,source_type=file user=\"u2\" 1795262399000000011\n";
    let version_1 = format!("/write?db=d&p={TOKEN}&u=any&precision=ns");
    let version_2 = "/api/v2/write?org=o&bucket=b&precision=ns";
    for (target, authorization) in [
        (version_2, format!("Token {TOKEN}")),
        (&version_1, "Token ".to_owned()),
    ] {
        let headers = [
            ("authorization", authorization.as_str()),
            ("content-type", "text/plain"),
        ];
        let response = app
            .send_body_with(Method::POST, target, &headers, body)
            .await;
        assert_eq!(
            (response.status, response.text.as_str()),
            (204, ""),
            "{target}"
        );
    }
    assert_eq!(
        app.metric("headcount_pairs_accepted_total{to=\"store\"}")
            .await,
        6.0
    );
    assert_eq!(users(&app, "sports").await, 2);
    assert_eq!(users(&app, "mail%20weekly").await, 1);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_lines_are_counted_and_the_others_taken() {
    let app = App::start().await;
    let body = format!(
        "{LINE}\nbroken\npair,segment=\\  user=\"u\"\npair,segment=news user=1.5\ncpu,host=a load=1 5\n{LINE}"
    );
    let response = post(&app, WRITE, "", body).await;
    assert_eq!(response.status, 204, "{response:?}");
    for (line, expected) in [
        ("headcount_pairs_rejected_total{code=\"malformed\"}", 1.0),
        (
            "headcount_pairs_rejected_total{code=\"invalid_segment\"}",
            1.0,
        ),
        (
            "headcount_pairs_rejected_total{code=\"invalid_user_id\"}",
            1.0,
        ),
        ("headcount_items_ignored_total", 1.0),
        ("headcount_pairs_accepted_total{to=\"store\"}", 2.0),
    ] {
        assert_eq!(app.metric(line).await, expected, "{line}");
    }
    assert_eq!(app.users("sports").await, 1);
    // Only points of other measurements are a success, too.
    assert_eq!(post(&app, WRITE, "", "cpu,host=a load=1").await.status, 204);
    assert_eq!(post(&app, WRITE, "", "# nothing\n").await.status, 204);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_has_an_error_of_influxdb() {
    let settings = [("max_body", "1KiB")];
    let app = App::start_with(&settings).await;
    let long = LINE.repeat(100);
    for (target, body, status, code, part) in [
        (
            WRITE,
            "broken\nworse",
            400,
            "invalid",
            "point 1: the fields are missing",
        ),
        (
            "/write?db=d",
            "broken",
            400,
            "invalid",
            "the fields are missing",
        ),
        (
            "/write?precision=days",
            LINE,
            400,
            "invalid",
            "precision: must be one of ns, us, ms, s",
        ),
        (WRITE, "", 400, "invalid", "the body is empty"),
        (
            WRITE,
            long.as_str(),
            413,
            "request too large",
            "at most 1024 bytes",
        ),
    ] {
        let response = post(&app, target, "", body).await;
        assert_eq!(response.status, status, "{target}: {response:?}");
        assert_eq!(response.headers["content-type"], "application/json");
        assert_eq!(response.json["code"], code, "{response:?}");
        for member in ["message", "error"] {
            let text = response.json[member].as_str().unwrap();
            assert!(text.contains(part), "{text}");
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timestamps_are_in_the_precision_of_the_request() {
    let app = App::start().await;
    // The last one is an hour ahead.
    for (target, time, is_taken) in [
        ("/api/v2/write?precision=s", "1795262400", true),
        ("/api/v2/write?precision=ms", "1795262400000", true),
        ("/api/v2/write?precision=us", "1795262400000000", true),
        ("/api/v2/write?precision=ns", "1795262400000000000", true),
        ("/api/v2/write", "1795262400000000000", true),
        ("/write?precision=u", "1795262400000000", true),
        ("/write?precision=m", "29921040", true),
        ("/write?precision=h", "498684", true),
        ("/write?precision=s&unknown=1", "1795262400", true),
        ("/api/v2/write?precision=s", "1795262400000", false),
        ("/api/v2/write", "1795262400", false),
        ("/api/v2/write?precision=s", "1795266000", false),
    ] {
        let response = post(&app, target, "", format!("{LINE} {time}")).await;
        let expected = if is_taken { 204 } else { 400 };
        assert_eq!(response.status, expected, "{target} {time}: {response:?}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_come_from_settings() {
    let app = App::start_with(&[
        ("line_protocol_measurement", "seen in"),
        ("line_protocol_segment_tag", "audience"),
        ("line_protocol_user_field", "id"),
    ])
    .await;
    let body = format!("seen\\ in,audience=sports,segment=x id=42i,user=\"u\"\n{LINE}");
    assert_eq!(post(&app, WRITE, "", body).await.status, 204);
    assert_eq!(app.users("sports").await, 1);
    assert_eq!(
        app.get("/v1/users/42").await.json["segments"][0]["segment"],
        "sports"
    );
    assert_eq!(app.metric("headcount_items_ignored_total").await, 1.0);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_may_ask_first_without_a_token() {
    let (app, _folder) = app().await;
    for method in [Method::GET, Method::HEAD] {
        let response = app.send(method, "/ping").await;
        assert_eq!(response.status, 204);
        assert_eq!(response.headers["x-influxdb-version"], "2.9.1");
        assert_eq!(response.headers["x-influxdb-build"], "headcount");
    }
    let health = app.get("/health").await;
    assert_eq!(
        (health.status, &health.json["status"]),
        (200, &"pass".into())
    );
    app.stop().await;
}
