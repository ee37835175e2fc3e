//! The web page: its responses without a browser, and a real Chromium that uses it.

use std::path::PathBuf;
use std::process::Command;

use http::auth::Scope;
use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, redirect};

use crate::support::app::{App, NOON};
use crate::support::servers::{find, find_among};
use crate::support::tokens::{app_with_token, token};

const TOKEN: &str = "page-test-token";

/// A service that requires a token. `TOKEN` has the scopes read, write and admin.
async fn closed() -> (App, tempfile::TempDir) {
    app_with_token(token("marketer", TOKEN, &Scope::ALL)).await
}

/// A service with more segments than a page has rows, some of them with unusual names.
async fn filled() -> App {
    let app = App::start().await;
    let mut lines = Vec::new();
    let mut add = |user: String, segment: &str, ago: i64| {
        let at = NOON - ago;
        let pair = serde_json::json!({ "user_id": user, "segment": segment, "at": at });
        lines.push(pair.to_string());
    };
    for user in 0..10 {
        add(format!("u{user}"), "<script>alert(1)</script>", 60);
    }
    for (user, ago) in [(1, 0), (2, 30), (3, 10 * 86_400)] {
        add(format!("u{user}"), "sports", ago);
    }
    for user in 1..=2 {
        add(format!("u{user}"), "winter sports", 60);
    }
    for name in ["quotes \"'`&", "שלום עולם", "a/b?c#d%41"] {
        add("u1".into(), name, 60);
    }
    for number in 0..80 {
        add("u1".into(), &format!("segment-{number:02}"), 60);
    }
    let answer = app.post("application/x-ndjson", lines.join("\n")).await;
    assert_eq!(answer.json["rejected"], 0, "{answer:?}");
    for _ in 0..3 {
        app.headcount.refresh(None).await.unwrap();
        app.advance(60);
    }
    app
}

async fn sent(request: RequestBuilder) -> (u16, HeaderMap, String) {
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    (status, headers, answer.text().await.unwrap())
}

