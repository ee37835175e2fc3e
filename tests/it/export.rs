//! `GET /v1/segments/{segment}/users` and `headcount export`: the users of a segment by name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::Timestamp;
use http::auth::Scope;
use reqwest::Method;
use serde_json::{Value, json};
use stores::postgres::set_up;
use tokio::io::AsyncReadExt;

use crate::support::app::{App, NOON, Response};
use crate::support::fault_server::{FaultServer, Reply};
use crate::support::influxd::{self, Influxd};
use crate::support::postgres::Postgres;
use crate::support::program;
use crate::support::redis::Redis;
use crate::support::service::Service;
use crate::support::switchable::SwitchableStore;
use crate::support::tokens::{app_with_token, token};
use crate::support::two_weeks;

const NDJSON: &str = "application/x-ndjson";

/// The users of a response, with their last visits, in order.
fn users(answer: &Response) -> Vec<(String, String)> {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.headers["content-type"], NDJSON);
    let lines = answer.text.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let user: Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| user[name].as_str().unwrap().to_owned();
            (text("user_id"), text("last_seen"))
        })
        .collect()
}

fn names(answer: &Response) -> Vec<String> {
    users(answer).into_iter().map(|(user, _)| user).collect()
}

async fn post(app: &App, pairs: impl IntoIterator<Item = Value>) {
    let lines: String = pairs.into_iter().map(|pair| format!("{pair}\n")).collect();
    let answer = app.post(NDJSON, lines).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// What every store with names returns.
async fn exports_the_users_of_the_window(app: App, store: &str) {
    // InfluxDB compares its retention with the clock of this machine.
    let now = Timestamp::now().as_second();
    app.advance(u64::try_from(now - NOON).unwrap());
    let day = 86_400;
    let pair = |user: &str, segment: &str, ago: u64| json!({"user_id": user, "segment": segment, "at": now as u64 - ago});
    // Twice and more, in several slots and requests: the newest visit counts.
    post(
        &app,
        [
            pair("b", "s", 5 * day),
            pair("a", "s", 3 * day),
            pair("ü, \"x\"", "s", 60),
        ],
    )
    .await;
    post(
        &app,
        [
            pair("b", "s", day),
            pair("b", "s", 9 * day),
            pair("c", "s", 13 * day),
        ],
    )
    .await;
    post(&app, [pair("a", "s", 2 * day), pair("z", "other", 60)]).await;
    let target = "/v1/segments/s/users";
    let answer = app.get(target).await;
    let found: BTreeMap<_, _> = users(&answer).into_iter().collect();
    assert_eq!(names(&answer), ["a", "b", "c", "ü, \"x\""], "{store}");
    // The same instants as the list of a user's segments.
    for line in answer.text.lines() {
        let user: Value = serde_json::from_str(line).unwrap();
        let id = user["user_id"].as_str().unwrap();
        let of_user = app.get(&format!("/v1/users/{}", urlencode(id))).await;
        let segments = of_user.json["segments"].as_array().unwrap();
        let membership = segments.iter().find(|it| it["segment"] == "s").unwrap();
        assert_eq!(membership["last_seen"], user["last_seen"], "{store} {id}");
        assert_eq!(membership["until"], user["until"], "{store} {id}");
    }
    assert!(found["b"] > found["a"], "{store}: {found:?}");

    let week = app.get(&format!("{target}?window=7d")).await;
    assert_eq!(names(&week), ["a", "b", "ü, \"x\""], "{store}");
    let short = app.get(&format!("{target}?window=36h&limit=1")).await;
    assert_eq!(names(&short), ["b"], "{store}");
    let user: Value = serde_json::from_str(short.text.trim()).unwrap();
    let [seen, until] = ["last_seen", "until"].map(|name| {
        let text = user[name].as_str().unwrap();
        text.parse::<Timestamp>().unwrap().as_second()
    });
    assert_eq!(until - seen, 36 * 3600, "{store}: {user}");

    let mut page = Vec::new();
    loop {
        let after = page.last().map_or("", String::as_str);
        let after = format!("{target}?limit=1&after={}", urlencode(after));
        match names(&app.get(&after).await).pop() {
            Some(user) => page.push(user),
            None => break,
        }
    }
    assert_eq!(page, names(&answer), "{store}: users page by page");

    // The own window of a segment, and an erased user.
    let own = app.send_body(
        Method::PUT,
        "/v1/segments/s",
        "application/json",
        r#"{"window": "7d"}"#,
    );
    assert_eq!(own.await.status, 200);
    app.send(Method::DELETE, "/v1/users/b").await;
    assert_eq!(names(&app.get(target).await), ["a", "ü, \"x\""], "{store}");
    assert_eq!(names(&app.get("/v1/segments/nobody/users").await), [""; 0]);
    app.stop().await;
}

fn urlencode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn influxdb_exports_the_newest_visit_of_each_user() {
    let Some(influxd) = Influxd::start().await else {
        return;
    };
    influxd.store("b", two_weeks()).await;
    let url = influxd.url();
    let app = App::start_with(&influxd::settings_at(&url, &[("export", "on")])).await;
    exports_the_users_of_the_window(app, "influx").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_exports_users() {
    let Some(postgres) = Postgres::start().await else {
        return;
    };
    set_up(&postgres.options("headcount", two_weeks()))
        .await
        .unwrap();
    let url = postgres.url();
    let settings = [
        ("store", "postgres"),
        ("postgres_url", url.as_str()),
        ("export", "on"),
    ];
    exports_the_users_of_the_window(App::start_with(&settings).await, "postgres").await;
}

fn redis_settings(url: &str) -> [(&str, &str); 3] {
    [("store", "redis"), ("redis_url", url), ("export", "on")]
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_exports_users() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let url = redis.url();
    let app = App::start_with(&redis_settings(&url)).await;
    exports_the_users_of_the_window(app, "redis").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_names_or_the_setting_there_is_no_export() {
    let app = App::start().await;
    app.record([("u1", "s")]).await;
    let off = app.get("/v1/segments/s/users").await;
    assert_eq!(off.problem(), (404, "export_off"));
    assert!(
        off.json["detail"]
            .as_str()
            .unwrap()
            .contains("export = \"on\"")
    );
    app.stop().await;
    let app = App::start_with(&[("export", "on")]).await;
    app.record([("u1", "s")]).await;
    let embedded = app.get("/v1/segments/s/users").await;
    assert_eq!(embedded.problem(), (501, "unsupported"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_needs_its_scope_its_segments_and_enough_users() {
    // Every other scope is not enough.
    let others = [
        Scope::Read,
        Scope::Write,
        Scope::Users,
        Scope::Erase,
        Scope::Admin,
    ];
    let (app, _folder) = app_with_token(token("others", "others", &others)).await;
    let header = [("authorization", "Bearer others")];
    let refused = app
        .send_with(Method::GET, "/v1/segments/s/users", &header)
        .await;
    assert_eq!(refused.problem(), (403, "insufficient_scope"));
    app.stop().await;

    let Some(redis) = Redis::start().await else {
        return;
    };
    let url = redis.url();
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens.toml");
    let mut bound = token("bound", "bound", &[Scope::Export, Scope::Write]);
    bound.segments = Some(vec!["s*".to_owned()]);
    http::auth::edit(&tokens, |tokens| tokens.add(bound)).unwrap();
    let mut settings = redis_settings(&url).to_vec();
    settings.extend([
        ("tokens_file", tokens.to_str().unwrap()),
        ("min_users", "3"),
    ]);
    let app = App::start_with(&settings).await;
    let header = [("authorization", "Bearer bound")];
    let get = async |target: &str| app.send_with(Method::GET, target, &header).await;
    assert_eq!(
        get("/v1/segments/other/users").await.problem(),
        (403, "forbidden_segment")
    );
    app.record([
        ("u1", "s1"),
        ("u2", "s1"),
        ("u1", "s2"),
        ("u2", "s2"),
        ("u3", "s2"),
    ])
    .await;
    for few in ["s1", "s3"] {
        let refused = get(&format!("/v1/segments/{few}/users")).await;
        assert_eq!(refused.problem(), (404, "too_few_users"), "{few}");
    }
    assert_eq!(
        names(&get("/v1/segments/s2/users").await),
        ["u1", "u2", "u3"]
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_user_key_ids_are_keyed_hashes() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let url = redis.url();
    let key = "0123456789abcdef0123456789abcdef";
    let mut settings = redis_settings(&url).to_vec();
    settings.push(("user_key", key));
    let app = App::start_with(&settings).await;
    app.record([("u1", "s"), ("u2", "s")]).await;
    let found = names(&app.get("/v1/segments/s/users").await);
    assert_eq!(found.len(), 2);
    assert!(
        found.iter().all(|id| id.len() > 20 && !id.contains("u1")),
        "{found:?}"
    );
    app.stop().await;
}

/// Users of a segment that takes several pages and far more bytes than a connection buffers.
const MANY: usize = 250_000;

fn many() -> impl Iterator<Item = String> {
    (0..MANY).map(|number| format!("{:07}-{}", number * 7_919 % MANY, "x".repeat(60)))
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_gone_clients_hold_one_page_and_release_their_turn() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let url = redis.url();
    let app = App::start_with(&redis_settings(&url)).await;
    for chunk in many().collect::<Vec<_>>().chunks(50_000) {
        post(
            &app,
            chunk
                .iter()
                .map(|user| json!({"user_id": user, "segment": "s"})),
        )
        .await;
    }
    let request = b"GET /v1/segments/s/users HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let before = resident();
    // Two clients that read only the beginning take all turns.
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut connection = app.connect().await;
        tokio::io::AsyncWriteExt::write_all(&mut connection, request)
            .await
            .unwrap();
        let mut begin = [0; 1000];
        connection.read_exact(&mut begin).await.unwrap();
        assert!(begin.starts_with(b"HTTP/1.1 200"));
        slow.push(connection);
    }
    let full = app.get("/v1/segments/s/users?limit=1").await;
    assert_eq!(full.problem(), (429, "busy"));
    // A page of each is at most 34 MB. The lines of all users would be 35 MB per client, and their names twice that.
    let used = resident().saturating_sub(before);
    assert!(used < 150 << 20, "two slow clients take {used} bytes");
    drop(slow);
    let mut found = Vec::new();
    for _ in 0..600 {
        let answer = app.get("/v1/segments/s/users").await;
        if answer.status == 200 {
            found = names(&answer);
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut expected: Vec<_> = many().collect();
    expected.sort();
    assert!(
        found == expected,
        "{} users, {} expected",
        found.len(),
        MANY
    );
    app.stop().await;
}

/// One more than a page has.
const TWO_PAGES: usize = 100_001;

/// A service over a store that never returns the second page, and the response up to there.
async fn held_at_the_second_page(
    settings: &[(&str, &str)],
    token: &str,
) -> (App, Arc<SwitchableStore>, reqwest::Response, String) {
    let settings = [&[("export", "on")], settings].concat();
    let (app, store) = App::start_switchable_with_names(&settings).await;
    let users: Vec<_> = (0..TWO_PAGES).map(|user| format!("u{user:06}")).collect();
    app.record(users.iter().map(|user| (user.as_str(), "s")))
        .await;
    store.hold_exports_after(1);
    let url = format!("http://{}/v1/segments/s/users", app.addr);
    let mut response = app.client.get(url).bearer_auth(token).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let mut text = String::new();
    while text.lines().count() < TWO_PAGES - 1 || !text.ends_with('\n') {
        text += &next(&mut response).await.unwrap().unwrap();
    }
    assert!(!text.contains("\n\n"), "no blank line before it waits");
    (app, store, response, text)
}

/// The next part of a response.
async fn next(response: &mut reqwest::Response) -> reqwest::Result<Option<String>> {
    let chunk = response.chunk().await?;
    Ok(chunk.map(|chunk| String::from_utf8(chunk.to_vec()).unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn blank_lines_come_while_the_store_is_slow() {
    let (app, store, mut response, mut text) = held_at_the_second_page(&[], "none").await;
    for _ in 0..2 {
        let began = Instant::now();
        assert_eq!(next(&mut response).await.unwrap().as_deref(), Some("\n"));
        let waited = began.elapsed();
        assert!(waited > Duration::from_secs(3), "{waited:?}");
    }
    store.release_exports();
    while let Some(more) = next(&mut response).await.unwrap() {
        text += &more;
    }
    let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), TWO_PAGES);
    let last = lines[TWO_PAGES - 1];
    assert!(last.contains("\"u100000\""), "{last}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_revoked_ends_its_export() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens.toml");
    for name in ["crm", "other"] {
        let token = token(name, name, &[Scope::Export]);
        http::auth::edit(&tokens, |tokens| tokens.add(token)).unwrap();
    }
    let settings = [("tokens_file", tokens.to_str().unwrap())];
    let (app, store, mut response, _) = held_at_the_second_page(&settings, "crm").await;
    http::auth::edit(&tokens, |tokens| Ok(tokens.remove("crm"))).unwrap();
    let began = Instant::now();
    // Its end is no proper one, so that the client knows that users are missing.
    loop {
        match next(&mut response).await {
            Ok(Some(more)) => assert_eq!(more, "\n"),
            Ok(None) => panic!("the response is complete"),
            Err(error) => break assert!(error.is_body() || error.is_decode(), "{error:?}"),
        }
        assert!(began.elapsed() < Duration::from_secs(60));
    }
    store.release_exports();
    let target = "/v1/segments/s/users?after=u099999";
    let get = async |token: &str| {
        let bearer = format!("Bearer {token}");
        let header = [("authorization", bearer.as_str())];
        app.send_with(Method::GET, target, &header).await
    };
    assert_eq!(get("crm").await.problem(), (401, "invalid_token"));
    assert_eq!(names(&get("other").await), ["u100000"]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_export_has_a_line_in_the_audit_trail() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let (url, folder) = (redis.url(), tempfile::tempdir().unwrap());
    let tokens = folder.path().join("tokens.toml");
    for (name, scope) in [("crm", Scope::Export), ("uss", Scope::Write)] {
        http::auth::edit(&tokens, |all| all.add(token(name, name, &[scope]))).unwrap();
    }
    let mut settings = redis_settings(&url).to_vec();
    settings.extend([
        ("tokens_file", tokens.to_str().unwrap()),
        ("log_format", "json"),
    ]);
    let service = Service::start(folder.path(), &settings).await;
    let client = reqwest::Client::new();
    let send = async |request: reqwest::RequestBuilder, token: &str| {
        let response = request.bearer_auth(token).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let pair = json!({"user_id": "user-4711", "segment": "mail/weekly"});
    let post = client.post(format!("{}/v1/pairs", service.url()));
    assert_eq!(send(post.json(&pair), "uss").await.0, 200);
    let get = |query: &str| {
        let path = format!("/v1/segments/mail%2Fweekly/users{query}");
        client.get(service.url() + &path)
    };
    let (status, exported) = send(get(""), "crm").await;
    assert!(
        status == 200 && exported.contains("user-4711"),
        "{exported}"
    );
    assert_eq!(
        send(get("?after=user-4711"), "crm").await,
        (200, String::new())
    );
    assert_eq!(send(get("?window=15d"), "crm").await.0, 400);
    assert_eq!(send(get(""), "uss").await.0, 403);

    let lines = service.audited("\"action\":\"export\"");
    let told: Vec<_> = lines
        .iter()
        .map(|line| ["who", "about", "outcome"].map(|name| line[name].as_str().unwrap()))
        .collect();
    let about = "segment \"mail/weekly\"";
    assert_eq!(
        told,
        ["begun", "resumed", "invalid_window"].map(|outcome| ["crm", about, outcome]),
    );
    let refused = service.audited("insufficient_scope");
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0]["who"], "uss");
    assert_eq!(refused[0]["route"], "/v1/segments/{segment}/users");
    assert!(!service.log().contains("user-4711"), "{}", service.log());
    assert_eq!(service.terminate().await, Some(0));
}

/// The resident memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.unwrap().trim().trim_end_matches(" kB").parse::<u64>();
    kilobytes.unwrap() << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_continues_after_a_broken_connection() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let url = redis.url();
    let app = App::start_with(&redis_settings(&url)).await;
    app.record([("a", "s"), ("b,\"", "s"), ("c", "s"), ("d", "s")])
        .await;
    let whole = app.get("/v1/segments/s/users").await.text;
    let lines: Vec<_> = whole.lines().collect();
    let port = app.addr.port();
    // Two users and a part of the third, and then the connection ends.
    let cut = format!("{}\n\n{}\n{}", lines[0], lines[1], &lines[2][..20]);
    let broken = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {NDJSON}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{cut}\r\n",
        cut.len()
    );
    let failing = FaultServer::start(move |number, _| match number {
        0 => Reply::text(&broken),
        1 => Reply::status(503, "Retry-After: 0\r\n", "{}"),
        _ => Reply::Pass(port),
    });
    let failing = failing.await;
    let folder = tempfile::tempdir().unwrap();
    let export = async |url: String, more: &[&str]| {
        let arguments = [&["export", "s", "--url", &url], more].concat();
        tokio::task::block_in_place(|| program::run(folder.path(), &[], &arguments))
    };
    let run = export(failing.url(), &[]).await;
    assert_eq!(
        (run.code, run.out.as_str()),
        (Some(0), whole.as_str()),
        "{run:?}"
    );
    let requests = failing.requests();
    assert_eq!(requests.len(), 3, "{requests:?}");
    assert_eq!(requests[0].target, "/v1/segments/s/users");
    for resumed in &requests[1..] {
        assert_eq!(resumed.target, "/v1/segments/s/users?after=b%2C%22");
    }

    let direct = format!("http://{}", app.addr);
    let csv = export(direct.clone(), &["--format", "csv"]).await;
    let rows: Vec<_> = csv.out.split("\r\n").collect();
    assert_eq!(rows[0], "user_id,last_seen,until", "{csv:?}");
    assert!(rows[2].starts_with("\"b,\"\"\","), "{csv:?}");
    assert_eq!(rows.len(), 6);
    let rest = export(direct, &["--resume", "c"]).await;
    assert_eq!((rest.code, rest.out), (Some(0), format!("{}\n", lines[3])));

    let ignoring = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{whole}",
        whole.len()
    );
    let ignoring = FaultServer::start(move |_, _| Reply::text(&ignoring)).await;
    let run = export(ignoring.url(), &["--resume", "b,\""]).await;
    assert_eq!((run.code, run.out.as_str()), (Some(1), ""), "{run:?}");
    app.stop().await;
}
