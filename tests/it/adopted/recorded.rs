//! `tests/formats/clients.ndjson` has requests as unmodified client libraries sent them. The service takes each of them.

use std::collections::BTreeMap;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::Method;
use serde::Deserialize;

use super::*;
use crate::support::app::NOON;

/// What a client sent. Its body was recorded without compression.
#[derive(Deserialize)]
struct Recorded {
    #[serde(rename = "m")]
    method: String,
    #[serde(rename = "u")]
    target: String,
    #[serde(rename = "h")]
    headers: BTreeMap<String, String>,
    body: String,
}

/// The pairs of each request, as user and segment, and the status that its client takes for a success.
const EXPECTED: [(&[(&str, &str)], u16); 17] = [
    (&[("u1", "sports"), ("anon-1", "news")], 200),
    // A group, a page and an alias.
    (&[], 200),
    (&[("u1", "sports")], 200),
    (&[("u1", "sports")], 200),
    (&[("u1", "sports")], 204),
    (&[("u1", "sports")], 204),
    (&[("u1", "sports")], 204),
    (&[("u1", "sports")], 200),
    (&[("u1", "sports")], 200),
    (&[("u1", "sports")], 200),
    (&[("u1", "sports")], 200),
    (&[("u1", "sports")], 200),
    (&[("u1", "sports")], 200),
    (&[("u1", "sports")], 204),
    (&[("u1", "sports")], 204),
    (&[("u1", "sports")], 200),
    (&[("u1", "sports")], 200),
];
/// When the newest request was recorded: 2026-11-29T11:28:40Z.
const RECORDED: i64 = 1_795_951_720;

fn recorded() -> Vec<Recorded> {
    let lines = include_str!("../../formats/clients.ndjson").lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Replaces the credential of the recorded request by `token`, and the paths of CloudEvents by that of pairs.
fn with_token(request: &mut Recorded, token: &str) {
    if request.target.starts_with("/ce-") {
        request.target = "/v1/pairs".to_owned();
        let bearer = format!("Bearer {token}");
        request.headers.insert("authorization".to_owned(), bearer);
    }
    for (old, new) in [
        ("Token TOK".to_owned(), format!("Token {token}")),
        (basic("WK", ""), basic(token, "")),
        (basic("root", "root"), basic("root", token)),
    ] {
        let headers = request.headers.values_mut();
        headers
            .filter(|value| **value == old)
            .for_each(|value| value.clone_from(&new));
    }
    for member in [
        "\"api_key\":\"phc_x\"",
        "\"api_key\": \"phc_x\"",
        "\"aid\":\"app\"",
    ] {
        let (name, _) = member.split_once(':').unwrap();
        let new = format!("{name}:\"{token}\"");
        request.body = request.body.replace(member, &new);
    }
}

async fn send(app: &App, request: Recorded) -> Response {
    let is_gzip = request
        .headers
        .get("content-encoding")
        .is_some_and(|it| it == "gzip");
    let body = match is_gzip {
        true => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(request.body.as_bytes()).unwrap();
            encoder.finish().unwrap()
        }
        false => request.body.into_bytes(),
    };
    let url = format!("http://{}{}", app.addr, request.target);
    let method: Method = request.method.parse().unwrap();
    let mut sent = app.client.request(method, url).body(body);
    for (name, value) in &request.headers {
        if name != "transfer-encoding" && name != "accept-encoding" {
            sent = sent.header(name, value);
        }
    }
    Response::of(sent.send().await.unwrap()).await
}

/// Sends every request to its own service, and compares what it counts.
async fn check(requires_token: bool) {
    let requests = recorded();
    assert_eq!(requests.len(), EXPECTED.len());
    for (number, (mut request, (pairs, status))) in requests.into_iter().zip(EXPECTED).enumerate() {
        let (app, _folder) = match requires_token {
            true => app().await,
            false => (App::start().await, tempfile::tempdir().unwrap()),
        };
        app.advance(u64::try_from(RECORDED - NOON).unwrap());
        if requires_token {
            let mut unknown = Recorded {
                method: request.method.clone(),
                target: request.target.clone(),
                headers: request.headers.clone(),
                body: request.body.clone(),
            };
            with_token(&mut unknown, "hc_of_nobody");
            let response = send(&app, unknown).await;
            assert_eq!(response.status, 401, "{number}: {response:?}");
        }
        with_token(&mut request, TOKEN);
        let response = send(&app, request).await;
        assert_eq!(response.status, status, "{number}: {response:?}");
        let metric = "headcount_pairs_accepted_total{to=\"store\"}";
        assert_eq!(app.metric(metric).await, pairs.len() as f64, "{number}");
        for segment in ["sports", "news", "Viewed"] {
            let expected = pairs.iter().filter(|(_, pair)| *pair == segment).count() as u64;
            assert_eq!(users(&app, segment).await, expected, "{number}: {segment}");
        }
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_request_is_taken_with_a_token() {
    check(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_request_is_taken_without_tokens() {
    check(false).await;
}