fn browser() -> reqwest::Client {
    let builder = reqwest::Client::builder().redirect(redirect::Policy::none());
    builder.build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_escaped_under_a_strict_policy() {
    let app = filled().await;
    let list = app.get("/?q=%3Cscript").await;
    assert_eq!(list.status, 200);
    assert!(!list.text.contains("<script>alert"), "{}", list.text);
    assert!(
        list.text
            .contains("/segments/%3Cscript%3Ealert%281%29%3C%2Fscript%3E")
    );
    let policy = list.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"));
    let odd = app.get("/segments/a%2Fb%3Fc%23d%2541").await;
    assert!(odd.text.contains("<bdi dir=\"auto\">a/b?c#d%41</bdi>"));
    let injected = app.get("/?q=%22%3E%3Cimg%20src%3Dx%3E").await;
    assert!(!injected.text.contains("<img"), "{}", injected.text);
    // Unknown query parameters are ignored.
    for odd in [
        "/?page=999&sort=x&order=y",
        "/?page=-1",
        "/segments/sports?range=x&window=-1&from=x",
    ] {
        assert_eq!(app.get(odd).await.status, 200, "{odd}");
    }
    assert_eq!(app.get("/segments/%00").await.status, 400);
    assert_eq!(app.get("/assets/nothing.js").await.status, 404);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_exchanged_for_a_read_only_cookie() {
    let (app, _folder) = closed().await;
    let client = browser();
    let url = |path: &str| format!("http://{}{path}", app.addr);
    let html = ("accept", "text/html");
    let page = client
        .get(url("/segments/a%20b?range=1d"))
        .header(html.0, html.1);
    let (status, headers, _) = sent(page).await;
    assert_eq!(status, 303);
    assert_eq!(
        headers["location"],
        "/sign-in?next=%2Fsegments%2Fa%2520b%3Frange%3D1d"
    );

    let own = format!("http://{}", app.addr);
    let post = |origin: &str, token: &str| {
        let post = client.post(url("/sign-in")).header(html.0, html.1);
        let post = post.header("content-type", "application/x-www-form-urlencoded");
        post.header("origin", origin)
            .body(format!("token={token}&next=%2F%2Fevil"))
    };
    let (status, headers, _) = sent(post("http://evil", TOKEN)).await;
    assert_eq!((status, headers.get("set-cookie")), (403, None));
    let cross = post(&own, TOKEN).header("sec-fetch-site", "cross-site");
    assert_eq!(sent(cross).await.0, 403);
    let (status, headers, text) = sent(post(&own, "nonsense")).await;
    assert_eq!((status, headers.get("set-cookie")), (403, None));
    assert!(
        text.contains("Not signed in") && !text.contains("nonsense"),
        "{text}"
    );
    let (status, headers, _) = sent(post(&own, TOKEN)).await;
    assert_eq!((status, &headers["location"]), (303, &"/".parse().unwrap()));
    let set = headers["set-cookie"].to_str().unwrap();
    assert!(!set.contains(TOKEN), "a cookie is not the token: {set}");
    let session = set.strip_prefix("headcount=").unwrap();
    let session = session.strip_suffix("; Path=/; HttpOnly; SameSite=Strict");
    let session = session.unwrap().to_owned();
    let behind_tls = post("https://front.example", TOKEN).header("sec-fetch-site", "same-origin");
    let (_, headers, _) = sent(behind_tls).await;
    let set = headers["set-cookie"].to_str().unwrap();
    assert!(
        set.starts_with("__Host-headcount=") && set.ends_with("; Secure"),
        "{set}"
    );

    let cookie = ("cookie", format!("headcount={session}"));
    for (method, path, status) in [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("GET", "/segments/a", 200),
        ("GET", "/v1/segments", 200),
        ("GET", "/v1/segments/a/count", 200),
        ("GET", "/v1/segments/a/trend", 200),
        ("GET", "/v1/users/u1", 401),
        ("DELETE", "/v1/users/u1", 401),
        ("POST", "/v1/pairs", 401),
        ("POST", "/v1/admin/refresh", 401),
    ] {
        let request = client.request(method.parse().unwrap(), url(path));
        let (answered, _, text) = sent(request.header(cookie.0, &cookie.1)).await;
        assert_eq!(answered, status, "{method} {path}: {text}");
    }
    let with = async |name: &str, value: &str| {
        sent(client.get(url("/v1/segments")).header(name, value))
            .await
            .0
    };
    let raw = format!("headcount={TOKEN}");
    assert_eq!(with("cookie", &raw).await, 401, "a token is no session");
    let bearer = format!("Bearer {session}");
    assert_eq!(
        with("authorization", &bearer).await,
        401,
        "a session is no token"
    );
    assert_eq!(with("cookie", &cookie.1).await, 200);
    let out = client.post(url("/sign-out")).header("origin", &own);
    let (status, headers, _) = sent(out.header(cookie.0, &cookie.1)).await;
    assert_eq!(
        (status, headers.get_all("set-cookie").iter().count()),
        (303, 2)
    );
    assert_eq!(
        with("cookie", &cookie.1).await,
        401,
        "signing out ends the session"
    );
    let (_, headers, _) = sent(post(&own, TOKEN)).await;
    let set = headers["set-cookie"].to_str().unwrap();
    let again = set.split(';').next().unwrap();
    assert_eq!(with("cookie", again).await, 200);
    app.advance(12 * 3600);
    assert_eq!(with("cookie", again).await, 401, "a session expires");
    app.stop().await;
}

/// Messages that report that all is well or that there is no data. None of them is true on a page without counts.
const SAID_WITHOUT_KNOWING: [&str; 7] = [
    "No segment has a user yet",
    "No segment has this string in its name",
    "This segment has no users now",
    "There are no counts in this range yet",
    "Everything works",
    "counts are served",
    "data-kind=\"good\"",
];

/// The class of a part's mark in the service state.
fn mark(page: &str, part: &str) -> String {
    let (before, _) = page.split_once(&format!("\"><dt>{part}</dt>")).unwrap();
    before.rsplit('"').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_without_counts_shows_only_that() {
    // A cold start: the store is unavailable, and no count is known.
    let app = App::start_with(&[
        ("store", "influx"),
        ("influx_url", "http://127.0.0.1:9"),
        ("influx_token", "none"),
        ("spool_dir", "off"),
    ])
    .await;
    for place in [
        "/",
        "/?q=sports",
        "/segments/sports",
        "/segments/sports?window=7d",
    ] {
        let page = sent(browser().get(format!("http://{}{place}", app.addr))).await;
        assert_eq!(page.0, 503, "{place}");
        let page = page.2;
        for said in SAID_WITHOUT_KNOWING {
            assert!(!page.contains(said), "{place} shows {said}: {page}");
        }
        assert!(
            page.contains("Counts are not available right now"),
            "{page}"
        );
        assert!(page.contains("data-kind=\"failed\""), "{page}");
        // Hosts and system errors appear only in the log.
        for told in ["127.0.0.1", "refused", "os error", "tcp"] {
            assert!(!page.contains(told), "{place} reveals {told}: {page}");
        }
        assert_eq!(mark(&page, "Store"), "unwell");
        assert_eq!(mark(&page, "Refresher"), "unwell");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn last_known_counts_are_marked_and_empty_differs_from_failed() {
    let (app, store) = App::start_switchable(&[]).await;
    let empty = app.get("/").await;
    assert_eq!(empty.status, 200);
    assert!(
        empty.text.contains("No segment has a user yet"),
        "{empty:?}"
    );
    assert!(empty.text.contains("data-kind=\"good\""), "{empty:?}");
    let nobody = app.get("/segments/sports").await.text;
    assert!(nobody.contains("This segment has no users now"), "{nobody}");
    assert!(nobody.contains("Never seen:"), "{nobody}");
    assert!(
        nobody.contains("There are no counts in this range yet"),
        "{nobody}"
    );

    let pair = r#"{"user_id": "u1", "segment": "sports"}"#;
    app.post("application/json", pair).await;
    app.headcount.refresh(None).await.unwrap();
    let well = app.get("/segments/sports").await.text;
    assert!(well.contains("data-kind=\"good\""), "{well}");
    store.set_unavailable(true);
    // The cached count is trusted for fifteen minutes. That the store does not respond is shown immediately.
    let cached = app.get("/segments/sports").await;
    assert_eq!(cached.status, 200);
    assert!(cached.text.contains("data-kind=\"old\""), "{cached:?}");
    assert!(
        cached.text.contains("The store does not respond"),
        "{cached:?}"
    );
    assert!(
        cached.text.contains("Counts of the past are not available"),
        "{cached:?}"
    );
    assert_ne!(mark(&cached.text, "Refresher"), "well");
    app.advance(3_600);
    let old = app.get("/segments/sports?window=14d").await;
    assert_eq!(old.status, 200);
    assert!(
        old.text.contains("the last known numbers, up to 1 h old"),
        "{old:?}"
    );
    assert!(
        old.text.contains("The last known count, from 1 h ago"),
        "{old:?}"
    );
    assert!(
        old.text
            .contains("1 users in the last 14 days: the last known count"),
        "{old:?}"
    );
    for said in SAID_WITHOUT_KNOWING {
        assert!(!old.text.contains(said), "{said}: {old:?}");
    }
    store.set_unavailable(false);
    let again = app.get("/segments/sports").await.text;
    assert!(again.contains("data-kind=\"good\""), "{again}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_explains_why_an_address_is_invalid() {
    let app = App::start().await;
    for (place, told) in [
        ("/segments/%00", "segment has a control character"),
        ("/?serch=a", "no query parameter `serch`"),
    ] {
        let request = browser().get(format!("http://{}{place}", app.addr));
        let (status, headers, text) = sent(request.header("accept", "text/html")).await;
        assert_eq!(status, 400, "{place}");
        assert_eq!(headers["content-type"], "text/html; charset=utf-8");
        assert!(
            text.contains(told) && text.contains("All segments"),
            "{text}"
        );
    }
    app.stop().await;
}

/// The directory into which `npm` installed the browser driver: see `.ci/run`.
fn modules() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/page-tests");
    let axe = root.join("node_modules/axe-core");
    let found = find_among("axe.min.js", "HEADCOUNT_TEST_AXE", &[axe])?;
    Some(found.ancestors().nth(3)?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn chromium_can_use_the_page() {
    let (Some(chromium), Some(node), Some(modules)) = (
        find("chromium", "HEADCOUNT_TEST_CHROMIUM"),
        find("node", "HEADCOUNT_TEST_NODE"),
        modules(),
    ) else {
        return;
    };
    let app = filled().await;
    let (guarded, _folder) = closed().await;
    let (cut_off, store) = App::start_switchable(&[]).await;
    store.set_unavailable(true);
    let urls = [&app, &guarded, &cut_off].map(|app| format!("http://{}", app.addr));
    let driven = tokio::task::spawn_blocking(move || {
        Command::new(node)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page/drive.mjs"))
            .args([chromium, modules])
            .args(urls)
            .arg(TOKEN)
            .output()
            .unwrap()
    });
    let driven = driven.await.unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&driven.stdout),
        String::from_utf8_lossy(&driven.stderr),
    );
    assert!(driven.status.success(), "{out}\n{err}");
    app.stop().await;
    guarded.stop().await;
    cut_off.stop().await;
}
