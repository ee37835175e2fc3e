//! The settings of segments on the page: a window, a description and a group.

use reqwest::Method;
use serde_json::json;

use crate::support::app::{App, NOON};

const JSON: &str = "application/json";

/// Segments `short`, with settings, and `plain`, each with a user now and one of three days ago.
async fn app_with(settings: &[(&str, &str)]) -> App {
    let app = App::start_with(settings).await;
    for segment in ["short", "plain"] {
        let pairs = json!([
            {"user_id": "u1", "segment": segment, "at": NOON - 60},
            {"user_id": "u2", "segment": segment, "at": NOON - 60},
            {"user_id": "u3", "segment": segment, "at": NOON - 3 * 86_400},
            {"user_id": "u4", "segment": segment, "at": NOON - 3 * 86_400},
        ]);
        let response = app.post(JSON, pairs.to_string()).await;
        assert_eq!(response.json["accepted"], 4, "{response:?}");
    }
    let settings = json!({"window": "1d", "description": "Seen <today>", "group": "live"});
    let body = settings.to_string();
    let response = app
        .send_body(Method::PUT, "/v1/segments/short", JSON, body)
        .await;
    assert_eq!(response.status, 200, "{response:?}");
    for _ in 0..3 {
        app.headcount.refresh(None).await.unwrap();
        app.advance(60);
    }
    app
}

/// The row of a segment in the table.
fn row<'a>(page: &'a str, segment: &str) -> &'a str {
    let begin = format!("<tr role=\"row\" data-segment=\"{segment}\"");
    let (_, rest) = page.split_once(&begin).unwrap();
    rest.split_once("</tr>").unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_is_shown_over_its_own_window() {
    let app = app_with(&[]).await;
    let list = app.get("/?range=1h").await.text;
    let short = row(&list, "short");
    assert!(short.contains("<span data-users>2</span>"), "{short}");
    assert!(short.contains("last 24 hours"), "{short}");
    assert!(short.contains("<polyline"), "{short}");
    let plain = row(&list, "plain");
    assert!(plain.contains("<span data-users>4</span>"), "{plain}");
    assert!(!plain.contains("own-window"), "{plain}");
    let table = app.get("/segments.csv").await.text;
    assert!(table.contains("\nshort,2,86400,"), "{table}");
    // A window that the reader chose is the one of all segments.
    let week = app.get("/?window=7d").await.text;
    assert!(row(&week, "short").contains("<span data-users>4</span>"));

    let page = app.get("/segments/short?range=1h").await.text;
    assert!(page.contains("data-users>2</span> users</p>"), "{page}");
    assert!(page.contains("In the last 24 hours"), "{page}");
    assert!(page.contains("<polyline"), "{page}");
    assert!(!page.contains("recorded for windows"), "{page}");
    let file = "/trends.csv?segment=short&range=1h&window=1d";
    let link = file.replace('&', "&#38;");
    assert!(page.contains(&format!("href=\"{link}\"")), "{page}");
    let trend = app.get(file).await.text;
    assert_eq!(trend.lines().nth(1), Some("2026-11-21T12:00:00Z,2"));
    // Events have the count over another window than the chart.
    let compared = app.get("/compare?segment=short&segment=plain").await.text;
    assert!(compared.contains("data-segment=\"short\" data-other-window>"));
    assert!(compared.contains("data-segment=\"plain\">"), "{compared}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_description_and_a_group_are_shown() {
    let app = app_with(&[]).await;
    let list = app.get("/").await.text;
    assert!(row(&list, "short").contains("Seen &#60;today&#62;"));
    assert!(list.contains("href=\"/?group=live\""), "{list}");
    let group = app.get("/?group=live").await.text;
    assert!(group.contains("1 segment,"), "{group}");
    assert!(row(&group, "short").contains("Seen"));
    let page = app.get("/segments/short").await.text;
    assert!(
        page.contains("<bdi dir=\"auto\">Seen &#60;today&#62;</bdi>"),
        "{page}"
    );
    assert!(page.contains("href=\"/?group=live\""), "{page}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_of_its_own_is_known_with_a_floor() {
    let app = app_with(&[("min_users", "2")]).await;
    for address in ["/segments/short", "/segments/short?window=1d"] {
        let page = app.get(address).await.text;
        assert!(!page.contains("role=\"alert\""), "{address}: {page}");
        assert!(page.contains("data-users>2</span> users</p>"), "{page}");
    }
    let day = app.get("/segments/plain?window=1d").await.text;
    assert!(day.contains("only windows of 14 days"), "{day}");
    app.stop().await;
}
