//! Who entered and left a segment: beside trend points, in steps, in events, over restarts, and with live counts.

use std::path::Path;
use std::time::Duration;

use domain::TimeFrame;
use reqwest::Method;
use serde_json::{Value, json};
use stores::postgres::set_up;

use crate::support::app::App;
use crate::support::events::Listener;
use crate::support::postgres::Postgres;
use crate::support::program::headcount;
use crate::support::redis::Redis;
use crate::support::service::{Service, poll};

const HOUR: u64 = 3_600;

async fn record(app: &App, users: std::ops::Range<u32>) {
    let names: Vec<String> = users.map(|n| format!("u{n}")).collect();
    let pairs = names.iter().map(|name| (name.as_str(), "news"));
    app.headcount.record(pairs).await.unwrap();
}

async fn add_point(app: &App) {
    app.send(Method::POST, "/v1/admin/refresh").await;
}

/// The users, those who entered and those who left, of each point of a trend.
fn points(trend: &Value) -> Vec<[Option<u64>; 3]> {
    let points = trend["points"].as_array().unwrap().iter();
    points
        .map(|point| ["users", "entered", "left"].map(|name| point[name].as_u64()))
        .collect()
}

/// Those who entered and left in each step.
fn steps(flow: &Value) -> Vec<[Option<u64>; 2]> {
    let steps = flow["steps"].as_array().unwrap().iter();
    steps
        .map(|step| ["entered", "left"].map(|name| step[name].as_u64()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trend_tells_who_entered_and_left_between_its_points() {
    let app = App::start().await;
    record(&app, 0..10).await;
    add_point(&app).await;
    app.advance(60);
    record(&app, 5..13).await;
    add_point(&app).await;
    app.advance(30);
    add_point(&app).await;
    // A late pair enters when it arrives. Who is erased leaves.
    app.advance(HOUR);
    let late = r#"{"user_id": "late", "segment": "news", "at": "2026-11-21T12:00:30Z"}"#;
    app.post("application/json", late).await;
    app.send(Method::DELETE, "/v1/users/u0").await;
    add_point(&app).await;
    let trend = app.get("/v1/segments/news/trend").await.json;
    let some = |users, entered, left| [Some(users), Some(entered), Some(left)];
    assert_eq!(
        points(&trend),
        [
            some(10, 10, 0),
            some(13, 3, 0),
            // In the same minute as the point before.
            [Some(13), None, None],
            some(13, 1, 1),
        ]
    );
    let hourly = app.get("/v1/segments/news/trend?step=1h").await.json;
    assert_eq!(points(&hourly), [some(13, 13, 0), some(13, 1, 1)]);
    let flow = "/v1/segments/news/flow?from=2026-11-21T11:00:00Z&to=2026-11-21T15:00:00Z";
    let response = app.get(flow).await.json;
    let both = |entered, left| [Some(entered), Some(left)];
    assert_eq!(
        steps(&response),
        [both(0, 0), both(13, 0), both(1, 1), both(0, 0), both(0, 0),]
    );
    assert_eq!(response["steps"][1]["at"], "2026-11-21T12:00:00Z");
    assert_eq!(response["step_seconds"], 3_600);

    // When the window has passed all have left, and the hours of the window are still known.
    app.advance(14 * 24 * HOUR - 2 * HOUR);
    add_point(&app).await;
    app.advance(2 * HOUR);
    let flow = "/v1/segments/news/flow?step=1h&from=2026-11-21T13:00:00Z";
    let response = app.get(flow).await.json;
    let steps = steps(&response);
    assert_eq!(steps[0], both(1, 1));
    let left: u64 = steps.iter().map(|step| step[1].unwrap()).sum();
    assert_eq!(left, 14, "all of them, and the one who was erased");
    // Minutes are known for a day.
    let flow = "/v1/segments/news/flow?step=1m&from=2026-11-21T13:00:00Z&to=2026-11-21T13:02:00Z";
    let response = app.get(flow).await.json;
    let unknown = json!({"at": "2026-11-21T13:00:00Z", "entered": null, "left": null});
    assert_eq!(response["steps"][0], unknown);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_checked() {
    let app = App::start_with(&[("refresh_windows", "7d")]).await;
    record(&app, 0..1).await;
    add_point(&app).await;
    for (query, code, word) in [
        (
            "step=90s",
            "invalid_parameter",
            "multiple of the resolution",
        ),
        (
            "step=1m&from=2026-11-01T00:00:00Z",
            "too_many_points",
            "10000",
        ),
        (
            "from=2026-11-22T00:00:00Z&to=2026-11-21T00:00:00Z",
            "invalid_parameter",
            "after to",
        ),
        ("window=7d", "unknown_parameter", "window"),
    ] {
        let refused = app.get(&format!("/v1/segments/news/flow?{query}")).await;
        assert_eq!(refused.problem(), (400, code), "{query}");
        let detail = refused.json["detail"].as_str().unwrap();
        assert!(detail.contains(word), "{detail}");
    }
    let unknown = app.get("/v1/segments/nwes/flow").await.json;
    assert_eq!(unknown["known"], json!(false));
    assert!(steps(&unknown).iter().all(|step| *step == [Some(0); 2]));
    // Only the configured window has counters.
    let week = app.get("/v1/segments/news/trend?window=7d").await.json;
    assert_eq!(points(&week), [[Some(1), None, None]]);
    let odd = app.get("/v1/segments/news/trend?step=90s").await.json;
    assert_eq!(points(&odd), [[Some(1), None, None]]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_count_them_says_so() {
    let (app, _) = App::start_switchable(&[]).await;
    record(&app, 0..3).await;
    add_point(&app).await;
    let trend = app.get("/v1/segments/news/trend").await.json;
    assert_eq!(points(&trend), [[Some(3), None, None]]);
    let refused = app.get("/v1/segments/news/flow").await;
    assert_eq!(refused.problem(), (501, "unsupported"));
    let detail = refused.json["detail"].as_str().unwrap();
    assert!(detail.contains("live counts"), "{detail}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_who_entered_and_left() {
    let app = App::start().await;
    record(&app, 0..2).await;
    let url = format!("http://{}/v1/events", app.addr);
    let mut listener = Listener::open(&url, None).await;
    let mut expect = async |users, entered: Option<u64>, left: Option<u64>| {
        let data = listener.event().await.data;
        let numbers = ["entered", "left"].map(|name| data[name].as_u64());
        assert_eq!(data["users"], json!(users), "{data}");
        assert_eq!(numbers, [entered, left], "{data}");
    };
    record(&app, 1..5).await;
    expect(5, Some(3), Some(0)).await;
    app.send(Method::DELETE, "/v1/users/u1").await;
    expect(4, Some(0), Some(1)).await;
    app.advance(14 * 24 * HOUR + 60);
    expect(0, Some(0), Some(4)).await;
    app.stop().await;
}

/// A frame of seconds, so that a test need not wait for a minute.
fn frame() -> TimeFrame {
    let seconds = Duration::from_secs;
    TimeFrame::new(seconds(HOUR), seconds(1), seconds(300)).unwrap()
}

const FRAME: [(&str, &str); 2] = [("window", "1h"), ("resolution", "1s")];

/// Those who entered and left in the known seconds, until now.
async fn total(service: &Service, path: &str) -> Option<[u64; 2]> {
    let (status, flow) = service.try_get(path).await;
    if status != 200 {
        return None;
    }
    let known = steps(&flow)
        .into_iter()
        .filter_map(|[entered, left]| entered.zip(left));
    Some(known.fold([0, 0], |sum, (entered, left)| {
        [sum[0] + entered, sum[1] + left]
    }))
}

fn names(prefix: &str, number: u32) -> Vec<String> {
    (0..number).map(|n| format!("{prefix}{n}")).collect()
}

const SECONDS: &str = "/v1/segments/news/flow?step=1s";

async fn expect(service: &Service, expected: [u64; 2]) {
    poll(async || (total(service, SECONDS).await == Some(expected)).then_some(())).await;
}

/// Waits for the second after the one in which the replica read the segment.
async fn wait_until_counting(service: &Service) {
    poll(async || {
        let (status, flow) = service.try_get(SECONDS).await;
        let last = (status == 200).then(|| steps(&flow).last().copied())??;
        (last == [Some(0); 2]).then_some(())
    })
    .await;
}

/// Waits for a point of the trend from which on it is known who enters.
async fn wait_for_point(service: &Service) {
    poll(async || {
        let trend = service.get("/v1/segments/news/trend").await;
        points(&trend).last()?[1].map(|_| ())
    })
    .await;
}

/// Waits until the trend ends with `users`, and as many entered in its known points as one of `expected` says.
async fn expect_in_trend(service: &Service, users: u64, expected: &[u64]) {
    poll(async || {
        let trend = service.get("/v1/segments/news/trend").await;
        let points = points(&trend);
        let entered = points.iter().filter_map(|point| point[1]).sum();
        // A slot may end after its point.
        let is_counted = points.last()?[0] == Some(users);
        (is_counted && expected.contains(&entered)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_loses_nobody_and_counts_nobody_twice() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::start(directory.path(), &FRAME).await;
    assert_eq!(service.post(&names("u", 40), "news").await, 200);
    assert_eq!(service.post(&names("u", 50), "news").await, 200);
    expect(&service, [50, 0]).await;
    service.kill();
    let service = Service::start(directory.path(), &FRAME).await;
    expect(&service, [50, 0]).await;
    assert_eq!(service.post(&names("u", 60), "news").await, 200);
    expect(&service, [60, 0]).await;
}

async fn postgres() -> Option<Postgres> {
    let server = Postgres::start().await?;
    set_up(&server.options("headcount", frame())).await.unwrap();
    Some(server)
}

#[tokio::test(flavor = "multi_thread")]
async fn live_counts_in_the_service_tell_who_enters() {
    let Some(server) = postgres().await else {
        return;
    };
    let url = server.url();
    let settings = [
        ("store", "postgres"),
        ("postgres_url", &*url),
        FRAME[0],
        FRAME[1],
    ];
    let directory = tempfile::tempdir().unwrap();
    let before = Service::start(directory.path(), &settings).await;
    assert_eq!(before.post(&names("old", 30), "news").await, 200);
    let (status, _) = before.try_get("/v1/segments/news/flow").await;
    assert_eq!(status, 501);
    assert_eq!(before.terminate().await, Some(0));
    let live = [("live", "here"), ("refresh_interval", "1s")];
    let settings = [&settings[..], &live].concat();
    let mut service = Service::start(directory.path(), &settings).await;
    wait_until_counting(&service).await;
    wait_for_point(&service).await;
    assert_eq!(service.post(&names("old", 35), "news").await, 200);
    // Those whom the replica read from the store did not enter.
    expect(&service, [5, 0]).await;
    expect_in_trend(&service, 35, &[5]).await;
    service.kill();
    let service = Service::start(directory.path(), &settings).await;
    expect(&service, [5, 0]).await;
}

fn run(command: &str, directory: &Path, settings: &[(&str, &str)]) -> Service {
    let arguments = [command, "--listen", "127.0.0.1:0"];
    Service::run(directory, &mut headcount(directory, settings, &arguments))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_asks_the_live_process() {
    let (Some(server), Some(redis)) = (postgres().await, Redis::start().await) else {
        return;
    };
    let (url, redis_url) = (server.url(), redis.url());
    let settings = [
        ("store", "postgres"),
        ("postgres_url", &*url),
        ("cache", "redis"),
        ("redis_url", &*redis_url),
        ("live", "redis"),
        ("refresh_interval", "1s"),
        FRAME[0],
        FRAME[1],
    ];
    let [service, live] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let service = run("serve", service.path(), &settings);
    let mut live_process = run("live", live.path(), &settings);
    wait_until_counting(&service).await;
    assert_eq!(service.post(&names("old", 2), "news").await, 200);
    wait_for_point(&service).await;
    assert_eq!(service.post(&names("u", 25), "news").await, 200);
    expect(&service, [27, 0]).await;
    // The first two entered before the first point, or in its second.
    expect_in_trend(&service, 27, &[25, 27]).await;
    // Without the live process the points are still there.
    live_process.kill();
    poll(async || {
        let trend = service.get("/v1/segments/news/trend").await;
        let points = points(&trend);
        let is_unknown = |point: &[Option<u64>; 3]| point[0] == Some(27) && point[1].is_none();
        points.last().is_some_and(is_unknown).then_some(())
    })
    .await;
    let (status, _) = service.try_get(SECONDS).await;
    assert_eq!(status, 503);
}
