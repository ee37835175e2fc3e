//! The web page: its responses without a browser, and a real Chromium that uses it.

use std::path::PathBuf;
use std::process::Command;

use http::auth::Scope;
use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, redirect};

use crate::support::app::{App, NOON};
use crate::support::servers::{find, find_among};
use crate::support::service::poll;
use crate::support::tokens::{app_with_token, token};
use crate::support::wait::until;

const TOKEN: &str = "page-test-token";

/// A service that requires a token. `TOKEN` has the scopes read, write and admin.
async fn closed() -> (App, tempfile::TempDir) {
    app_with_token(token("marketer", TOKEN, &Scope::ALL)).await
}

/// A service with more segments than a page has rows, some of them with unusual names.
async fn filled() -> App {
    filled_with(&[]).await
}

async fn filled_with(settings: &[(&str, &str)]) -> App {
    let app = App::start_with(settings).await;
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
    for name in ["news/politics", "news/weather"] {
        add("u2".into(), name, 60);
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
        "/compare?segment=&range=x&base=y",
        "/combine?expr=(",
        "/overlaps?by=x",
        "/status",
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
        "/compare?segment=sports&segment=news",
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
    }
    let status = app.get("/status").await.text;
    assert_eq!(mark(&status, "Store"), "unwell");
    assert_eq!(mark(&status, "Refresher"), "unwell");
    for told in ["127.0.0.1", "refused", "os error", "tcp"] {
        assert!(!status.contains(told), "reveals {told}: {status}");
    }
    assert_eq!(app.get("/segments.csv").await.status, 503);
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
    // The cached count is trusted for fifteen minutes. That the store does not respond is shown after the next probe.
    let cached = poll(async || {
        let cached = app.get("/segments/sports").await;
        assert_eq!(cached.status, 200);
        let banner = "The store does not respond";
        cached.text.contains(banner).then_some(cached)
    })
    .await;
    assert!(cached.text.contains("data-kind=\"old\""), "{cached:?}");
    assert!(
        cached.text.contains("Counts of the past are not available"),
        "{cached:?}"
    );
    let status = app.get("/status").await.text;
    assert_ne!(mark(&status, "Refresher"), "well");
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
            .contains("1 user in the last 14 days: the last known count"),
        "{old:?}"
    );
    for said in SAID_WITHOUT_KNOWING {
        assert!(!old.text.contains(said), "{said}: {old:?}");
    }
    store.set_unavailable(false);
    until("the page is good again", async || {
        let again = app.get("/segments/sports").await.text;
        again.contains("data-kind=\"good\"")
    })
    .await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_keep_the_range_and_the_window() {
    let app = filled().await;
    let list = app.get("/?range=1d&window=7d&q=sport").await.text;
    for link in [
        "href=\"/segments/sports?range=1d&#38;window=7d\"",
        "href=\"/?q=sport&#38;sort=name&#38;order=asc&#38;range=1d&#38;window=7d\"",
        "href=\"/compare?range=1d&#38;window=7d\"",
    ] {
        assert!(list.contains(link), "{link}: {list}");
    }
    // The third user of the segment was seen ten days ago.
    assert!(list.contains("<span data-users>2</span>"), "{list}");
    let segment = app.get("/segments/sports?range=1d&window=7d").await.text;
    for text in [
        "href=\"/?range=1d&#38;window=7d\"",
        "<span class=\"big\" data-users>2</span> users</p>",
        "In the last 7 days",
    ] {
        assert!(segment.contains(text), "{text}: {segment}");
    }
    for page in [&list, &segment] {
        assert!(
            page.contains("recorded for windows of 14 days only"),
            "{page}"
        );
    }
    let full = app.get("/segments/sports").await.text;
    assert!(!full.contains("recorded for windows"), "{full}");
    assert!(full.contains("data-users>3</span> users</p>"), "{full}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_shows_everybody_only_to_those_who_may_see_every_segment() {
    let app = filled().await;
    let list = app.get("/").await.text;
    // The users of the segments with the longest name list are u0 to u9.
    assert!(
        list.contains("<strong>10 users</strong> in any segment"),
        "{list}"
    );
    let segment = app.get("/segments/sports").await.text;
    assert!(segment.contains("30.0% of everybody"), "{segment}");
    app.stop().await;

    let mut bound = token("marketer", TOKEN, &Scope::ALL);
    bound.segments = Some(vec!["sports".to_owned()]);
    let (app, _folder) = app_with_token(bound).await;
    let get = async |path: &str| {
        let request = browser().get(format!("http://{}{path}", app.addr));
        sent(request.bearer_auth(TOKEN)).await
    };
    let pairs =
        r#"[{"user_id": "u1", "segment": "sports"}, {"user_id": "u2", "segment": "sports"}]"#;
    let request = browser().post(format!("http://{}/v1/pairs", app.addr));
    let request = request.header("content-type", "application/json");
    assert_eq!(sent(request.bearer_auth(TOKEN).body(pairs)).await.0, 200);
    let (status, _, list) = get("/").await;
    assert!(status == 200 && !list.contains("in any segment"), "{list}");
    let (_, _, within) = get("/combine?expr=sports").await;
    assert!(within.contains("data-users>2</span>"), "{within}");
    for beyond in ["*", "sports%20OR%20news", "NOT%20sports"] {
        let (_, _, page) = get(&format!("/combine?expr={beyond}")).await;
        assert!(page.contains("The token is bound to segments"), "{page}");
        assert!(!page.contains("data-users"), "{page}");
    }
    assert_eq!(get("/compare?segment=sports&segment=news").await.0, 403);
    // A form that was sent without a name.
    assert_eq!(get("/compare?segment=sports&segment=").await.0, 200);
    assert_eq!(get("/trends.csv?segment=news").await.0, 403);
    let (_, _, table) = get("/segments.csv").await;
    assert_eq!(table.lines().count(), 2, "{table}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_groups_are_withheld_on_the_page_too() {
    let app = filled_with(&[("min_users", "5")]).await;
    let withheld = app.get("/combine?expr=sports%20NOT%20news").await.text;
    assert!(withheld.contains("This number is withheld"), "{withheld}");
    assert!(!withheld.contains("data-users"), "{withheld}");
    let window = app.get("/combine?expr=sports&window=7d").await.text;
    assert!(
        window.contains("only windows of 14 days are counted here"),
        "{window}"
    );
    let list = app.get("/").await.text;
    assert!(!list.contains("in any segment"), "{list}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_has_a_gap_where_a_count_is_withheld() {
    let app = App::start_with(&[("min_users", "3")]).await;
    let record = async |users: &[&str]| {
        let pairs: Vec<_> = users
            .iter()
            .map(|user| serde_json::json!({ "user_id": user, "segment": "sports" }))
            .collect();
        let pairs = serde_json::Value::from(pairs).to_string();
        assert_eq!(app.post("application/json", pairs).await.status, 200);
    };
    let refresh_twice = async || {
        for _ in 0..2 {
            app.headcount.refresh(None).await.unwrap();
            app.advance(60);
        }
    };
    record(&["u1", "u2", "u3"]).await;
    refresh_twice().await;
    app.send(reqwest::Method::DELETE, "/v1/users/u1").await;
    refresh_twice().await;
    record(&["u1"]).await;
    refresh_twice().await;
    let page = app.get("/segments/sports?range=1h").await.text;
    assert_eq!(page.matches("<polyline").count(), 2, "{page}");
    assert!(page.contains("The line is interrupted"), "{page}");
    let list = app.get("/?range=1h").await.text;
    assert_eq!(list.matches("<polyline").count(), 2, "{list}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_shows_the_same_change() {
    let app = App::start().await;
    let record = async |user: &str| {
        let pair = serde_json::json!({ "user_id": user, "segment": "sports" });
        let response = app.post("application/json", pair.to_string()).await;
        assert_eq!(response.status, 200, "{response:?}");
    };
    record("u1").await;
    app.headcount.refresh(None).await.unwrap();
    app.advance(3_660);
    record("u2").await;
    for _ in 0..2 {
        app.headcount.refresh(None).await.unwrap();
        app.advance(30);
    }
    for place in ["/", "/segments/sports", "/compare?segment=sports"] {
        let joint = if place.contains('?') { '&' } else { '?' };
        let page = app.get(&format!("{place}{joint}range=1h")).await.text;
        assert!(page.contains("+100.0%"), "{place}: {page}");
        assert!(
            !page.contains("Counts are recorded since"),
            "{place}: {page}"
        );
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_pages_with_counts_of_segments_wait_for_events() {
    let app = filled().await;
    for (place, waits) in [
        ("/", true),
        ("/segments/sports", true),
        ("/compare?segment=sports", true),
        // Events have the counts over the usual window.
        ("/?window=7d", false),
        ("/segments/sports?window=7d", false),
        ("/combine?expr=sports", false),
        ("/overlaps", false),
        ("/status", false),
    ] {
        let page = app.get(place).await.text;
        assert_eq!(page.contains("data-events"), waits, "{place}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_window_is_shown_as_it_was_typed() {
    let app = filled().await;
    let page = app.get("/segments/sports?window=1%20fortnight").await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("value=\"1 fortnight\""), "{page:?}");
    assert!(
        page.text.contains("write a window like 7d, 36h or 1d 6h"),
        "{page:?}"
    );
    let list = app.get("/?window=15d").await.text;
    assert!(list.contains("up to 14 days"), "{list}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_and_chosen_segments_are_parts_of_the_table() {
    let app = filled().await;
    let list = app.get("/?group=news").await.text;
    assert!(list.contains("2 segments") && list.contains("news/weather"));
    assert!(!list.contains("data-segment=\"sports\""), "{list}");
    let chosen = app
        .get("/?segment=sports&segment=news%2Fweather")
        .await
        .text;
    assert!(chosen.contains("2 segments") && chosen.contains("data-segment=\"sports\""));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_segments_share_a_chart() {
    let app = filled().await;
    let page = app
        .get("/compare?segment=sports&segment=winter%20sports&range=1h")
        .await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("polyline class=\"s1\""), "{}", page.text);
    assert!(
        page.text
            .contains("href=\"/compare?segment=sports&#38;range=1h\"")
    );
    let nobody = app.get("/compare").await;
    assert!(
        nobody.text.contains("Choose up to 8 segments"),
        "{nobody:?}"
    );
    assert_eq!(app.get("/compare?segment=%01").await.status, 400);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_charts_can_be_downloaded() {
    let app = filled().await;
    app.post(
        "application/json",
        r#"{"user_id": "u1", "segment": "=cmd, \"x\""}"#,
    )
    .await;
    let table = app.get("/segments.csv?window=7d&sort=name").await;
    assert_eq!(
        table.headers["content-type"],
        "text/csv; charset=utf-8; header=present"
    );
    assert_eq!(
        table.headers["content-disposition"],
        "attachment; filename=\"segments.csv\"; filename*=UTF-8''segments.csv"
    );
    let mut lines = table.text.lines();
    assert_eq!(
        lines.next(),
        Some("segment,users,window_seconds,as_of,stale")
    );
    assert_eq!(lines.count(), 89, "{}", table.text);
    assert!(
        table
            .text
            .contains("\nsports,2,604800,2026-11-21T12:03:00Z,false")
    );
    assert!(
        table.text.contains("\n\"=cmd, \"\"x\"\"\",1,"),
        "{}",
        table.text
    );
    let trends = app
        .get("/trends.csv?segment=sports&segment=winter%20sports&range=1h")
        .await;
    let lines: Vec<_> = trends.text.lines().collect();
    assert_eq!(lines[0], "at,sports,winter sports");
    assert_eq!(lines[1], "2026-11-21T12:00:00Z,3,2");
    assert_eq!(lines.len(), 4, "{}", trends.text);
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
