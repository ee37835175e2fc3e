//! Many segments at once: lists of named segments, trends of many, CSV, and 304 for clients that know the content.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::app::{App, NOON, NOON_TEXT, Response};

const JSON: &str = "application/json";
const CSV: (&str, &str) = ("accept", "text/csv");

/// Posts one pair for each user from 0.
async fn seed(app: &App, segments: &[(&str, usize)]) {
    let pairs: Vec<Value> = segments
        .iter()
        .flat_map(|(segment, users)| {
            (0..*users).map(move |user| json!({"user_id": user, "segment": segment}))
        })
        .collect();
    let answer = app.post(JSON, Value::from(pairs).to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

async fn refresh(app: &App) {
    let answer = app.send(Method::POST, "/v1/admin/refresh").await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    let value = answer.headers.get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

async fn get_with(app: &App, target: &str, headers: &[(&'static str, &str)]) -> Response {
    app.send_with(Method::GET, target, headers).await
}

async fn post_trends(app: &App, headers: &[(&'static str, &str)], body: &Value) -> Response {
    let headers = [headers, &[("content-type", JSON)]].concat();
    let body = body.to_string();
    app.send_body_with(Method::POST, "/v1/trends", &headers, body)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn named_segments_are_listed_also_without_users() {
    let app = App::start().await;
    seed(&app, &[("sports", 3), ("news", 1), ("old", 2)]).await;
    app.advance(7_200);
    seed(&app, &[("sports", 1)]).await;
    let list = app
        .get("/v1/segments?segment=sports&segment=old&segment=mispelled&segment=sports&window=1h")
        .await;
    let row = |segment: &str, users: u64, known: bool| {
        json!({
            "segment": segment, "window_seconds": 3_600, "users": users, "as_of": "2026-11-21T14:00:00Z", "stale": false, "known": known, "withheld": false
        })
    };
    assert_eq!(
        list.json,
        json!({
            "segments": [row("mispelled", 0, false), row("old", 0, true), row("sports", 1, true)],
            "window_seconds": 3_600, "total": 3, "next": null,
            "covered_since": "2026-11-21T12:00:00Z", "complete": true
        })
    );
    // The other parameters apply as they do to all segments.
    let some = "/v1/segments?segment=sports&segment=news&segment=old&segment=x";
    let list = app.get(&format!("{some}&sort=users&limit=2")).await;
    assert_eq!(list.rows(), [("sports", Some(3)), ("old", Some(2))]);
    assert_eq!(list.json["total"], 4);
    let next = list.json["next"].as_str().unwrap();
    let list = app
        .get(&format!("{some}&sort=users&limit=2&cursor={next}"))
        .await;
    assert_eq!(list.rows(), [("news", Some(1)), ("x", Some(0))]);
    assert_eq!(
        (&list.json["total"], &list.json["next"]),
        (&json!(4), &json!(null))
    );
    let list = app.get(&format!("{some}&q=S&prefix=s")).await;
    assert_eq!(list.rows(), [("sports", Some(3))]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_segments_come_in_one_response_and_one_more_is_refused() {
    let app = App::start().await;
    let names: Vec<String> = (0..1_001).map(|number| format!("s{number:04}")).collect();
    let pairs: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    seed(&app, &pairs).await;
    let query = |names: &[String]| format!("/v1/segments?segment={}", names.join("&segment="));
    let list = app.get(&query(&names[..1_000])).await;
    assert_eq!(
        (list.rows().len(), &list.json["next"]),
        (1_000, &json!(null))
    );
    assert!(list.rows().iter().all(|(_, users)| *users == Some(1)));
    let refused = app.get(&query(&names)).await;
    assert_eq!(refused.problem(), (400, "invalid_parameter"));
    assert_eq!(refused.json["parameter"], "segment");
    let invalid = app.get("/v1/segments?segment=a&segment=%20").await;
    assert_eq!(invalid.problem(), (400, "invalid_segment"));

    // Without names a page has a hundred, and CSV has all.
    let list = app.get("/v1/segments").await;
    assert_eq!(
        (list.rows().len(), &list.json["total"]),
        (100, &json!(1_001))
    );
    let csv = get_with(&app, "/v1/segments", &[CSV]).await;
    assert_eq!(csv.text.lines().count(), 1_002);
    assert_eq!(header(&csv, "link"), "");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_ignores_case_and_counts_its_matches() {
    let app = App::start().await;
    seed(
        &app,
        &[
            ("Winter Sports", 2),
            ("sports", 1),
            ("news", 1),
            ("ÜBER", 1),
        ],
    )
    .await;
    for (query, expected) in [
        ("q=SPORT", &["Winter Sports", "sports"][..]),
        ("q=r%20s", &["Winter Sports"]),
        ("q=%C3%BCber", &["ÜBER"]),
        ("q=sport&prefix=W", &["Winter Sports"]),
        ("q=x", &[]),
        ("q=", &["Winter Sports", "news", "sports", "ÜBER"]),
    ] {
        let list = app.get(&format!("/v1/segments?{query}")).await;
        let names: Vec<_> = list.rows().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, expected, "{query}");
        assert_eq!(list.json["total"], expected.len(), "{query}");
    }
    let page = app.get("/v1/segments?q=sport&limit=1").await;
    assert_eq!((page.rows().len(), &page.json["total"]), (1, &json!(2)));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn named_segments_keep_their_last_count_while_the_store_is_unavailable() {
    let (app, store) = App::start_switchable(&[("memory_ttl", "0s")]).await;
    seed(&app, &[("a", 2), ("b", 1)]).await;
    let target = "/v1/segments?segment=a&segment=never";
    assert_eq!(app.users("a").await, 2);
    store.set_unavailable(true);
    app.advance(86_400);
    let list = app.get(target).await;
    let row = |segment: &str, users: Value, as_of: Value, known: bool| json!({"segment": segment, "window_seconds": 1_209_600, "users": users, "as_of": as_of, "stale": true, "known": known, "withheld": false});
    assert_eq!(
        list.json["segments"],
        json!([
            row("a", json!(2), json!(NOON_TEXT), true),
            row("never", Value::Null, Value::Null, false)
        ])
    );
    store.set_unavailable(false);
    let list = app.get(target).await;
    assert_eq!(list.rows(), [("a", Some(2)), ("never", Some(0))]);
    assert_eq!(list.json["segments"][0]["stale"], false);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_lists_and_trends_are_csv_for_clients_that_prefer_it() {
    let app = App::start().await;
    seed(&app, &[("a, \"b\"", 2), ("=1+1", 1)]).await;
    refresh(&app).await;
    let kind = "text/csv; charset=utf-8; header=present";
    for (target, text, file) in [
        (
            "/v1/segments",
            "segment,users,window_seconds,as_of,stale,known,withheld\r\n\
             =1+1,1,1209600,2026-11-21T12:00:00Z,false,true,false\r\n\
             \"a, \"\"b\"\"\",2,1209600,2026-11-21T12:00:00Z,false,true,false\r\n",
            "segments",
        ),
        (
            "/v1/segments?q=nothing",
            "segment,users,window_seconds,as_of,stale,known,withheld\r\n",
            "segments",
        ),
        (
            "/v1/segments/a%2C%20%22b%22/count?window=1h",
            "segment,users,window_seconds,as_of,age_seconds,source,stale,known,withheld\r\n\
             \"a, \"\"b\"\"\",2,3600,2026-11-21T12:00:00Z,0.0,store,false,true,false\r\n",
            "count-a, _b_",
        ),
        (
            "/v1/count?expr=%3D1%2B1%20OR%20x",
            "expr,users,window_seconds,as_of,age_seconds,source,stale,unknown,withheld\r\n\
             =1+1 OR x,1,1209600,2026-11-21T12:00:00Z,0.0,store,false,\"[\"\"x\"\"]\",false\r\n",
            "count",
        ),
        (
            "/v1/segments/%3D1%2B1/trend",
            "segment,window_seconds,at,users,entered,left\r\n=1+1,1209600,2026-11-21T12:00:00Z,1,1,0\r\n",
            "trend-=1+1",
        ),
    ] {
        let csv = get_with(&app, target, &[CSV]).await;
        assert_eq!((csv.status, csv.text.as_str()), (200, text), "{target}");
        assert_eq!(header(&csv, "content-type"), kind);
        assert_eq!(header(&csv, "vary"), "accept");
        assert_eq!(header(&csv, "cache-control"), "no-store");
        let disposition = format!("attachment; filename=\"{file}.csv\";");
        assert!(
            header(&csv, "content-disposition").starts_with(&disposition),
            "{csv:?}"
        );
        let head = app.send_with(Method::HEAD, target, &[CSV]).await;
        assert_eq!((head.status, head.text.as_str()), (200, ""));
        assert_eq!(header(&head, "content-type"), kind);
        assert_eq!(header(&head, "content-length"), text.len().to_string());

        let both = ("accept", "text/csv;q=0.5, application/json;q=0.6");
        let json = get_with(&app, target, &[both]).await;
        assert_eq!(header(&json, "content-type"), JSON);
        assert_eq!(header(&json, "vary"), "accept");
        assert_eq!(header(&json, "content-disposition"), "");
        let neither = get_with(&app, target, &[("accept", "text/html, text/csv;q=0")]).await;
        assert_eq!(neither.problem(), (406, "not_acceptable"), "{neither:?}");
        assert!(
            neither.json["detail"]
                .as_str()
                .unwrap()
                .contains("text/csv")
        );
    }
    // A resource without CSV ignores the header, as before.
    assert_eq!(
        get_with(&app, "/healthz", &[("accept", "text/html")])
            .await
            .status,
        200
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_csv_links_to_its_next_page() {
    let app = App::start().await;
    seed(&app, &[("a b", 1), ("a c", 2), ("a d", 3)]).await;
    let mut target = "/v1/segments?q=A&limit=2".to_owned();
    let mut names = Vec::new();
    for pages in 1.. {
        let csv = get_with(&app, &target, &[CSV]).await;
        let rows = csv.text.lines().skip(1);
        names.extend(rows.map(|row| row.split(',').next().unwrap().to_owned()));
        let Some(link) = header(&csv, "link").strip_prefix('<') else {
            assert_eq!(pages, 2);
            break;
        };
        let query = link.strip_suffix(">; rel=\"next\"").unwrap();
        target = format!("/v1/segments{query}");
    }
    assert_eq!(names, ["a b", "a c", "a d"]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poller_gets_304_until_a_number_changes() {
    let app = App::start().await;
    seed(&app, &[("a", 2), ("b", 1)]).await;
    refresh(&app).await;
    for target in [
        "/v1/segments/a/count",
        "/v1/count?expr=a%20AND%20b",
        "/v1/segments",
        "/v1/segments?segment=a&segment=x",
        "/v1/segments/a/trend",
    ] {
        let first = app.get(target).await;
        let tag = header(&first, "etag").to_owned();
        assert!(tag.starts_with("W/\""), "{target}: {tag}");
        for known in [tag.as_str(), "*", &format!("\"other\", {tag}")] {
            let again = get_with(&app, target, &[("if-none-match", known)]).await;
            assert_eq!(
                (again.status, again.text.as_str()),
                (304, ""),
                "{target} {known}"
            );
            assert_eq!(header(&again, "etag"), tag);
            assert_eq!(header(&again, "vary"), "accept");
            assert_eq!(header(&again, "cache-control"), "no-store");
            assert_eq!(header(&again, "content-type"), "");
            let head = app
                .send_with(Method::HEAD, target, &[("if-none-match", known)])
                .await;
            assert_eq!(head.status, 304, "{target}");
        }
        for unknown in ["W/\"other\"", "", "nonsense"] {
            let again = get_with(&app, target, &[("if-none-match", unknown)]).await;
            assert_eq!(again.json, first.json, "{target} {unknown}");
        }
        // CSV is other content.
        let csv = get_with(&app, target, &[CSV, ("if-none-match", &tag)]).await;
        assert_eq!(csv.status, 200, "{target}");
        let csv_tag = header(&csv, "etag").to_owned();
        let csv = get_with(&app, target, &[CSV, ("if-none-match", &csv_tag)]).await;
        assert_eq!(
            (csv.status, header(&csv, "content-disposition")),
            (304, ""),
            "{target}"
        );
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_304_says_for_which_instant_the_number_holds() {
    let app = App::start().await;
    seed(&app, &[("a", 2)]).await;
    let (count, list) = ("/v1/segments/a/count", "/v1/segments");
    let mut tags = Vec::new();
    for target in [count, list] {
        let first = app.get(target).await;
        assert_eq!(header(&first, "headcount-as-of"), NOON_TEXT, "{target}");
        tags.push(header(&first, "etag").to_owned());
    }
    let poll = async |target, tag: &String| get_with(&app, target, &[("if-none-match", tag)]).await;
    app.advance(61);
    for (target, tag) in [count, list].into_iter().zip(&tags) {
        let again = poll(target, tag).await;
        let as_of = header(&again, "headcount-as-of");
        assert_eq!(
            (again.status, as_of),
            (304, "2026-11-21T12:01:01Z"),
            "{target}"
        );
    }
    // A user who was counted before changes nothing; a new one does.
    seed(&app, &[("a", 2)]).await;
    assert_eq!(poll(count, &tags[0]).await.status, 304);
    seed(&app, &[("a", 3)]).await;
    let (changed, listed) = (poll(count, &tags[0]).await, poll(list, &tags[1]).await);
    assert_eq!((changed.status, &changed.json["users"]), (200, &json!(3)));
    assert_eq!(listed.rows(), [("a", Some(3))]);
    // The number is the same over another window, and the question is another one.
    let hour = poll(
        "/v1/segments/a/count?window=1h",
        &header(&changed, "etag").to_owned(),
    )
    .await;
    assert_eq!((hour.status, &hour.json["users"]), (200, &json!(3)));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_that_becomes_stale_is_no_304() {
    let (app, store) = App::start_switchable(&[("memory_ttl", "0s")]).await;
    seed(&app, &[("a", 2)]).await;
    let first = app.get("/v1/segments/a/count").await;
    let tag = header(&first, "etag").to_owned();
    let poll = async || get_with(&app, "/v1/segments/a/count", &[("if-none-match", &tag)]).await;
    // The same count from another source.
    assert_eq!(first.json["source"], "store");
    assert_eq!(poll().await.status, 304);
    store.set_unavailable(true);
    app.advance(86_400);
    let stale = poll().await;
    assert_eq!((stale.status, &stale.json["stale"]), (200, &json!(true)));
    assert_eq!(stale.json["users"], 2);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_return_the_same_tags() {
    let (one, other) = (App::start().await, App::start().await);
    for app in [&one, &other] {
        seed(app, &[("a", 2), ("b", 1)]).await;
    }
    other.advance(5);
    for target in ["/v1/segments", "/v1/segments/a/count"] {
        let tag = header(&one.get(target).await, "etag").to_owned();
        let answer = get_with(&other, target, &[("if-none-match", &tag)]).await;
        assert_eq!(answer.status, 304, "{target}");
    }
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_trends_are_those_of_single_segments() {
    let app = App::start_with(&[("refresh_windows", "1h")]).await;
    for round in 1..=4 {
        seed(&app, &[("a", round), ("b", 10 - round)]).await;
        refresh(&app).await;
        app.advance(1_800);
    }
    for (query, members) in [
        ("", json!({})),
        ("?window=1h", json!({"window": "1h"})),
        (
            "?window=3600&step=1h",
            json!({"window": 3_600, "step": "1h"}),
        ),
        ("?step=3600", json!({"step": 3_600})),
        (
            "?from=2026-11-21T12:30:00Z&to=2026-11-21T13:00:00Z",
            json!({"from": "2026-11-21T12:30:00Z", "to": "2026-11-21T13:00:00Z"}),
        ),
        (
            "?from=1795264200&to=1795264200.5",
            json!({"from": NOON + 1_800, "to": 1_795_264_200.5}),
        ),
        (
            "?from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z",
            json!({"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "window": null}),
        ),
    ] {
        let mut body = members.clone();
        body["segments"] = json!(["b", "never", "a", "b"]);
        let many = post_trends(&app, &[], &body).await;
        let mut single = Vec::new();
        for segment in ["b", "never", "a"] {
            let trend = app
                .get(&format!("/v1/segments/{segment}/trend{query}"))
                .await;
            assert_eq!(trend.status, 200, "{trend:?}");
            single.push(trend.json);
        }
        assert_eq!(many.json, json!({"trends": single}), "{query}");
    }
    let body = json!({"segments": ["b", "a"], "step": "1h", "to": NOON + 1_800});
    let csv = post_trends(&app, &[CSV], &body).await;
    assert_eq!(
        csv.text,
        "segment,window_seconds,at,users,entered,left\r\n\
         b,1209600,2026-11-21T12:30:00Z,9,9,0\r\n\
         a,1209600,2026-11-21T12:30:00Z,2,2,0\r\n"
    );
    assert!(header(&csv, "content-disposition").contains("\"trends.csv\""));
    // A POST is not conditional: nothing says what its response would replace.
    let again = post_trends(&app, &[("if-none-match", "*")], &body).await;
    assert_eq!((again.status, header(&again, "etag")), (200, ""));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_for_trends_that_can_t_be_answered_says_why() {
    let app = App::start().await;
    seed(&app, &[("a", 1)]).await;
    let names: Vec<String> = (0..1_001).map(|number| number.to_string()).collect();
    for (body, code, part) in [
        (json!({}), "malformed", "missing field `segments`"),
        (json!({"segments": "a"}), "malformed", "expected a sequence"),
        (
            json!({"segments": ["a"], "windw": "7d"}),
            "malformed",
            "unknown field `windw`",
        ),
        (
            json!({"segments": ["a"], "window": true}),
            "malformed",
            "the body",
        ),
        (
            json!([["a"], null, null, null, null]),
            "malformed",
            "must be a JSON object",
        ),
        (json!({"segments": []}), "invalid_parameter", "1 to 1000"),
        (json!({"segments": names}), "invalid_parameter", "1 to 1000"),
        (
            json!({"segments": ["a", " "]}),
            "invalid_segment",
            "white space",
        ),
        (
            json!({"segments": ["a"], "window": "90s"}),
            "invalid_window",
            "window",
        ),
        (
            json!({"segments": ["a"], "window": "1h"}),
            "invalid_window",
            "no trend is kept",
        ),
        (
            json!({"segments": ["a"], "step": "0s"}),
            "invalid_parameter",
            "step",
        ),
        (
            json!({"segments": ["a"], "from": "noon"}),
            "invalid_parameter",
            "from",
        ),
        (
            json!({"segments": ["a"], "from": 2, "to": 1}),
            "invalid_parameter",
            "after to",
        ),
    ] {
        let refused = post_trends(&app, &[], &body).await;
        assert_eq!(refused.problem(), (400, code), "{body} {refused:?}");
        let detail = refused.json["detail"].as_str().unwrap();
        assert!(detail.contains(part), "{body}: {detail}");
    }
    let post = async |kind: &str, body: String| {
        let target = "/v1/trends";
        app.send_body(Method::POST, target, kind, body).await
    };
    let good = json!({"segments": ["a"]}).to_string();
    assert_eq!(post(JSON, good.clone()).await.status, 200);
    let lines = post("application/x-ndjson", good.clone()).await;
    assert_eq!(lines.problem(), (415, "unsupported_media_type"));
    assert_eq!(
        post(JSON, String::new()).await.problem(),
        (400, "malformed")
    );
    let long = post(JSON, " ".repeat((1 << 20) + 1)).await;
    assert_eq!(long.problem(), (413, "too_large"));
    let neither = post_trends(
        &app,
        &[("accept", "image/png")],
        &json!({"segments": ["a"]}),
    )
    .await;
    assert_eq!(neither.problem(), (406, "not_acceptable"));
    let refused = app.get("/v1/trends").await;
    assert_eq!(refused.problem(), (405, "method_not_allowed"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_points_of_many_trends_are_bounded() {
    let app = App::start().await;
    seed(&app, &[("a", 1)]).await;
    // 9,000 points each: one trend fits, and so do 22, but not 23.
    let frame = app.headcount.frame();
    let points: Vec<_> = (0..23)
        .flat_map(|segment| (0..9_000).map(move |second| (segment, second)))
        .map(|(segment, second)| domain::TrendPoint {
            segment: domain::Segment::new(&format!("s{segment}")).unwrap(),
            window: frame.full_window(),
            count: domain::Count {
                users: 1,
                as_of: domain::Timestamp::from_second(NOON - second).unwrap(),
            },
        })
        .collect();
    app.headcount.record_trend(&points).await.unwrap();
    let names = |number: usize| -> Vec<String> { (0..number).map(|n| format!("s{n}")).collect() };
    let ask = async |number: usize, step: &str| {
        let body = json!({"segments": names(number), "from": 0, "step": step});
        post_trends(&app, &[], &body).await
    };
    let fits = ask(22, "1s").await;
    assert_eq!(fits.status, 200);
    assert_eq!(
        fits.json["trends"][21]["points"].as_array().unwrap().len(),
        9_000
    );
    let refused = ask(23, "1s").await;
    assert_eq!(refused.problem(), (400, "too_many_points"));
    assert!(
        refused.json["detail"].as_str().unwrap().contains("200000"),
        "{refused:?}"
    );
    assert_eq!(ask(23, "2s").await.status, 200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trends_are_read_a_few_at_a_time_and_one_failure_fails_all() {
    let (app, store) = App::start_switchable(&[]).await;
    seed(&app, &[("a", 1)]).await;
    let names: Vec<String> = (0..100).map(|number| format!("s{number}")).collect();
    let body = json!({"segments": names});
    assert_eq!(post_trends(&app, &[], &body).await.status, 200);
    assert_eq!(store.max_running_trends(), 16);
    store.set_unavailable(true);
    let refused = post_trends(&app, &[], &body).await;
    assert_eq!(refused.problem(), (503, "unavailable"));
    assert!(refused.headers.contains_key("retry-after"));
    app.stop().await;
}
